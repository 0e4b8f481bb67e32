"""The whole flow as a few visible calls: float model → PTQ → QAT → files → proof.

baseline ── plan ── calibrate ── apply ──▶ PTQ ── fine_tune ──▶ QAT
   └───────────────────────┬────────────────┴────────────────────┘
               export, evaluate, time, report
"""

from dataclasses import replace

from keras_qat.calibration import find_observer, find_weight_method
from keras_qat.data import find_augmentation
from keras_qat.export import require_opset
from keras_qat.graph import trace
from keras_qat.model_facts import FACTS_FILE, ModelFacts
from keras_qat.placement import Overrides, plan
from keras_qat.ptq import quantize_after_training
from keras_qat.qat import recipe_of, train_quantized
from keras_qat.report import Record
from keras_qat.results import Variants, conclude
from keras_qat.runtimes import choose_judge
from keras_qat.saved_run import SavedRun
from keras_qat.settings import Settings
from keras_qat.stages import Stages
from keras_qat.start import open_start
from keras_qat.storage import require_writable, write_json
from keras_qat.targets import find_target
from keras_qat.training import find_devices, require_device_recipe


def run(settings: Settings) -> Record:
    """Quantize, calibrate, fine-tune, export and judge one model.

    Args:
        settings: what to do; saved with the results.

    Returns:
        The record, also written to `settings.folder` as `results.json` and `results.md`, beside the models.

    Raises:
        UserError: the settings, data or weights are wrong.
        GateMissedError: a quantized file's Q/DQ pairs are not those of the placement. The files are kept.
    """
    folder, stages = settings.folder, Stages()
    _check_early(settings)
    overrides = Overrides() if settings.overrides is None else Overrides.load(settings.overrides)
    with stages.timed("load"):
        start = open_start(settings)
        preprocessing = start.data.train.preprocessing
        facts = ModelFacts(preprocessing, settings.embed_preprocessing, start.data.class_names)
        write_json(folder / "settings.json", settings.to_dict())
        write_json(folder / FACTS_FILE, facts.to_dict())
        overrides.save(folder / "overrides.json")
    with stages.timed("calibrate"):
        placement = plan(trace(start.model).graph, settings.target, overrides=overrides)
        ptq = quantize_after_training(start.model, placement, start.data.train, settings)
    variants = Variants(start.model, ptq, placement)
    if not settings.skip_fine_tuning:
        with stages.timed("fine-tune"):
            tuned = train_quantized(ptq, start.model, start.data, settings)
        variants = replace(variants, tuned=tuned)
    return conclude(variants, start.data, facts, settings, stages)


def train(saved: SavedRun, settings: Settings) -> Record:
    """Fine-tune the PTQ model of a run; export and judge again.

    Args:
        saved: a run with `baseline.keras` and `ptq.keras`; `keras-qat quantize` makes them.
        settings: its own, with what training is to do otherwise.

    Returns:
        The record, with a row for QAT, in place of the run's.

    Raises:
        UserError: the settings or data are wrong, or files of the run are missing.
        GateMissedError: as for `run`.
    """
    stages = Stages()
    _check_early(settings)
    with stages.timed("load"):
        variants = Variants(saved.model("baseline"), saved.model("ptq"), saved.placement())
        data, facts = saved.data(), saved.facts()
    write_json(settings.folder / "settings.json", settings.to_dict())
    with stages.timed("fine-tune"):
        tuned = train_quantized(variants.ptq, variants.baseline, data, settings)
    return conclude(replace(variants, tuned=tuned), data, facts, settings, stages)


def _check_early(settings: Settings) -> None:
    """Find the mistakes that would otherwise show after minutes or hours of work."""
    require_device_recipe(recipe_of(settings), find_devices(settings.devices))
    find_augmentation(settings.augment)
    choose_judge(find_target(settings.target).name)
    find_observer(settings.calibration_method)
    find_weight_method(settings.weight_method)
    require_opset(settings.opset, settings.precision)
    require_writable(settings.folder)
