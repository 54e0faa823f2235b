"""Tables of texts in CSV and TSV, whose records come out as they came in.

    header, rows, places = read_columns("a.csv", ["text", "label"])
    line, record = rows[0]
    cell_text(record[places[0]])  # a text, without blanks at the ends of its lines
    record.extended(["x"])        # the record with one more cell, and its line end

CSV has quotes. Whether TSV has them is detected for each file: pandas, csv.writer and
Excel write quoted cells, and GLUE's files have quotes that are part of the texts.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ffnlab.data.files import decode_line, require_text, stop_at
from ffnlab.errors import InputError, choose
from ffnlab.io import as_row

_MARK = b"\xef\xbb\xbf"  # of UTF-8
_INSIDE = (
    "\0"  # stands for a character of line ends in a cell; files with it are refused
)
_FIRST_END = re.compile(rb'(?:[^"\r\n]+|"[^"]*")*(\r\n|\n|\r)')
_SPACED = re.compile('(^|,) +"')
_CELL = re.compile(r'(?:^|\t)("(?:[^"]|"")*"|[^\t]*)')
_NEEDED = '\t\r\n"'  # what csv.writer quotes a cell for, except for \r alone

Problems = list[tuple[int, str]]


class Dialect(NamedTuple):
    r"""How the records of a table are written.

    Attributes:
      delimiter: The character between cells.
      quoted: Whether a cell in quotes is read without them.
      end: The line end of the file: `\n`, `\r\n` or `\r`.
    """

    delimiter: str
    quoted: bool
    end: str = "\n"


class Record(list):
    r"""The cells of a record, with the text that they stood in.

    Args:
      cells: The cells, with their blanks.
      text: The record as it stood in the file, without its line end.
      end: Its line end; empty at the end of a file.
      dialect: How the table is written.

    >>> record = Record(["7", "a, b"], '7, "a, b"', "\r\n", Dialect(",", True))
    >>> record.extended(["x", 0.5])
    '7, "a, b",x,0.5\r\n'
    """

    def __init__(self, cells: Sequence[str], text: str, end: str, dialect: Dialect):
        super().__init__(cells)
        self.text, self.end, self.dialect = text, end, dialect

    def extended(self, cells: Sequence[object]) -> str:
        """Returns the record as it stood in the file, with more cells at its end.

        Tabs and line ends of the new cells become spaces where there are no quotes.
        """
        delimiter, quoted, end = self.dialect
        more = as_row(cells, "csv" if quoted else "tsv", delimiter).removesuffix("\n")
        return f"{self.text}{delimiter}{more}{self.end or end}"


def cell_text(cell: str) -> str:
    r"""Returns a cell without blanks around it and at the ends of its lines.

    >>> cell_text(" one \r\ntwo ")
    'one\ntwo'
    """
    if "\n" in cell:
        cell = "\n".join(line.rstrip() for line in cell.split("\n"))
    return cell.strip()


def read_columns(
    path: str | Path, names: Sequence[str], kind: str | None = None
) -> tuple[Record | None, list[tuple[int, Record]], list[int]]:
    """Reads a CSV or TSV file of which some columns are needed.

    Args:
      path: The file.
      names: The names of those columns; if all are numbers, counted from 1, the file
        has no header.
      kind: `csv` or `tsv`; None takes the ending of the file's name.

    Returns:
      The header with its names stripped, if there is one; the line of each record and
      its cells as they are; and the places of the columns, from 0.

    Raises:
      InputError: There is no such column, or up to 20 lines that cannot be used.
    """
    return check_columns(path, names, *read_table(path, kind))


def read_table(
    path: str | Path, kind: str | None = None
) -> tuple[list[tuple[int, Record]], Problems]:
    """Reads the records of a CSV or TSV file, its header among them.

    Args:
      path: The file.
      kind: `csv` or `tsv`; None takes the ending of the file's name.

    Returns:
      The line of each record, from 1, and the record; and the problems of lines.

    Raises:
      InputError: As `files.require_text`.
    """
    path = require_text(path)
    tabs = (kind or path.suffix.lower().removeprefix(".")) in ("tsv", "tab")
    data = path.read_bytes()
    lines, end, problems = _lines(data, tabs)
    limit = csv.field_size_limit(max(len(data), 2**17))
    try:
        records, wrong = (_tabs if tabs else _commas)(lines, end)
    finally:
        csv.field_size_limit(limit)
    if records and data.startswith(_MARK):
        records[0][1].text = "\ufeff" + records[0][1].text
    return records, problems + wrong


def check_columns(
    path: str | Path,
    names: Sequence[str],
    records: list[tuple[int, Record]],
    problems: Problems,
    optional: Sequence[str] = (),
) -> tuple[Record | None, list[tuple[int, Record]], list[int]]:
    """Returns what `read_columns` does, of the result of `read_table`.

    Args:
      path: The file.
      names: The columns.
      records: From `read_table`.
      problems: From `read_table`.
      optional: The columns whose cells may be empty.
    """
    numbered = all(name.isdecimal() for name in names)
    line, first = records[0] if records else (0, [])
    if not records or (not numbered and any(bad < line for bad, _ in problems)):
        stop_at(path, problems)  # nothing else can be checked without a header
        return None, [], []
    tabs = first.dialect.delimiter == "\t"
    header = [cell.strip() for cell in first]
    stop_at(path, [(line, what) for what in _other_separator(tabs, header, names)])
    places = (_numbered if numbered else _named)(f"{path}:{line}", names, header)
    rows = records if numbered else records[1:]
    for line, cells in rows:
        if len(cells) != len(first):
            what = f"expected {len(first)} fields, found {len(cells)}"
            problems.append((line, what))
            continue
        pairs = zip(names, places, strict=True)
        needed = [pair for pair in pairs if pair[0] not in optional]
        empty = [name for name, place in needed if not cells[place].strip()]
        if empty:
            problems.append((line, f"column {empty[0]} is empty"))
    stop_at(path, problems)
    first[:] = header
    return None if numbered else first, rows, places


def quoting_note(records: Sequence[Record]) -> str:
    """Returns how the quotes of a TSV file were read; empty if it has none."""
    if not records or records[0].dialect.delimiter != "\t":
        return ""
    if records[0].dialect.quoted:
        return "TSV with quoted cells"
    if any(cell.startswith('"') for record in records for cell in record):
        return "TSV without quoting: quotes are part of the cells"
    return ""


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
            what = "text_column and label_column name it, or number it without a header"
            others = [cell for cell in shown if cell != name]
            choose(f"{where}: column ({what})", name, others)
        if header.count(name) > 1:
            raise InputError(f"{where}: column: two are named {name!r}; rename one")
    return [header.index(name) for name in names]


def _lines(data: bytes, tabs: bool) -> tuple[list[str], str, Problems]:
    """Returns the lines of a file with their ends, its line end, and the problems.

    A line that cannot be read is blank.
    """
    first = None if tabs else _FIRST_END.match(data)
    mac = first[1] == b"\r" if first else b"\n" not in data
    separator = b"\r" if mac else b"\n"
    texts, problems = [], []
    pieces = data.split(separator)
    for line, piece in enumerate(pieces, 1):
        end = separator.decode() if line < len(pieces) else ""
        try:
            texts.append(decode_line(piece, line) + end)
        except InputError as error:
            texts.append(end)
            problems.append((line, str(error)))
    crlf = not mac and texts[0].endswith("\r\n")
    return texts, "\r\n" if crlf else separator.decode(), problems


def _tabs(lines: Sequence[str], end: str) -> tuple[list[tuple[int, Record]], Problems]:
    """Returns the records of TSV, with or without quotes as its cells show."""
    plain = []
    for line, text in enumerate(lines, 1):
        if text.strip():
            body = text.rstrip("\r\n")
            dialect = Dialect("\t", False, end)
            cells = body.split("\t")
            plain.append((line, Record(cells, body, text[len(body) :], dialect)))
    if not any(cell.startswith('"') for _, cells in plain for cell in cells):
        return plain, []
    quoted, problems = _records(lines, Dialect("\t", True, end))
    taken = not problems and _is_quoted(*([r for _, r in rs] for rs in (plain, quoted)))
    return (quoted if taken else plain), []


def _is_quoted(plain: Sequence[Record], quoted: Sequence[Record]) -> bool:
    """Returns whether the quotes of TSV are those of a program, and not of its texts.

    A program quotes whole columns, or the cells that need it and no others; no cell
    without quotes around it has one inside. Where each line is a record of its own, no
    record has several lines.

    Args:
      plain: The records without regard to quotes.
      quoted: The records where cells may be quoted.
    """
    width = len(quoted[0])
    if any(len(record) != width for record in quoted):
        return False
    lines_fit = width > 1 and all(len(record) == width for record in plain)
    if lines_fit and len(quoted) < len(plain):
        return False
    rows = [_CELL.findall(record.text) for record in quoted]
    if any('"' in cell for row in rows for cell in row if not cell.startswith('"')):
        return False
    header, *body = rows
    groups = [header, *zip(*body, strict=True)]
    return _explained(groups, "") or _explained(groups, ",")


def _explained(groups: Sequence[Sequence[str]], also: str) -> bool:
    """Returns whether the cells of each group are all quoted, or those that need it.

    Args:
      groups: The cells of the header, and of each column below it, with their quotes.
      also: Further characters that need quotes; those of Excel are commas.
    """
    for cells in groups:
        quoted = [cell[1:-1] for cell in cells if cell.startswith('"')]
        bare = [cell for cell in cells if cell.strip() and not cell.startswith('"')]
        minimal = all(any(c in cell for c in _NEEDED + also) for cell in quoted)
        minimal = minimal and not any(c in cell for cell in bare for c in also)
        if bare and not minimal:
            return False
    return True


def _commas(
    lines: Sequence[str], end: str
) -> tuple[list[tuple[int, Record]], Problems]:
    """Returns the records of CSV."""
    return _records(lines, Dialect(",", True, end))


def _records(
    lines: Sequence[str], dialect: Dialect
) -> tuple[list[tuple[int, Record]], Problems]:
    """Returns the first line of each record with quotes and its cells, and problems."""
    inside = "\n" if dialect.end == "\r" else "\r"
    spaced = dialect.delimiter == "," and any(map(_SPACED.search, lines))
    options = {"delimiter": dialect.delimiter, "strict": True}
    options |= {"skipinitialspace": spaced}
    taken: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            body = line.rstrip("\r\n")
            yield body.replace(inside, _INSIDE) + line[len(body) :]

    reader = csv.reader(feed(), **options)
    records, problems, line = [], [], 1
    while True:
        taken.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cells = _without_blanks("".join(taken), options)
            if cells is None:
                problems.append((line, f"{error}; check the quotes from here on"))
        if cells is None and not taken:
            return records, problems
        raw = "".join(taken)
        if cells and raw.strip():
            text = raw.rstrip("\r\n")
            cells = [cell.replace(_INSIDE, inside) for cell in cells]
            records.append((line, Record(cells, text, raw[len(text) :], dialect)))
        line += len(taken)


def _without_blanks(text: str, options: dict) -> list[str] | None:
    """Returns the cells of a record, without blanks after its last quote, if any."""
    try:
        return next(csv.reader([text.rstrip() + "\n"], **options), None)
    except csv.Error:
        return None
