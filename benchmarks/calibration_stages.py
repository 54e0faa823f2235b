"""Simulated comparisons on fixed examples, and in stages; see `calibration`."""

import functools

import numpy as np

from benchmarks.shares import LEVEL, Config, Counts, Estimate, Shares, count, report
from benchmarks.simulated_scores import (
    DESIGNED,
    NOISES,
    Condition,
    Generator,
    choose_rates,
    draw,
    draw_examples,
)
from ffnlab import stats
from ffnlab.stats.comparison import going_on

STAGES = 4
EXAMPLE_EFFECTS = (0.0, 0.5, 1.0)
STAGED = [*NOISES, DESIGNED[2], DESIGNED[-1]]
CONDITION = NOISES[0]  # of the runs that stages save


def names(blocks: int) -> list[str]:
    """Returns the names of blocks, the baseline first."""
    return [f"block {number:03d}" for number in range(blocks)]


def claim(comparisons: list[stats.Comparison]) -> bool:
    """Returns whether any block is called better or worse."""
    return any(row.verdict in ("better", "worse") for row in comparisons)


def judge_examples(
    effect: float, blocks: int, replicates: int, rng: Generator
) -> Counts:
    """Returns whether there is a claim on equal blocks, with and without examples."""
    scores = draw_examples(effect, blocks, replicates, rng)  # [blocks, R, N]
    examples = dict(zip(names(blocks), scores, strict=True))
    means = {name: each.mean(axis=1) for name, each in examples.items()}
    one, two = (
        stats.compare(means, names(blocks)[0], True, level=LEVEL, examples=each)
        for each in (None, examples)
    )
    return Counts(one_way=claim(one), two_way=claim(two))


def two_way(config: Config) -> Shares:
    """Prints and returns the share of data sets with a false claim."""
    tasks = {
        effect: functools.partial(
            judge_examples, effect, config.blocks, config.replicates
        )
        for effect in EXAMPLE_EFFECTS
    }
    totals = count("two-way errors", tasks, 5, config)
    shares = {
        (f"{effect:g}", name): Estimate(counts[key], config.datasets)
        for effect, counts in totals.items()
        for key, name in (("one_way", "one-way"), ("two_way", "two-way"))
    }
    columns = ("luck of a block with the examples", "standard error")
    report("with a false claim on fixed examples", columns, shares)
    return shares


def run_stages(
    condition: Condition, shifts: np.ndarray, replicates: int, rng: Generator
) -> Counts:
    """Returns what is claimed in stages of so many replicates, and how many runs."""
    counts = stats.stages_for(replicates, STAGES * replicates, LEVEL)
    validation, test = draw(condition, shifts, counts[-1], rng)
    rates = choose_rates(validation, condition.fixed)[:, None]
    scores = np.take_along_axis(test, rates, axis=1)[:, 0]  # [blocks, replicates]
    labels = names(len(shifts))
    rows, waiting = dict.fromkeys(labels), labels
    for n in counts:
        rows |= {name: scores[labels.index(name), :n] for name in waiting}
        comparisons = stats.compare(rows, labels[0], True, level=LEVEL, stages=counts)
        if not (undecided := going_on(comparisons)):
            break
        waiting = [labels[0], *undecided]
    judged = {row.name: row for row in comparisons}
    equal = [judged[name] for name in np.array(labels)[shifts == shifts[0]]]
    return Counts(
        claims=claim(equal),
        found=judged[labels[1]].verdict == "better",
        block=judged[labels[1]].replicates,
        runs=sum(row.replicates for row in comparisons),
    )


def detectable(config: Config) -> float:
    """Returns the difference that all replicates of all stages detect, on average."""
    rng, sizes = np.random.default_rng([config.seed, 6]), []
    for _ in range(20):
        scores = rng.normal(size=(config.blocks, STAGES * config.replicates))
        rows = dict(zip(names(config.blocks), scores, strict=True))
        comparisons = stats.compare(rows, names(config.blocks)[0], True, level=LEVEL)
        sizes += [row.detectable for row in comparisons if row.verdict is not None]
    return float(np.mean(sizes))


def stages(config: Config) -> Shares:
    """Prints and returns false claims in stages, and prints the runs that they save."""
    replicates = config.replicates
    equal, effect = np.zeros(config.blocks), detectable(config)
    tasks = {
        (row.name, "all equal"): functools.partial(run_stages, row, equal, replicates)
        for row in STAGED
    }
    for times in (1, 2):
        for which, index in (("one block", [1]), ("all blocks", slice(1, None))):
            shifts = equal.copy()
            shifts[index] = times * effect
            label = f"{which}: {times} × detectable"
            tasks[CONDITION.name, label] = functools.partial(
                run_stages, CONDITION, shifts, replicates
            )
    totals = count("stages", tasks, 6, config)
    shares = {key: Estimate(n["claims"], config.datasets) for key, n in totals.items()}
    columns = ("scores", "true differences")
    report(f"with a false claim in at most {STAGES} stages", columns, shares)
    _report_runs(totals, config)
    return shares


def _report_runs(totals: dict[tuple[str, str], Counts], config: Config) -> None:
    """Prints how many runs each simulation took, and what it found."""
    most = STAGES * config.replicates * config.datasets
    for (name, truth), counts in totals.items():
        block, runs = counts["block"] / most, counts["runs"] / most / config.blocks
        found = counts["found"] / config.datasets
        shown = "" if truth == "all equal" else f"found {found:.3f}, "
        print(
            f"{name}, {truth}: {shown}{1 - runs:.0%} fewer runs in all, "
            f"{1 - block:.0%} fewer of the first block after the baseline"
        )
