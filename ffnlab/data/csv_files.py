"""Tables in CSV and TSV, all of whose columns are features or the target.

The separator is found in the header. `text_tables` reads tables of texts.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ffnlab.data.files import decode_line, require_text
from ffnlab.errors import InputError, choose
from ffnlab.escape import terminal


def read_rows(
    path: str | Path, column: str, role: str = "target"
) -> tuple[list[str], list[int], list[list[str]], list[tuple[int, str]]]:
    """Reads a whole CSV or TSV file into stripped strings.

    The delimiter is the tab if the name ends in `.tsv` or the header has tabs and no
    commas; otherwise the one that `csv.Sniffer` finds in the header among `,;|` and
    tab, or the comma. Blank lines are skipped.

    Args:
      path: The file; UTF-8, with or without a byte-order mark.
      column: The name of a column that the file must have, beside others.
      role: What it is for, as an error names it.

    Returns:
      The C column names; for each of N rows the line it begins on, from 1, and its C
      fields; and the problems, as pairs of a line and what is wrong: rows of another
      length, which are left out.

    Raises:
      InputError: No such file, a directory, an empty file; a header without rows, with
        an empty or repeated name, without the column, or with that column alone; bytes
        that are not UTF-8, NUL bytes, and quotes that do not match. The line is named.
    """
    names, records = _open(path, column, role)
    lines, rows, problems = [], [], []
    for line, fields in records:
        if len(fields) == len(names):
            lines.append(line)
            rows.append(fields)
        else:
            what = f"expected {len(names)} fields, found {len(fields)}"
            problems.append((line, what))
    if not rows and not problems:
        raise InputError(f"{path}:1: a header and no rows below it")
    return names, lines, rows, problems


def _open(
    path: str | Path, column: str, role: str
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Returns the checked column names of a file and an iterator over its records."""
    records = _records_with_header(require_text(path))
    _, names = next(records)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not any(names):
        raise InputError(f"{path}:1: expected column names, found an empty line")
    if "" in names:
        place = names.index("") + 1
        raise InputError(f"{path}:1: column {place} has no name; name it or remove it")
    if repeated:
        shown = ", ".join(map(terminal, repeated))
        raise InputError(f"{path}:1: two columns named {shown}")
    choose(f"{path}:1: {role} column", column, names)
    if len(names) == 1:
        raise InputError(f"{path}:1: only the {role} column; expected others too")
    return names, ((line, fields) for line, fields in records if fields)


def _records_with_header(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line on which each record begins, and its fields, stripped."""
    lines = _lines(path)
    header = next(lines)
    reader = csv.reader(
        itertools.chain([header], lines),
        delimiter=_delimiter(path, header),
        skipinitialspace=True,
        strict=True,
    )
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            what = f"{error}; check the quotes and line ends from here on"
            raise InputError(f"{path}:{line}: {what}") from None
        if fields is None:
            return
        yield line, [field.strip() for field in fields]


def _delimiter(path: Path, header: str) -> str:
    """Returns the delimiter, by the header, which has no decimals and no prose."""
    if path.suffix.lower() == ".tsv" or ("\t" in header and "," not in header):
        return "\t"
    try:
        return csv.Sniffer().sniff(header, delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _lines(path: Path) -> Iterator[str]:
    """Yields the decoded lines of a file; errors name the line of a bad byte."""
    with path.open("rb") as file:
        for line, data in enumerate(file, start=1):
            try:
                yield decode_line(data, line)
            except InputError as error:
                raise InputError(f"{path}:{line}: {error}") from None
