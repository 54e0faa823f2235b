"""Small data sets that need no file: of scikit-learn, of Python, and drawn ones."""

from collections.abc import Callable

import numpy as np

from ffnlab.data.dataset import (
    Dataset,
    split_rows,
    standardise,
    standardise_target,
    table,
)
from ffnlab.data.mnist1d_recipe import mnist1d
from ffnlab.data.stdlib_source import help_topics, python_source
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


def iris(seed: int = 0) -> Dataset:
    """Loads 150 irises of three species, with four lengths of petals and sepals.

    Args:
      seed: The seed of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set; x is float32 [N, 4], standardised by the training part.

    Source: Fisher 1936, "The use of multiple measurements in taxonomic problems".

    >>> iris().features, iris().classes
    (4, 3)
    """
    from sklearn.datasets import load_iris

    return _classified("iris", load_iris(), seed, standardise)


def diabetes(seed: int = 0) -> Dataset:
    """Loads 442 patients, ten measurements each, and the progression of their diabetes.

    Args:
      seed: The seed of the 60/20/20 split, any integer.

    Returns:
      The data set; x is float32 [N, 10], and y and x are standardised by the training
      part.

    Source: Efron, Hastie, Johnstone and Tibshirani 2004, "Least angle regression".

    >>> diabetes().task, diabetes().features
    ('values', 10)
    """
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    names = list(map(str, bunch["feature_names"]))
    return _regressed("diabetes", bunch["data"], bunch["target"], seed, names)


def patches(seed: int = 0) -> Dataset:
    """Loads 11,102 patches of two photographs, to predict the pixel in their centre.

    Patches are 7 by 7 grey pixels that do not overlap; the 48 around the centre are the
    features.

    Args:
      seed: The seed of the 60/20/20 split, any integer.

    Returns:
      The data set; x is float32 [N, 48], and y and x are standardised by the training
      part.

    Source: the sample images of scikit-learn.

    >>> patches().task, patches().features, patches().about["sizes"]["train"]
    ('values', 48, 6662)
    """
    from sklearn.datasets import load_sample_images

    tiles = np.concatenate(
        [_tiles(image.mean(axis=2), 7) for image in load_sample_images()["images"]]
    )
    centre = 7 * 7 // 2
    around = np.delete(tiles, centre, axis=1)
    return _regressed("patches", around, tiles[:, centre], seed, None)


def _tiles(image: np.ndarray, width: int) -> np.ndarray:
    """Returns the patches of an image that do not overlap, `[N, width²]`."""
    rows, columns = (length // width for length in image.shape)
    cut = image[: rows * width, : columns * width]
    tiles = cut.reshape(rows, width, columns, width).swapaxes(1, 2)
    return tiles.reshape(rows * columns, width * width)


def _regressed(
    name: str, x: np.ndarray, y: np.ndarray, seed: int, names: list[str] | None
) -> Dataset:
    """Returns a data set of values to predict, split and standardised."""
    parts = split_rows(name, seed, np.zeros(len(y), int), ["the target"])
    targets, facts = standardise_target(name, {p: y[r] for p, r in parts.items()})
    about = {"source": "scikit-learn", "seed": seed, "target": facts}
    return table(
        name=name,
        task="values",
        classes=1,
        x=standardise({part: x[rows] for part, rows in parts.items()}),
        y=targets,
        about=about | ({"feature_names": names} if names else {}),
    )


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
    "iris": iris,
    "diabetes": diabetes,
    "patches": patches,
    "mnist1d": mnist1d,
    "help_topics": help_topics,
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
    make = DATASETS[choose("data set", name, DATASETS)]
    dataset = make(seed)
    if dataset.about.get("split") == "by file":
        return dataset
    return dataset.with_resplit(make)
