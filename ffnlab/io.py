"""Files written whole or not at all, and rows of JSON lines, CSV and TSV."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ffnlab.errors import InputError

_ENDS = re.compile(r"[\t\r\n]+")


def write(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "note.txt")
    ...     write(path, "done")
    ...     path.read_text()
    'done'
    """
    beside = path.with_name(path.name + ".part")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def jsonable(value: Any) -> Any:
    """Returns a value as JSON can hold it: arrays as lists, NaN and infinity as null.

    >>> import numpy as np
    >>> jsonable({"loss": np.array([0.5, np.nan], np.float32)})
    {'loss': [0.5, None]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object a line, the whole file at once."""
    lines = (json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows)
    write(path, "".join(lines))


def read_lines(path: Path) -> list[dict]:
    """Reads what `write_lines` wrote; no file is no rows.

    Raises:
      InputError: a line is not a JSON object; file and line are named.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except ValueError:
            raise InputError(f"{path}:{number}: not a JSON object") from None
    return rows


def as_row(cells: Sequence[Any], kind: str) -> str:
    """Returns a line of CSV or TSV; the latter has no tabs and line ends in cells.

    >>> as_row(["a, b", 1], "csv"), as_row(["a, b", 1], "tsv")
    ('"a, b",1\\n', 'a, b\\t1\\n')
    """
    if kind == "tsv":
        return "\t".join(" ".join(_ENDS.split(str(cell))) for cell in cells) + "\n"
    into = io.StringIO()
    csv.writer(into, lineterminator="\n").writerow(cells)
    return into.getvalue()
