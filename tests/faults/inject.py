"""Kills a run at a file operation: that one, and all later ones, do not happen.

Python announces what it does to files by audit events; writes reach the disk by fsync,
which has none and is replaced. A kill is an exception that no code catches, and since
all later operations fail too, nothing is cleaned up, as after `kill -9`.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_fsync = os.fsync


class Killed(BaseException):
    """The process was killed."""


class _Injector:
    """Counts operations on files below a directory, and stops at one of them."""

    def __init__(self):
        self.root: str | None = None
        self.error: BaseException = Killed()
        self.left = self.count = 0
        self.lasting = True
        self.installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event == "open":
            if isinstance(args[0], str | os.PathLike) and args[2] & _WRITES:
                self.operate(args[0])
        elif event in _CHANGES:
            self.operate(args[1] if event == "os.rename" else args[0])

    def fsync(self, descriptor: int) -> None:
        if self.root is not None:
            with contextlib.suppress(OSError):
                self.operate(os.readlink(f"/proc/self/fd/{descriptor}"))
        _fsync(descriptor)

    def operate(self, path: Any) -> None:
        """Counts an operation on a path, or raises."""
        if not os.fspath(path).startswith(self.root):
            return
        self.count += 1
        if self.left == 0:
            self.left = 0 if self.lasting else -1
            raise self.error
        self.left -= 1


_injector = _Injector()


@contextlib.contextmanager
def failing_at(
    number: int, root: Path, error: BaseException | None = None
) -> Iterator[_Injector]:
    """Lets the operations on files below a directory fail from a number on.

    Args:
      number: The number of operations that succeed; -1 lets all succeed.
      root: The directory.
      error: What is raised: `Killed` at every later operation too if None, otherwise
        this error once.

    Yields:
      An object whose `count` is the number of operations so far.
    """
    if not _injector.installed:
        sys.addaudithook(_injector)
        _injector.installed = True
    _injector.error, _injector.lasting = error or Killed(), error is None
    _injector.left, _injector.count, _injector.root = number, 0, str(root)
    os.fsync = _injector.fsync
    try:
        yield _injector
    finally:
        os.fsync, _injector.root = _fsync, None
