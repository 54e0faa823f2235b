"""Tables that are printed or written."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ffnlab import escape


class Table(NamedTuple):
    """A table that is printed or written as Markdown.

    Attributes:
      columns: The headings of the columns.
      rows: The cells, as text, without any markup; both outputs escape them.
      words: The number of columns of words, which come first and are aligned to the
        left; the others hold numbers.

    >>> print(Table(["block", "test"], [["glu", "0.97"]], 1))
    | block | test |
    | :-- | --: |
    | glu | 0.97 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def __str__(self) -> str:
        return self.markdown()

    def markdown(self) -> str:
        """Returns the table in Markdown."""
        sides = [":--" if i < self.words else "--:" for i in range(len(self.columns))]
        heading, *rows = (map(escape.markdown, r) for r in (self.columns, *self.rows))
        return "\n".join(f"| {' | '.join(line)} |" for line in (heading, sides, *rows))

    def show(self, title: str, essential: Sequence[str] = ()) -> None:
        """Prints the table.

        Args:
          title: The line above the table.
          essential: The headings of the columns to print on a screen that is too narrow
            for all; none prints all columns on any screen.
        """
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        console = Console(width=None if sys.stdout.isatty() else 180)
        shown = range(len(self.columns))
        if essential and 0.9 * self._width() > console.width:
            shown = [i for i in shown if self.columns[i] in essential]
            title += " (all columns are in report.md)"
        heading, *rows = (
            [Text(escape.terminal(row[i])) for i in shown]  # Text has no markup
            for row in (self.columns, *self.rows)
        )
        title = Text(escape.terminal(title), style="table.title")
        table = RichTable(title=title, title_justify="left")
        for i, name in zip(shown, heading, strict=True):
            side = "left" if i < self.words else "right"
            table.add_column(name, justify=side, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)

    def _width(self) -> int:
        """Returns the width of a line in which no cell wraps, in characters."""
        from rich.cells import cell_len

        lines = [map(escape.terminal, row) for row in (self.columns, *self.rows)]
        columns = zip(*lines, strict=True)
        return sum(3 + max(map(cell_len, column)) for column in columns)
