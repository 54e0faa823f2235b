"""How far a run is, on the screen or in a log."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffnlab.report.progress import Progress
    from ffnlab.train.record import Plan, Record


class Progress:
    """How far a run is: a bar with rate and time left, or plain lines in a log.

    Args:
      total: how many units of work there are.
      unit: what one is called.
      done: how many were done before.
    """

    def __init__(self, total: int, unit: str, done: int = 0):
        self._total, self._unit, self._done = total, unit, done
        self._begun, self._at_start, self._label = time.monotonic(), done, ""
        self._base, self._bar, self._task = done, None, None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bar, self._task = self._started()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def _started(self) -> tuple[Any, Any]:
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("{task.description:<16}"),
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
        """Names the work that comes next."""
        self._label, self._base = label, self._done
        if self._bar:
            self._bar.update(self._task, description=label)

    def reach(self, units: int) -> None:
        """Says how many units of the work that `begin` named are done by now."""
        self._done = self._base + units
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=self._rate())

    def end(self) -> None:
        """Ends the work that `begin` named; in a log, a line is printed now."""
        if not self._bar:
            share, seconds = self._done / self._total, time.monotonic() - self._begun
            ran = max(self._done - self._at_start, 1)
            left = seconds * (self._total - self._done) / ran
            print(
                f"{self._label:<16} {share:4.0%}  {self._rate()}  "
                f"{seconds:.0f} s elapsed, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        return f"{(self._done - self._at_start) / seconds:,.0f} {self._unit}/s"


def progress_callback(
    progress: Progress, plan: "Plan", score: str, text: str
) -> "Callable[[Record], None]":
    """Returns a function that reports a run's record to a progress bar.

    Args:
      progress: The progress, in steps.
      plan: The plan of the run.
      score: The score to show.
      text: How to show it, for instance `valid {:.3f} bits`.
    """
    last = 0

    def on_evaluation(record: "Record") -> None:
        nonlocal last
        progress.reach(int(record.step) - last)
        last = int(record.step)
        value = record.scores[score][..., (last - 1) // plan.every].mean()
        progress.begin(text.format(value))
        progress.end()

    return on_evaluation
