"""Results of sweeps: a line for each run, and the ranking computed from the lines.

A line holds everything that a ranking needs, so that a table can be computed again from
the file of lines.
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
from ffnlab.train.record import Plan, Record
from ffnlab.types import Objective

Line = dict[str, Any]

# Columns for the facts of a block, by heading; a fact that lines lack has no column.
_FACTS = {
    "activation": "activation",
    "hidden": "hidden",
    "parameters": "parameters",
    "FLOPs": "flops",
}

# How a score is shown: its label, the factor it is multiplied by, its decimals.
UNITS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("test accuracy, %", 100.0, 2),
    "bits": ("test bits per byte", 1.0, 3),
    "loss": ("test squared error (variance = 1)", 1.0, 4),
}


class Ranking(NamedTuple):
    """The ranking of the blocks of a sweep.

    Attributes:
      comparisons: The blocks, the best first.
      table: The ranking as a table.
      verdict: The ranking in one sentence.
      remarks: Reasons to doubt it, a sentence each.
      baseline: The block that the others are tested against.
      score: The name of the score in the lines.
      unit: The label of the score in tables and pictures.
      scale: The factor that scores are multiplied by when shown.
      higher_is_better: Whether higher scores are better.
      essential: The columns that a narrow screen still shows.
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
    """Returns the members of the learning rate that is best on the validation part.

    That is the rate with the best interquartile mean over seeds of the best monitored
    score, and the first of equal ones. The score of a diverged run is infinitely bad.

    Args:
      population: From `sweep.fit_population`.
      plan: The plan it was trained by.

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
    """Returns a dict for each run of a population, ready for JSON.

    Args:
      facts: What all runs share: `block`, `activation`, `parameters`, `flops` and
        anything else.
      population: From `sweep.fit_population`.
      plan: The plan it was trained by.
      chosen: The members that were scored on the test part, int `[seeds]`.
      test: Their scores by name, `[seeds]`.
    """
    fit, row_of = population.fit, {int(m): row for row, m in enumerate(chosen)}
    shared = {
        **facts,
        "microseconds_per_step": 1e6 * fit.seconds_per_step / len(population.seeds),
        "compile_seconds": fit.compile_seconds,
    }
    rows = []
    for member in range(len(population.seeds)):
        diverged, best = fit.record.diverged[member], fit.record.best_step[member]
        evaluation, row = (int(best) - 1) // plan.every, row_of.get(member)
        scores = fit.record.scores.items()
        valid = {name: float(curve[member, evaluation]) for name, curve in scores}
        scored = diverged < 0 and best > 0
        rows.append(
            {
                **shared,
                "seed": int(population.seeds[member]),
                "learning_rate": float(f"{population.learning_rates[member]:.6g}"),
                "diverged_at": int(diverged) if diverged >= 0 else None,
                "best_step": int(best) if scored else None,
                "valid": valid if scored else None,
                "chosen": row is not None,
                "test": {name: float(values[row]) for name, values in test.items()}
                if row is not None and scored
                else None,
                "curve": _curve(fit.record, plan, member),
            }
        )
    return jsonable(rows)


def _curve(record: Record, plan: Plan, member: int) -> dict[str, list]:
    """Returns the mean training loss between evaluations, and all validation scores."""
    starts = range(0, plan.steps, plan.every)
    losses = [record.loss[member, s : s + plan.every].mean() for s in starts]
    scores = {name: curve[member].tolist() for name, curve in record.scores.items()}
    stops = [min(start + plan.every, plan.steps) for start in starts]
    return {"step": stops, "train_loss": [float(x) for x in losses], **scores}


def curves(runs: Sequence[Line], score: str) -> dict[str, np.ndarray]:
    """Returns the validation curves of the chosen runs.

    Args:
      runs: From `lines`.
      score: The name of a validation score.

    Returns:
      Block to scores, `[seeds, evaluations]`; NaN where a run has none.

    >>> line = {"block": "glu", "chosen": True, "curve": {"loss": [0.5, None]}}
    >>> curves([line], "loss")
    {'glu': array([[0.5, nan]])}
    """
    rows: dict[str, list] = {}
    for run in runs:
        if run["chosen"]:
            rows.setdefault(run["block"], []).append(run["curve"][score])
    arrays = {block: np.array(values, float) for block, values in rows.items()}
    return {k: np.where(np.isfinite(v), v, np.nan) for k, v in arrays.items()}


def rank(
    runs: Sequence[Line],
    baseline: str,
    objective: Objective,
    seed: int = 0,
    diagnostics: Sequence[str] = (),
) -> Ranking:
    """Ranks the blocks by the test scores of their chosen runs.

    Args:
      runs: From `lines`, of all blocks.
      baseline: The block that the others are tested against.
      objective: The objective, whose monitored score ranks.
      seed: The seed of the resampling.
      diagnostics: Validation scores that are shown as columns too.

    Raises:
      InputError: There is no such baseline, or blocks differ in their seeds.
    """
    chosen = _chosen_by_block(runs)
    unit, scale, _ = UNITS[objective.monitor]
    tests = {name: _scores(rows, "test", objective) for name, rows in chosen.items()}
    comparisons = stats.compare(
        tests, baseline, higher_is_better=objective.higher_is_better, seed=seed
    )
    rows = [
        _row(place, row, chosen[row.name], objective, diagnostics, seed)
        for place, row in enumerate(comparisons, 1)
    ]
    facts = [heading for heading, name in _FACTS.items() if name in runs[0]]
    tested = unit.split(",")[0].removesuffix(" (variance = 1)")
    compared = [tested, f"Δ {baseline}", "p (Holm)"]
    columns = ["", "block", *facts, "rate", "validation", *compared, "P(better)"]
    columns += [*diagnostics, "µs/step", "diverged"]
    return Ranking(
        comparisons=comparisons,
        table=Table(columns, rows, words=3 if "activation" in facts else 2),
        verdict=stats.verdict(comparisons),
        remarks=[*_remarks(runs), *_close_calls(runs, objective, seed)],
        baseline=baseline,
        score=objective.monitor,
        unit=unit,
        scale=scale,
        higher_is_better=objective.higher_is_better,
        essential=["", "block", "activation", *compared],
    )


def block_score(
    runs: Sequence[Line], block: str, objective: Objective, seed: int = 0
) -> tuple[float, stats.Interval]:
    """Returns the interquartile mean of a block's test scores, and its interval.

    Args:
      runs: From `lines`.
      block: The name of the block.
      objective: The objective, whose monitored score is used.
      seed: The seed of the resampling.
    """
    rows = [run for run in runs if run["block"] == block and run["chosen"]]
    scores = _scores(rows, "test", objective)
    return float(stats.iqm(scores)), stats.bootstrap_interval(scores, seed=seed)


def _chosen_by_block(runs: Sequence[Line]) -> dict[str, list[Line]]:
    """Returns the chosen runs of each block by seed; all blocks must have the same."""
    chosen: dict[str, list[Line]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        if run["chosen"]:
            chosen.setdefault(run["block"], []).append(run)
    seeds = {name: [run["seed"] for run in rows] for name, rows in chosen.items()}
    first = next(iter(seeds), None)
    for name, numbers in seeds.items():
        if numbers != seeds[first]:
            raise InputError(f"{name} has seeds {numbers}, {first} has {seeds[first]}")
    return chosen


def _scores(rows: Sequence[Line], part: str, objective: Objective) -> np.ndarray:
    """Returns the score of each run; that of a diverged run is infinitely bad."""
    worst = -np.inf if objective.higher_is_better else np.inf
    values = [run[part] and run[part][objective.monitor] for run in rows]
    return np.array([worst if value is None else value for value in values], np.float32)


def _row(
    place: int,
    comparison: stats.Comparison,
    runs: Sequence[Line],
    objective: Objective,
    diagnostics: Sequence[str],
    seed: int,
) -> list[str]:
    """Returns the cells of a block in the table."""
    first, show = runs[0], functools.partial(_format_score, objective)
    valid = _scores(runs, "valid", objective)
    steps = [r["diverged_at"] for r in runs if r["diverged_at"] is not None]
    diverged = f"{len(steps)}/{len(runs)} at step {min(steps)}" if steps else "0"
    paired = ["baseline", "", ""]
    if comparison.p_value is not None:
        paired = [
            show(comparison.difference, comparison.difference_interval, "+"),
            f"{comparison.p_corrected:.2g}",
            f"{comparison.improvement:.2f}",
        ]
    return [
        str(place),
        comparison.name.partition(":")[0],
        *(_format_fact(first, name) for name in _FACTS.values() if name in first),
        f"{first['learning_rate']:g}",
        show(float(stats.iqm(valid)), stats.bootstrap_interval(valid, seed=seed)),
        show(comparison.iqm, comparison.interval),
        *paired,
        *(_format_mean(runs, name) for name in diagnostics),
        _format_microseconds(first["microseconds_per_step"]),
        diverged,
    ]


def _format_fact(run: Line, name: str) -> str:
    """Returns a fact of a block, with what remains of the budget in brackets."""
    unmatched = f" ({run['unmatched']:+.1%})" if name == run["budget"] else ""
    fact = run[name] if name == "activation" else f"{run[name]:,}"
    return f"{fact}{unmatched}"


def _format_score(
    objective: Objective, middle: float | None, interval: Any, sign: str = ""
) -> str:
    """Returns a score and its interval as text; with a sign, a difference."""
    _, scale, digits = UNITS[objective.monitor]
    if middle is None or not np.isfinite(middle):
        return "diverged" if not sign else "undefined: a seed diverged"
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in interval)
    return f"{scale * middle:{sign}.{digits}f} [{low}, {high}]"


def _format_mean(runs: Sequence[Line], name: str) -> str:
    """Returns the mean of a validation score over runs as text; empty without any."""
    values = [(run["valid"] or {}).get(name) for run in runs]
    values = [value for value in values if value is not None]
    return f"{np.mean(values):.2g}" if values else ""


def _format_microseconds(value: float | None) -> str:
    """Returns a time as text; empty for runs that were only resumed at their end."""
    return "" if value is None else f"{value:.0f}"


def _remarks(runs: Sequence[Line]) -> list[str]:
    """Returns remarks on learning rates at the edge, and on diverged runs."""
    remarks = []
    rates = sorted({run["learning_rate"] for run in runs})
    for rate, word in ((rates[0], "smallest"), (rates[-1], "largest")):
        at_edge = [
            r["block"] for r in runs if r["chosen"] and r["learning_rate"] == rate
        ]
        if at_edge and len(rates) > 2:
            remarks.append(
                f"the {word} learning rate, {rate:g}, was best for "
                f"{', '.join(dict.fromkeys(at_edge))}: others beyond it may be better"
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
    """Returns a remark on blocks for which other seeds may choose another rate."""
    blocks: dict[str, dict[float, list[Line]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        rates = blocks.setdefault(run["block"], {})
        rates.setdefault(run["learning_rate"], []).append(run)
    frequencies = {}
    for block, rates in blocks.items():
        scores = np.stack(
            [_scores(rows, "valid", objective) for rows in rates.values()]
        )
        chosen = [rows[0]["chosen"] for rows in rates.values()].index(True)
        scores = scores if objective.higher_is_better else -scores
        frequencies[block] = float(_frequency_best(scores, seed)[chosen])
    close = [f"{block} ({f:.0%})" for block, f in frequencies.items() if f < 0.9]
    if not close:
        return []
    return [
        "the learning rates hardly differ on the validation part; other seeds, or the "
        "rounding of another machine, may choose another one; how often resampled "
        f"seeds choose the same: {', '.join(close)}"
    ]


def _frequency_best(scores: np.ndarray, seed: int) -> np.ndarray:
    """Returns how often each row of `[rates, seeds]` is best over resampled seeds."""
    draws = np.random.default_rng(seed).integers(
        scores.shape[1], size=(2000, scores.shape[1])
    )
    means = stats.iqm(scores[:, draws])  # [rates, resamples]
    return np.bincount(means.argmax(axis=0), minlength=len(scores)) / len(draws)
