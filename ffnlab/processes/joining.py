"""Joins the processes of a run: connects and compares them, and parts them at the end.

Only process 0 prints and writes. The others do all that it does, with their output
discarded and in private run directories, so that nothing that a run does has to ask
which process it is in. Checkpoints alone are written by all into the directory of the
run, since each process holds a part of the arrays.
"""

import contextlib
import dataclasses
import io
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ffnlab import options, signals
from ffnlab.processes import exchange, runtime
from ffnlab.processes.private import private_directory, remove_abandoned
from ffnlab.processes.watch import FINISHED, Watch

_PACKAGES = ("ffnlab", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
# What may differ between processes.
_OWN_FLAGS = ("out", "coordinator", "process", "report_to")
# How errors of XLA say that arrays could not be exchanged with another process.
_EXCHANGES = ("gloo", "nccl", "unavailable", "connection", "aborted", "deadline")


@contextlib.contextmanager
def joined(config: Any) -> Iterator[Any]:
    """Makes this process one of a run, until the block ends.

    Args:
      config: The configuration, with the fields of `ProcessOptions`. Without a
        coordinator nothing is done.

    Yields:
      The configuration to use: in all processes but process 0, its run directory is a
      private one.

    Raises:
      InputError: The processes cannot connect, or differ in flags or versions.
    """
    if config.coordinator is None:
        yield config
        return
    with contextlib.ExitStack() as stack:
        console = stack.enter_context(_Console())
        run = runtime.connect(config.coordinator, config.processes, config.process)
        stack.callback(runtime.abandon)
        remove_abandoned()
        private = ""
        if run.index:
            private = stack.enter_context(private_directory(Path(config.out)))

        def remove() -> None:
            if private:
                shutil.rmtree(private, ignore_errors=True)

        watch = Watch(run, config.out, remove)
        with _ending(run, watch, private):
            _compare(config)
            if private:
                runtime.use_instead(private, config.out)
                own = {"out": private, **_without_trackers(config)}
                config = dataclasses.replace(config, **own)
                console.discard()
            yield config


@contextlib.contextmanager
def _ending(run: runtime.Runtime, watch: Watch, private: str) -> Iterator[None]:
    """Says how this process ends, and waits for the others where that is good."""
    try:
        yield
    except BaseException as error:
        text = " ".join(str(error).split())
        if any(each in text.lower() for each in _EXCHANGES):
            watch.suspect()
        watch.report(f"ended: {text or type(error).__name__}")
        if run.index == 0:  # the others hear of it from the coordinator in this process
            watch.wait_for_all(10.0)
        _name_process(error, run, private)
        raise
    run.put(f"ended/{run.index}", FINISHED)
    watch.wait_for_all()
    watch.report(FINISHED)
    runtime.disconnect()
    watch.close()


def _name_process(error: BaseException, run: runtime.Runtime, private: str) -> None:
    """Names the process in an error of another one than process 0."""
    if run.index and error.args and isinstance(error.args[0], str):
        text = error.args[0].replace(private, "the run directory")
        error.args = (f"{text} (process {run.index})", *error.args[1:])
        error.__notes__ = []


def _without_trackers(config: Any) -> dict[str, Any]:
    return {"report_to": ("none",)} if hasattr(config, "report_to") else {}


def _compare(config: Any) -> None:
    """Raises if processes have other versions or flags than process 0."""
    exchange.check_equal("versions", _versions(), "install the same in all processes")
    flags = options.to_flags(config, _OWN_FLAGS)
    pairs = (line.removeprefix("--").partition("=") for line in flags.splitlines())
    values = {name: f"={value}" for name, _, value in pairs}
    exchange.check_equal("flags", values, "give all processes the same flags")


def _versions() -> dict[str, str]:
    """Returns the versions that the result of a program depends on."""
    versions = {"python": f" {platform.python_version()}"}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = f" {metadata.version(name)}"
    return versions


class _Console:
    """The output of a process: that of Python alone, or none.

    What libraries in C++ write goes to a file that is dropped: they announce every
    connection, and write pages when one is lost, which `Watch` reports in a line.
    """

    def __enter__(self) -> "_Console":
        self._streams = sys.stdout, sys.stderr
        self._log = tempfile.TemporaryFile()
        self._kept = [_divert(number, self._log.fileno()) for number in (1, 2)]
        self._own = sys.stdout, sys.stderr = tuple(
            _reopened(stream, number, kept)
            for number, (stream, kept) in enumerate(
                zip(self._streams, self._kept, strict=True), 1
            )
        )
        signals.print_to(self._kept[1])
        return self

    def discard(self) -> None:
        """Discards what Python prints from now on."""
        nowhere = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
        sys.stdout = sys.stderr = nowhere

    def __exit__(self, error: Any, *_: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        if error is not None:  # the process ends, and C++ may print until then
            sys.stdout, sys.stderr = self._own
            return
        sys.stdout, sys.stderr = self._streams
        for number, kept in enumerate(self._kept, 1):
            os.dup2(kept, number)
            os.close(kept)
        signals.print_to(2)
        self._log.close()


def _divert(number: int, to: int) -> int:
    """Lets a descriptor write to a file, and returns a copy of where it wrote to."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = os.dup(number)
    os.dup2(to, number)
    return kept


def _reopened(stream: Any, number: int, kept: int) -> Any:
    """Returns a stream that writes to the copy of its descriptor.

    That of a notebook or a test has none, and is returned as it is.
    """
    try:
        own = stream.fileno() == number
    except (OSError, AttributeError, io.UnsupportedOperation):
        own = False
    if not own:
        return stream
    return open(
        kept,
        "w",
        buffering=1,
        encoding=stream.encoding,
        errors=stream.errors,
        closefd=False,
    )
