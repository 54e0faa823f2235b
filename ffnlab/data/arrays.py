"""Data sets of arrays in memory: features, and labels of any kind or values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffnlab.data.checks import check_seed
from ffnlab.data.dataset import (
    Dataset,
    split_rows,
    standardise,
    standardise_target,
    table,
)
from ffnlab.errors import InputError, choose

Pair = tuple[Any, Any]


def from_arrays(
    x: Any,
    y: Any,
    *,
    valid: Pair | None = None,
    test: Pair | None = None,
    seed: int = 0,
    task: str = "auto",
    scale: bool = True,
    name: str = "arrays",
) -> Dataset:
    """Returns the data set of a matrix of features and its labels or values.

    Without parts of its own the data are split 60/20/20, class by class, and a
    comparison splits them anew for each replicate. With `valid` and `test`, x and y are
    the training part.

    Args:
      x: Numbers `[N, ...]`, an array or a list; examples are flattened to `[N, F]`.
      y: `[N]`. Labels of classes may be of any hashable type, such as text, and are
        encoded in sorted order. Values to predict are standardised by the training
        part.
      valid: The x and y of the validation part; None splits.
      test: The x and y of the test part; None splits.
      seed: The seed of the split, any integer.
      task: `classes`, `values`, or `auto`, which is values if y holds floats.
      scale: Whether features get mean 0 and standard deviation 1 in training.
      name: The name of the data set.

    Returns:
      The data set. Its `about` holds the shape of an example, the origin of the split,
      and the class names or the target's mean and standard deviation.

    Raises:
      InputError: x and y differ in their length, a number is not finite, a label is
        missing, or a class has no example in training.

    >>> data = from_arrays([[0.0, 1.0], [1.0, 0.0]] * 5, ["no", "yes"] * 5)
    >>> data.about["class_names"], data.train["y"].tolist()
    (['no', 'yes'], [0, 1, 0, 1, 0, 1])
    """
    choose("task", task, ("auto", "classes", "values"))
    given = {"train": (x, y)}
    if (valid is None) != (test is None):
        raise InputError("valid and test: give both, or neither for a split")
    if valid is not None:
        given |= {"valid": _pair("valid", valid), "test": _pair("test", test)}
    features, targets = {}, {}
    for part, (each_x, each_y) in given.items():
        mark = "" if part == "train" else f"{part}: "
        features[part] = _features(f"{mark}x", each_x)
        targets[part] = _targets(f"{mark}y", each_y)
        _check_sizes(mark, features[part], targets[part], features["train"])
    if task == "auto":
        task = "values" if _holds_floats(targets["train"]) else "classes"
    facts = {"source": name, "shape": list(np.shape(x)[1:])}
    if task == "classes":
        targets, facts["class_names"] = encode_labels(targets)
    else:
        targets = {part: _values(part, y) for part, y in targets.items()}

    def split(seed: int) -> Dataset:
        return _dataset(name, task, features, targets, facts, scale, seed)

    dataset = split(check_seed(seed))
    return dataset if valid is not None else dataset.with_resplit(split)


def encode_labels(
    labels: Mapping[str, Sequence[Any]],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns labels as integers, and the names of the classes.

    Args:
      labels: The labels of `train`, and of `valid` and `test` if they are given; of any
        hashable type.

    Returns:
      Integers `[N]` for each part, and the K names, in the order of the sorted labels.

    Raises:
      InputError: A label is missing or cannot be hashed, there is one class only, or a
        class has no example in `train`.

    >>> encode_labels({"train": [3, 1, 3]})
    ({'train': array([1, 0, 1])}, ['1', '3'])
    """
    for part, row in labels.items():
        _check_labels(_y_of(part), row)
    classes = _sorted(set(labels["train"]))
    if len(classes) < 2:
        raise InputError(
            f"y: every label is {classes[0]!r}: there is nothing to tell apart"
        )
    numbers = {label: number for number, label in enumerate(classes)}
    encoded = {}
    for part, row in labels.items():
        for index, label in enumerate(row):
            if label not in numbers:
                raise InputError(
                    f"{_y_of(part)}: label {label!r} at index {index} has no example "
                    "in the training part"
                )
        encoded[part] = np.array([numbers[label] for label in row])
    names = [str(label) for label in classes]
    if len(set(names)) < len(names):  # 1 and "1"
        names = [repr(label) for label in classes]
    return encoded, names


def _y_of(part: str) -> str:
    return "y" if part == "train" else f"{part}: y"


def _sorted(labels: set) -> list:
    """Returns labels in order; labels that cannot be compared are ordered by type."""
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=lambda label: (type(label).__name__, repr(label)))


def _check_labels(where: str, labels: Sequence[Any]) -> None:
    """Raises if a label is missing or cannot be hashed."""
    for index, label in enumerate(labels):
        try:
            hash(label)
            missing = label is None or bool(label != label)
        except TypeError as error:
            missing = "unhashable" not in str(error)  # as the NA of pandas
            if not missing:
                raise InputError(
                    f"{where}: the label at index {index} is a "
                    f"{type(label).__name__}, which is not hashable; use text, numbers "
                    "or tuples"
                ) from None
        if missing:
            raise InputError(
                f"{where}: no label at index {index}: {label}; leave the example out"
            )


def _pair(name: str, pair: Any) -> Pair:
    """Returns the x and y of a part that was given."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InputError(f"{name}: expected a pair of x and y")
    return tuple(pair)


def _features(where: str, x: Any) -> np.ndarray:
    """Returns features as `[N, F]`, all of them finite."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError):
        raise InputError(f"{where}: examples differ in their shapes") from None
    if array.dtype.kind not in "biuf":
        columns = "; Dataset.from_frame also takes columns of text"
        hint = columns if hasattr(x, "columns") else ""
        if hasattr(x, "toarray"):
            hint = "; a sparse matrix needs x.toarray()"
        raise InputError(f"{where}: expected numbers, found {array.dtype}{hint}")
    if array.ndim == 0 or array.size == 0:
        raise InputError(
            f"{where}: expected [examples, ...], found the shape {list(array.shape)}"
        )
    _check_numbers(where, array)
    return array.reshape(len(array), -1)


def _check_numbers(where: str, array: np.ndarray) -> None:
    """Raises unless all numbers fit in float32."""
    wrong = ~(np.abs(array) <= np.finfo(np.float32).max)
    if array.dtype.kind == "f" and wrong.any():
        index = [int(i) for i in np.argwhere(wrong)[0]]
        raise InputError(
            f"{where}: the number at index {index} is {array[tuple(index)]}, not a "
            "finite 32-bit number; fill it in, or leave the example out"
        )


def _targets(where: str, y: Any) -> list[Any]:
    """Returns labels or values as a list."""
    shape = getattr(y, "shape", None)
    if shape is not None and len(shape) != 1:
        raise InputError(
            f"{where}: expected one label or value for each example, [N], found the "
            f"shape {list(shape)}"
        )
    if isinstance(y, (str, bytes, Mapping)):
        raise InputError(f"{where}: expected a list or an array")
    try:
        return list(y.tolist() if hasattr(y, "tolist") else y)
    except TypeError:
        raise InputError(f"{where}: expected a list or an array") from None


def _check_sizes(mark: str, x: np.ndarray, y: list, train: np.ndarray) -> None:
    """Raises unless x has as many examples as y, and as many features as in train."""
    if len(x) != len(y):
        raise InputError(f"{mark}x has {len(x)} examples and y has {len(y)}")
    if x.shape[1] != train.shape[1]:
        raise InputError(
            f"{mark}x has {x.shape[1]} features, and {train.shape[1]} in training"
        )


def _holds_floats(y: list) -> bool:
    """Returns whether targets are floats; None among them is a missing value."""
    return all(isinstance(value, float) or value is None for value in y)


def _values(part: str, y: list) -> np.ndarray:
    """Returns values to predict, float64 `[N]`."""
    try:
        array = np.array(y, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"{_y_of(part)}: values to predict should be numbers; task=classes takes "
            "labels of any kind"
        ) from None
    _check_numbers(_y_of(part), array)
    return array


def _dataset(
    name: str,
    task: str,
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    facts: dict[str, Any],
    scale: bool,
    seed: int,
) -> Dataset:
    """Returns the data set of checked arrays, split by a seed or as they are."""
    names, about = facts.get("class_names", ["the target"]), {**facts, "split": "given"}
    if "valid" not in x:
        labels = y["train"] if task == "classes" else np.zeros(len(y["train"]), int)
        rows = split_rows(name, seed, labels, names)
        x, y = ({p: a["train"][rows[p]] for p in rows} for a in (x, y))
        about["split"] = f"by seed {seed}"
    if task == "values":
        y, about["target"] = standardise_target(name, y)
    return table(name, task, len(names), standardise(x) if scale else x, y, about)
