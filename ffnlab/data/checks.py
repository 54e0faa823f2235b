"""Checks of the arrays of a data set that was made by hand."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ffnlab.errors import InputError


def check_seed(seed: Any) -> int:
    """Returns a seed, after a check that it is an integer."""
    try:
        return operator.index(seed)
    except TypeError:
        raise InputError(f"seed: {seed!r} should be an integer") from None


def check_part(
    where: str,
    part: Mapping[str, Any],
    task: str,
    features: int,
    classes: int,
    ignore: int,
) -> None:
    """Raises unless training can use a part of a table or of labelled sequences.

    Parts without y, such as texts, are not checked.

    Args:
      where: The data set and the part, for the error.
      part: The part, as `Dataset` holds it.
      task: See `Dataset`, as for the other arguments.
      features: Columns of x, where x is a matrix.
      classes: Number of classes; labels are below it.
      ignore: The label of positions without a label.

    Raises:
      InputError: Arrays differ in their length, a number is not finite, a label is not
        an integer below the number of classes, or x has other columns.

    >>> part = {"x": np.zeros((2, 3), "f4"), "y": np.array([1, 2])}
    >>> try:
    ...     check_part("toy: train", part, "classes", 3, classes=2, ignore=-100)
    ... except InputError as error:
    ...     print(str(error).partition(";")[0])
    toy: train: y: label 2 at index 1 is not in 0 to 1
    """
    if "y" not in part or task not in ("classes", "values"):
        return
    arrays = {name: np.asarray(array) for name, array in part.items()}
    for name, array in arrays.items():
        _check_length(where, name, array, arrays["y"])
        if array.dtype.kind not in "biuf":
            kind = array.dtype
            raise InputError(f"{where}: {name}: expected numbers, found {kind}")
        _check_finite(f"{where}: {name}", array)
    x = arrays.get("x")
    if x is not None and x.ndim == 2 and x.shape[1] != features:
        raise InputError(
            f"{where}: x has {x.shape[1]} columns, and features={features}"
        )
    if task == "classes":
        _check_labels(f"{where}: y", arrays["y"], classes, ignore)


def _check_length(where: str, name: str, array: np.ndarray, y: np.ndarray) -> None:
    if array.ndim == 0 or y.ndim == 0 or len(array) != len(y):
        raise InputError(
            f"{where}: {name} has the shape {list(array.shape)} and y {list(y.shape)}; "
            "both begin with the number of examples"
        )


def _check_finite(where: str, array: np.ndarray) -> None:
    """Raises if a number is not finite; the sum of all shows where there is none."""
    with np.errstate(all="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum()):
            return
    wrong = ~np.isfinite(array)
    if wrong.any():
        index = [int(i) for i in np.argwhere(wrong)[0]]
        value = array[tuple(index)]
        raise InputError(
            f"{where}: the number at index {index} is {value}; fill it in, or leave "
            "the example out"
        )


def _check_labels(where: str, labels: np.ndarray, classes: int, ignore: int) -> None:
    """Raises unless labels are integers in `range(classes)`, or ignored."""
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"{where}: expected integers, found {labels.dtype}; Dataset.from_arrays "
            "encodes labels of any kind"
        )
    wrong = (labels != ignore) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        index = [int(i) for i in np.argwhere(wrong)[0]]
        label, place = labels[tuple(index)], index[0] if len(index) == 1 else index
        raise InputError(
            f"{where}: label {label} at index {place} is not in 0 to {classes - 1}; "
            "Dataset.from_arrays encodes labels of any kind"
        )
