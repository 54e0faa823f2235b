"""Data sets of DataFrames, prepared as CSV files are."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.data import tabular
from ffnlab.data.checks import check_seed
from ffnlab.data.dataset import Dataset
from ffnlab.errors import InputError, choose


def from_frame(
    frame: Any,
    target: str,
    *,
    valid: Any = None,
    test: Any = None,
    seed: int = 0,
    task: str = "auto",
    name: str = "frame",
) -> Dataset:
    """Returns the data set of a DataFrame, prepared as `read_csv` prepares a file.

    Columns of numbers, dates and durations are imputed, clipped and standardised, other
    columns are one-hot encoded, all fitted on the training part. Without parts of its
    own the rows are split 60/20/20, class by class, and a comparison splits them anew
    for each replicate. With `valid` and `test`, `frame` is the training part.

    Args:
      frame: A DataFrame of pandas or of another library: it has `columns`, and
        `frame[column]` is a sequence. None, NaN and NA are missing.
      target: The name of the column to predict.
      valid: The rows of the validation part; None splits.
      test: The rows of the test part; None splits.
      seed: The seed of the split, any integer.
      task: `classes`; `values`, with a standardised target; or `auto`, which is classes
        if the target has text or at most 20 distinct integers.
      name: The name of the data set.

    Returns:
      The data set, with the facts of `read_csv`.

    Raises:
      InputError: The frame cannot be used; up to 20 problems, each with its row, from
        0.

    >>> class Frame(dict):  # stands for that of pandas
    ...     columns = property(list)
    >>> frame = Frame(minutes=range(20), kind=["black", "green"] * 10)
    >>> tea = from_frame(frame, target="kind")
    >>> tea.about["class_names"], tea.train["x"].shape
    (['black', 'green'], (12, 1))
    """
    choose("task", task, ("auto", "classes", "values"))
    if (valid is None) != (test is None):
        raise InputError("valid and test: give both, or neither for a split")
    frames = {"frame": frame}
    if valid is not None:
        frames |= {"valid": valid, "test": test}
    names = _names(frame, str(target))
    parts = {part: _cells(part, each, names) for part, each in frames.items()}
    rows = [
        f"{'' if part == 'frame' else f'{part} '}row {row}"
        for part, cells in parts.items()
        for row in range(len(cells))
    ]
    sizes = [*map(len, parts.values())] if valid is not None else None
    cells = np.concatenate([*parts.values()])

    def split(seed: int) -> Dataset:
        dataset = tabular.prepare_cells(
            name, names, rows, cells, str(target), seed=seed, task=task, sizes=sizes
        )
        return dataclasses.replace(dataset, name=name)

    dataset = split(check_seed(seed))
    return dataset if sizes else dataset.with_resplit(split)


def _names(frame: Any, target: str) -> list[str]:
    """Returns the names of the columns, after a check of the target."""
    if not hasattr(frame, "columns"):
        raise InputError(
            f"frame: expected a DataFrame, got {type(frame).__name__}; "
            "Dataset.from_arrays takes arrays and lists"
        )
    names = [str(column) for column in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"frame: two columns named {repeated[0]!r}")
    choose("target", target, names)
    if len(names) == 1:
        raise InputError("frame: only the target column; expected others too")
    return names


def _cells(part: str, frame: Any, names: Sequence[str]) -> np.ndarray:
    """Returns the cells of a frame as a CSV file would hold them, str `[N, C]`."""
    given = {str(column): column for column in getattr(frame, "columns", ())}
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"{part}: no column {missing[0]!r}")
    columns = [[_cell(value) for value in frame[given[name]]] for name in names]
    if not columns[0]:
        raise InputError(f"{part}: no rows")
    return np.array(columns, object).T


def _cell(value: Any) -> str:
    """Returns a value as text; one that is missing is empty, a duration is in days.

    >>> _cell(0.1), _cell(None), _cell(float("nan")), _cell(True)
    ('0.1', '', '', 'True')
    """
    try:
        missing = value is None or bool(value != value)
    except (TypeError, ValueError):  # the NA of pandas, or a list of its own
        missing = type(value).__name__ == "NAType"
    if hasattr(value, "total_seconds"):  # a duration
        value = value.total_seconds() / 86_400
    return "" if missing else str(value).strip()
