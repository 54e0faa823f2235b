"""Files written whole or not at all, and rows of JSON lines, CSV and TSV."""

import contextlib
import csv
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ffnlab.errors import InputError

_ENDS = re.compile(r"[\t\r\n]+")


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that replaces `path` at the end, or leaves it as it was.

    What is written goes to `path` with `.part` appended, which is moved into place when
    the block ends and removed when it fails.

    Args:
      path: The file to write; a link is replaced, not followed.
      mode: `w` for text in UTF-8, `wb` for bytes.

    Yields:
      The open file.

    Raises:
      OSError: The file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "note.txt")
    ...     with atomic(path) as file:
    ...         _ = file.write("done")
    ...     path.read_text()
    'done'
    """
    part = _part_of(Path(path))
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Makes a directory that is in place at the end with all its files, or not at all.

    Args:
      path: The directory to make, and its parents; it must not exist, or be empty.

    Yields:
      An empty directory to write into: `path` with `.part` appended. It is moved into
      place when the block ends and removed when it fails.

    Raises:
      OSError: The directory cannot be written, or `path` holds something.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with atomic_directory(Path(parent, "run")) as directory:
    ...         _ = (directory / "note.txt").write_text("done")
    ...     [path.name for path in Path(parent, "run").iterdir()]
    ['note.txt']
    """
    part = _part_of(Path(path))
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    part.mkdir(parents=True)
    try:
        yield part
        for file in (each for each in part.rglob("*") if each.is_file()):
            _sync(file)
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _sync(path: Path) -> None:
    """Writes a file through to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Args:
      path: The file to write.
      content: A text, written in UTF-8, or bytes.

    Raises:
      OSError: The file cannot be written; it is as it was before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "note.txt")
    ...     write(path, "done")
    ...     path.read_text()
    'done'
    """
    with atomic(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)


def jsonable(value: Any) -> Any:
    """Returns a value as JSON can hold it: arrays as lists, NaN and infinity as null.

    >>> import numpy as np
    >>> jsonable({"loss": np.array([0.5, np.nan], np.float32)})
    {'loss': [0.5, None]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    """Writes rows as one JSON object a line, whole or not at all."""
    lines = (json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows)
    write(path, "".join(lines))


def read_lines(path: Path) -> list[dict]:
    """Returns the rows that `write_lines` wrote; none if there is no file.

    Raises:
      InputError: A line is not a JSON object; the message names file and line.
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
    """Returns cells as a line of CSV or TSV.

    Args:
      cells: Any values. Tabs and line ends inside them become spaces in TSV, which has
        no quotes.
      kind: `csv` or `tsv`.

    >>> as_row(["a, b", 1], "csv"), as_row(["a, b", 1], "tsv")
    ('"a, b",1\\n', 'a, b\\t1\\n')
    """
    if kind == "tsv":
        return "\t".join(" ".join(_ENDS.split(str(cell))) for cell in cells) + "\n"
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
