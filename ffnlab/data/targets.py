"""What is predicted of a text: one label, a number, or any number of labels.

    targets = Targets("multi_label_classification", separator="|")
    targets.parse(["sports|news"], ["label"])     # ['sports', 'news']

The names of the kinds are those of transformers.
"""

import ast
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.files import is_text
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.schema import parse_json

SINGLE, REGRESSION, MULTI = PROBLEM_TYPES = (
    "single_label_classification",
    "regression",
    "multi_label_classification",
)
SEPARATOR = "|"
_SEPARATORS = (",", ";", "/")  # others that a file may have
_MAX = 3.4e38  # the largest number of float32
_MANY = 20  # distinct numbers; with more they may be scores
_SIGNS = {"0": False, "0.0": False, "false": False} | {
    text: True for text in ("1", "1.0", "true")
}


class Targets(NamedTuple):
    """How the targets of texts are read.

    Attributes:
      problem_type: `regression` or `multi_label_classification`.
      separator: What stands between the labels of a cell; None takes `SEPARATOR`, and
        refuses a file whose cells have another one.
    """

    problem_type: str
    separator: str | None = None

    @property
    def several(self) -> bool:
        """Whether a text may have any number of labels."""
        return self.problem_type == MULTI

    def parse(self, values: Sequence[Any], columns: Sequence[str]) -> Any:
        """Returns the target of some values: a number, or a list of labels.

        Args:
          values: The value of each column: a cell of a table, or a value of JSON.
          columns: The names of the columns. Several have 1 where a text has the label
            of that name, and 0 elsewhere.

        Raises:
          InputError: A value is of another kind; without the line.

        >>> Targets("regression").parse(["4.25"], ["score"])
        4.25
        >>> Targets("multi_label_classification").parse([1, 0], ["toxic", "insult"])
        ['toxic']
        """
        if not self.several:
            return parse_score(values[0], columns[0])
        if len(columns) == 1:
            separator = SEPARATOR if self.separator is None else self.separator
            return parse_labels(values[0], columns[0], separator)
        pairs = zip(columns, values, strict=True)
        return [name for name, value in pairs if _indicates(value, name)]


def parse_score(value: Any, column: str = "label") -> float:
    """Returns a finite number.

    Args:
      value: A number, or a text that is one.
      column: Its column, for the error.

    Raises:
      InputError: It is missing, no number, or not finite as float32.

    >>> parse_score("1e-3"), parse_score(3)
    (0.001, 3.0)
    """
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if abs(number) <= _MAX:  # False for NaN
        return number
    raise InputError(
        f"column {terminal(column)!r} should be a finite number, got {value!r:.60}"
    )


def parse_labels(
    value: Any, column: str = "label", separator: str = SEPARATOR
) -> list[str]:
    """Returns the labels of a text, in their order.

    Args:
      value: A list of texts or whole numbers; a text that is such a list, as JSON and
        Python write it; or a text of labels with a separator between them.
      column: Its column, for the error.
      separator: What stands between labels.

    Raises:
      InputError: It is of another kind, or a label is blank or twice in it.

    >>> parse_labels("a | b"), parse_labels('["a"]'), parse_labels([3, 1])
    (['a', 'b'], ['a'], ['3', '1'])
    >>> parse_labels("")
    []
    """
    where = f"column {terminal(column)!r}"
    held = _list_in(value) if isinstance(value, str) else value
    if isinstance(held, str):
        held = [label.strip() for label in held.split(separator)] if held else []
    if not isinstance(held, list | tuple):
        raise InputError(
            f"{where} should be a list of labels, or a text with {separator!r} between "
            f"them, got {value!r:.60}"
        )
    if not all(type(label) in (str, int) and is_text(str(label)) for label in held):
        raise InputError(f"{where} has a label that is blank or no text: {value!r:.60}")
    labels = list(map(str, held))
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"{where} has {label!r:.60} twice; 0 and 1 for each need a column "
                "each, such as label_column=toxic,insult"
            )
    return labels


def _list_in(text: str) -> Any:
    """Returns the list that a text is, or the text without the blanks around it."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return text
    for read in (parse_json, ast.literal_eval):
        try:
            held = read(text)
        except (InputError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return held if isinstance(held, list) else text
    return text


def _indicates(value: Any, column: str) -> bool:
    """Returns whether a value of 0 or 1 is 1."""
    sign = _SIGNS.get(str(value).strip().lower())
    if sign is None:
        raise InputError(
            f"column {terminal(column)!r} should be 0 or 1, got {value!r:.60}"
        )
    return sign


def is_list(cell: Any) -> bool:
    """Returns whether a value is a list of labels, or a text that is one.

    >>> is_list("['a', 'b']"), is_list(["a"]), is_list("a|b")
    (True, True, False)
    """
    return isinstance(_list_in(cell) if isinstance(cell, str) else cell, list | tuple)


def single_labels(
    where: str | Path, rows: Iterable[tuple[int, Any]], column: str
) -> Iterator[tuple[int, Any]]:
    """Yields rows of JSON or Parquet, whose label should be one text.

    After the first label that is a text, others are left to those who parse rows.

    Args:
      where: The file, for errors.
      rows: The number of each row, and its object or list.
      column: The column of the label; that of a list is its last value.

    Raises:
      InputError: The label of a row is a list or a number with a decimal point.
    """
    rows = iter(rows)
    for line, row in rows:
        label = row.get(column) if isinstance(row, dict) else None
        if isinstance(row, list) and len(row) > 1:
            label = row[-1]
        if isinstance(label, str):
            yield line, row
            break
        if isinstance(label, list):
            raise InputError(
                f"{where}:{line}: {terminal(column)!r} is a list, {label!r:.60}; "
                f"problem_type={MULTI} takes several labels for a text"
            )
        if isinstance(label, float) and math.isfinite(label):
            raise InputError(
                f"{where}:{line}: {terminal(column)!r} is the number {label!r}; "
                f"problem_type={REGRESSION} predicts numbers; for classes write texts"
            )
        yield line, row
    yield from rows


def check_classes(path: str | Path, labels: Sequence[str], column: str) -> str:
    """Returns a note on labels that are whole numbers; empty if there is no need.

    Args:
      path: The file, for errors.
      labels: The labels of a training part.
      column: Their column, for errors.

    Raises:
      InputError: The labels look like scores, or like lists of labels.

    >>> check_classes("a.csv", ["ham", "spam"], "label")
    ''
    """
    distinct = sorted(set(labels))
    where, explicit = f"{path}: column {terminal(column)!r}", f"problem_type={SINGLE}"
    lists = [text for text in distinct if text.startswith("[") and is_list(text)]
    if lists:
        raise InputError(
            f"{where} has lists of labels, such as {lists[0]:.60}; give "
            f"problem_type={MULTI}, or {explicit} to take each list as one label"
        )
    numbers = list(map(_number, distinct))
    if any(math.isnan(number) for number in numbers) or len(numbers) < 3:
        return ""
    low, high = min(numbers), max(numbers)
    found = f"{len(distinct):,} different numbers from {low:g} to {high:g}"
    fractions = any(number != math.trunc(number) for number in numbers)
    many = len(distinct) > _MANY
    if fractions or (many and 2 * len(distinct) > len(labels)):
        raise InputError(
            f"{where} has {found}, which look like scores; give "
            f"problem_type={REGRESSION}, or {explicit} to take each as a class"
        )
    advice = f"if they are scores, give problem_type={REGRESSION}"
    return f"{found} as classes; {advice}" if many else ""


def _number(text: str) -> float:
    """Returns a text as a number; NaN if it is no finite one."""
    try:
        return parse_score(text)
    except InputError:
        return math.nan


def check_separator(
    path: str | Path, labels: Sequence[Sequence[str]], column: str
) -> None:
    """Checks that labels of a training part do not have a separator of their own.

    Args:
      path: The file, for errors.
      labels: The labels of each text, where `SEPARATOR` was taken by default.
      column: Their column, for errors.

    Raises:
      InputError: No text has several labels, and some labels have another separator,
        whose pieces are in other labels too.
    """
    if any(len(row) > 1 for row in labels):
        return
    texts = [label for row in labels for label in row]
    for sign in _SEPARATORS:
        parts = [[part.strip() for part in text.split(sign)] for text in texts]
        pieces = [part for row in parts if len(row) > 1 for part in row]
        whole = {row[0] for row in parts if len(row) == 1}
        if len(set(pieces)) < len(pieces) or whole & set(pieces):
            raise InputError(
                f"{path}: column {terminal(column)!r}: no text has several labels, and "
                f"some labels have {sign!r} in them; give label_separator={sign}, or "
                f"label_separator={SEPARATOR} to leave them as they are"
            )
