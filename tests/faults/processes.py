"""Launchers in processes of their own, which start from one that has imported all.

A process that is killed takes its threads with it, so each run has its own. They are
forked from a server that has imported JAX and has not started it.
"""

import contextlib
import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
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
      root: The directory whose files are watched, and beside which output is kept.
      fault: What goes wrong.
    """
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    output = root.with_name(f"{root.name}.output")
    args = (launcher, [*flags], str(root), fault, str(output), theirs)
    process = context.Process(target=_run, args=args)
    process.start()
    theirs.close()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
    count = 0
    with contextlib.suppress(EOFError):
        count = ours.recv()
    ours.close()
    return Ending(process.exitcode, output.read_text("utf-8", "replace"), count)


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
    output: str,
    pipe: Connection,
) -> None:
    """Runs a launcher in this process."""
    from ffnlab.train import checkpoint

    checkpoint._SHARE = 0  # saves after every evaluation, however short a run is
    number = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    sys.argv = [launcher, *flags]
    if fault.size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, fault.size))
    error = (
        None if fault.error is None else OSError(fault.error, os.strerror(fault.error))
    )
    with inject.failing_at(fault.kill, root, error, exits=error is None) as operations:
        try:
            runpy.run_module(f"experiments.{launcher}", run_name="__main__")
        finally:
            pipe.send(operations.count)


def apart(function: Callable[[], Any]) -> Any:
    """Returns what a function returns in a process of its own."""
    context = _context()
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function).result()
