"""A data set by its name or by its folder."""

from collections.abc import Callable
from pathlib import Path

from keras_qat.data.digits import load_digits_splits
from keras_qat.data.folder import load_folder
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Splits
from keras_qat.errors import DataError

# The data sets that need no folder. Add yours here.
DATA_SETS: dict[str, Callable[[Preprocessing, int], Splits]] = {"digits": load_digits_splits}


def load_data(source: str | Path, preprocessing: Preprocessing, seed: int) -> Splits:
    """Load a data set and cut it into training, selection and validation images.

    Args:
        source: the name of an embedded data set (`"digits"`), or a folder with `train/CLASS/` and
            `val/CLASS/`. A folder that has the name of a data set is given as `./digits`.
        preprocessing: of the network that will read the images.
        seed: of the split.

    Returns:
        The three sets.

    Raises:
        DataError: neither a known name nor a folder, or the folder can't be read as images.

    Example:
        >>> load_data("digits", Preprocessing("tf", 32, 32), seed=0).num_classes
        10
    """
    if isinstance(source, str) and source.lower() in DATA_SETS:
        return DATA_SETS[source.lower()](preprocessing, seed)
    if not Path(source).is_dir():
        known = ", ".join(map(repr, sorted(DATA_SETS)))
        raise DataError(
            f"There is no data set or folder of that name. Received: {str(source)!r}. "
            f"Give {known}, or a folder with train/CLASS/IMAGE and val/CLASS/IMAGE."
        )
    return load_folder(source, preprocessing, seed)
