"""The progress of a run, on a terminal or in a log."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import escape

if TYPE_CHECKING:
    from ffnlab.train.record import Plan, Record

_LOSSES = 10  # the last steps over which the loss that is shown is a mean
_SECONDS = 60.0  # between two lines of a log, where parts take long


class Progress:
    """The progress of a run: a bar with rate and time left, or lines in a log.

    Args:
      total: The units of work of the whole run.
      unit: The name of a unit, a plural that ends in s.
      done: The units that were done before, for instance by an interrupted run.
      texts: The texts of a unit, if texts per second are to be shown.
    """

    def __init__(self, total: int, unit: str, done: int = 0, texts: int | None = None):
        self._total, self._unit, self._done, self._texts = total, unit, done, texts
        self._start, self._label, self._note = time.monotonic(), "", ""
        self._compiling = False
        self._seconds, self._units = 0.0, 0  # that the rate is measured by
        self._last = self._start  # when units were done last
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
        from rich.table import Column

        def whole(width: int) -> Column:  # where the terminal is narrow, too
            return Column(no_wrap=True, min_width=width)

        bar = progress.Progress(
            progress.TextColumn(
                "{task.description:<16}", markup=False, table_column=whole(16)
            ),
            progress.BarColumn(),
            progress.TaskProgressColumn(table_column=whole(4)),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(table_column=whole(7)),
            progress.TextColumn("left", table_column=whole(4)),
            progress.TimeRemainingColumn(table_column=whole(7)),
            console=Console(stderr=True),
        )
        bar.start()
        task = bar.add_task("", total=self._total, completed=self._done, rate="")
        return bar, task

    def begin(self, label: str, compiling: bool = False) -> None:
        """Begins a part of the work.

        Args:
          label: The name of the part; it is escaped for the terminal.
          compiling: Whether to say that the first unit of the part is compiled; the
            rate is then that of the units after it.
        """
        self._label, self._base = escape.terminal(label), self._done
        self._compiling = compiling
        shown = f"{self._label}, compiling" if compiling else self._label
        if self._bar:
            self._bar.update(self._task, description=shown)
        elif compiling:
            print(shown, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Shows a text beside the rate, for instance the loss, until the next one."""
        self._note = text

    def add(self, units: int) -> None:
        """Adds work to the part that `begin` named.

        Args:
          units: The further units of work.
        """
        self._total += units
        if self._bar:
            self._bar.update(self._task, total=self._total)

    def reach(self, units: int, ends: bool = False) -> None:
        """Updates the progress of the part that `begin` named.

        Args:
          units: The units of this part that are done by now.
          ends: Whether `end` follows, which prints the line of this progress.
        """
        self._measure(self._base + units - self._done)
        self._done = self._base + units
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=self._rate())
        elif not ends and time.monotonic() - self._shown >= _SECONDS:
            self.end()

    def _measure(self, units: int) -> None:
        """Counts units for the rate, unless they were compiled on the way."""
        now = time.monotonic()
        if units <= 0:
            return
        if not self._compiling:
            self._seconds += now - self._last
            self._units += units
        elif self._bar:
            self._bar.update(self._task, description=self._label)
        self._compiling, self._last = False, now

    def end(self) -> None:
        """Ends the part that `begin` named, and prints a line if there is no bar."""
        if self._bar:
            return
        self._shown = time.monotonic()
        times = [f"{self._shown - self._start:.0f} s elapsed"]
        per_unit, rest = self._seconds_per_unit(), self._total - self._done
        if per_unit is not None or not rest:
            times.append(f"{rest * (per_unit or 0.0):.0f} s left")
        share = f"{self._label:<16} {self._done / self._total:4.0%}"
        facts = filter(None, [share, self._rate(), ", ".join(times)])
        print("  ".join(facts), file=sys.stderr, flush=True)

    def _seconds_per_unit(self) -> float | None:
        """Returns the mean time of a unit; None before one that was not compiled."""
        return max(self._seconds, 1e-9) / self._units if self._units else None

    def _rate(self) -> str:
        """Returns units and texts per second, or seconds per unit, and the note."""
        seconds, facts = self._seconds_per_unit(), []
        if seconds is not None:
            slow = f"{_short(seconds)} s/{self._unit.removesuffix('s')}"
            facts = [slow if seconds > 1 else f"{_short(1 / seconds)} {self._unit}/s"]
            facts += [f"{_short(self._texts / seconds)} texts/s"] if self._texts else []
        return "  ".join(filter(None, [*facts, self._note]))


def _short(number: float) -> str:
    """Returns a number with one decimal place below 10, and none above."""
    return f"{number:,.{0 if number >= 10 else 1}f}"


class QuietProgress(Progress):
    """The progress of a run that shows nothing."""

    def __enter__(self) -> "QuietProgress":
        return self

    def begin(self, label: str, compiling: bool = False) -> None:
        """Begins a part of the work, and prints nothing."""
        super().begin(label)

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
        losses = record.loss[..., max(step - _LOSSES, 0) : step]
        if np.isfinite(losses).any():
            progress.note(f"loss {np.nanmean(losses):.3g}")
        evaluated = step % plan.every == 0 or step == plan.steps
        progress.reach(step - last, ends=evaluated)
        if evaluated:
            value = record.scores[score][..., (step - 1) // plan.every].mean()
            progress.begin(text.format(value))
            progress.end()
            last = step

    return on_progress
