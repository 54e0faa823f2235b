"""Small data sets that need no file: those of scikit-learn, and Python's source."""

from collections.abc import Callable

import numpy as np

from ffnlab.data.dataset import Dataset, split_rows, standardise, table
from ffnlab.data.stdlib_source import python_source
from ffnlab.errors import choose

Parts = dict[str, np.ndarray]


def digits(seed: int = 0) -> Dataset:
    """Loads 1,797 handwritten digits of 8 by 8 pixels in ten classes.

    Args:
      seed: The seed of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set; x is float32 [N, 64], the pixels row by row, scaled to 0..1.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI.

    >>> data = digits()
    >>> data.features, data.classes, data.about["sizes"]["train"]
    (64, 10, 1079)
    """
    from sklearn.datasets import load_digits

    return _classified("digits", load_digits(), seed, _sixteenths)


def breast_cancer(seed: int = 0) -> Dataset:
    """Loads 569 tumours, malignant or benign, with 30 measurements of cell nuclei.

    Args:
      seed: The seed of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set; x is float32 [N, 30], standardised by the training part.

    Source: Wolberg, Mangasarian, Street and Street 1993, "Breast Cancer Wisconsin
    (Diagnostic)", UCI.

    >>> breast_cancer().about["class_names"]
    ['malignant', 'benign']
    """
    from sklearn.datasets import load_breast_cancer

    return _classified("breast_cancer", load_breast_cancer(), seed, standardise)


def wine(seed: int = 0) -> Dataset:
    """Loads 178 wines of three growers, with 13 chemical measurements.

    Args:
      seed: The seed of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set; x is float32 [N, 13], standardised by the training part.

    Source: Aeberhard and Forina 1992, "Wine", UCI.

    >>> wine().features, wine().classes
    (13, 3)
    """
    from sklearn.datasets import load_wine

    return _classified("wine", load_wine(), seed, standardise)


def _sixteenths(parts: Parts) -> Parts:
    """Returns pixels, counts from 0 to 16, scaled to 0..1."""
    return {part: (x / 16).astype(np.float32) for part, x in parts.items()}


def _classified(
    name: str, bunch: dict, seed: int, prepare: Callable[[Parts], Parts]
) -> Dataset:
    """Returns a data set of scikit-learn, split and with prepared features."""
    names = [str(label) for label in bunch["target_names"]]
    parts = split_rows(name, seed, bunch["target"], names)
    return table(
        name=name,
        task="classes",
        classes=len(names),
        x=prepare({part: bunch["data"][rows] for part, rows in parts.items()}),
        y={part: bunch["target"][rows] for part, rows in parts.items()},
        about={
            "source": "scikit-learn",
            "seed": seed,
            "class_names": names,
            "feature_names": list(map(str, bunch["feature_names"])),
        },
    )


# A literal dict: its keys are read from the source, without an import.
DATASETS = {
    "digits": digits,
    "bytes": python_source,
    "breast_cancer": breast_cancer,
    "wine": wine,
}


def load(name: str, seed: int = 0) -> Dataset:
    """Loads a data set that needs no file.

    Args:
      name: A key of `DATASETS`.
      seed: The seed of the split, any integer.

    Raises:
      InputError: `name` is unknown; the message names the nearest names.

    >>> data = load("wine", seed=1)
    >>> data.about["sizes"]
    {'train': 106, 'valid': 36, 'test': 36}
    """
    return DATASETS[choose("data set", name, DATASETS)](seed)
