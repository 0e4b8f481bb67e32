"""Training: fine-tuning of fake-quantized models, schedules, checkpoints, the float baseline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
