"""The options of post-training quantization, as one value.

Keras is not imported here: the command line reads the options before it loads Keras.
"""

from dataclasses import dataclass

from keras_qat.errors import MOST_IMAGES_AT_ONCE, settle_numbers


@dataclass(frozen=True)
class CalibrationOptions:
    """How ranges are chosen, and whether biases are corrected afterwards.

    Args:
        calibration_images: number of training images that the ranges are chosen on.
        calibration_method: method that chooses the ranges of activations: minmax, ema, percentile, entropy, mse or
            auto.
        calibration_batch_size: images in one batch of calibration. The result of the method ema depends on it.
        use_cache: take the ranges of an earlier run with the same model, images and method from the cache.
        weight_method: method that chooses the range of each output channel of a kernel: absmax, or mse for the least
            squared error.
        bias_correction: correct the shift that rounding causes in the mean of each layer's output.

    Raises:
        UserError: If a number isn't whole or is below 1, or a batch has more than 65,536 images. The names of methods
            are checked where they are used.

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
        """Refuse numbers that can't be those of images."""
        settle_numbers(self, calibration_batch_size=(1, MOST_IMAGES_AT_ONCE))
