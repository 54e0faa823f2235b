"""The columns of a table of text: numbers, dates or categories."""

import dataclasses
import datetime
import re
from collections.abc import Sequence

import numpy as np

MISSING = ("", "NA", "N/A", "nan", "NaN", "null", "None", "?")
TEXT_ALLOWED = 0.05  # fraction of a numeric column; more text makes it categorical

_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE
)

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]|$)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the file: N cells, and the type of each."""

    name: str
    cells: np.ndarray  # str [N]
    values: np.ndarray  # float64 [N], NaN for a cell that is not a number
    missing: np.ndarray  # bool [N]
    text: np.ndarray  # bool [N]
    dates: bool = False  # whether the values are days since 1970

    @property
    def kind(self) -> str:
        """What a report calls the cells."""
        if not self.numeric:
            return "categories"
        return "dates (days since 1970)" if self.dates else "numbers"

    @property
    def numeric(self) -> bool:
        """Whether nearly all cells that are not missing are numbers.

        All rows decide, not only those of training: the type of a column does not
        depend on the seed, and is no statistic of its values.
        """
        return bool(self.text.sum() <= TEXT_ALLOWED * (~self.missing).sum())

    def problems(self, lines: Sequence[int | str]) -> list[tuple[int | str, str]]:
        """Returns the cells that are not numbers, with their lines."""
        kind = "dates" if self.dates else "numbers"
        problems = [
            (lines[row], f"text in a column of {kind}: {self.name!r} is {cell[:60]!r}")
            for row, cell in zip(
                np.flatnonzero(self.text), self.cells[self.text], strict=True
            )
        ]
        largest = np.finfo(np.float32).max
        for row in np.flatnonzero(np.abs(self.values) > largest):
            what = f"not a finite 32-bit number: {self.name!r} is {self.cells[row]!r}"
            problems.append((lines[row], what))
        return problems


def parse_column(name: str, cells: np.ndarray) -> Column:
    """Parses the cells of a column, str [N]."""
    values = np.array(
        [float(cell) if _NUMBER.fullmatch(cell) else np.nan for cell in cells]
    )
    missing = np.isin(cells, MISSING)
    return Column(name, cells, values, missing, np.isnan(values) & ~missing)


def with_dates(column: Column) -> Column:
    """Returns a column with its dates, if nearly all of its cells are, as days."""
    if column.numeric:
        return column
    values = np.array([days(cell) for cell in column.cells])
    text = np.isnan(values) & ~column.missing
    dated = dataclasses.replace(column, values=values, text=text, dates=True)
    return dated if dated.numeric else column


def days(cell: str) -> float:
    """Returns a date or time as days since 1970; NaN for other text.

    >>> days("1970-01-02"), days("1970-01-01 12:00"), days("1970")
    (1.0, 0.5, nan)
    """
    if not _DATE.match(cell):
        return np.nan
    try:
        time = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return np.nan
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return time.timestamp() / 86_400
