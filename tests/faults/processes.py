"""Launchers in processes of their own, which start from one that has imported all.

A process that is killed takes its threads with it, so each run has its own. They are
forked from a server that has imported JAX and has not started it.
"""

import atexit
import contextlib
import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import inject

TIMEOUT = 240  # seconds
_MODULES = (
    "jax",
    "flax.nnx",
    "optax",
    "orbax.checkpoint",
    "matplotlib.pyplot",
    "safetensors.numpy",
    "tokenizers",
    "scipy.stats",
    "sklearn.datasets",
    "experiments.launch",
    "tests.faults.damage",
    "tests.faults.full_disk",
    "tests.faults.malformed",
    "tests.faults.processes",
    "ffnlab.sweep.comparison",
    "ffnlab.finetune.report",
    "ffnlab.pretrain.runner",
    "ffnlab.pretrain.text_preparation",
)


class Ending(NamedTuple):
    """How a launcher ended.

    Attributes:
      code: The exit code.
      text: What it printed.
      operations: The number of operations on files below the root; 0 after a kill.
    """

    code: int
    text: str
    operations: int

    @property
    def errors(self) -> list[str]:
        """The lines that report an error."""
        return [line for line in self.text.splitlines() if line.startswith("error: ")]

    @property
    def clean(self) -> bool:
        """Whether it has finished, or refused in one line."""
        return "Traceback" not in self.text and (
            self.code == 0 or (self.code == 2 and len(self.errors) == 1)
        )


class Fault(NamedTuple):
    """What goes wrong in a process.

    Attributes:
      kill: The number of operations on files before the process is killed; -1 for none.
      error: The number of an error of the operating system that is raised instead.
      size: The size in bytes that no file may exceed.
    """

    kill: int = -1
    error: int | None = None
    size: int | None = None


NONE = Fault()


def launch(
    launcher: str, flags: Sequence[str], root: Path, fault: Fault = NONE
) -> Ending:
    """Runs a launcher until it ends.

    Args:
      launcher: The name of a module of `experiments`.
      flags: Its flags.
      root: The directory whose files are watched.
      fault: What goes wrong.
    """
    context = _context()
    (count, send), (output, write) = (context.Pipe(duplex=False) for _ in range(2))
    args = (launcher, [*flags], str(root), fault, write, send)
    process = context.Process(target=_run, args=args)
    process.start()
    send.close()
    write.close()
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(_read, output)
        process.join(TIMEOUT)
        process.kill()
        process.join()
    operations = 0
    with contextlib.suppress(EOFError):
        operations = count.recv()
    count.close()
    return Ending(process.exitcode, text.result(), operations)


def _read(output: Connection) -> str:
    """Returns what a process writes to a pipe, which no limit of files concerns."""
    with os.fdopen(os.dup(output.fileno()), "rb") as file:
        output.close()
        return file.read().decode("utf-8", "replace")


def _context() -> Any:
    """Returns what starts processes that have imported all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_MODULES])
    return context


def _run(
    launcher: str,
    flags: list[str],
    root: str,
    fault: Fault,
    output: Connection,
    pipe: Connection,
) -> None:
    """Runs a launcher in this process."""
    from ffnlab import signals
    from ffnlab.train import checkpoint

    signals.install(exits=True)  # as `python -m` does
    checkpoint._SHARE = 0  # saves after every evaluation, however short a run is
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
    sys.argv = [launcher, *flags]
    if fault.size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, fault.size))
    error = (
        None if fault.error is None else OSError(fault.error, os.strerror(fault.error))
    )
    with inject.failing_at(fault.kill, root, error, exits=error is None) as operations:
        atexit.register(lambda: pipe.send(operations.count))  # an error ends there
        try:
            runpy.run_module(f"experiments.{launcher}", run_name="__main__")
        finally:
            pipe.send(operations.count)


def apart(function: Callable[[], Any]) -> Any:
    """Returns what a function returns in a process of its own."""
    context = _context()
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function).result()
