"""What every reader of a user's file checks first, and how it says what is wrong."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ffnlab.errors import InputError

SHOWN = 20  # problems listed; the rest is only counted


def require_file(path: str | Path) -> Path:
    """Returns `path` as a Path to a file that exists and is not empty.

    Args:
      path: a file's path, absolute or relative to the current directory.

    Raises:
      InputError: there is no such file, or it is a directory, a pipe, unreadable or
        empty.

    >>> require_file("absent.csv")
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: absent.csv: no such file
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a directory; give a file inside it")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: a pipe or a device; give a file, it is read twice")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: not readable; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return path


def require_text(path: str | Path) -> Path:
    """Returns `path` as `require_file` does, unless its text is UTF-16.

    Raises:
      InputError: as `require_file`, or the file begins with the mark of UTF-16, in
        which every line would be wrong.
    """
    path = require_file(path)
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return path


def decode_line(data: bytes, line: int) -> str:
    """Returns a line of a UTF-8 file as text, the first without a byte-order mark.

    Args:
      data: the line.
      line: its number, from 1.

    Raises:
      InputError: a NUL byte, or not UTF-8; the message is without the line.

    >>> decode_line(b"\\xef\\xbb\\xbftext", line=1)
    'text'
    """
    if b"\0" in data:
        raise InputError("a NUL byte; expected UTF-8 text")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        what = f"not UTF-8 ({byte} of the line); save the file as UTF-8"
        raise InputError(what) from None


def read_lines(path: str | Path) -> tuple[list[str], list[tuple[int, str]]]:
    """Reads a text file, with or without a byte-order mark, of any line ends.

    Returns:
      All lines, without their ends, those that cannot be read being empty; and the
      problems, as `stop_at` takes them.

    Raises:
      InputError: as `require_text`.
    """
    data = require_text(path).read_bytes()
    texts, problems = [], []
    end = b"\n" if b"\n" in data else b"\r"
    for line, piece in enumerate(data.split(end), start=1):
        try:
            texts.append(decode_line(piece, line).rstrip("\r"))
        except InputError as error:
            texts.append("")
            problems.append((line, str(error)))
    return texts, problems


def is_text(value: Any) -> bool:
    r"""Tells text from what is none, is blank, or cannot be written as UTF-8.

    >>> [is_text(value) for value in ("a b", "", " ", 3, "\ud83d")]
    [True, False, False, False, False]
    """
    if not isinstance(value, str) or not value.strip():
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def parse_json(text: str) -> Any:
    """Returns what a text of JSON says.

    Raises:
      json.JSONDecodeError: not JSON.
      InputError: a key is there twice, or it goes too deep or too high to be read.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: 'a' is there twice
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise InputError(f"{min(twice)!r} is there twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (InputError, json.JSONDecodeError):
        raise
    except (RecursionError, ValueError):  # brackets by the thousand, digits likewise
        raise InputError("JSON that goes too deep, or a number too long") from None


def read_json(path: Path) -> dict[str, Any]:
    """Returns an object of JSON.

    Raises:
      InputError: not JSON, not an object, or a key is there twice.
    """
    texts, problems = read_lines(path)
    stop_at(path, problems)
    try:
        found = parse_json("\n".join(texts))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object of JSON")
    return found


def stop_at(path: str | Path, problems: Iterable[tuple[int, str]]) -> None:
    """Raises one error that lists the problems found in a file; none, and it returns.

    Args:
      path: the file.
      problems: pairs of a line number, from 1, and what is wrong there, in any order.

    Raises:
      InputError: there are problems. One line each, `file:line: what`, by line; after
        20 of them the rest is counted.

    >>> stop_at("a.csv", [(7, "no target"), (3, "expected 2 fields, found 1")])
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: a.csv:3: expected 2 fields, found 1
    a.csv:7: no target
    """
    stop_with(path, [f"{path}:{line}: {what}" for line, what in sorted(problems)])


def stop_with(path: str | Path, lines: Sequence[str]) -> None:
    """Raises one error of lines that say what is wrong; none, and it returns.

    Args:
      path: the file.
      lines: one for each problem; after 20 of them the rest is counted.

    Raises:
      InputError: there are lines.
    """
    if not lines:
        return
    shown = list(lines[:SHOWN])
    if len(lines) > SHOWN:
        shown.append(f"{path}: and {len(lines) - SHOWN} more")
    raise InputError("\n".join(shown))
