"""A data set cut into what trains, what chooses, and what judges."""

from dataclasses import dataclass

from keras_qat.data.image_set import ImageSet


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint sets of images.

    Args:
        name: what a report calls the data set.
        train: for calibration and training.
        selection: held out of training; chooses the best epoch.
        validation: touched only to report accuracy.
        num_classes: the classes a network for this data tells apart; 0 where the images have no labels.
        class_names: one name for each class, in the order of the labels; none where there are no labels.
    """

    name: str
    train: ImageSet
    selection: ImageSet
    validation: ImageSet
    num_classes: int
    class_names: tuple[str, ...]

    def fingerprints(self) -> dict[str, str]:
        """What tells each set from others, by its name."""
        return {name: getattr(self, name).fingerprint() for name in ("train", "selection", "validation")}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images to judge a network by.

    Args:
        images: with the labels' indices in `class_names`.
        class_names: one name for each class; empty where only the classes of these images are known, and there may be
            more of them, and where the images have no labels.
        skipped: images that were left out already, since they are broken.
    """

    images: ImageSet
    class_names: tuple[str, ...]
    skipped: int = 0
