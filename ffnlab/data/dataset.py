"""Data sets in three parts, and the functions that all their sources share."""

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from ffnlab.data.checks import check_part
from ffnlab.data.files import SHOWN
from ffnlab.data.shuffle import order
from ffnlab.data.streamed import Streamed
from ffnlab.errors import InputError
from ffnlab.escape import terminal

Arrays = dict[str, np.ndarray]
IGNORE = -100  # the label of positions without a label


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in three parts: train, valid and test.

    Attributes:
      name: The name of the data set.
      train: The training examples, or a `data.Streamed` that reads them as they are
        needed. Every statistic that prepared the data, such as a mean or a list of
        categories, is of these alone.
      valid: The validation examples, to tune and to choose by.
      test: The test examples, to report on once.
      task: `classes`, `values` (regression), `bytes` (the next byte of a text) or
        `tokens` (of a language model, see `data.corpus`).
      features: The number F of columns of x; for bytes, the length of the context; 1
        for sequences with one token per position.
      classes: The number of classes K; 256 for bytes, 1 for values.
      about: Facts for a report, ready for JSON: sizes, source, class names.
      resplit: `resplit(seed)` returns the data set split, or drawn, by another seed;
        None where the parts are given. A comparison calls it for each replicate. It is
        set by `with_resplit`, and a changed copy has none.

    Raises:
      InputError: Arrays of a part differ in their length, a number is not finite, or a
        label is not an integer below the number of classes.

    A part of a table is {"x": float32 [N, F], "y": int32 [N]}, with y float32 for
    values. A part of a text is {"text": uint8 [bytes], "ends": int32 [N], "offsets":
    int32 [F]}: example i predicts byte ends[i] from those at ends[i] + offsets. A part
    of sequences is {"x/tokens": int32 [N, T] or [N, T, F]} or {"x/values": float32
    [N, T, F]}, with {"x/mask": bool [N, T], "y": int32}: the mask is False at padding;
    y is [N, T], -100 where there is no label, or [N].

    >>> data = {"x": np.zeros((4, 2), np.float32), "y": np.arange(4, dtype=np.int32)}
    >>> Dataset("toy", data, data, data, "classes", 2, 4, {}).features
    2
    """

    name: str
    train: Arrays | Streamed
    valid: Arrays
    test: Arrays
    task: str
    features: int
    classes: int
    about: dict
    resplit: "Callable[[int], Dataset] | None" = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        for name in ("train", "valid", "test"):
            where, part = f"{self.name}: {name}", getattr(self, name)
            if isinstance(part, Streamed):
                continue
            check_part(where, part, self.task, self.features, self.classes, IGNORE)

    def with_resplit(self, resplit: "Callable[[int], Dataset]") -> "Dataset":
        """Returns the data set with a function that splits it by another seed."""
        copy = dataclasses.replace(self)
        object.__setattr__(copy, "resplit", resplit)
        return copy

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        valid: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        seed: int = 0,
        task: str = "auto",
        scale: bool = True,
        name: str = "arrays",
    ) -> "Dataset":
        """Returns the data set of a matrix and its labels or values.

        This is `data.from_arrays`, which describes the arguments.

        >>> x, y = np.random.rand(30, 4), ["low", "high", "high"] * 10
        >>> data = Dataset.from_arrays(x, y)
        >>> data.about["class_names"], data.train["x"].shape
        (['high', 'low'], (18, 4))
        """
        from ffnlab import data

        options = {"seed": seed, "task": task, "scale": scale, "name": name}
        return data.from_arrays(x, y, valid=valid, test=test, **options)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        target: str,
        *,
        valid: Any = None,
        test: Any = None,
        seed: int = 0,
        task: str = "auto",
        name: str = "frame",
    ) -> "Dataset":
        """Returns the data set of a DataFrame, prepared as a CSV file is.

        This is `data.from_frame`, which describes the arguments.
        """
        from ffnlab import data

        options = {"seed": seed, "task": task, "name": name}
        return data.from_frame(frame, target, valid=valid, test=test, **options)


def size(split: Arrays | Streamed) -> int:
    """Returns the number N of examples of a part.

    Args:
      split: A part as `Dataset` holds it, of NumPy or JAX.

    >>> size({"x": np.zeros((4, 2)), "y": np.zeros(4)})
    4
    """
    if isinstance(split, Streamed):
        return split.size
    return split["ends" if "ends" in split else "y"].shape[0]


def take(split: Arrays, index: np.ndarray) -> dict[str, np.ndarray | Arrays]:
    """Returns the examples at `index` as a batch, the input of a model.

    It only indexes, so JAX arrays work as well, also inside `jax.jit`. A name with a
    slash nests one level: the array `x/tokens` becomes batch["x"]["tokens"].

    Args:
      split: Arrays as `Dataset` holds them. Inside `jax.jit` they must be JAX arrays: a
        traced index cannot index a NumPy array.
      index: Integers in `range(size(split))`, of any shape [...].

    Returns:
      For a table x, float32 [..., F], and y, int32 [...] (float32 for values); for a
      text x, int32 [..., F], the bytes before, the last one nearest, and y, int32
      [...], the byte to predict; for sequences x, a dict of tokens [..., T] or values
      [..., T, F] and the mask [..., T], and y, [..., T] or [...].

    >>> text = np.frombuffer(b"to be", np.uint8)
    >>> ends, offsets = np.array([2, 3, 4]), np.array([-2, -1])
    >>> batch = take({"text": text, "ends": ends, "offsets": offsets}, np.array([2]))
    >>> bytes(batch["x"][0].tolist()), chr(batch["y"][0])
    (b' b', 'e')
    """
    if "ends" not in split:
        return _nested({name: array[index] for name, array in split.items()})
    ends = split["ends"][index]  # [...]
    offsets = split["offsets"].reshape((1,) * ends.ndim + (-1,))  # [..., F]
    context = split["text"][ends[..., None] + offsets]  # [..., F]
    return {"x": context.astype("int32"), "y": split["text"][ends].astype("int32")}


def _nested(arrays: Arrays) -> dict[str, np.ndarray | Arrays]:
    """Returns arrays in a dict in which names with a slash are nested."""
    batch = {}
    for name, array in arrays.items():
        outer, slash, inner = name.partition("/")
        if slash:
            batch.setdefault(outer, {})[inner] = array
        else:
            batch[name] = array
    return batch


def rows(split: Arrays | Streamed, index: np.ndarray) -> Arrays:
    """Returns the arrays of some examples of a part of sequences, under their names.

    Args:
      split: A part as `Dataset` holds it.
      index: Integers in `range(size(split))`, `[n]`.
    """
    if isinstance(split, Streamed):
        return split.read(index)
    return {name: array[index] for name, array in split.items()}


def digest(dataset: Dataset) -> str:
    """Returns the SHA-256 of all arrays of a data set, in hexadecimal.

    >>> data = {"x": np.zeros((4, 2), np.float32), "y": np.arange(4, dtype=np.int32)}
    >>> digest(Dataset("toy", data, data, data, "classes", 2, 4, {}))[:8]
    '7b3cfd4d'
    """
    sha256 = hashlib.sha256()
    for split in (dataset.train, dataset.valid, dataset.test):
        if isinstance(split, Streamed):
            sha256.update(split.digest.encode())
            continue
        for name, array in sorted(split.items()):
            sha256.update(f"{name} {array.dtype} {array.shape}".encode())
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def thin(split: Arrays, most: int) -> Arrays:
    """Returns a part with at most `most` of its examples, evenly spaced.

    Args:
      split: Arrays as `Dataset` holds them.
      most: The maximum number of examples, at least 1.

    >>> data = {"x": np.arange(10.0).reshape(5, 2), "y": np.arange(5)}
    >>> thin(data, 3)["y"].tolist()
    [0, 2, 4]
    """
    count = size(split)
    if count <= most:
        return split
    index = np.linspace(0, count - 1, most).round().astype(np.int64)
    rows = ("ends",) if "ends" in split else tuple(split)
    return split | {name: split[name][index] for name in rows}


def thin_parts(dataset: Dataset, most: int) -> Dataset:
    """Returns a data set with at most `most` examples of valid and of test each."""
    valid, test = (thin(part, most) for part in (dataset.valid, dataset.test))
    return dataclasses.replace(dataset, valid=valid, test=test)


def split_rows(
    source: str, seed: int, labels: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
    """Splits rows 60/20/20, class by class, so that every part has every class.

    Args:
      source: The file or data set, for the error.
      seed: Any integer; the split depends on it and on `labels` alone.
      labels: The class of each row, integers in `range(len(names))`, [N]; all 0 for
        regression.
      names: The K class names.

    Returns:
      The row numbers, ascending, of `train`, `valid` and `test`.

    Raises:
      InputError: A class has fewer than 3 rows.

    >>> {part: len(rows) for part, rows in
    ...  split_rows("toy", 0, np.zeros(10, int), ["all"]).items()}
    {'train': 6, 'valid': 2, 'test': 2}
    """
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < 3:
        small = np.flatnonzero(counts < 3)
        few = [f"{terminal(names[k]):.40} ({counts[k]})" for k in small[:SHOWN]]
        few += [f"{len(small) - SHOWN} more"] if len(small) > SHOWN else []
        what = "at least 3 each are needed, one for each of train, valid and test"
        raise InputError(f"{source}: too few examples of {', '.join(few)}: {what}")
    # Epoch -1 of the stream: training begins at epoch 0 and never uses this order.
    shuffled = order(seed, -len(labels), 0, len(labels))  # [N]
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # [N]
    parts = {"train": [], "valid": [], "test": []}
    for rows in np.split(by_class, np.cumsum(counts)[:-1]):
        held = max(1, round(0.2 * len(rows)))
        parts["valid"].append(rows[:held])
        parts["test"].append(rows[held : 2 * held])
        parts["train"].append(rows[2 * held :])
    return {part: np.sort(np.concatenate(rows)) for part, rows in parts.items()}


def standardise(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns features with mean 0 and standard deviation 1 in training.

    Args:
      parts: Numbers [N, F] of `train`, `valid` and `test`.

    Returns:
      The same parts in float32. A feature that is constant in training has no scale,
      and is 0 in every part; otherwise another value would reach the model unscaled.

    >>> parts = {"train": np.array([[1., 5.], [3., 5.]]), "test": np.array([[5., 9.]])}
    >>> {part: x.tolist() for part, x in standardise(parts).items()}
    {'train': [[-1.0, 0.0], [1.0, 0.0]], 'test': [[3.0, 0.0]]}
    """
    train = parts["train"].astype(np.float64)
    mean, scale = train.mean(axis=0), train.std(axis=0)  # [F], [F]
    # By rounding, the deviation of equal numbers may be above 0, and that of very small
    # numbers 0: neither test is enough alone.
    scale[(np.ptp(train, axis=0) == 0) | (scale == 0)] = np.inf
    with np.errstate(over="ignore"):  # `table` refuses what overflows
        return {p: ((x - mean) / scale).astype(np.float32) for p, x in parts.items()}


def standardise_target(
    source: str, y: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns values to predict with mean 0 and standard deviation 1 in training.

    Args:
      source: The file, for the error.
      y: The values of `train`, `valid` and `test`, [N].

    Returns:
      The same parts in float64; the `mean` and `standard_deviation` that undo it.

    Raises:
      InputError: All training values are equal.

    >>> parts, facts = standardise_target("toy", {"train": np.array([1.0, 3.0])})
    >>> parts["train"].tolist(), facts
    ([-1.0, 1.0], {'mean': 2.0, 'standard_deviation': 1.0})
    """
    train = y["train"].astype(np.float64)
    mean, deviation = train.mean(), train.std()
    if np.ptp(train) == 0 or deviation == 0:
        raise InputError(f"{source}: every training target is {train[0]}")
    facts = {"mean": float(mean), "standard_deviation": float(deviation)}
    return {part: (values - mean) / deviation for part, values in y.items()}, facts


def table(
    name: str,
    task: str,
    classes: int,
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    about: dict,
) -> Dataset:
    """Returns the data set of a prepared table.

    Args:
      name: The name of the data set.
      task: `classes` or `values`.
      classes: K; 1 for values.
      x: The features of `train`, `valid` and `test`, [N, F].
      y: Their targets, [N].
      about: Facts for a report. `sizes` is added, and `repeated`: the number of
        validation and test examples whose features equal those of a training example.

    Returns:
      The data set, with the types of `Dataset`.

    Raises:
      InputError: A number of valid or test is so far from those in training that
        float32 cannot hold it.

    >>> parts = {part: np.eye(2) for part in ("train", "valid", "test")}
    >>> labels = {part: np.arange(2) for part in parts}
    >>> table("toy", "classes", 2, parts, labels, {}).about["repeated"]
    {'valid': 2, 'test': 2}
    """
    kind = np.float32 if task == "values" else np.int32
    with np.errstate(over="ignore"):  # reported below
        splits = {
            part: {"x": x[part].astype(np.float32), "y": y[part].astype(kind)}
            for part in ("train", "valid", "test")
        }
    for part, split in splits.items():
        if not all(np.isfinite(array).all() for array in split.values()):
            what = "numbers too far from those in training for float32"
            raise InputError(f"{name}: {part} has {what}")
    about = {
        "repeated": repeated(
            {part: [x.tobytes() for x in split["x"]] for part, split in splits.items()}
        ),
        **about,
        "sizes": {part: size(split) for part, split in splits.items()},
    }
    return Dataset(
        name,
        **splits,
        task=task,
        features=splits["train"]["x"].shape[1],
        classes=classes,
        about=about,
    )


def repeated(rows: Mapping[str, Iterable[Hashable]]) -> dict[str, int]:
    """Returns the number of rows of `valid` and `test` that equal a row of `train`.

    >>> repeated({"train": [1, 2], "valid": [2, 2, 3], "test": [4]})
    {'valid': 2, 'test': 0}
    """
    seen = set(rows["train"])
    return {part: sum(row in seen for row in rows[part]) for part in ("valid", "test")}
