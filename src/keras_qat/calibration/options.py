"""The options of post-training quantization, as one value.

Keras is not imported here: the command line reads the options before it loads Keras.
"""

from dataclasses import dataclass

from keras_qat.errors import UserError


@dataclass(frozen=True)
class CalibrationOptions:
    """How ranges are chosen, and what is done about the error that rounding leaves.

    Args:
        calibration_images: how many training images choose the ranges.
        calibration_method: minmax, ema, percentile, entropy, mse or auto.
        calibration_batch_size: images in a batch of calibration. The method ema depends on it.
        use_cache: take the ranges of an earlier run with the same model, images and method from the cache.
        weight_method: how the range of each output channel of a kernel is chosen: absmax, or mse for the least squared
            error.
        bias_correction: correct the shift that rounding puts on the mean of each layer's output.

    Raises:
        UserError: If a number is below 1. The names of methods are checked where they are used.

    Example:
        >>> CalibrationOptions(calibration_images=64).calibration_method
        'mse'
    """

    calibration_images: int = 256
    calibration_method: str = "mse"
    calibration_batch_size: int = 64
    use_cache: bool = True
    weight_method: str = "mse"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers of images that cannot be taken."""
        for name in ("calibration_images", "calibration_batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1. Received: {getattr(self, name)}. Give a larger number.")
