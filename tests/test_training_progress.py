"""The progress bar on a terminal, and the lines printed elsewhere."""

import io

import pytest
from rich.console import Console

from keras_qat.training.callbacks import TrainingProgress


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    with TrainingProgress(3, 2, {2: 0.02, 3: 0.01}.__getitem__, done=1, console=console) as shown:
        shown.on_epoch_begin(1)
        for batch in range(2):
            shown.on_train_batch_end(batch, {"loss": 0.5, "accuracy": 0.25})
        logs = {"loss": 0.5, "accuracy": 0.25, "val_loss": 0.4, "val_accuracy": 0.75}
        shown.on_epoch_end(1, logs)
    line = "epoch 2/3: loss 0.5000 accuracy 25.00% lr 1.00e-02 | selection loss 0.4000 accuracy 75.00%\n"
    if terminal:
        assert line in text.getvalue()
        assert "4/6" in text.getvalue()
        assert "epoch 2/3: loss 0.5000 accuracy 25.00% lr 1.00e-02 |" in text.getvalue()
    else:
        assert text.getvalue() == line
