"""Results of sweeps: a line for each run, and the ranking that follows from the lines.

The lines are all that is kept of a run, so a table made now and one made from a file
of lines next year are the same.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.io import jsonable
from ffnlab.report.table import Table
from ffnlab.sweep.population import Population
from ffnlab.train.record import Plan
from ffnlab.types import Objective

Line = dict[str, Any]

# Facts of a block that are columns where its lines have them.
_FACTS = {
    "activation": "activation",
    "hidden": "hidden",
    "parameters": "parameters",
    "FLOPs": "flops",
}

# How a score is shown: what it is called, what it is multiplied by, its decimals.
UNITS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("test accuracy, %", 100.0, 2),
    "bits": ("test bits per byte", 1.0, 3),
    "loss": ("test squared error (variance = 1)", 1.0, 4),
}


class Ranking(NamedTuple):
    """What the lines of a sweep say.

    Attributes:
      comparisons: the blocks, the best first.
      table: the same, to be printed.
      verdict: the same, in a sentence.
      remarks: what a reader should know before believing it.
      baseline: the block that the others were tested against.
      score: what is scored: the name of it in the lines.
      unit: the same, as a reader calls it.
      scale: what scores are multiplied by when shown.
      higher_is_better: the direction of the score.
      essential: the columns that a narrow screen still shows.
    """

    comparisons: list[stats.Comparison]
    table: Table
    verdict: str
    remarks: list[str]
    baseline: str
    score: str
    unit: str
    scale: float
    higher_is_better: bool
    essential: list[str]


def choose_members(population: Population, plan: Plan) -> np.ndarray:
    """Returns the members trained at the learning rate that validation chose.

    That is the rate with the best interquartile mean over seeds of the best monitored
    score; of equal ones the first. A diverged run counts as infinitely bad.

    Args:
      population: from `sweep.fit_population`.
      plan: what it was trained by.

    Returns:
      Their indices, int `[seeds]`, in the order of the seeds.
    """
    seeds = len(np.unique(population.seeds))
    worst = -np.inf if plan.higher_is_better else np.inf
    record = population.fit.record
    scores = np.where(record.diverged >= 0, worst, record.best).reshape(-1, seeds)
    means = np.atleast_1d(stats.iqm(scores, axis=-1))
    best = int(np.argmax(means) if plan.higher_is_better else np.argmin(means))
    return np.arange(best * seeds, (best + 1) * seeds)


def lines(
    facts: Mapping[str, Any],
    population: Population,
    plan: Plan,
    chosen: np.ndarray,
    test: Mapping[str, np.ndarray],
) -> list[Line]:
    """Returns a dict, ready for JSON, for each run of a population.

    Args:
      facts: what all its runs share: `block`, `activation`, `parameters`, `flops` and
        anything else.
      population: from `sweep.fit_population`.
      plan: what it was trained by.
      chosen: the members that were scored on the test part.
      test: each of their scores.
    """
    fit, place = population.fit, {int(m): i for i, m in enumerate(chosen)}
    shared = {
        **facts,
        "microseconds_per_step": 1e6 * fit.seconds_per_step / len(population.seeds),
        "compile_seconds": fit.compile_seconds,
    }
    rows = []
    for member in range(len(population.seeds)):
        diverged, best = fit.record.diverged[member], fit.record.best_step[member]
        at, tested = (int(best) - 1) // plan.every, place.get(member)
        scores = fit.record.scores
        valid = {name: float(curve[member, at]) for name, curve in scores.items()}
        found = diverged < 0 and best > 0
        rows.append(
            {
                **shared,
                "seed": int(population.seeds[member]),
                "learning_rate": float(f"{population.learning_rates[member]:.6g}"),
                "diverged_at": int(diverged) if diverged >= 0 else None,
                "best_step": int(best) if found else None,
                "valid": valid if found else None,
                "chosen": tested is not None,
                "test": {k: float(v[tested]) for k, v in test.items()}
                if tested is not None and found
                else None,
                "curve": _curve(fit.record, plan, member),
            }
        )
    return jsonable(rows)


def _curve(record: Any, plan: Plan, member: int) -> dict[str, list]:
    starts = range(0, plan.steps, plan.every)
    losses = [record.loss[member, s : s + plan.every].mean() for s in starts]
    scores = {name: curve[member].tolist() for name, curve in record.scores.items()}
    stops = [min(start + plan.every, plan.steps) for start in starts]
    return {"step": stops, "train_loss": [float(x) for x in losses], **scores}


def curves(runs: Sequence[Line], score: str) -> dict[str, np.ndarray]:
    """Returns the validation curves of the chosen runs, `[seeds, evaluations]` a block.

    >>> line = {"block": "glu", "chosen": True, "curve": {"loss": [0.5, None]}}
    >>> curves([line], "loss")
    {'glu': array([[0.5, nan]])}
    """
    found: dict[str, list] = {}
    for run in runs:
        if run["chosen"]:
            found.setdefault(run["block"], []).append(run["curve"][score])
    arrays = {name: np.array(rows, float) for name, rows in found.items()}
    return {k: np.where(np.isfinite(v), v, np.nan) for k, v in arrays.items()}


def rank(
    runs: Sequence[Line],
    baseline: str,
    objective: Objective,
    seed: int = 0,
    told: Sequence[str] = (),
) -> Ranking:
    """Ranks the blocks by the test scores of their chosen runs.

    Args:
      runs: from `lines`, of all blocks.
      baseline: the block that the others are tested against.
      objective: what was scored.
      seed: of the resampling.
      told: what models told of themselves beside their scores, to be columns too.

    Raises:
      InputError: there is no such baseline, or blocks differ in their seeds.
    """
    chosen = _chosen(runs)
    unit, scale, _ = UNITS[objective.monitor]
    tests = {name: _scores(rows, "test", objective) for name, rows in chosen.items()}
    found = stats.compare(
        tests, baseline, higher_is_better=objective.higher_is_better, seed=seed
    )
    rows = [
        _row(place, each, chosen[each.name], objective, told, seed)
        for place, each in enumerate(found, 1)
    ]
    facts = [heading for heading, name in _FACTS.items() if name in runs[0]]
    tested = unit.split(",")[0].removesuffix(" (variance = 1)")
    compared = [tested, f"Δ {baseline}", "p (Holm)"]
    columns = ["", "block", *facts, "rate", "validation", *compared, "P(better)"]
    columns += [*told, "µs/step", "diverged"]
    table = Table(columns, rows, words=3 if "activation" in facts else 2)
    return Ranking(
        found,
        table,
        stats.verdict(found),
        [*_remarks(runs), *_close_calls(runs, objective, seed)],
        baseline,
        objective.monitor,
        unit,
        scale,
        objective.higher_is_better,
        ["", "block", "activation", *compared],
    )


def middle(
    runs: Sequence[Line], block: str, objective: Objective, seed: int = 0
) -> tuple[float, stats.Interval]:
    """Returns the interquartile mean of a block's test scores, and its interval."""
    rows = [run for run in runs if run["block"] == block and run["chosen"]]
    scores = _scores(rows, "test", objective)
    return float(stats.iqm(scores)), stats.bootstrap_interval(scores, seed=seed)


def _chosen(runs: Sequence[Line]) -> dict[str, list[Line]]:
    """Returns the chosen runs of each block, by seed; all blocks must have the same."""
    chosen: dict[str, list[Line]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        if run["chosen"]:
            chosen.setdefault(run["block"], []).append(run)
    seeds = {name: [run["seed"] for run in rows] for name, rows in chosen.items()}
    first = next(iter(seeds), None)
    for name, each in seeds.items():
        if each != seeds[first]:
            raise InputError(f"{name} has seeds {each}, {first} has {seeds[first]}")
    return chosen


def _scores(rows: Sequence[Line], part: str, objective: Objective) -> np.ndarray:
    """Returns a score for each seed, in order; a diverged run's is infinitely bad."""
    worst = -np.inf if objective.higher_is_better else np.inf
    values = [run[part] and run[part][objective.monitor] for run in rows]
    return np.array([worst if value is None else value for value in values], np.float32)


def _row(
    place: int,
    found: stats.Comparison,
    runs: Sequence[Line],
    objective: Objective,
    told: Sequence[str],
    seed: int,
) -> list[str]:
    first, shown = runs[0], functools.partial(_shown, objective)
    valid = _scores(runs, "valid", objective)
    spread = stats.bootstrap_interval(valid, seed=seed)

    def fact(name: str) -> str:
        matched = f" ({first['unmatched']:+.1%})" if name == first["budget"] else ""
        shown = first[name] if name == "activation" else f"{first[name]:,}"
        return f"{shown}{matched}"

    steps = [r["diverged_at"] for r in runs if r["diverged_at"] is not None]
    failed = f"{len(steps)}/{len(runs)} at step {min(steps)}" if steps else "0"
    paired = ["baseline", "", ""]
    if found.p_value is not None:
        difference = shown(found.difference, found.difference_interval, "+")
        paired = [difference, f"{found.p_corrected:.2g}", f"{found.improvement:.2f}"]
    return [
        str(place),
        found.name.partition(":")[0],
        *(fact(name) for name in _FACTS.values() if name in first),
        f"{first['learning_rate']:g}",
        shown(float(stats.iqm(valid)), spread),
        shown(found.iqm, found.interval),
        *paired,
        *(_mean(runs, name) for name in told),
        _microseconds(first["microseconds_per_step"]),
        failed,
    ]


def _shown(
    objective: Objective, middle: float | None, interval: Any, sign: str = ""
) -> str:
    """Shows a score, or with a sign a difference, and its interval."""
    _, scale, digits = UNITS[objective.monitor]
    if middle is None or not np.isfinite(middle):
        return "diverged" if not sign else "undefined: a seed diverged"
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in interval)
    return f"{scale * middle:{sign}.{digits}f} [{low}, {high}]"


def _mean(runs: Sequence[Line], name: str) -> str:
    """Shows the mean of what the chosen runs told on the validation part, if any."""
    values = [(run["valid"] or {}).get(name) for run in runs]
    values = [value for value in values if value is not None]
    return f"{np.mean(values):.2g}" if values else ""


def _microseconds(value: float | None) -> str:
    """Shows a time; a block that was resumed at its end was not timed."""
    return "" if value is None else f"{value:.0f}"


def _remarks(runs: Sequence[Line]) -> list[str]:
    """Returns what would make a reader doubt the table."""
    remarks = []
    rates = sorted({run["learning_rate"] for run in runs})
    for rate, word in ((rates[0], "smallest"), (rates[-1], "largest")):
        at_edge = {
            r["block"]: None for r in runs if r["chosen"] and r["learning_rate"] == rate
        }
        if at_edge and len(rates) > 2:
            remarks.append(
                f"the {word} learning rate, {rate:g}, was best for "
                f"{', '.join(at_edge)}: a wider --learning_rates might find better"
            )
    for run in runs:
        if run["diverged_at"] is not None:
            remarks.append(
                f"{run['block']} diverged at step {run['diverged_at']} "
                f"(seed {run['seed']}, learning rate {run['learning_rate']:g})"
            )
    if len(remarks) > 12:
        rest = len(remarks) - 12
        remarks = [*remarks[:12], f"and {rest} more diverged runs: see results.jsonl"]
    return remarks


def _close_calls(runs: Sequence[Line], objective: Objective, seed: int) -> list[str]:
    """Returns a remark on the blocks whose learning rate other seeds might change."""
    blocks: dict[str, dict[float, list[Line]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        rates = blocks.setdefault(run["block"], {})
        rates.setdefault(run["learning_rate"], []).append(run)
    shares = {}
    for block, rates in blocks.items():
        scores = np.stack(
            [_scores(rows, "valid", objective) for rows in rates.values()]
        )
        chosen = [rows[0]["chosen"] for rows in rates.values()].index(True)
        scores = scores if objective.higher_is_better else -scores
        shares[block] = float(_times_best(scores, seed)[chosen])
    close = [f"{block} ({share:.0%})" for block, share in shares.items() if share < 0.9]
    if not close:
        return []
    return [
        "validation hardly told the learning rates apart, and other seeds, or the "
        "rounding of another machine, may choose another; how often resampled seeds "
        f"choose the same: {', '.join(close)}"
    ]


def _times_best(scores: np.ndarray, seed: int) -> np.ndarray:
    """Returns how often each row of `[rates, seeds]` is best of resampled seeds."""
    draws = np.random.default_rng(seed).integers(
        scores.shape[1], size=(2000, scores.shape[1])
    )
    means = stats.iqm(scores[:, draws])  # [rates, resamples]
    return np.bincount(means.argmax(axis=0), minlength=len(scores)) / len(draws)
