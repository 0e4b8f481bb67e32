"""The page of layers and operations is what the registries say, and what it says of identities holds."""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat.graph import IDENTITY_LAYERS

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "site" / "layers.py"


@pytest.fixture(scope="module")
def layers_page() -> Any:
    spec = importlib.util.spec_from_file_location("layers_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_registries_say(layers_page: Any) -> None:
    assert layers_page.PAGE.read_text(encoding="utf-8") == layers_page.page(), "run docs/site/layers.py"


def test_every_name_of_the_page_is_one_of_keras(layers_page: Any) -> None:
    rows = [line.split("`")[1] for line in layers_page.page().splitlines() if line.startswith("| `")]
    public = {*dir(keras.layers), *dir(keras.ops), *(f"image.{name}" for name in dir(keras.ops.image)), "x[…]"}
    assert [name for name in rows if name not in public] == []


WITHOUT_ARGUMENTS = (
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGrayscale", "RandomColorJitter"),
    *("RandomGaussianBlur", "RandomInvert", "RandomPerspective", "AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomShear", "Identity", "ActivityRegularization"),
)
DROPOUTS = ("AlphaDropout", "Dropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {} for name in WITHOUT_ARGUMENTS},
    **{name: {"rate": 0.5} for name in DROPOUTS},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "RandomPosterization": {"factor": 4},
    "GaussianNoise": {"stddev": 0.5},
}
SHAPES = {"SpatialDropout1D": (5, 3), "SpatialDropout3D": (2, 4, 4, 3)}


@pytest.mark.parametrize("layer_type", IDENTITY_LAYERS, ids=lambda t: t.__name__)
def test_identity_layers_pass_their_input_on_at_inference(layer_type: Any) -> None:
    name = layer_type.__name__
    layer = layer_type(**ARGUMENTS.get(name, {"factor": 0.3}))
    x = np.random.default_rng(0).uniform(0, 255, (2, *SHAPES.get(name, (6, 6, 3)))).astype("float32")
    inputs = keras.Input(x.shape[1:])
    np.testing.assert_array_equal(keras.Model(inputs, layer(inputs)).predict_on_batch(x), x)
