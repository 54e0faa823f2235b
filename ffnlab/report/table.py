"""Tables, to be printed or written."""

import sys
from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table, to be printed or written.

    Attributes:
      columns: the headings; the first are words, to the left, the rest numbers.
      rows: the cells, as text.
      words: how many columns are words.

    >>> print(Table(["block", "test"], [["glu", "0.97"]], 1).markdown())
    | block | test |
    | :-- | --: |
    | glu | 0.97 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def markdown(self) -> str:
        """Returns the table in Markdown."""
        sides = [":--" if i < self.words else "--:" for i in range(len(self.columns))]
        lines = [self.columns, sides, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def show(self, title: str, essential: Sequence[str] = ()) -> None:
        """Prints the table; on a narrow screen only what is essential, if that is said.

        Args:
          title: what it shows.
          essential: the headings of the columns to show where not all have room.
        """
        from rich.console import Console
        from rich.table import Table as RichTable

        console = Console(width=None if sys.stdout.isatty() else 180)
        shown = range(len(self.columns))
        if essential and 0.7 * self._width() > console.width:
            shown = [i for i in shown if self.columns[i] in essential]
            title += " (all columns are in report.md)"
        table = RichTable(title=title, title_justify="left")
        for i in shown:
            side = "left" if i < self.words else "right"
            table.add_column(self.columns[i], justify=side, overflow="fold")
        for row in self.rows:
            table.add_row(*(row[i] for i in shown))
        console.print(table)

    def _width(self) -> int:
        """Returns how many characters a line takes if no cell wraps."""
        lines = [self.columns, *self.rows]
        return sum(3 + max(map(len, column)) for column in zip(*lines, strict=True))
