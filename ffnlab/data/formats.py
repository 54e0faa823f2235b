"""The format of a file of texts: by its name, its first bytes or its first line."""

import re
from pathlib import Path
from typing import NamedTuple

from ffnlab.data.column_names import Columns
from ffnlab.data.json_lines import parse_objects

ENDINGS = {  # and the format that they stand for
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "conll": "conll",
    "conllu": "conll",
    "conllup": "conll",
}
BINARY = ("parquet", "arrow")
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"FEA1": "arrow"}
# The first line of a JSON array of objects or lists, such as [[0, "word", "tag"], or of
# an indented object.
_JSON = re.compile(r'\[\s*([{\[]\s*(["\[{]|-?\d+\s*,\s*")|$)|\{$')
_QUESTIONS = ("data", "paragraphs", "qas")  # keys of SQuAD's JSON
_SEPARATORS = {"tsv": "\t", "csv": ","}
_FIRST = 2**16  # bytes among which the first line is


class Layout(NamedTuple):
    """How a file was written.

    Attributes:
      kind: Its format: `csv`, `tsv`, `jsonl`, `json`, `parquet`, `arrow`, or `conll`,
        which has layouts of its own, see `tag_layouts.TagLayout`.
      columns: The columns that were read.
      note: What was found in the file and given by no flag, in words; or empty.
      part: The part that was read from a JSON file that has several.
      around: What stands before and after the rows of a JSON array.
    """

    kind: str
    columns: Columns
    note: str = ""
    part: str | None = None
    around: tuple[str, str] | None = None


def ending_format(path: str | Path) -> str | None:
    """Returns the format that the ending of a file's name stands for, if it is known.

    >>> ending_format("a.NDJSON"), ending_format("a.txt")
    ('jsonl', None)
    """
    return ENDINGS.get(Path(path).suffix.lower().removeprefix("."))


def describe(path: str | Path, kind: str, *notes: str) -> str:
    """Returns what was detected of a file: its format, where its name has none.

    Args:
      path: The file.
      kind: Its format.
      *notes: Further notes; empty ones are left out.

    >>> describe("a.txt", "csv", "", "columns sentence"), describe("a.csv", "csv")
    ('csv; columns sentence', '')
    """
    shown = kind if ending_format(path) is None and kind != "conll" else ""
    return "; ".join(filter(None, [shown, *notes]))


def binary_format(path: str | Path) -> str | None:
    """Returns `parquet` or `arrow` if the file begins as these do, else None."""
    path = Path(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        first = file.read(6)
    kinds = (kind for magic, kind in _MAGIC.items() if first.startswith(magic))
    return next(kinds, None)


def first_line(path: str | Path) -> str:
    """Returns the first line of a text file that is not blank, as far as it is text."""
    with Path(path).open("rb") as file:
        text = file.read(_FIRST).decode("utf-8-sig", "replace")
    return next((line for line in re.split("[\r\n]+", text) if line.strip()), "")


def line_format(line: str, task: str, columns: Columns) -> str | None:
    """Returns the format whose first line this is: JSON, or a header with the columns.

    Args:
      line: A line that is not blank.
      task: A name of `examples.TASKS`, or `qa`.
      columns: The columns. A header needs all of them, and without a label one that is
        named as given; an object those of the texts.

    Returns:
      `jsonl`, `json`, `csv`, `tsv`, or None, which is most often text.

    >>> line_format('{"text": "hello"}', "classify", Columns())
    'jsonl'
    >>> line_format("id,sentence,label", "classify", Columns())
    'csv'
    >>> line_format("a text, as it seems", "classify", Columns())
    """
    line = line.strip().removeprefix("\ufeff")
    ((_, record),) = parse_objects([(1, line)]) if line else ((0, None),)
    if isinstance(record, dict):
        if task == "qa" and any(key in record for key in _QUESTIONS):
            return "json"
        texts = columns._replace(label=None).resolve(task, record).names(task)
        return "jsonl" if all(name in record for name in texts) else None
    if _JSON.match(line):
        return "json"
    if task in ("tag", "qa"):
        return None
    for kind, separator in _SEPARATORS.items():
        cells = [cell.strip().strip('"') for cell in line.split(separator)]
        names = columns.resolve(task, cells).names(task)
        names = names if len(names) > 1 else columns.names(task)
        if len(cells) > 1 and all(name in cells for name in names):
            return kind
    return None
