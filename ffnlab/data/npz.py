"""Arrays x and y in an npz file, with or without their own split."""

import functools
from pathlib import Path

import numpy as np

from ffnlab.data.dataset import (
    Dataset,
    split_rows,
    standardise,
    standardise_target,
    table,
)
from ffnlab.data.files import require_file
from ffnlab.data.npz_arrays import read_arrays
from ffnlab.errors import InputError, choose

_OPTIONAL = ("x_valid", "y_valid", "x_test", "y_test")


def read_npz(path: str | Path, seed: int = 0, task: str = "auto") -> Dataset:
    """Reads features x and targets y from an npz file, as `np.savez` writes it.

    Without x_valid, y_valid, x_test and y_test the examples are split 60/20/20, class
    by class; with them, x and y are the training part. Features, and values to
    predict, are standardised by the training part.

    Args:
      path: The file. x is numeric [N, ...], flattened to [N, F]; y is [N], either
        integer classes 0 to K - 1 or float values.
      seed: The seed of the split, any integer.
      task: `classes`; `values`; or `auto`, which is classes if y has an integer type.

    Returns:
      The data set. Its `about` holds the shape of an example, the origin of the split,
      and the class names or the target's mean and standard deviation.

    Raises:
      InputError: The file is not an npz file, or has keys, shapes, types or numbers
        that cannot be used; the message names the key and the index of the first one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "images.npz"
    ...     np.savez(path, x=np.random.rand(10, 4, 4), y=np.arange(10) % 2)
    ...     images = read_npz(path)
    >>> images.train["x"].shape, images.classes
    ((6, 16), 2)
    """
    choose("task", task, ("auto", "classes", "values"))
    arrays = _read(require_file(path))
    x = {key: _checked_x(path, key, arrays[key]) for key in arrays if key[0] == "x"}
    y = {key: _checked_y(path, key, arrays[key]) for key in arrays if key[0] == "y"}
    _check_shapes(path, x, y)
    kind = task
    if task == "auto":
        task = "classes" if y["y"].dtype.kind in "biu" else "values"
    about = {"source": str(path), "shape": list(arrays["x"].shape[1:])}
    about["split"] = "in the file" if "x_valid" in arrays else f"by seed {seed}"
    classes = _count_classes(path, y) if task == "classes" else 1
    x, y = _split(path, seed, classes, x, y)
    if task == "classes":
        about["class_names"] = [str(k) for k in range(classes)]
    else:
        y, about["target"] = standardise_target(str(path), y)
    dataset = table(Path(path).stem, task, classes, standardise(x), y, about)
    if about["split"] == "in the file":
        return dataset
    return dataset.with_resplit(functools.partial(read_npz, path, task=kind))


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns x and y and, if the file has its own split, those of its other parts."""
    arrays = read_arrays(path, ("x", "y", *_OPTIONAL), required=("x", "y"))
    extra = [key for key in _OPTIONAL if key in arrays]
    if extra and len(extra) < len(_OPTIONAL):
        absent = ", ".join(key for key in _OPTIONAL if key not in extra)
        raise InputError(f"{path}: {', '.join(extra)} need also {absent}")
    return arrays


def _checked_x(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """Returns features as [N, F], in their own type, all of them finite."""
    _check_numbers(path, key, array)
    if array.ndim == 0 or array.size == 0:
        what = f"expected [examples, ...], found the shape {list(array.shape)}"
        raise InputError(f"{path}: {key}: {what}")
    return array.reshape(len(array), -1)


def _checked_y(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """Returns targets as they are, one number for each example."""
    _check_numbers(path, key, array)
    if array.ndim != 1:
        what = f"expected [examples], found the shape {list(array.shape)}"
        raise InputError(f"{path}: {key}: {what}")
    return array


def _check_numbers(path: str | Path, key: str, array: np.ndarray) -> None:
    """Raises unless an array has real numbers that fit in float32."""
    if getattr(array, "dtype", np.dtype("O")).kind not in "biuf":
        kind = getattr(array, "dtype", type(array).__name__)
        raise InputError(f"{path}: {key}: expected numbers, found {kind}")
    wrong = ~(np.abs(array) <= np.finfo(np.float32).max)
    if array.dtype.kind == "f" and wrong.any():
        index = [int(i) for i in np.argwhere(wrong)[0]]
        what = f"not a finite 32-bit number at index {index}: {array[tuple(index)]}"
        raise InputError(f"{path}: {key}: {what}")


def _check_shapes(path: str | Path, x: dict, y: dict) -> None:
    """Raises unless each x has as many rows as its y, and all have the same columns."""
    for key, array in x.items():
        partner = y["y" + key[1:]]
        if len(array) != len(partner):
            what = f"{key} has {len(array)} examples and y{key[1:]} {len(partner)}"
            raise InputError(f"{path}: {what}")
        if array.shape[1] != x["x"].shape[1]:
            what = f"{key} has {array.shape[1]} features and x {x['x'].shape[1]}"
            raise InputError(f"{path}: {what}")


def _count_classes(path: str | Path, y: dict[str, np.ndarray]) -> int:
    """Returns the number K of classes, after a check that each of 0 to K - 1 occurs."""
    for key, labels in y.items():
        wrong = (labels < 0) | (labels != np.trunc(labels))
        if wrong.any():
            index = int(np.argmax(wrong))
            what = f"expected classes from 0, found {labels[index]} at index {index}"
            raise InputError(f"{path}: {key}: {what}")
    used = np.unique(y["y"])
    if len(used) < 2:
        raise InputError(f"{path}: y: every example is of class {used[0]}")
    gaps = np.flatnonzero(used != np.arange(len(used)))
    if len(gaps):
        what = f"expected classes 0 to K - 1; class {gaps[0]} has no example"
        raise InputError(f"{path}: y: {what}, class {used[gaps[0]]} has")
    for key, labels in y.items():
        if labels.max() >= len(used):
            index = int(np.argmax(labels >= len(used)))
            what = f"class {labels[index]} at index {index} has no example in y"
            raise InputError(f"{path}: {key}: {what}")
    return len(used)


def _split(
    path: str | Path, seed: int, classes: int, x: dict, y: dict
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns features and targets by part, split by the file or by the seed."""
    if "x_valid" in x:
        own = {"train": "", "valid": "_valid", "test": "_test"}
        return (
            {part: x["x" + suffix] for part, suffix in own.items()},
            {part: y["y" + suffix] for part, suffix in own.items()},
        )
    labels, names = np.zeros(len(y["y"]), int), ["the target"]
    if classes > 1:
        labels, names = y["y"].astype(int), [f"class {k}" for k in range(classes)]
    parts = split_rows(str(path), seed, labels, names)
    return (
        {part: x["x"][rows] for part, rows in parts.items()},
        {part: y["y"][rows] for part, rows in parts.items()},
    )
