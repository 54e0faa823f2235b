"""The lines of results.jsonl: one for each run of a population, ready for JSON.

A line holds everything that a ranking needs, so that a table can be computed again from
the file of lines.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffnlab.io import jsonable
from ffnlab.sweep.population import Population
from ffnlab.train.record import Plan, Record

Line = dict[str, Any]

# What every line has.
NAMES = (
    "block", "seed", "learning_rate", "diverged_at", "valid", "chosen", "test", "curve",
)  # fmt: skip


def choose_members(
    population: Population, plan: Plan, shared_rate: bool = False
) -> np.ndarray:
    """Returns for each seed the member whose learning rate is best on validation.

    Args:
      population: From `sweep.fit_population`.
      plan: The plan it was trained by.
      shared_rate: Whether all seeds get the same rate, the one with the best
        interquartile mean of scores, and not each its own. All seeds must have the
        same rates.

    Returns:
      Their indices, int `[seeds]`, in the order of the seeds. Of equal scores one that
      is neither at the smallest nor at the largest rate is chosen if there is one, then
      the one of the lowest loss; a diverged run is worse than any other.
    """
    record, rates = population.fit.record, population.learning_rates
    losses = _losses(record, plan)
    scores = record.best if plan.higher_is_better else -record.best
    scores = np.where(record.diverged >= 0, -np.inf, scores)
    seeds = list(dict.fromkeys(population.seeds.tolist()))
    if shared_rate:
        means = _interquartile_mean(scores.reshape(-1, len(seeds)))  # [rates]
        return means.argmax() * len(seeds) + np.arange(len(seeds))
    chosen = []
    for seed in seeds:
        own = np.flatnonzero(population.seeds == seed)
        best = own[scores[own] == scores[own].max()]
        edges = rates[own].min(), rates[own].max()
        inside = best[~np.isin(rates[best], edges)]
        equal = inside if len(inside) else best
        chosen.append(equal[np.argmin(losses[equal])])
    return np.array(chosen)


def _losses(record: Record, plan: Plan) -> np.ndarray:
    """Returns the validation loss of each member at its best step, 0 without one."""
    curves = record.scores.get("loss")
    if curves is None:
        return np.zeros(len(record.best))
    curves = np.where(_after_divergence(record, plan), np.nan, curves)
    evaluation = np.maximum(record.best_step - 1, 0) // plan.every
    return np.take_along_axis(curves, evaluation[:, None], axis=1)[:, 0]


def _after_divergence(record: Record, plan: Plan) -> np.ndarray:
    """Returns whether a member had diverged by an evaluation, `[S, evaluations]`.

    What is evaluated then depends on the other members: on how long they go on, and on
    whether all of them are lost.
    """
    stops = np.minimum(np.arange(0, plan.steps, plan.every) + plan.every, plan.steps)
    diverged, best = record.diverged[:, None], record.best_step[:, None]
    return (diverged >= 0) & (stops >= diverged) & (stops > best)


def _interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of the scores of each row."""
    from scipy.stats import trim_mean

    with np.errstate(invalid="ignore"):
        return np.nan_to_num(trim_mean(scores, 0.25, axis=1), nan=-np.inf)


def lines(
    facts: Mapping[str, Any],
    population: Population,
    plan: Plan,
    chosen: np.ndarray,
    test: Mapping[str, np.ndarray],
    trivial: Sequence[float] = (),
) -> list[Line]:
    """Returns a dict for each run of a population, ready for JSON.

    Args:
      facts: What all runs share: `block`, `activation`, `parameters`, `flops` and
        anything else.
      population: From `sweep.fit_population`.
      plan: The plan it was trained by.
      chosen: The members that were scored on the test part, int `[seeds]`.
      test: Their scores by name, `[seeds]`.
      trivial: The test score of a trivial predictor on the split of each replicate,
        whose numbers are then the seeds, or on the one that all share; it is the score
        of a run that diverges.
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
                "tried": int((population.seeds == population.seeds[member]).sum()),
                "learning_rate": float(f"{population.learning_rates[member]:.6g}"),
                "diverged_at": int(diverged) if diverged >= 0 else None,
                "best_step": int(best) if scored else None,
                "valid": valid if scored else None,
                "chosen": row is not None,
                "test": {name: float(values[row]) for name, values in test.items()}
                if row is not None and scored
                else None,
                "curve": _curve(fit.record, plan, member),
                **_trivial(trivial, int(population.seeds[member])),
            }
        )
    return jsonable(rows)


def is_complete(runs: Sequence[Line], seeds: Sequence[int]) -> bool:
    """Returns whether lines of a model hold all runs of some seeds.

    Args:
      runs: Lines of the model.
      seeds: The seeds.

    >>> line = {"seed": 0, "learning_rate": 0.1, "chosen": True, "tried": 2}
    >>> is_complete([line], [0])
    False
    >>> is_complete([line, {**line, "learning_rate": 0.3, "chosen": False}], [0])
    True
    """
    for seed in seeds:
        own = [run for run in runs if run["seed"] == seed]
        rates = {run["learning_rate"] for run in own}
        tried = {run.get("tried", len(own)) for run in own}  # new in a later version
        if sum(run["chosen"] for run in own) != 1 or tried != {len(rates)}:
            return False
    return True


def _trivial(scores: Sequence[float], replicate: int) -> dict[str, float]:
    if not scores:
        return {}
    return {"trivial": scores[replicate if len(scores) > 1 else 0]}


def _curve(record: Record, plan: Plan, member: int) -> dict[str, list]:
    """Returns the mean training loss between evaluations, and all validation scores."""
    starts, after = range(0, plan.steps, plan.every), _after_divergence(record, plan)
    loss = np.ascontiguousarray(record.loss[member])  # strided sums round otherwise
    losses = [loss[s : s + plan.every].mean() for s in starts]
    losses = np.where(after[member], np.nan, losses)
    scores = {
        name: np.where(after[member], np.nan, curve[member]).tolist()
        for name, curve in record.scores.items()
    }
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


def rate_scores(
    runs: Sequence[Line], score: str
) -> tuple[dict[str, dict[float, np.ndarray]], dict[str, dict[float, int]]]:
    """Returns the validation scores at each learning rate, and how often it was chosen.

    Args:
      runs: From `lines`.
      score: The name of a validation score.

    Returns:
      Block to rate to scores, `[seeds]`, NaN where a run diverged; and block to rate to
      the number of runs that chose it.
    """
    scores: dict[str, dict[float, list]] = {}
    chosen: dict[str, dict[float, int]] = {}
    for run in runs:
        block, rate = run["block"], run["learning_rate"]
        value = (run["valid"] or {}).get(score)
        rates = scores.setdefault(block, {})
        rates.setdefault(rate, []).append(np.nan if value is None else value)
        counts = chosen.setdefault(block, {})
        counts[rate] = counts.get(rate, 0) + bool(run["chosen"])
    arrays = {
        block: {rate: np.array(values, float) for rate, values in rates.items()}
        for block, rates in scores.items()
    }
    return arrays, chosen
