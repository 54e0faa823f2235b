"""Files written whole or not at all, and rows of JSON lines, CSV and TSV.

Where a directory has a manifest (`ffnlab.digests`), the digest of what is written is
recorded, and checked when it is read.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ffnlab import digests
from ffnlab.errors import InputError

_ENDS = re.compile(r"[\t\r\n]+")
_CHECKSUM = re.compile(r'(.*), "checksum": "([0-9a-f]{16})"}', re.DOTALL)


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that replaces `path` at the end, or leaves it as it was.

    What is written goes to `path` with `.part` appended, which is moved into place when
    the block ends and removed when it fails. Its digest is recorded before it is moved.

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
    path = Path(path)
    part = digests.part_of(path)
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is noticed without a name
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    digests.record(path, part)  # from here on, the file beside the place is the newest
    os.replace(part, path)
    digests.sync(path.parent)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Makes a directory that is in place at the end with all its files, or not at all.

    Args:
      path: The directory to make, and its parents; it must not exist, or be empty.

    Yields:
      An empty directory to write into: `path` with `.part` appended. When the block
      ends it gets a manifest and is moved into place; when it fails it is removed.

    Raises:
      OSError: The directory cannot be written, or `path` holds something.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with atomic_directory(Path(parent, "run")) as directory:
    ...         _ = (directory / "note.txt").write_text("done")
    ...     sorted(path.name for path in Path(parent, "run").iterdir())
    ['manifest.sha256', 'note.txt']
    """
    part = digests.part_of(Path(path))
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    part.mkdir(parents=True)
    try:
        yield part
        digests.seal(part)
        for file in part.rglob("*"):
            digests.sync(file)
        os.replace(part, path)
        digests.sync(part.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


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


def read(path: str | Path) -> str:
    """Returns the text of a file that `write` wrote, after its digest was checked.

    Raises:
      InputError: The file is missing, damaged or not a text.
    """
    try:
        return digests.check(Path(path)).read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is damaged: not a text in UTF-8") from None


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    """Writes rows as one JSON object a line, whole or not at all.

    Each line ends with a checksum of what stands before it.
    """
    write(path, "".join(map(_line, rows)))


def _line(row: dict) -> str:
    """Returns a row as a line with its checksum."""
    text = json.dumps(jsonable(row), ensure_ascii=False)
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        text = json.dumps(jsonable(row))  # half a character has no bytes in UTF-8
    start = text.removesuffix("}")
    return f'{start}, "checksum": "{_checksum(start)}"}}\n'


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_lines(path: Path, needed: Sequence[str] = ()) -> list[dict]:
    """Returns the rows that `write_lines` wrote; none if there is no file.

    Lines may have been removed, and the file may be of a version that wrote no
    checksums.

    Args:
      path: The file.
      needed: The names that every row must have.

    Raises:
      InputError: A line is damaged; the message names file and line.
    """
    strict = False
    try:
        place = digests.check(path)
    except InputError:
        strict, place = True, path  # every line must have its checksum
    if not place.exists():
        return []
    try:
        lines = place.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: it is damaged: not a text in UTF-8") from None
    numbered = enumerate(lines[:-1] if lines[-1] == "" else lines, 1)
    return [_row(f"{path}:{n}", line, strict, needed) for n, line in numbered]


def _row(where: str, line: str, strict: bool, needed: Sequence[str]) -> dict:
    """Returns the row of a line, without its checksum."""
    match = _CHECKSUM.fullmatch(line)
    damaged = strict if match is None else _checksum(match[1]) != match[2]
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        damaged, row = True, {}
    if damaged or not isinstance(row, dict):
        raise InputError(f"{where}: the line is damaged; remove it, and resume the run")
    for name in needed:
        if name not in row:
            raise InputError(f"{where}: {name} is missing; remove the line, and resume")
    return {name: value for name, value in row.items() if name != "checksum"}


def as_row(cells: Sequence[Any], kind: str, delimiter: str = ",") -> str:
    """Returns cells as a line of CSV or TSV.

    Args:
      cells: Any values. Tabs and line ends inside them become spaces in TSV, which has
        no quotes.
      kind: `csv` or `tsv`.
      delimiter: The character between the cells of CSV.

    >>> as_row(["a, b", 1], "csv"), as_row(["a, b", 1], "tsv")
    ('"a, b",1\\n', 'a, b\\t1\\n')
    """
    if kind == "tsv":
        return "\t".join(" ".join(_ENDS.split(str(cell))) for cell in cells) + "\n"
    line = io.StringIO()
    # csv.writer quotes the characters of its line end alone.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"
