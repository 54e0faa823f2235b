"""Files of a user's own that add blocks and the like before their names are checked.

    python -m experiments.compare --import=my_blocks.py --blocks=mlp,gated_sq

A file is executed once for each content that it has; it registers by
`ffnlab.nn.register`, or adds rows to a table such as `ffnlab.nn.ACTIVATIONS`. Only what
the command line or a flag file names is ever executed.
"""

import dataclasses
import hashlib
import importlib
import re
import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ffnlab import names
from ffnlab.errors import InputError
from ffnlab.options import RunOptions, option

NAME = "imports.sha256"  # in a run directory
_TABLES = [key for key in names.TABLES if not key[0].startswith("ffnlab.models")]
_EXAMPLE = "a file calls ffnlab.nn.register(name, equation, ...)"


_Place = tuple[tuple[str, str], str]  # a table, and a name in it


class _Loaded(NamedTuple):
    """A file that was executed: the digest of its content, and the rows it set.

    Each row is together with that of before, or None.
    """

    digest: str
    rows: dict[_Place, tuple[Any, Any]]


_LOADED: dict[Path, _Loaded] = {}


def imports_option() -> Any:
    """Returns the field of a configuration whose files are executed by `load`."""
    return option(
        (),
        "Python files that are executed first and register blocks or activations, "
        "which flags may then name.",
        empty=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(RunOptions):
    """Code: files that add blocks of your own."""

    ADDED: ClassVar[dict[str, str]] = {"import": ""}

    imports: tuple[str, ...] = imports_option()

    def __post_init__(self):
        load(self.imports)  # before names are checked
        super().__post_init__()


def load(paths: str | Iterable[str]) -> None:
    """Executes files that have not been executed, or have changed since.

    What a former content of a file had added is removed first.

    Args:
      paths: The files.

    Raises:
      InputError: A file cannot be read, raises an exception, or adds nothing; what it
        had added until then is removed.
    """
    for path in (paths,) if isinstance(paths, str) else paths:
        source = _read(path)
        key, digest = Path(path).resolve(), hashlib.sha256(source).hexdigest()
        if key not in _LOADED or _LOADED[key].digest != digest:
            _remove(_LOADED.pop(key, None))
            _LOADED[key] = _Loaded(digest, _execute(path, source))


def digests(paths: Iterable[str]) -> str:
    """Returns a line for each file: the digest of what was executed, and its path."""
    return "".join(f"{_LOADED[Path(p).resolve()].digest}  {p}\n" for p in paths)


def _read(path: Any) -> bytes:
    """Returns the content of a file."""
    if not isinstance(path, str) or not path.endswith(".py"):
        raise InputError(f"imports: {path!r} should be a Python file, FILE.py")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"imports: {path} cannot be read: {reason}; name a Python file"
        ) from None


def _execute(path: str, source: bytes) -> dict[_Place, tuple[Any, Any]]:
    """Executes a file, and returns the rows of tables that it has set."""
    name = "imported_" + re.sub(r"\W", "_", Path(path).stem)
    module = types.ModuleType(name)
    module.__file__ = path
    before = _rows()
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _restore(before)
        raise InputError(f"imports: {_place(path, error)}: {_text(error)}") from error
    after = _rows()
    rows = {
        place: (row, before.get(place))
        for place, row in after.items()
        if before.get(place) is not row
    }
    if not rows:
        raise InputError(
            f"imports: {path} adds no block, activation, norm, initializer, optimizer "
            f"or schedule; {_EXAMPLE}"
        )
    return rows


def _rows() -> dict[_Place, Any]:
    """Returns the rows of all tables of names, by table and name."""
    tables = {key: getattr(importlib.import_module(key[0]), key[1]) for key in _TABLES}
    return {
        (key, name): row
        for key, table in tables.items()
        if isinstance(table, dict)
        for name, row in table.items()
    }


def _restore(before: dict[_Place, Any]) -> None:
    """Gives all tables the rows of before."""
    for (module, table), name in _rows().keys() - before.keys():
        del getattr(sys.modules[module], table)[name]
    for ((module, table), name), row in before.items():
        getattr(sys.modules[module], table)[name] = row


def _remove(loaded: _Loaded | None) -> None:
    """Undoes what a file has set, where it still holds."""
    for ((module, table), name), (row, old) in (loaded.rows if loaded else {}).items():
        rows = getattr(sys.modules[module], table)
        if rows.get(name) is row:
            rows.pop(name) if old is None else rows.update({name: old})


def _place(path: str, error: BaseException) -> str:
    """Returns `FILE:LINE` of an exception, or the file alone."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return f"{path}:{lines[-1]}" if lines and lines[-1] else path


def _text(error: BaseException) -> str:
    """Returns what an exception says, in one line."""
    if isinstance(error, InputError):
        return str(error)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")
