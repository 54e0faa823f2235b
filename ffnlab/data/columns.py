"""Columns of CSV and TSV by name or number, as they stand; a header if there are names.

`delimited` reads tables of features, and tells their separator by the header. Here it
follows from the file's name: texts hold anything.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from ffnlab.data.files import read_lines, stop_at
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
