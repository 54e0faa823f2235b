"""Shares of simulated data sets, counted on several processes, and saved."""

import collections
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import protocol
from ffnlab import io
from ffnlab.options import RunOptions, option
from ffnlab.report.progress import Progress
from ffnlab.report.table import Table

LEVEL = 0.95
_CHUNK = 20  # data sets of a process at a time
_SECONDS = 10.0  # between two writes of the counts

Counts = collections.Counter
Task = Callable[[np.random.Generator], Counts]


@dataclasses.dataclass(frozen=True)
class Config(RunOptions):
    """Simulation: data sets, blocks and replicates."""

    datasets: int = option(2000, "Data sets per row of a table.", least=1)
    blocks: int = option(12, "Blocks per data set, with the baseline.", least=2)
    replicates: int = option(16, "Replicates, where they do not vary.", least=6)
    seed: int = option(0, "Seed of the data sets.", least=0)
    workers: int | None = option(None, "Processes. One per core without it.", least=1)


class Estimate(NamedTuple):
    """A share of data sets."""

    hits: int
    total: int

    def cells(self) -> list[str]:
        """Returns the share and its 95 % interval as text."""
        low, high = self.interval()
        return [f"{self.share():.4f}", f"{low:.4f}–{high:.4f}"]

    def share(self) -> float:
        """Returns the share."""
        return self.hits / self.total

    def interval(self) -> tuple[float, float]:
        """Returns its 95 % interval.

        Source: Wilson 1927, "Probable inference, the law of succession, and statistical
        inference".

        >>> low, high = Estimate(50, 1000).interval()
        >>> print(f"{low:.4f} {high:.4f}")
        0.0381 0.0653
        """
        from scipy.stats import binomtest

        test = binomtest(self.hits, self.total)
        low, high = test.proportion_ci(method="wilson")
        return float(low), float(high)


class _Chunk(NamedTuple):
    """Some data sets of a task.

    Attributes:
      section: The number of the table.
      task: The number of the task among those of the table.
      first: The number of the first data set.
      size: The number of data sets.
    """

    section: int
    task: int
    first: int
    size: int


def _repeat(task: Task, seed: Sequence[int], chunk: _Chunk) -> Counts:
    """Returns the sum of the counts of some data sets."""
    total = Counts()
    for number in range(chunk.first, chunk.first + chunk.size):
        total.update(task(np.random.default_rng([*seed, number])))
    return total


class _Journal:
    """The counts of the chunks that are done, kept in a run directory.

    Args:
      directory: The run directory; None keeps nothing.
    """

    def __init__(self, directory: str | None):
        self._path = None if directory is None else Path(directory, "results.jsonl")
        self._written = time.monotonic()
        self._counts: dict[_Chunk, Counts] = {}
        for row in io.read_lines(self._path) if self._path else ():
            chunk = _Chunk(*(row[name] for name in _Chunk._fields))
            self._counts[chunk] = Counts(row["counts"])

    def __contains__(self, chunk: _Chunk) -> bool:
        return chunk in self._counts

    def __getitem__(self, chunk: _Chunk) -> Counts:
        return self._counts[chunk]

    def add(self, chunk: _Chunk, counts: Counts) -> None:
        """Adds the counts of a chunk, and writes all once in a while."""
        self._counts[chunk] = counts
        if time.monotonic() - self._written >= _SECONDS:
            self.write()

    def write(self) -> None:
        """Writes all counts, sorted by chunk."""
        if self._path:
            rows = sorted(self._counts.items(), key=lambda row: row[0])
            lines = ({**chunk._asdict(), "counts": counts} for chunk, counts in rows)
            io.write_lines(self._path, lines)
        self._written = time.monotonic()


def _chunks(section: int, task: int, datasets: int) -> list[_Chunk]:
    """Returns the parts of the work of a task."""
    starts = range(0, datasets, _CHUNK)
    return [_Chunk(section, task, n, min(_CHUNK, datasets - n)) for n in starts]


def count(
    title: str, tasks: Mapping[Any, Task], section: int, config: Config
) -> dict[Any, Counts]:
    """Returns the counts of each task over all data sets.

    Args:
      title: The name of the work in its progress.
      tasks: Label to what counts on one data set.
      section: The number of the table, part of the seeds.
      config: How many data sets to draw. If it has an `out`, the counts are kept in
        that directory, and what it holds is not counted again.
    """
    journal, workers = _Journal(config.out), config.workers or protocol.cores()
    works = {
        chunk: functools.partial(_repeat, task, (config.seed, section, index), chunk)
        for index, task in enumerate(tasks.values())
        for chunk in _chunks(section, index, config.datasets)
    }
    left = {chunk: work for chunk, work in works.items() if chunk not in journal}
    total = len(tasks) * config.datasets
    done, every = total - sum(chunk.size for chunk in left), max(total // 10, 1)
    with (
        Progress(total, "data sets", done) as progress,
        contextlib.closing(_run(left, workers)) as results,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(journal.write)  # after an interrupt too
        progress.begin(title)
        base = done
        for chunk, counts in results:
            journal.add(chunk, counts)
            done += chunk.size
            progress.reach(done - base)
            if done // every > (done - chunk.size) // every:
                progress.end()
    totals = {label: Counts() for label in tasks}
    labels = list(tasks)
    for chunk in works:  # in order, as sums of floats depend on it
        totals[labels[chunk.task]].update(journal[chunk])
    return totals


def _run(
    works: Mapping[_Chunk, Callable[[], Counts]], workers: int
) -> Iterator[tuple[_Chunk, Counts]]:
    """Yields the results of parts of the work as they are done."""
    if workers == 1 or not works:
        yield from ((chunk, work()) for chunk, work in works.items())
        return
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(workers, context, _follow_parent)
    try:
        jobs = {pool.submit(work): chunk for chunk, work in works.items()}
        for job in futures.as_completed(jobs):
            yield jobs[job], job.result()
    finally:
        pool.shutdown(cancel_futures=True)  # not again, which would not cancel


def _follow_parent() -> None:
    """Leaves interrupts to the parent of this process, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


Shares = dict[tuple[str, Any], Estimate]


def report(title: str, columns: Sequence[str], shares: Shares) -> None:
    """Prints a table of shares."""
    rows = [[*map(str, key), *share.cells()] for key, share in shares.items()]
    Table([*columns, "share", "95 %"], rows, words=2).show(f"Data sets {title}")
