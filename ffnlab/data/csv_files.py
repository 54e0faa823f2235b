"""Columns of CSV and TSV by name or number, as they stand; a header if there are names.

`delimited` reads tables of features, and tells their separator by the header. Here it
follows from the file's name: texts hold anything.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ffnlab.data.files import decode_line, read_lines, require_text, stop_at
from ffnlab.errors import InputError, choose


def read_columns(
    path: Path, names: Sequence[str]
) -> tuple[list[str] | None, list[tuple[int, list[str]]], list[int]]:
    """Reads a CSV or TSV file of which some columns are needed.

    Args:
      path: the file.
      names: of those columns; if all are numbers, counted from 1, there is no header.

    Returns:
      The header, if there is one; the line of each record and its fields; and the
      places of the columns, from 0.

    Raises:
      InputError: there is no such column, or up to 20 lines that cannot be used.
    """
    records, problems = _records(path)
    numbered = all(name.isdecimal() for name in names)
    line, first = records[0] if records else (0, [])
    if not records or (not numbered and any(bad < line for bad, _ in problems)):
        stop_at(path, problems)  # without a header nothing else can be told
        return None, [], []
    stop_at(path, [(line, what) for what in _other_separator(path, first, names)])
    find = _numbered if numbered else _named
    places = find(f"{path}:{line}", names, first)
    rows = records if numbered else records[1:]
    for line, fields in rows:
        if len(fields) != len(first):
            what = f"expected {len(first)} fields, found {len(fields)}"
            problems.append((line, what))
            continue
        empty = [n for n, p in zip(names, places, strict=True) if not fields[p]]
        if empty:
            problems.append((line, f"column {empty[0]} is empty"))
    stop_at(path, problems)
    return None if numbered else first, rows, places


def _other_separator(path: Path, first: list[str], names: Sequence[str]) -> list[str]:
    """Returns what is wrong with a first row of one cell that should be several."""
    wanted = "tabs" if path.suffix.lower() == ".tsv" else "commas"
    found = [sign for sign in (";", "\t", "|", ",") if sign in first[0]]
    one = len(names) == 1 and (not found or first[0] in names or names[0].isdecimal())
    if len(first) > 1 or one:
        return []
    more = f", with {found[0]!r} in it" if found else ""
    least = max(len(names), 2)
    return [f"one column{more}; expected {least} or more, {wanted} between them"]


def _numbered(where: str, names: Sequence[str], first: list[str]) -> list[int]:
    """Returns the places of columns given by number."""
    for name in names:
        if not 1 <= int(name) <= len(first):
            raise InputError(
                f"{where}: column {name} of {len(first)}; columns count from 1"
            )
    return [int(name) - 1 for name in names]


def _named(where: str, names: Sequence[str], header: list[str]) -> list[int]:
    """Returns the places of columns given by name."""
    shown = [" ".join(cell.split())[:40] for cell in header]
    for name in names:
        if name not in header:
            what = "without a header they go by number, from 1"
            others = [each for each in shown if each != name]
            choose(f"{where}: column ({what})", name, others)
        if header.count(name) > 1:
            raise InputError(f"{where}: column: two are named {name!r}; rename one")
    return [header.index(name) for name in names]


def _records(path: Path) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Returns the line of each record and its fields, and the problems of lines.

    Quotes are of CSV alone.
    """
    texts, problems = read_lines(path)
    if path.suffix.lower() == ".tsv":
        lines = [(n, text) for n, text in enumerate(texts, 1) if text.strip()]
        records = [(line, text.split("\t")) for line, text in lines]
    else:
        records, quotes = _quoted(texts)
        problems += quotes
    stripped = [(line, [field.strip() for field in row]) for line, row in records]
    return stripped, problems


def _quoted(
    texts: Sequence[str],
) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Returns the first line of each record of CSV and its fields, and the problems."""
    lines = (text.rstrip() + "\n" for text in texts)
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    records, problems = [], []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            problems.append((line, f"{error}; check the quotes from here on"))
            continue
        if fields is None:
            return records, problems
        if fields:
            records.append((line, fields))


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
    records = _records_with_header(require_text(path))
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


def _records_with_header(path: Path) -> Iterator[tuple[int, list[str]]]:
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
                yield decode_line(data, line)
            except InputError as error:
                raise InputError(f"{path}:{line}: {error}") from None
