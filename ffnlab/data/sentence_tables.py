"""Tables with a record per word and a column that numbers the sentences."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ffnlab.data.tag_layouts import TagLayout
from ffnlab.errors import InputError


def read_records(
    lines: Iterable[tuple[int, str]], layout: TagLayout
) -> Iterator[tuple[int, str, list[str] | InputError]]:
    r"""Yields the records of a table as their last lines come.

    Args:
      lines: Line numbers, from 1, and lines with their ends, without the header.
      layout: The layout of the table.

    Yields:
      The first line of a record, the record as it came, and its cells without blanks
      around them, none for a blank line; or what is wrong with it.

    >>> layout = TagLayout("csv", ",", ("n", "word"), 0, quoted=True)
    >>> [*read_records([(2, '1,"a, b"\n')], layout)]
    [(2, '1,"a, b"\n', ['1', 'a, b'])]
    """
    for number, raw, cells in _split(lines, layout):
        if isinstance(cells, InputError) or not raw.strip():
            yield number, raw, cells if raw.strip() else []
        elif len(cells) != len(layout.names):
            wanted = f"expected {len(layout.names)} cells, as the header has"
            yield number, raw, InputError(f"{wanted}, found {len(cells)}")
        else:
            yield number, raw, [cell.strip() for cell in cells]


def _split(
    lines: Iterable[tuple[int, str]], layout: TagLayout
) -> Iterator[tuple[int, str, list[str] | InputError]]:
    """Yields records as they came and their cells, or what is wrong with quotes."""
    if not layout.quoted:
        for number, line in lines:
            yield number, line, line.rstrip("\r\n").split(layout.separator)
        return
    taken: list[tuple[int, str]] = []

    def take() -> Iterator[str]:
        for number, line in lines:
            taken.append((number, line))
            yield line

    reader = csv.reader(take(), delimiter=layout.separator, strict=True)
    while True:
        try:
            cells: list[str] | InputError | None = next(reader, None)
        except csv.Error as error:
            cells = InputError(f"{error}; check the quotes from here on")
        if cells is None:
            return
        yield taken[0][0], "".join(line for _, line in taken), cells
        taken.clear()


def check_encoding(path: str | Path, problems: Sequence[tuple[int, str]]) -> None:
    """Refuses a table that is not in UTF-8 in one line, which says how to convert it.

    Raises:
      InputError: There are problems of lines.
    """
    if not problems:
        return
    line, what = problems[0]
    if not what.startswith("not UTF-8"):
        raise InputError(f"{path}:{line}: {what}")
    count = len(problems)
    many = f"{count:,} lines are" if count > 1 else "the line is"
    raise InputError(
        f"{path}:{line}: {many} not UTF-8; such tables are often in Windows-1252, and "
        f"`iconv -f WINDOWS-1252 -t UTF-8 {Path(path).name} > utf8.csv` converts them"
    )
