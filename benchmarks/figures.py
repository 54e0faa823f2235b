"""Figures of a benchmark: what was measured, beside the target that it should meet."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.protocol import Spread, spread
from ffnlab.report.table import Table


class Figure(NamedTuple):
    """A row of a table.

    Attributes:
      name: What was measured.
      setting: Its sizes or mode.
      value: The number that has a target, such as a ratio; None if there is none.
      target: The bound of the value; None sets none.
      at_least: Whether the target is the least value, and not the largest.
      ratios: The range of the value over the rounds, whose median it is, or None.
      seconds: The median time of a unit of work, or None.
    """

    name: str
    setting: str
    value: float | None = None
    target: float | None = None
    at_least: bool = False
    ratios: Spread | None = None
    seconds: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value meets its target; None without a target.

        >>> Figure("", "", 0.9, 0.85, at_least=True).met, Figure("", "", 0.9, 0.4).met
        (True, False)
        """
        if self.value is None or self.target is None:
            return None
        # A value that is not a number meets nothing.
        if self.at_least:
            return bool(self.value >= self.target)
        return bool(self.value <= self.target)

    def target_text(self, verdict: bool = True) -> str:
        """Returns the target, and whether it is met if there should be a verdict.

        >>> Figure("", "", 0.9, 0.85, at_least=True).target_text()
        'at least 0.85, met'
        >>> Figure("", "", None, 0.4).target_text()
        'at most 0.4, not measured'
        """
        if self.target is None:
            return ""
        side = "at least" if self.at_least else "at most"
        result = {True: ", met", False: ", not met", None: ", not measured"}[self.met]
        return f"{side} {self.target:g}{result if verdict else ''}"

    def to_json(self) -> dict[str, Any]:
        """Returns the figure ready for JSON."""
        ratios = self.ratios._asdict() if self.ratios else None
        fields = {**self._asdict(), "ratios": ratios, "met": self.met}
        return {name: value for name, value in fields.items() if value is not None}


def timed(
    name: str,
    setting: str,
    seconds: np.ndarray,
    ratios: np.ndarray | None = None,
    target: float | None = None,
    at_least: bool = False,
) -> Figure:
    """Returns the figure of times and of their ratios to other times.

    Args:
      name: What was timed.
      setting: Its sizes or mode.
      seconds: The time of a unit of work in each round, `[rounds]`.
      ratios: Ratios within each round, `[rounds]`, or None.
      target: The bound of the median ratio, or None.
      at_least: Whether the target is the least ratio.

    >>> timed("block", "", np.array([2.0, 4.0]), np.array([0.5, 0.7]), 0.85).value
    0.6
    """
    five = None if ratios is None else Spread(*map(float, spread(ratios)))
    value = five.median if five else None
    median = float(np.median(seconds))
    return Figure(name, setting, value, target, at_least, five, median)


def tabulate(
    value_name: str, figures: Sequence[Figure], verdicts: bool = True
) -> Table:
    """Returns the table of figures.

    Args:
      value_name: What their values are.
      figures: The rows.
      verdicts: Whether the table says which targets are met.
    """
    rows = []
    for figure in figures:
        ratios = figure.ratios
        quartiles = f"{ratios[1]:.3g}–{ratios[3]:.3g}" if ratios else ""
        whole = f"{ratios[0]:.3g}–{ratios[4]:.3g}" if ratios else ""
        rows.append(
            [
                figure.name,
                figure.setting,
                "" if figure.seconds is None else f"{1e3 * figure.seconds:.3g}",
                "" if figure.value is None else f"{figure.value:.3g}",
                quartiles,
                whole,
                figure.target_text(verdicts),
            ]
        )
    columns = ["", "setting", "ms", value_name, "quartiles", "range", "target"]
    shown = [i for i in range(len(columns)) if i < 2 or any(row[i] for row in rows)]
    kept = [[row[i] for i in shown] for row in rows]
    return Table([columns[i] for i in shown], kept, words=2)
