"""CSV and TSV files with typed columns, and features fitted on the training part."""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffnlab.data.csv_files import read_rows
from ffnlab.data.dataset import (
    Dataset,
    repeated,
    split_rows,
    standardise_target,
    table,
)
from ffnlab.data.files import stop_at
from ffnlab.data.table_columns import Column, parse_column, with_dates
from ffnlab.errors import InputError, choose
from ffnlab.escape import terminal

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

INTEGER_CLASSES = 20  # distinct integers of a target; with more it is a quantity
RARE = 2  # training rows; categories with fewer share one feature
CATEGORIES = 32  # maximum one-hot features of a column; the rarest share one
CLIPPED = (0.5, 99.5)  # percentiles of training at which numbers are clipped


def read_csv(
    path: str | Path, target: str, seed: int = 0, task: str = "auto"
) -> Dataset:
    """Reads a CSV or TSV file with a header into standardised features and a target.

    The rows are split 60/20/20 by `split_rows`, class by class. A column is numeric if
    at least 95% of its values are numbers, or dates in the form of ISO 8601, which
    become days since 1970 (text in it is then an error), and otherwise categorical.
    These steps are fitted on the training rows alone:

    - Numbers are clipped at the 0.5 and 99.5 percentiles; if those are equal, as in a
      column with few values other than 0, at the minimum and maximum. A missing number
      becomes the median, with an indicator feature. Then each column is standardised.
    - Categories become one-hot features; missing is a category. Those in fewer than 2
      training rows, or beyond the 32 most frequent, share one feature. An unknown
      category is 0 in all features.
    - Features that are constant in training are left out; so are columns of
      identifiers or free text, in which every category is rare.

    Args:
      path: The file. The delimiter is found by `read_rows`; missing fields are empty,
        NA, N/A, nan, NaN, null, None or ?.
      target: The name of the column to predict.
      seed: The seed of the split, any integer.
      task: `classes`; `values`, with a standardised target; or `auto`, which is classes
        if the target has text or at most 20 distinct integers.

    Returns:
      The data set. Its `about` holds the class names or the target's mean and standard
      deviation, the feature names, and for each column the number of its features, of
      missing fields and of clipped values, and the limits. `columns_without_features`
      says of each column that was left out why.

    Raises:
      InputError: The file cannot be used; up to 20 problems, each with its line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tea.csv"
    ...     rows = [f"{i},{'green' if i % 2 else 'black'}" for i in range(20)]
    ...     _ = path.write_text("minutes,kind\\n" + "\\n".join(rows))
    ...     tea = read_csv(path, target="kind")
    >>> tea.about["class_names"], tea.train["x"].shape
    (['black', 'green'], (12, 1))
    """
    choose("task", task, ("auto", "classes", "values"))
    names, lines, rows, problems = read_rows(path, target)
    cells = np.array(rows, dtype=object).reshape(len(rows), len(names))  # [N, C]
    dataset = prepare_cells(
        path, names, lines, cells, target, problems, seed=seed, task=task
    )
    return dataset.with_resplit(functools.partial(read_csv, path, target, task=task))


def prepare_cells(
    path: str | Path,
    names: Sequence[str],
    lines: Sequence[int | str],
    cells: np.ndarray,
    target: str,
    problems: Iterable[tuple[int | str, str]] = (),
    *,
    seed: int,
    task: str,
    sizes: Sequence[int] | None = None,
) -> Dataset:
    """Returns the data set of the cells of a table; see `read_csv`.

    Args:
      path: The file, or the name of the data set.
      names: The names of the columns.
      lines: Where each row is, for errors.
      cells: The cells, str `[N, C]`.
      target: The name of the column to predict.
      problems: What is wrong with rows that are left out, with their lines.
      seed: The seed of the split.
      task: See `read_csv`.
      sizes: The numbers of rows of train, valid and test, which follow each other; None
        splits by the seed.
    """
    problems = [*problems]
    columns = {name: parse_column(name, cells[:, c]) for c, name in enumerate(names)}
    wanted = columns.pop(target)
    columns = {name: with_dates(column) for name, column in columns.items()}
    task = _task_of(wanted) if task == "auto" else task
    for column in columns.values():
        if column.numeric:
            problems += column.problems(lines)
    problems += _target_problems(wanted, task, lines)
    stop_at(path, problems)
    return _prepared(Path(path), seed, task, list(columns.values()), wanted, sizes)


def _task_of(target: Column) -> str:
    """Returns `classes` for a target of text or a few integers, otherwise `values`."""
    numbers = np.unique(target.values[~np.isnan(target.values)])
    few = len(numbers) <= INTEGER_CLASSES and bool((numbers == np.trunc(numbers)).all())
    return "classes" if few or not target.numeric else "values"


def _target_problems(
    target: Column, task: str, lines: Sequence[int | str]
) -> list[tuple[int | str, str]]:
    """Returns the missing targets and, for values, those that are not numbers."""
    missing = [
        (lines[row], f"no target: {target.name!r} is {target.cells[row]!r}")
        for row in np.flatnonzero(target.missing)
    ]
    return missing + (target.problems(lines) if task == "values" else [])


def _classes(source: str, target: Column) -> tuple[np.ndarray, list[str]]:
    """Returns the class of each row and the class names, numbers in ascending order."""
    if target.text.any():
        names, labels = np.unique(target.cells, return_inverse=True)
        names = names.tolist()
    else:
        numbers, labels = np.unique(target.values, return_inverse=True)
        names = [np.format_float_positional(number, trim="-") for number in numbers]
    if len(names) == 1:
        raise InputError(f"{source}: the target {target.name!r} is always {names[0]!r}")
    return labels, names


def _prepared(
    path: Path,
    seed: int,
    task: str,
    columns: list[Column],
    target: Column,
    sizes: Sequence[int] | None,
) -> Dataset:
    """Splits the rows, then fits features and target on the training part."""
    source, values = str(path), target.values
    labels, names = np.zeros(len(values), int), ["the target"]
    if task == "classes":
        labels, names = _classes(source, target)
    if sizes is None:
        parts, origin = split_rows(source, seed, labels, names), {"seed": seed}
    else:
        parts, origin = _given_parts(source, sizes, labels, names), {"split": "given"}
    x, about = _features(source, columns, parts["train"])
    used = [each for each in columns if about["columns"][each.name]["features"]]
    given = _values(used)  # before they are clipped
    counts = repeated({part: [given[n] for n in rows] for part, rows in parts.items()})
    about |= {"source": source, **origin, "repeated": counts}
    if task == "classes":
        y = {part: labels[rows] for part, rows in parts.items()}
        about["target"] = {"name": target.name}
        about["class_names"] = names
    else:
        y = {part: values[rows] for part, rows in parts.items()}
        y, facts = standardise_target(source, y)
        about["target"] = {"name": target.name, **facts}
    x = {part: x[rows] for part, rows in parts.items()}
    return table(path.stem, task, len(names), x, y, about)


def _values(columns: list[Column]) -> list[tuple[str, ...]]:
    """Returns the values of each row, as text; a missing one is empty."""
    values = [
        np.where(each.missing, "", (each.values if each.numeric else each.cells))
        for each in columns
    ]
    return [*zip(*values, strict=True)]


def _given_parts(
    source: str, sizes: Sequence[int], labels: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
    """Returns the rows of each part, after a check that train has every class."""
    rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    unseen = np.setdiff1d(np.arange(len(names)), labels[rows[0]])
    if len(unseen):
        name = terminal(names[unseen[0]])
        raise InputError(
            f"{source}: class {name!r} has no example in the training part"
        )
    return dict(zip(("train", "valid", "test"), rows, strict=True))


def _features(
    source: str, columns: list[Column], train: np.ndarray
) -> tuple[np.ndarray, dict]:
    """Returns the features of all rows, float32 [N, F], fitted on rows `train`."""
    facts, prepared = {}, []
    for column in columns:
        prepare = _clipped if column.numeric else _labelled
        cells, facts[column.name] = prepare(column, train)
        prepared.append(cells)
    cells = np.stack(prepared, axis=1)  # [N, C]
    numeric = [c for c, column in enumerate(columns) if column.numeric]
    other = [c for c, column in enumerate(columns) if not column.numeric]
    encoder = _encoder(numeric, other).fit(cells[train])
    x = encoder.transform(cells).astype(np.float32)  # [N, F]
    varies = np.ptp(x[train], axis=0) > 0
    counts = np.bincount(
        _origins(encoder, len(columns))[varies], minlength=len(cells.T)
    )
    for column, count in zip(columns, counts.tolist(), strict=True):
        facts[column.name]["features"] = count
    dropped = {
        column.name: _reason(column, train)
        for column in columns
        if not facts[column.name]["features"]
    }
    if not varies.any():
        reasons = "; ".join(f"{name}: {why}" for name, why in [*dropped.items()][:20])
        what = "every feature is constant in the training rows"
        raise InputError(f"{source}: {what} ({reasons})")
    names = encoder.get_feature_names_out([column.name for column in columns])
    kept = [name for name, keep in zip(names, varies, strict=True) if keep]
    about = {"columns": facts, "feature_names": kept}
    about |= {"columns_without_features": dropped} if dropped else {}
    return x[:, varies], about


def _origins(encoder: "ColumnTransformer", columns: int) -> np.ndarray:
    """Returns the column that each feature is made of, int `[F]`."""
    names = encoder.get_feature_names_out([*map(str, range(columns))])
    pattern = re.compile(r"(?:number__|missing__missingindicator_|category__)(\d+)")
    return np.array([int(pattern.match(name)[1]) for name in names])


def _reason(column: Column, train: np.ndarray) -> str:
    """Returns why a column has no feature."""
    cells = column.cells[train][~column.missing[train]]
    if not len(cells):
        return "no value in the training rows"
    known = column.values[train][~column.missing[train]]
    distinct = len(np.unique(known if column.numeric else cells))
    if distinct == 1:
        return f"always {cells[0][:60]!r} in the training rows"
    if column.numeric:
        return "nearly constant in the training rows"
    return (
        f"{distinct} categories in {len(train)} training rows, each in fewer than "
        f"{RARE}, as of identifiers or free text"
    )


def _clipped(column: Column, train: np.ndarray) -> tuple[np.ndarray, dict]:
    """Returns a column's numbers, clipped at the limits of training, and the facts."""
    facts = {"kind": column.kind, "missing": int(column.missing.sum())}
    known = column.values[train][~column.missing[train]]
    if not len(known):
        return np.full(len(column.values), np.nan, object), facts
    low, high = np.percentile(known, CLIPPED)
    if low == high:  # as in a column of zeros and a few counts
        low, high = known.min(), known.max()
    values = np.clip(column.values, low, high)
    facts |= {
        "median": float(np.median(known)),
        "lowest": float(low),
        "highest": float(high),
        "clipped": int(((column.values < low) | (column.values > high)).sum()),
    }
    return values.astype(object), facts


def _labelled(column: Column, train: np.ndarray) -> tuple[np.ndarray, dict]:
    """Returns a column's categories, one of them for missing cells, and the facts."""
    labels = np.where(column.missing, "missing", column.cells)
    facts = {
        "kind": column.kind,
        "missing": int(column.missing.sum()),
        "seen_in_training": len(np.unique(labels[train])),
    }
    return labels, facts


def _encoder(numeric: list[int], categorical: list[int]) -> "ColumnTransformer":
    """Returns the unfitted scikit-learn transformer of cells [N, C] to features."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    # Unscaled, as one-hot features are: a rare indicator would otherwise be huge.
    indicator = MissingIndicator(features="missing-only", error_on_new=False)
    one_hot = OneHotEncoder(
        handle_unknown="ignore",
        min_frequency=RARE,
        max_categories=CATEGORIES,
        sparse_output=False,
    )
    return ColumnTransformer(
        [
            ("number", scaled, numeric),
            ("missing", indicator, numeric),
            ("category", one_hot, categorical),
        ],
        sparse_threshold=0,
    )
