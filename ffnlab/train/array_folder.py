"""Arrays by name in a folder, written and read by Orbax; the only module that uses it.

Orbax writes into another folder, which it renames when it is complete. With several
processes, each writes and reads the parts of the arrays that it holds; all call the
functions together.
"""

import contextlib
import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
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
        return _orbax().load(folder, _wanted_whole(folder))


def _wanted_whole(folder: Path) -> dict[str, np.ndarray] | None:
    """Returns arrays like those of a folder that several processes wrote, else None.

    Without them, Orbax would place arrays on the devices that wrote them.
    """
    held = _orbax().metadata(folder).metadata
    if not any(hasattr(each, "sharding_metadata") for each in held.values()):
        return None
    return {name: np.empty(each.shape, each.dtype) for name, each in held.items()}


def begin(folder: Path, leaves: Mapping[str, Any]) -> Callable[[], None]:
    """Begins to write arrays that are divided over processes into a folder.

    Args:
      folder: The folder, which does not exist yet.
      leaves: The arrays by name. Their memory may be reused afterwards.

    Returns:
      A function that waits until all processes have written their parts; it raises
      OSError if they cannot be written, and may be called in another thread.

    Raises:
      OSError: They cannot be written.
    """
    with _quiet(), _errors():
        response = _orbax().save_async(folder, _copied(leaves))

    def finish() -> None:
        with _quiet(), _errors():
            response.result()

    return finish


def _copied(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arrays of which those in the memory of the host are copies.

    Orbax copies from an accelerator before it returns, but shows the memory of a CPU.
    What each process holds as a whole is equal in all; process 0 writes it.
    """
    import jax

    arrays = {name: leaf for name, leaf in leaves.items() if _is_divided(leaf)}
    if jax.default_backend() == "cpu":
        arrays = jax.tree.map(jax.numpy.copy, arrays)
    others = {n: np.array(leaf) for n, leaf in leaves.items() if n not in arrays}
    return {**arrays, **others}


def read_parts(folder: Path, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of a folder, divided over processes as given ones are.

    Args:
      folder: A folder that `write` or `begin` has written.
      leaves: Arrays by name whose shapes, dtypes and placement are wanted; names that
        the folder lacks are left out.

    Raises:
      OSError: It is missing or damaged, or an array has another shape or dtype.
    """
    with _quiet(), _errors():
        held = _orbax().metadata(folder).metadata
        wanted = {n: _abstract(leaf) for n, leaf in leaves.items() if n in held}
        others = (n for n in held if n not in wanted)
        extra = {n: np.empty(held[n].shape, held[n].dtype) for n in others}
        return _orbax().load(folder, wanted | extra)


def _is_divided(leaf: Any) -> bool:
    """Returns whether an array is one of several processes."""
    return not getattr(leaf, "is_fully_addressable", True)


def _abstract(leaf: Any) -> Any:
    """Returns what Orbax restores as an array of several processes, or of NumPy."""
    import jax

    if not _is_divided(leaf):
        return np.empty(np.shape(leaf), leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


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
