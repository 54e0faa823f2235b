"""Small data sets that come with scikit-learn, for quick and honest first answers."""

from collections.abc import Callable

import numpy as np

from ffnlab.data.dataset import Dataset, split_rows, standardise, table
from ffnlab.data.stdlib_source import python_source
from ffnlab.errors import choose

Parts = dict[str, np.ndarray]


def digits(seed: int = 0) -> Dataset:
    """Loads 1,797 handwritten digits of 8 by 8 pixels, ten classes, scaled to 0..1.

    Args:
      seed: of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set, x being float32 [N, 64], the pixels row by row.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI.

    >>> data = digits()
    >>> data.features, data.classes, data.about["sizes"]["train"]
    (64, 10, 1079)
    """
    from sklearn.datasets import load_digits

    return _classified("digits", load_digits(), seed, _sixteenths)


def breast_cancer(seed: int = 0) -> Dataset:
    """Loads 569 tumours by 30 measures of their cells' nuclei, malignant or benign.

    Args:
      seed: of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set, x being float32 [N, 30], standardised by the training part.

    Source: Wolberg, Mangasarian, Street and Street 1993, "Breast Cancer Wisconsin
    (Diagnostic)", UCI.

    >>> breast_cancer().about["class_names"]
    ['malignant', 'benign']
    """
    from sklearn.datasets import load_breast_cancer

    return _classified("breast_cancer", load_breast_cancer(), seed, standardise)


def wine(seed: int = 0) -> Dataset:
    """Loads 178 wines by 13 chemical measures, from three growers.

    Args:
      seed: of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set, x being float32 [N, 13], standardised by the training part.

    Source: Aeberhard and Forina 1992, "Wine", UCI.

    >>> wine().features, wine().classes
    (13, 3)
    """
    from sklearn.datasets import load_wine

    return _classified("wine", load_wine(), seed, standardise)


def _sixteenths(parts: Parts) -> Parts:
    """Scales pixels, counts from 0 to 16, to 0..1; no statistic is needed."""
    return {part: (x / 16).astype(np.float32) for part, x in parts.items()}


def _classified(
    name: str, bunch: dict, seed: int, prepare: Callable[[Parts], Parts]
) -> Dataset:
    """Splits a data set of scikit-learn's and prepares its features."""
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


# A plain literal: launchers read its keys from the source, before any import.
DATASETS = {
    "digits": digits,
    "bytes": python_source,
    "breast_cancer": breast_cancer,
    "wine": wine,
}


def load(name: str, seed: int = 0) -> Dataset:
    """Loads one of the data sets that need no file.

    Args:
      name: a key of `DATASETS`.
      seed: of the split, any integer; the same seed gives the same split.

    Raises:
      InputError: `name` is unknown; the nearest names are offered.

    >>> data = load("wine", seed=1)
    >>> data.about["sizes"]
    {'train': 106, 'valid': 36, 'test': 36}
    """
    return DATASETS[choose("data set", name, DATASETS)](seed)
