"""Tables in CSV and TSV: some columns as texts, or all columns for features.

`read_columns` is for texts, which may contain any separator: the format follows from
the file's name. `read_rows` is for features and finds the separator in the header.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ffnlab.data.files import decode_line, read_lines, require_text, stop_at
from ffnlab.errors import InputError, choose
from ffnlab.escape import terminal


def read_columns(
    path: str | Path, names: Sequence[str], kind: str | None = None
) -> tuple[list[str] | None, list[tuple[int, list[str]]], list[int]]:
    """Reads a CSV or TSV file of which some columns are needed.

    Args:
      path: The file.
      names: The names of those columns; if all are numbers, counted from 1, the file
        has no header.
      kind: `csv` or `tsv`; None takes the ending of the file's name.

    Returns:
      The header, if there is one; the line of each record and its fields; and the
      places of the columns, from 0.

    Raises:
      InputError: There is no such column, or up to 20 lines that cannot be used.
    """
    path = Path(path)
    tabs = (kind or path.suffix.lower().removeprefix(".")) == "tsv"
    records, problems = _records(path, tabs)
    numbered = all(name.isdecimal() for name in names)
    line, first = records[0] if records else (0, [])
    if not records or (not numbered and any(bad < line for bad, _ in problems)):
        stop_at(path, problems)  # nothing else can be checked without a header
        return None, [], []
    stop_at(path, [(line, what) for what in _other_separator(tabs, first, names)])
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


def _other_separator(tabs: bool, first: list[str], names: Sequence[str]) -> list[str]:
    """Returns what is wrong with a first row of one cell that should be several."""
    signs = [sign for sign in (";", "\t", "|", ",") if sign in first[0]]
    one = len(names) == 1 and (not signs or first[0] in names or names[0].isdecimal())
    if len(first) > 1 or one:
        return []
    more = f", with {signs[0]!r} in it" if signs else ""
    least, separator = max(len(names), 2), "tabs" if tabs else "commas"
    return [f"one column{more}; expected {least} or more, {separator} between them"]


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
            others = [cell for cell in shown if cell != name]
            choose(f"{where}: column ({what})", name, others)
        if header.count(name) > 1:
            raise InputError(f"{where}: column: two are named {name!r}; rename one")
    return [header.index(name) for name in names]


def _records(
    path: Path, tabs: bool
) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Returns the line of each record and its fields, and the problems of lines.

    Only CSV has quotes.
    """
    texts, problems = read_lines(path)
    if tabs:
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
