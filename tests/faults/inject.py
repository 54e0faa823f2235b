"""Kills a run at a file operation: that one, and all later ones, do not happen.

Python announces what it does to files by audit events; writes reach the disk by fsync,
which has none and is replaced. A kill is an exception that no code catches, and since
all later operations fail too, nothing is cleaned up, as after `kill -9`; or it ends the
process, with the threads that write checkpoints.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CODE = 137  # the exit code of a killed process
# The events, and where among their arguments a path and its directory are.
_CHANGES = {
    "os.rename": (1, 3),
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.link": (1, 3),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_fsync = os.fsync


class Killed(BaseException):
    """The process was killed."""


class _Injector:
    """Counts operations on files below a directory, and stops at one of them."""

    def __init__(self):
        self.root: str | None = None
        self.error: BaseException | None = None
        self.left = self.count = 0
        self.exits = self.installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event == "open":
            if isinstance(args[0], str | bytes | os.PathLike) and args[2] & _WRITES:
                self.operate(args[0])
        elif event in _CHANGES:
            place, folder = _CHANGES[event]
            frees = event in ("os.remove", "os.rmdir")
            self.operate(args[place], args[folder], frees)

    def fsync(self, descriptor: int) -> None:
        if self.root is not None:
            with contextlib.suppress(FileNotFoundError):
                self.operate(os.readlink(f"/proc/self/fd/{descriptor}"))
        _fsync(descriptor)

    def operate(self, path: Any, folder: int = -1, frees: bool = False) -> None:
        """Counts an operation on a path, in an open directory or none, or fails.

        What frees room does not fail for want of it; the next operation does.
        """
        path = os.fsdecode(path)
        if folder >= 0 and not path.startswith("/"):
            path = f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"
        if not os.path.abspath(path).startswith(self.root):
            return
        self.count += 1
        full = getattr(self.error, "errno", None) == errno.ENOSPC
        if self.left == 0 and not (frees and full):
            self.fail(path)
        self.left -= self.left > 0

    def fail(self, path: str) -> None:
        """Kills the process, or raises."""
        if self.exits:
            os._exit(CODE)
        if self.error is None:
            raise Killed
        self.left = -1  # an error is raised once
        if isinstance(self.error, OSError) and self.error.filename is None:
            raise type(self.error)(self.error.errno, self.error.strerror, path)
        raise self.error


_injector = _Injector()


@contextlib.contextmanager
def failing_at(
    number: int,
    root: Path,
    error: BaseException | None = None,
    exits: bool = False,
) -> Iterator[_Injector]:
    """Lets the operations on files below a directory fail from a number on.

    Args:
      number: The number of operations that succeed; -1 lets all succeed.
      root: The directory.
      error: What is raised: `Killed` at every later operation too if None, otherwise
        this error once, with the path if it is an OSError.
      exits: Whether the process ends instead, with the code `CODE`.

    Yields:
      An object whose `count` is the number of operations so far.
    """
    if not _injector.installed:
        sys.addaudithook(_injector)
        _injector.installed = True
    _injector.error, _injector.exits = error, exits
    _injector.left, _injector.count, _injector.root = number, 0, str(root)
    os.fsync = _injector.fsync
    try:
        yield _injector
    finally:
        os.fsync, _injector.root = _fsync, None
