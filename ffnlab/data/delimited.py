"""Delimited text, CSV or TSV, read strictly: a record, or what is wrong and where.

Only the standard library is needed here, so a launcher can check its flags against a
file before anything heavy is imported.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ffnlab.data.files import decoded, require_text
from ffnlab.errors import InputError, choose


def read_rows(
    path: str | Path, target: str
) -> tuple[list[str], list[int], list[list[str]], list[tuple[int, str]]]:
    """Reads a whole CSV or TSV file into stripped strings.

    The delimiter is the tab if the name ends in `.tsv` or the header has tabs and no
    commas; otherwise the one `csv.Sniffer` sees in the header among `,;|` and tab, or
    the comma. Blank lines are skipped.

    Args:
      path: the file; UTF-8, with or without a byte-order mark.
      target: the name of the column to predict.

    Returns:
      The C column names; for each of N rows the line it begins on, from 1; its C
      fields; and the problems, pairs of line and what: rows of another length, which
      are left out.

    Raises:
      InputError: no such file, a directory, an empty file; a header without rows, with
        an empty or repeated name, without the target, or with nothing beside it; bytes
        that are not UTF-8, NUL bytes, and quotes that do not match. The line is named.
    """
    names, records = _opened(path, target)
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


def _opened(
    path: str | Path, target: str
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Returns a file's checked column names and an iterator over its other records."""
    records = _records(require_text(path))
    _, names = next(records)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not any(names):
        raise InputError(f"{path}:1: expected column names, found an empty line")
    if "" in names:
        place = names.index("") + 1
        raise InputError(f"{path}:1: column {place} has no name; name it or remove it")
    if repeated:
        raise InputError(f"{path}:1: two columns named {', '.join(repeated)}")
    choose(f"{path}:1: target column", target, names)
    if len(names) == 1:
        raise InputError(f"{path}:1: only the target column, and nothing to learn from")
    return names, ((line, fields) for line, fields in records if fields)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line each record begins on, and its fields, stripped."""
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
    """Returns the delimiter; the header shows it best, having no decimals or prose."""
    if path.suffix.lower() == ".tsv" or ("\t" in header and "," not in header):
        return "\t"
    try:
        return csv.Sniffer().sniff(header, delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _lines(path: Path) -> Iterator[str]:
    """Yields the decoded lines of a file, so that a bad byte is found with its line."""
    with path.open("rb") as file:
        for line, data in enumerate(file, start=1):
            try:
                yield decoded(data, line)
            except InputError as error:
                raise InputError(f"{path}:{line}: {error}") from None
