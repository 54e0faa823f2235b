"""Checks that all readers of a user's file share, and the list of its problems."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnlab import schema
from ffnlab.errors import InputError
from ffnlab.escape import terminal

SHOWN = 20  # problems that are listed; the others are counted
_SETTINGS_BYTES = 2**24


def require_file(path: str | Path) -> Path:
    """Returns `path` as a Path to a file that exists and is not empty.

    Args:
      path: A file's path, absolute or relative to the current directory.

    Raises:
      InputError: There is no such file, or it is a directory, a pipe, unreadable or
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
      InputError: As `require_file`, or the file begins with the byte-order mark of
        UTF-16, in which every line would be wrong.
    """
    path = require_file(path)
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return path


def decode_line(data: bytes, line: int) -> str:
    """Returns a line of a UTF-8 file as text, without a byte-order mark.

    Args:
      data: The line.
      line: Its number, from 1.

    Raises:
      InputError: The line has a NUL byte, or is not UTF-8. The message does not name
        the line.

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


def read_lines(
    path: str | Path, carriage_returns: bool = True
) -> tuple[list[str], list[tuple[int, str]]]:
    """Reads the lines of a UTF-8 text file, with or without a byte-order mark.

    Args:
      path: The file.
      carriage_returns: Whether a carriage return alone ends a line, in a file without
        line feeds.

    Returns:
      All lines, without their ends and empty where they cannot be read; and the
      problems, as `stop_at` takes them.

    Raises:
      InputError: As `require_text`.
    """
    data = require_text(path).read_bytes()
    texts, problems = [], []
    end = b"\n" if b"\n" in data or not carriage_returns else b"\r"
    for line, piece in enumerate(data.split(end), start=1):
        try:
            texts.append(decode_line(piece, line).rstrip("\r"))
        except InputError as error:
            texts.append("")
            problems.append((line, str(error)))
    return texts, problems


def collect(
    path: str | Path, values: Iterable[tuple[int, Any | InputError]]
) -> list[tuple[int, Any]]:
    """Returns what a reader yields; raises one error if there are errors among it.

    Args:
      path: The file, for errors.
      values: Line numbers, from 1, each with a value or an error without the line.

    Raises:
      InputError: As `stop_at`.

    >>> collect("a.txt", [(1, "a"), (2, "b")])
    [(1, 'a'), (2, 'b')]
    >>> collect("a.txt", [(1, "a"), (2, InputError("no tab"))])
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: a.txt:2: no tab
    """
    values = list(values)
    problems = [(n, str(each)) for n, each in values if isinstance(each, InputError)]
    stop_at(path, problems)
    return values


def is_text(value: Any) -> bool:
    r"""Returns whether a value is a text that is not blank and can be written as UTF-8.

    >>> [is_text(value) for value in ("a b", "", " ", 3, "\ud83d")]
    [True, False, False, False, False]
    """
    if not isinstance(value, str) or not value.strip():
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file.

    Raises:
      InputError: The file is not JSON or not an object, or has a key twice.
    """
    texts, problems = read_lines(path)
    stop_at(path, problems)
    value = schema.parse_json("\n".join(texts), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object of JSON")
    return value


def read_settings(
    path: Path, fields: Mapping[str, schema.Field], advice: str = ""
) -> dict[str, Any]:
    """Returns the JSON object of a file of settings, after a check of what it holds.

    Args:
      path: The file, of at most 16 MiB.
      fields: What its keys may hold. Other keys are allowed.
      advice: What to do if a value is wrong, for errors.

    Raises:
      InputError: As `read_json`, or the file is too large, or a key is missing or holds
        something else.
    """
    size = require_file(path).stat().st_size
    if size > _SETTINGS_BYTES:
        raise InputError(f"{path}: settings should be at most 16 MiB, not {size} bytes")
    settings = read_json(path)
    schema.check_object(settings, fields, str(path), advice)
    return settings


def stop_at(path: str | Path, problems: Iterable[tuple[int, str]]) -> None:
    """Raises one error that lists the problems of a file, if there are any.

    Args:
      path: The file.
      problems: Pairs of a line number, from 1, and what is wrong there, in any order.

    Raises:
      InputError: There are problems. It lists up to 20 of them, each as
        `file:line: what`, sorted by line, and counts the others.

    >>> stop_at("a.csv", [(7, "no target"), (3, "expected 2 fields, found 1")])
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: a.csv:3: expected 2 fields, found 1
    a.csv:7: no target
    """
    stop_with(path, [f"{path}:{line}: {what}" for line, what in sorted(problems)])


def stop_with(path: str | Path, lines: Sequence[str]) -> None:
    """Raises one error that lists problems, if there are any.

    Args:
      path: The file.
      lines: A line for each problem.

    Raises:
      InputError: There are lines. It lists up to 20 of them and counts the others.
    """
    if not lines:
        return
    shown = [terminal(line) for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        shown.append(f"{path}: and {len(lines) - SHOWN} more")
    raise InputError("\n".join(shown))
