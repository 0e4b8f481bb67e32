"""A classifier of two classes by a single score: read as what its last layer says, and judged by that threshold."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper
from PIL import Image
from sklearn.datasets import load_digits

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing, load_validation
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.evaluation import EvaluationSettings, classify, evaluate_file, open_model
from keras_qat.evaluation.single_score import onnx_score
from keras_qat.export import export_onnx
from keras_qat.graph import best_class, per_class, score_meaning
from keras_qat.models import ModelFacts, read_model_facts
from keras_qat.run import Settings, VerificationSettings, check_gates, run, verify_files
from keras_qat.training import Distillation, Recipe, fine_tune
from keras_qat.training.losses import distillation_loss, labels_loss
from keras_qat.types import ScoreMeaning

layers = keras.layers
SIDE = 8
RAW = Preprocessing("raw", SIDE, SIDE, channels=1)


def network(activation: str | None, *behind: Any, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(1, activation, name="head"),
            *behind,
        ]
    )


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def test_the_threshold_is_where_it_should_be() -> None:
    half = np.float32(0.5)
    p = np.array([[0.0], [np.nextafter(half, np.float32(0))], [half], [np.nextafter(half, np.float32(1))], [1.0]])
    z = np.array([[-9.0], [-1e-30], [0.0], [1e-30], [9.0]])
    for dtype in (np.float32, np.float64):
        assert best_class(p.astype(dtype), "probability").tolist() == [0, 0, 0, 1, 1]
        assert best_class(z.astype(dtype), "logit").tolist() == [0, 0, 0, 1, 1]
    assert best_class(tf.constant(z, tf.float32), "logit").numpy().tolist() == [0, 0, 0, 1, 1]
    several = np.random.default_rng(0).random((4, 3))
    assert per_class(several, "classes") is several


@pytest.mark.parametrize(
    ("model", "meaning"),
    [
        (network("sigmoid"), "probability"),
        (network(None), "logit"),
        (network("linear", layers.Activation("sigmoid")), "probability"),
        (network(None, layers.Lambda(keras.ops.sigmoid)), "probability"),
        (network("sigmoid", layers.Reshape((1,)), layers.Dropout(0.5)), "probability"),
        (network("tanh"), None),
        (network("hard_sigmoid"), None),
        (network("sigmoid", layers.Rescaling(2.0, offset=-1)), None),
        (network("sigmoid", layers.Dense(2, "sigmoid")), "classes"),
        (network("sigmoid", layers.Reshape((1, 1))), None),
    ],
)
def test_the_last_layer_says_what_the_score_means(model: keras.Model, meaning: str | None) -> None:
    assert score_meaning(trace(model)) == meaning


def test_operations_and_maps_of_scores() -> None:
    image = keras.Input((SIDE, SIDE, 1))
    score = layers.GlobalAveragePooling2D()(layers.Conv2D(1, 3)(image))
    assert score_meaning(trace(keras.Model(image, score))) == "logit"
    assert score_meaning(trace(keras.Model(image, keras.ops.sigmoid(score)))) == "probability"
    assert score_meaning(trace(keras.Model(image, keras.ops.tanh(score)))) is None
    assert score_meaning(trace(keras.Model(image, [score, score]))) is None


@pytest.mark.parametrize(
    "some",
    [
        lambda x: layers.Dense(2)(layers.Flatten()(x))[:, :1],
        lambda x: layers.Flatten()(layers.Cropping2D(((0, 5), (0, 5)))(layers.Conv2D(1, 3)(x))),
        lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)[..., 1:]),
    ],
    ids=["one of two", "a corner", "a map of two"],
)
def test_a_part_of_several_scores_is_no_single_score(some: Callable[[Any], Any]) -> None:
    image = keras.Input((SIDE, SIDE, 1))
    assert score_meaning(trace(keras.Model(image, some(image)))) is None


def test_all_of_it_in_another_order_is_the_same() -> None:
    image = keras.Input((SIDE, SIDE, 1))
    maps = layers.Permute((2, 1, 3))(layers.Conv2D(1, 3, activation="sigmoid")(image))
    assert score_meaning(trace(keras.Model(image, layers.GlobalAveragePooling2D()(maps[:, ::-1])))) == "probability"


def test_a_quantized_model_means_the_same() -> None:
    model = network("sigmoid")
    placement = plan(trace(model).graph, "onnxruntime")
    images = np.random.default_rng(0).uniform(0, 255, (8, SIDE, SIDE, 1)).astype("float32")
    quantized = apply_placement(model, placement, calibrate(model, placement, images))
    assert score_meaning(trace(quantized)) == "probability"


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_are_those_of_bernoulli(temperature: float) -> None:
    """From the logits, which the functions don't see."""
    random = np.random.default_rng(1)
    z_t, z_s = random.normal(0, 3, (2, 6, 1))
    labels = np.array([0, 1, 1, 0, 1, 0])
    given_t, given_s = (tf.constant(sigmoid(z), tf.float32) for z in (z_t, z_s))
    p = sigmoid(z_s)[:, 0]
    cross_entropy = -np.where(labels == 1, np.log(p), np.log(1 - p))
    np.testing.assert_allclose(labels_loss(labels, given_s), cross_entropy, rtol=1e-3)
    t, s = sigmoid(z_t / temperature), sigmoid(z_s / temperature)
    divergence = temperature**2 * (t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))).mean()
    assert float(distillation_loss(given_t, given_s, temperature)) == pytest.approx(divergence, rel=1e-3)


IMAGES = np.random.default_rng(2).uniform(0, 255, (16, SIDE, SIDE, 1)).astype("float32")
LABELS = np.random.default_rng(3).integers(0, 2, 16)


def centred(seed: int) -> keras.Model:
    """A network that gives both answers."""
    model = network("sigmoid", seed=seed)
    z = keras.Model(model.inputs[0], model.get_layer("head").input)(IMAGES).numpy() @ model.get_layer("head").kernel
    model.get_layer("head").bias.assign([-float(np.median(z))])
    return model


def test_training_counts_agreement_and_accuracy_by_the_threshold() -> None:
    student, teacher = centred(1), centred(2)
    p, t = (np.asarray(model(IMAGES))[:, 0] > 0.5 for model in (student, teacher))
    assert 0 < np.mean(p == t) < 1
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)
    recipe = Recipe(epochs=1, learning_rate=1e-2, distillation=Distillation(0.5), schedule="constant")
    tuned = fine_tune(student, lambda _: data, data, recipe, teacher=teacher, progress=False)
    given, trained = tuned.history
    assert given.selection_accuracy == pytest.approx(np.mean(p == LABELS))
    assert given.selection_agreement == pytest.approx(np.mean(p == t))
    assert trained.selection_loss < given.selection_loss


def test_a_logit_is_trained_as_its_sigmoid() -> None:
    """The labels are integers, so a linear last layer gives the logit of the second of two classes."""
    model, other = centred(1), network(None)
    other.set_weights(model.get_weights())
    recipe = Recipe(epochs=1, learning_rate=1e-3, distillation=None, schedule="constant", batch_size=8)
    data = (IMAGES, LABELS)
    sigmoid_s, logit_s = (fine_tune(each, data, data, recipe, progress=False).history for each in (model, other))
    for one, two in zip(sigmoid_s, logit_s, strict=True):
        assert two.selection_loss == pytest.approx(one.selection_loss, rel=1e-3)
        assert two.selection_accuracy == one.selection_accuracy


def test_facts_say_it_of_a_single_score_only(tmp_path: Path) -> None:
    several = ModelFacts(RAW, embedded=False, class_names=("no", "yes"))
    assert "scores" not in several.to_dict()
    one = ModelFacts(RAW, embedded=False, class_names=("no", "yes"), scores="logit")
    (tmp_path / "preprocessing.json").write_text(json.dumps(one.to_dict()))
    assert read_model_facts(tmp_path / "qat.engine") == one
    path = export_onnx(network(None), tmp_path / "m.onnx", metadata=one.metadata())
    assert read_model_facts(path) == one
    (tmp_path / "preprocessing.json").write_text(json.dumps({**one.to_dict(), "scores": "odds"}))
    with pytest.raises(UserError, match="'odds'"):
        read_model_facts(tmp_path / "qat.engine")


def foreign(path: Path, *operators: str) -> Path:
    """An ONNX file of somebody else's: a third of the mean of a gray image's pixels, less 1; then operators."""
    names = ["score", *(f"score{i}" for i in range(len(operators)))]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["score"]),
        *(helper.make_node(kind, [x], [y]) for kind, x, y in zip(operators, names, names[1:], strict=False)),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, (1, 1), [1 / 3]),
            helper.make_tensor("b", TensorProto.FLOAT, (1,), [-1.0]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("operators", "meaning"),
    [
        ((), "logit"),
        (("Sigmoid",), "probability"),
        (("Sigmoid", "Identity", "Flatten"), "probability"),
        (("Tanh",), None),
        (("Sigmoid", "Neg"), None),
    ],
)
def test_an_onnx_file_shows_it_by_its_last_operator(operators: tuple[str, ...], meaning: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "m.onnx", *operators)
    assert onnx_score(path) == meaning
    if meaning is None:
        with pytest.raises(UnsupportedModelError, match="a probability behind a sigmoid or a logit before it"):
            open_model(path, preprocessing=RAW)


@pytest.mark.parametrize("operators", [(), ("Sigmoid",)])
def test_foreign_files_are_judged_by_their_threshold(operators: tuple[str, ...], tmp_path: Path) -> None:
    """Gray images of one value each: up to 3 the mean's third less 1 is at most 0."""
    values = {"a": (0, 1, 2, 5), "b": (4, 5, 200, 3)}
    for name, grays in values.items():
        (tmp_path / "photos" / "val" / name).mkdir(parents=True)
        for i, value in enumerate(grays):
            Image.new("L", (SIDE, SIDE), value).save(tmp_path / "photos" / "val" / name / f"{i}.png")
    path = foreign(tmp_path / "m.onnx", *operators)
    settings = EvaluationSettings(path, str(tmp_path / "photos"), preprocessing=RAW)
    top1 = evaluate_file(settings).files[0].top1
    assert top1 is not None
    assert (top1.count, top1.images) == (6, 8)  # the 5 among "a" and the 3 among "b" are wrong
    ranked = classify(path, tmp_path / "photos/val/b/0.png", preprocessing=RAW)
    assert [found.index for found in ranked.classes] == [1, 0]
    assert classify(path, tmp_path / "photos/val/b/3.png", preprocessing=RAW).classes[0].index == 0


def facts_beside(folder: Path, scores: ScoreMeaning) -> None:
    facts = ModelFacts(RAW, embedded=False, class_names=("no", "yes"), scores=scores)
    (folder / "preprocessing.json").write_text(json.dumps(facts.to_dict()))


def test_what_stands_beside_a_file_of_several_scores_is_not_of_it(tmp_path: Path) -> None:
    facts_beside(tmp_path, "probability")
    network("relu", layers.Dense(10, "softmax")).save(tmp_path / "ten.keras")
    with (model := open_model(tmp_path / "ten.keras")).runtime:
        assert (model.num_classes, model.meaning) == (10, "classes")


def test_what_a_saved_model_cannot_show_stands_beside_it(tmp_path: Path) -> None:
    network("tanh").export(tmp_path / "saved", verbose=False)
    with pytest.raises(
        UnsupportedModelError,
        match=r'doesn\'t show it: put a preprocessing\.json beside it.*"scores": "probability" or',
    ):
        open_model(tmp_path / "saved", preprocessing=RAW, trust=True)
    facts_beside(tmp_path, "logit")
    with (model := open_model(tmp_path / "saved", preprocessing=RAW, trust=True)).runtime:
        assert (model.num_classes, model.meaning) == (2, "logit")


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "preprocessing.json").write_text(block)
    facts = ModelFacts(Preprocessing("unit", 224, 256), embedded=False, class_names=("no", "yes"), scores="probability")
    assert read_model_facts(tmp_path / "saved") == facts


def test_a_keras_file_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network("sigmoid").save(tmp_path / "m.keras")
    network("tanh").save(tmp_path / "tanh.keras")
    loaded: list[Path] = []
    load = keras.saving.load_model

    def count(path: Path, **options: Any) -> Any:
        loaded.append(path)
        return load(path, **options)

    for module in (keras.saving, keras.models):
        monkeypatch.setattr(module, "load_model", count)
    with (model := open_model(tmp_path / "m.keras")).runtime:
        assert model.meaning == "probability"
    with pytest.raises(UnsupportedModelError, match="End the model with a sigmoid"):
        open_model(tmp_path / "tanh.keras")
    assert loaded == [tmp_path / "m.keras", tmp_path / "tanh.keras"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten zeros and ones, a tenth of them in the wrong folder, so that no model is right on all."""
    folder = tmp_path_factory.mktemp("binary") / "photos"
    digits = load_digits()
    chosen = np.flatnonzero(digits.target < 2)
    wrong = np.random.default_rng(0).random(len(chosen)) < 0.1
    for index, flip in zip(chosen, wrong, strict=True):
        path = folder / ("one" if (digits.target[index] == 1) == flip else "zwei") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 255 / 16).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path) -> Path:
    """`mine.keras` beside the photos, trained on them: class 1, "zwei", holds most of the ones."""
    model = network("sigmoid")
    x, y = [], []
    for label, folder in enumerate(sorted(photos.iterdir())):
        for path in sorted(folder.iterdir()):
            x.append(np.asarray(Image.open(path), np.float32)[..., None])
            y.append(label)
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    model.fit(np.array(x), np.array(y), epochs=8, verbose=0)
    path = photos.parent / "mine.keras"
    model.save(path)
    return path


def test_from_keras_file_to_int8(trained: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = trained.parent / "run"
    skipped = {"skip_fine_tuning": True, "skip_saved_model": True, "skip_diagnosis": True}
    caplog.set_level("INFO")
    record = run(Settings.of(model=str(trained), data=str(photos), run_folder=folder, **skipped))
    check_gates(record)
    assert "read as the probability of the second of two classes" in caplog.text
    rows = {row.name: row for row in record.rows}

    # By NumPy, from the files alone.
    held_out = load_validation(str(photos), RAW, seed=0).images
    (x, y) = next(held_out.arrays(len(held_out)))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # CPUs without VNNI saturate otherwise.
    session = onnxruntime.InferenceSession(folder / "ptq.onnx", options, providers=["CPUExecutionProvider"])
    deployed = session.run(None, {session.get_inputs()[0].name: x})[0][:, 0] > 0.5
    expected = np.asarray(keras.models.load_model(trained)(x))[:, 0] > 0.5
    assert rows["Baseline"].keras_top1 == np.mean(expected == y)
    assert rows["PTQ"].deployed_top1 == np.mean(deployed == y)
    assert rows["PTQ"].agreement == np.mean(deployed == expected)
    assert 0.8 < np.mean(expected == y) < 1
    assert np.mean(deployed == expected) > 0.95

    verified = verify_files(VerificationSettings(folder))
    assert verified.miss is None
    assert all(file.agreement is not None and file.agreement > 0.95 for file in verified.files)


def test_other_last_layers_give_numbers(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network("tanh").save(tmp_path / "tanh.keras")
    command = ["quantize", str(tmp_path / "tanh.keras"), "--data", str(photos), "--run-folder", str(tmp_path / "run")]
    assert run_program(command, app) == 0
    written = capsys.readouterr()
    assert "aren't used" in written.err
    assert "Regression" in written.out
