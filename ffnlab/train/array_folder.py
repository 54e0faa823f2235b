"""Arrays by name in a folder, written and read by Orbax; the only module that uses it.

Orbax writes into another folder, which it renames when it is complete.
"""

import contextlib
import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(folder: Path, leaves: Mapping[str, np.ndarray]) -> None:
    """Writes arrays into a folder, completely or not at all.

    Args:
      folder: The folder, which does not exist yet.
      leaves: The arrays by name.

    Raises:
      OSError: They cannot be written.
    """
    with _quiet(), _errors():
        _orbax().save(folder, dict(leaves))


def read(folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a folder that `write`, or an older version, wrote.

    Raises:
      OSError: It is missing or damaged.
    """
    with _quiet(), _errors():
        return _orbax().load(folder)


def _orbax() -> Any:
    """Returns the interface of Orbax that its next version will have."""
    # Seconds to import, and few runs save.
    from orbax.checkpoint.experimental import v1

    return v1


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turns the errors of Orbax, which are of many kinds, into OSError."""
    try:
        yield
        return
    except Exception as error:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(number[1]) if number else getattr(error, "errno", None) or 0
        text = os.strerror(number) if number else str(error).strip().split("\n")[0]
    gc.collect()  # coroutines of Orbax that will not run any more, while it is quiet
    raise OSError(number, text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Orbax logs on an error, which is raised as well.

    Threads of tensorstore print that the event loop is closed when theirs has failed,
    also after the block; this is silenced for good.
    """
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _UnraisableHook:
    """A hook for exceptions that cannot be raised, which hides a closed event loop."""

    def __init__(self, hook: Any):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)
