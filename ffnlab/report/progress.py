"""The progress of a run, on a terminal or in a log."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ffnlab import escape

if TYPE_CHECKING:
    from ffnlab.train.record import Plan, Record

_SECONDS = 60.0  # between two lines of a log, where parts take long


class Progress:
    """The progress of a run: a bar with rate and time left, or lines in a log.

    Args:
      total: The units of work of the whole run.
      unit: The name of a unit, in the plural.
      done: The units that were done before, for instance by an interrupted run.
    """

    def __init__(self, total: int, unit: str, done: int = 0):
        self._total, self._unit, self._done = total, unit, done
        self._start, self._done_at_start, self._label = time.monotonic(), done, ""
        self._base, self._bar, self._task = done, None, None
        self._shown = self._start

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bar, self._task = self._start_bar()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def _start_bar(self) -> tuple[Any, Any]:
        """Returns a running progress bar and its task."""
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("{task.description:<16}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        bar.start()
        task = bar.add_task("", total=self._total, completed=self._done, rate="")
        return bar, task

    def begin(self, label: str) -> None:
        """Begins a part of the work.

        Args:
          label: The name of the part; it is escaped for the terminal.
        """
        self._label, self._base = escape.terminal(label), self._done
        if self._bar:
            self._bar.update(self._task, description=self._label)

    def add(self, units: int) -> None:
        """Adds work to the part that `begin` named.

        Args:
          units: The further units of work.
        """
        self._total += units
        if self._bar:
            self._bar.update(self._task, total=self._total)

    def reach(self, units: int) -> None:
        """Updates the progress of the part that `begin` named.

        Args:
          units: The units of this part that are done by now.
        """
        self._done = self._base + units
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=self._rate())
        elif time.monotonic() - self._shown >= _SECONDS:
            self.end()

    def end(self) -> None:
        """Ends the part that `begin` named, and prints a line if there is no bar."""
        if self._bar:
            return
        self._shown = time.monotonic()
        seconds = time.monotonic() - self._start
        ran = max(self._done - self._done_at_start, 1)
        left = seconds * (self._total - self._done) / ran
        print(
            f"{self._label:<16} {self._done / self._total:4.0%}  {self._rate()}  "
            f"{seconds:.0f} s elapsed, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def _rate(self) -> str:
        """Returns the units done per second since the start, as text."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self._done - self._done_at_start) / seconds
        return f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s"


class QuietProgress(Progress):
    """The progress of a run that shows nothing."""

    def __enter__(self) -> "QuietProgress":
        return self

    def end(self) -> None:
        """Prints nothing."""


def progress_callback(
    progress: Progress, plan: "Plan", score: str, text: str
) -> "Callable[[Record], None]":
    """Returns a function that reports the record of a run to its progress.

    Args:
      progress: The progress of the run, in steps.
      plan: The plan of the run.
      score: The name of the score to show.
      text: The format of the score, for instance `valid {:.3f} bits`.

    Returns:
      A function for `train.Hooks.on_progress`.
    """
    last = 0

    def on_progress(record: "Record") -> None:
        nonlocal last
        step = int(record.step)
        progress.reach(step - last)
        if step % plan.every == 0 or step == plan.steps:
            value = record.scores[score][..., (step - 1) // plan.every].mean()
            progress.begin(text.format(value))
            progress.end()
            last = step

    return on_progress
