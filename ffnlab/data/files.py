"""What every reader of a user's file checks first, and how it says what is wrong."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ffnlab.errors import InputError

SHOWN = 20  # problems listed; the rest is only counted


def require_file(path: str | Path) -> Path:
    """Returns `path` as a Path to a file that exists and is not empty.

    Args:
      path: a file's path, absolute or relative to the current directory.

    Raises:
      InputError: there is no such file, or it is a directory, unreadable or empty.

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
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: not readable; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Returns an object of JSON.

    Raises:
      InputError: not JSON, not an object, or a key is there twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise InputError(f"{path}: {min(twice)!r} is there twice")
        return dict(pairs)

    try:
        found = json.loads(path.read_text("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
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
    problems = sorted(problems)
    if not problems:
        return
    lines = [f"{path}:{line}: {what}" for line, what in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"{path}: and {len(problems) - SHOWN} more")
    raise InputError("\n".join(lines))
