"""Shares of simulated data sets, counted on several processes."""

import collections
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from benchmarks import protocol
from ffnlab import options
from ffnlab.options import option
from ffnlab.report.progress import Progress
from ffnlab.report.table import Table

LEVEL = 0.95
_CHUNK = 50  # data sets of a process at a time

Counts = collections.Counter
Task = Callable[[np.random.Generator], Counts]


@dataclasses.dataclass(frozen=True)
class Config:
    """How many data sets to draw, and how large; each field is a flag."""

    datasets: int = option(2000, "Data sets per row of a table.", least=1)
    blocks: int = option(12, "Blocks per data set, with the baseline.", least=2)
    replicates: int = option(16, "Replicates, where they do not vary.", least=6)
    seed: int = option(0, "Seed of the data sets.", least=0)
    workers: int | None = option(None, "Processes. One per core without it.", least=1)

    def __post_init__(self) -> None:
        options.check(self)


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


def _repeat(task: Task, seed: Sequence[int], numbers: range) -> Counts:
    """Returns the sum of the counts of some data sets."""
    total = Counts()
    for number in numbers:
        total.update(task(np.random.default_rng([*seed, number])))
    return total


def _chunks(
    tasks: Mapping[Any, Task], section: int, config: Config
) -> Iterator[tuple[Any, Callable[[], Counts], int]]:
    """Yields the label of a task, a part of its work, and the data sets of the part."""
    for index, (label, task) in enumerate(tasks.items()):
        seed = (config.seed, section, index)
        for start in range(0, config.datasets, _CHUNK):
            numbers = range(start, min(start + _CHUNK, config.datasets))
            yield label, functools.partial(_repeat, task, seed, numbers), len(numbers)


def count(
    title: str, tasks: Mapping[Any, Task], section: int, config: Config
) -> dict[Any, Counts]:
    """Returns the counts of each task over all data sets."""
    totals = {label: Counts() for label in tasks}
    workers = config.workers or protocol.cores()
    done, every = 0, max(len(tasks) * config.datasets // 10, 1)
    with Progress(len(tasks) * config.datasets, "data sets") as progress:
        progress.begin(title)
        for label, counts, size in _run(_chunks(tasks, section, config), workers):
            totals[label].update(counts)
            done += size
            progress.reach(done)
            if done // every > (done - size) // every:
                progress.end()
    return totals


def _run(chunks: Iterator[tuple], workers: int) -> Iterator[tuple[Any, Counts, int]]:
    """Yields the results of parts of the work as they are done."""
    if workers == 1:
        for label, work, size in chunks:
            yield label, work(), size
        return
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(workers, context) as pool:
        jobs = {pool.submit(work): (label, size) for label, work, size in chunks}
        for job in futures.as_completed(jobs):
            label, size = jobs[job]
            yield label, job.result(), size


Shares = dict[tuple[str, Any], Estimate]


def report(title: str, columns: Sequence[str], shares: Shares) -> None:
    """Prints a table of shares."""
    rows = [[*map(str, key), *share.cells()] for key, share in shares.items()]
    Table([*columns, "share", "95 %"], rows, words=2).show(f"Data sets {title}")
