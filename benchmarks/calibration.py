"""How often does a comparison of blocks claim what is false, and what does it detect?

Draws the validation and test scores of blocks at three learning rates, lets each
replicate of each block choose its rate on the validation part, and gives the test
scores of the chosen rates to `ffnlab.stats.compare`. All scores are in units of the
standard deviation between replicates of one block. Prints tables of shares of data sets
with their 95 % Wilson intervals:

- Data sets with a false claim, where all blocks are equal. `own` is the design of
  `experiments.compare`: each replicate has its own split and chooses its own rate. For
  comparison, `fixed` is one split and one rate of a block for all its replicates.
- Data sets in which all intervals cover the true differences, which are 0, 0.5, 1 and 2
  in turn; data sets with a claim of equivalence where the true difference is the margin
  (1); and intervals that disagree with their p-values.
- Data sets in which a difference of 1.5 is found, and data sets in which a difference
  is found that is as large as the detectable one that a run before printed.
- Data sets in which the interval of one mean alone covers it.

    python -m benchmarks.calibration    (about 5 minutes on 2 cores)
    python -m benchmarks.calibration --datasets=20    (a smoke run)
"""

import collections
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from benchmarks import protocol
from benchmarks.simulated_scores import (
    DESIGNED,
    NOISES,
    Condition,
    Generator,
    Noise,
    choose_rates,
    draw,
    heavy,
    normal,
    skewed,
    ties,
    unit,
)
from experiments import launch
from ffnlab import options, stats
from ffnlab.options import option
from ffnlab.report.progress import Progress
from ffnlab.report.table import Table

SHIFTS = (0.0, -0.5, -1.0, -2.0)
MARGIN, SHIFT = 1.0, 1.5
REPLICATES = (6, 10, 16, 32)
LEVEL = 0.95
_CHUNK = 50  # data sets of a process at a time

Counts = collections.Counter
Task = Callable[[Generator], Counts]


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


def compare(
    condition: Condition,
    shifts: np.ndarray,
    replicates: int,
    rng: Generator,
    margin: float | None = None,
) -> list[stats.Comparison]:
    """Returns the comparison of the blocks of a new data set, in their order."""
    validation, test = draw(condition, shifts, replicates, rng)
    rates = choose_rates(validation, condition.fixed)[:, None]
    scores = np.take_along_axis(test, rates, axis=1)[:, 0]  # [blocks, replicates]
    names = [f"block {i:03d}" for i in range(len(scores))]
    comparisons = stats.compare(
        dict(zip(names, scores, strict=True)),
        names[0],
        higher_is_better=True,
        margin=None if margin is None else margin * unit(condition.noise),
        level=LEVEL,
    )
    return sorted(comparisons, key=lambda row: row.name)


def judge(
    condition: Condition,
    shifts: np.ndarray,
    replicates: int,
    rng: Generator,
    margin: float | None = None,
) -> Counts:
    """Returns what is claimed about a data set, and what is true of it."""
    comparisons = compare(condition, shifts, replicates, rng, margin)[1:]
    truth = unit(condition.noise) * (shifts - shifts[0])[1:]
    ends = np.array([row.difference_interval for row in comparisons])  # [blocks, 2]
    verdicts = {row.verdict for row in comparisons}
    excluded = (ends[:, 0] > 0) | (ends[:, 1] < 0)
    significant = [row.p_value <= 1 - LEVEL + 1e-12 for row in comparisons]
    return Counts(
        claims=bool(verdicts & {"better", "worse"}),
        equivalent="equivalent" in verdicts,
        covered=bool(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).all()),
        disagreements=int((excluded != significant).sum()),
        comparisons=len(comparisons),
    )


def detect(blocks: int, replicates: int, rng: Generator) -> Counts:
    """Returns whether a difference of 1.5 is found, and one of the printed size."""
    shifts = np.zeros(blocks)
    shifts[1] = SHIFT
    first = compare(NOISES[0], shifts, replicates, rng)
    shifts[1] = printed = first[-1].detectable
    second = compare(NOISES[0], shifts, replicates, rng)
    return Counts(
        found=first[1].verdict == "better",
        printed=printed,
        printed_found=second[1].verdict == "better",
    )


def cover_mean(noise: Noise, paired: bool, replicates: int, rng: Generator) -> Counts:
    """Returns whether the interval of one mean covers it."""
    scores = noise(rng, np.zeros((2, replicates))).astype(np.float64)
    interval = stats.mean_interval(scores[0] - paired * scores[1], LEVEL)
    return Counts(covered=interval.low <= 0 <= interval.high)


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


def _report(title: str, columns: Sequence[str], shares: Shares) -> None:
    """Prints a table of shares."""
    rows = [[*map(str, key), *share.cells()] for key, share in shares.items()]
    Table([*columns, "share", "95 %"], rows, words=2).show(f"Data sets {title}")


def false_claims(config: Config) -> Shares:
    """Prints and returns the share of data sets with a false claim."""
    fixed = [row._replace(fixed=True) for row in DESIGNED]
    equal = np.zeros(config.blocks)
    tasks = {
        (row.name, "fixed" if row.fixed else "own"): functools.partial(
            judge, row, equal, config.replicates
        )
        for row in [*NOISES, *DESIGNED, *fixed]
    }
    totals = count("false claims", tasks, 0, config)
    shares = {key: Estimate(n["claims"], config.datasets) for key, n in totals.items()}
    _report("with a false claim", ("equal blocks", "split and rate"), shares)
    return shares


def coverage(config: Config) -> Shares:
    """Prints and returns the simultaneous coverage, and the disagreements."""
    shifts = np.resize(SHIFTS, config.blocks)
    tasks = {
        (row.name, config.replicates): functools.partial(
            judge, row, shifts, config.replicates
        )
        for row in [*NOISES, *DESIGNED]
    }
    totals = count("coverage", tasks, 1, config)
    shares = {key: Estimate(n["covered"], config.datasets) for key, n in totals.items()}
    _report("covered by all intervals", ("unequal blocks", "replicates"), shares)
    total = sum(totals.values(), Counts())
    wrong = Estimate(total["disagreements"], total["comparisons"])
    print(f"{wrong.hits} of {wrong.total:,} intervals disagree with their p-values")
    return {**shares, ("disagreements", config.replicates): wrong}


def false_equivalence(config: Config) -> Shares:
    """Prints and returns the share of data sets with a false claim of equivalence."""
    shifts = np.full(config.blocks, -MARGIN)
    shifts[0] = 0.0
    tasks = {
        (row.name, n): functools.partial(judge, row, shifts, n, margin=MARGIN)
        for row in (NOISES[0], NOISES[3])
        for n in (config.replicates, 4 * config.replicates)
    }
    totals = count("equivalence", tasks, 2, config)
    shares = {k: Estimate(n["equivalent"], config.datasets) for k, n in totals.items()}
    columns = ("difference = margin", "replicates")
    _report("with a false claim of equivalence", columns, shares)
    return shares


def power(config: Config) -> Shares:
    """Prints and returns the share of data sets in which a difference is found."""
    tasks = {n: functools.partial(detect, config.blocks, n) for n in REPLICATES}
    totals = count("power", tasks, 3, config)
    names = {"found": f"{SHIFT:g}", "printed_found": "detectable"}
    shares = {
        (name, n): Estimate(counts[key], config.datasets)
        for key, name in names.items()
        for n, counts in totals.items()
    }
    columns = ("difference of a block", "replicates")
    _report("in which a difference is found", columns, shares)
    sizes = [f"{n['printed'] / config.datasets:.2f}" for n in totals.values()]
    print(f"The detectable differences are {', '.join(sizes)} on average")
    return shares


def mean_coverage(config: Config) -> Shares:
    """Prints and returns the coverage of the interval of one mean alone."""
    cases = {
        "normal": (normal, True),
        "ties": (ties, True),
        "t with 2 degrees": (heavy, True),
        "difference of exponentials": (skewed, True),
        "one exponential": (skewed, False),
    }
    tasks = {
        (name, n): functools.partial(cover_mean, *case, n)
        for name, case in cases.items()
        for n in REPLICATES
    }
    totals = count("mean", tasks, 4, config)
    shares = {k: Estimate(n["covered"], config.datasets) for k, n in totals.items()}
    _report("covered by `mean_interval`", ("scores", "replicates"), shares)
    return shares


SECTIONS = (false_claims, coverage, false_equivalence, power, mean_coverage)


def run(config: Config) -> dict[str, Shares]:
    """Prints all tables, and returns their shares by the names of `SECTIONS`."""
    return {section.__name__: section(config) for section in SECTIONS}


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
