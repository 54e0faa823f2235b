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
- Data sets with a false claim where all replicates are scored on the same examples,
  with standard errors that count the draw of the examples, and without.
- Data sets with a false claim where replicates are added in stages until all blocks are
  decided; and what share of the runs is saved where the true difference of one block,
  or of all, is the one that all replicates detect four times in five, or twice that.

    python -m benchmarks.calibration    (about 10 minutes on 2 cores)
    python -m benchmarks.calibration --datasets=20    (a smoke run)
    python -m benchmarks.calibration --flagfile=OUT/flags --out=OUT --resume

OUT receives flags, versions.json and results.jsonl with the counts of the data sets so
far, written every ten seconds. With --resume an interrupted run counts the others, and
a finished run prints its tables again.
"""

import dataclasses
import functools

import numpy as np

from benchmarks.calibration_stages import stages, two_way
from benchmarks.shares import LEVEL, Config, Counts, Estimate, Shares, count, report
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
from ffnlab import stats
from ffnlab.report import run_directory

SHIFTS = (0.0, -0.5, -1.0, -2.0)
MARGIN, SHIFT = 1.0, 1.5
REPLICATES = (6, 10, 16, 32)


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
    report("with a false claim", ("equal blocks", "split and rate"), shares)
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
    report("covered by all intervals", ("unequal blocks", "replicates"), shares)
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
    report("with a false claim of equivalence", columns, shares)
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
    report("in which a difference is found", columns, shares)
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
    report("covered by `mean_interval`", ("scores", "replicates"), shares)
    return shares


SECTIONS = (
    false_claims,
    coverage,
    false_equivalence,
    power,
    mean_coverage,
    two_way,
    stages,
)


def run(config: Config) -> dict[str, Shares]:
    """Prints all tables, and returns their shares by the names of `SECTIONS`.

    Raises:
      InputError: The output directory cannot be used.
      KeyboardInterrupt: The run was interrupted; the message says how to continue.
    """
    out = run_directory.choose_directory(config.out, "calibration", config.resume)
    config = dataclasses.replace(config, out=out)
    with run_directory.open_run(out, config, config.resume) as directory:
        print(f"writing to {directory}", flush=True)
        shares = {section.__name__: section(config) for section in SECTIONS}
    print(f"\nwritten to {directory}: results.jsonl")
    return shares


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
