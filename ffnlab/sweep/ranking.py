"""The ranking of the blocks of a sweep, computed from the lines of its runs."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ffnlab import stats
from ffnlab.errors import InputError, choose
from ffnlab.report import verdict_text
from ffnlab.report.table import Table
from ffnlab.sweep import trivial, units
from ffnlab.sweep.result_lines import Line
from ffnlab.types import Objective

# Columns for the facts of a block, by heading; one that any line lacks has no column.
_FACTS = {
    "activation": "activation",
    "hidden": "hidden",
    "variance": "initial_variance",
    "parameters": "parameters",
    "FLOPs": "flops",
    "XLA FLOPs": "xla_flops",
    "time, µs": "time",
}


class Ranking(NamedTuple):
    """The ranking of the blocks of a sweep.

    Attributes:
      comparisons: The blocks, the best first.
      table: The ranking as a table.
      verdict: The ranking in two sentences.
      remarks: Reasons to doubt it, a sentence each.
      baseline: The block that the others are tested against.
      score: The name of the score in the lines.
      unit: The label of the score in tables and pictures.
      scale: The factor that scores are multiplied by when shown.
      higher_is_better: Whether higher scores are better.
      margin: The difference that does not matter, in the units of the lines.
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
    margin: float
    essential: list[str]


def rank(
    runs: Sequence[Line],
    baseline: str,
    objective: Objective,
    seed: int = 0,
    diagnostics: Sequence[str] = (),
    margin: float | None = None,
    test_ratio: float | None = None,
    examples: Mapping[str, np.ndarray] | None = None,
    stages: Sequence[int] | None = None,
) -> Ranking:
    """Ranks the blocks by the mean test score of their chosen runs.

    Args:
      runs: From `lines`, of all blocks.
      baseline: The block that the others are compared with.
      objective: The objective, whose monitored score ranks.
      seed: The seed of random signs.
      diagnostics: Validation scores that are shown as columns too.
      margin: The largest difference that does not matter, in the unit of the table.
        None is 0.5 points of accuracy, 0.01 bits, or 1 % of the baseline's loss.
      test_ratio: See `stats.compare`, as for the examples and the stages. With stages,
        the baseline's loss is that of the first one.
      examples: See `stats.compare`.
      stages: See `stats.compare`.

    Raises:
      InputError: There is no such baseline, or blocks differ in their seeds without
        stages.
    """
    choose("baseline", baseline, {run["block"] for run in runs})
    chosen = _chosen_by_block(runs, stages is not None)
    unit, scale, _ = units.UNITS[objective.monitor]
    tests = {name: _scores(rows, "test", objective) for name, rows in chosen.items()}
    if margin is None:
        first = float(tests[baseline][: stages[0] if stages else None].mean())
        margin = units.default_margin(objective, first)
    options = {"test_ratio": test_ratio, "examples": examples, "stages": stages}
    options |= {"margin": margin / scale, "seed": seed}
    higher = objective.higher_is_better
    comparisons = stats.compare(tests, baseline, higher, **options)
    compared, new = [_tested(unit), f"Δ {baseline}", "p"], test_ratio is not None
    names, edge = _facts(runs), _at_the_edge(runs)
    cells = _Cells(objective, [*names.values()], diagnostics, edge, new, bool(stages))
    weak = trivial.remarks(chosen, tests, objective)
    show = functools.partial(units.format_difference, objective)
    return Ranking(
        comparisons=comparisons,
        table=_table(comparisons, chosen, list(names), compared, cells),
        verdict=_verdict(comparisons, chosen, show, margin / scale),
        remarks=[*weak, *_stopped(comparisons), *_remarks(runs, cells.untuned)],
        baseline=baseline,
        score=objective.monitor,
        unit=unit,
        scale=scale,
        higher_is_better=higher,
        margin=margin / scale,
        essential=["", "block", "activation", "rate", *compared, "verdict"],
    )


def _facts(runs: Sequence[Line]) -> dict[str, str]:
    """Returns the columns of facts that all blocks have, with their fields."""
    of_blocks = [run for run in runs if "hidden" in run] or runs  # some are models
    return {head: name for head, name in _FACTS.items() if _all(name, of_blocks)}


def _tested(unit: str) -> str:
    """Returns the heading of the test scores."""
    return unit.split(",")[0].removesuffix(" (variance = 1)")


def _table(
    comparisons: Sequence[stats.Comparison],
    chosen: Mapping[str, Sequence[Line]],
    facts: Sequence[str],
    compared: Sequence[str],
    cells: "_Cells",
) -> Table:
    """Returns a row for each block, the best first."""
    rows = [
        _row(place, row, chosen[row.name], cells)
        for place, row in enumerate(comparisons, 1)
    ]
    words = 3 if "activation" in facts else 2
    return Table(_columns(facts, compared, cells), rows, words=words)


def _columns(
    facts: Sequence[str], compared: Sequence[str], cells: "_Cells"
) -> list[str]:
    """Returns the headings of the table."""
    new = ["p, new"] if cells.new_data else []
    counts = ["replicates"] if cells.stages else []
    columns = ["", "block", *facts, *counts, "rate", "validation", *compared, *new]
    return [
        *columns, "P(better)", "verdict", *cells.diagnostics, "µs/step", "diverged"
    ]  # fmt: skip


def _all(name: str, runs: Sequence[Line]) -> bool:
    return all(name in run for run in runs)


def _verdict(
    comparisons: Sequence[stats.Comparison],
    chosen: Mapping[str, Sequence[Line]],
    show: Callable[[float], str],
    margin: float,
) -> str:
    """Returns the verdict, or that there is none since every run diverged."""
    runs = [run for rows in chosen.values() for run in rows]
    if all(run["diverged_at"] is not None for run in runs):
        return "Every run diverged, so there is no ranking; try lower learning rates."
    return verdict_text.verdict(comparisons, show, margin)


def block_score(
    runs: Sequence[Line], block: str, objective: Objective
) -> tuple[float, stats.Interval]:
    """Returns the mean of a block's test scores, and its interval within their range.

    Args:
      runs: From `lines`.
      block: The name of the block.
      objective: The objective, whose monitored score is used.
    """
    rows = [run for run in runs if run["block"] == block and run["chosen"]]
    scores = _scores(rows, "test", objective)
    mean = float(scores.mean())
    interval = stats.mean_interval(scores) or stats.Interval(mean, mean)
    return mean, interval.clip(*units.RANGES[objective.monitor])


def _chosen_by_block(
    runs: Sequence[Line], prefixes: bool = False
) -> dict[str, list[Line]]:
    """Returns the chosen runs of each block by seed.

    All blocks must have the same seeds; with `prefixes`, the first ones of the longest.
    """
    chosen: dict[str, list[Line]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        if run["chosen"]:
            chosen.setdefault(run["block"], []).append(run)
    seeds = {name: [run["seed"] for run in rows] for name, rows in chosen.items()}
    first = max(seeds, key=lambda name: len(seeds[name]), default=None)
    for name, numbers in seeds.items():
        if numbers != seeds[first][: len(numbers) if prefixes else None]:
            raise InputError(f"{name} has seeds {numbers}, {first} has {seeds[first]}")
    return chosen


def _scores(rows: Sequence[Line], part: str, objective: Objective) -> np.ndarray:
    """Returns the score of each run; that of a diverged run is the trivial one."""
    values = [run[part] and run[part][objective.monitor] for run in rows]
    finite = [value for value in values if value is not None]
    worst = (min if objective.higher_is_better else max)(finite, default=0.0)
    return np.array(
        [
            run.get("trivial", worst) if value is None else value
            for run, value in zip(rows, values, strict=True)
        ]
    )


class _Cells(NamedTuple):
    """What all rows of the table show: see `rank`."""

    objective: Objective
    facts: list[str]
    diagnostics: Sequence[str]
    untuned: Mapping[str, str]
    new_data: bool
    stages: bool


def _row(
    place: int, comparison: stats.Comparison, runs: Sequence[Line], cells: _Cells
) -> list[str]:
    """Returns the cells of a block in the table."""
    first, show = runs[0], functools.partial(units.format_score, cells.objective)
    valid = _scores(runs, "valid", cells.objective)
    steps = [r["diverged_at"] for r in runs if r["diverged_at"] is not None]
    diverged = f"{len(steps)}/{len(runs)} at step {min(steps)}" if steps else "0"
    new = [_format_p(comparison.p_new_data)] if cells.new_data else []
    paired = ["baseline", "", *("" for _ in new), "", ""]
    if comparison.verdict is not None:
        marked = " (untuned)" if comparison.name in cells.untuned else ""
        claim = comparison.verdict in ("better", "worse")
        paired = [
            show(comparison.difference, comparison.difference_interval, "+"),
            _format_p(comparison.p_value),
            *new,
            f"{comparison.improvement:.2f}",
            comparison.verdict + (marked if claim else ""),
        ]
    return [
        str(place),
        _format_name(comparison.name, first, cells),
        *(_format_fact(first, name) for name in cells.facts),
        *([str(comparison.replicates)] if cells.stages else []),
        _format_rates(runs),
        show(float(valid.mean()), None),
        show(comparison.score, comparison.interval),
        *paired,
        *(_format_mean(runs, name) for name in cells.diagnostics),
        _format_microseconds(first["microseconds_per_step"]),
        diverged,
    ]


def _format_name(name: str, run: Line, cells: _Cells) -> str:
    """Returns the name of a block, without the activation if it has a column."""
    activation = run.get("activation") if "activation" in cells.facts else None
    return name.removesuffix(f":{activation}")


def _format_p(value: float | None) -> str:
    """Returns a p-value with two digits; empty without one."""
    return "" if value is None else f"{value:.2g}"


def _format_rates(runs: Sequence[Line]) -> str:
    """Returns the learning rate that most runs chose, with their number if not all.

    It is `own` for an optimizer that has a rate of its own.
    """
    if any(run["learning_rate"] is None for run in runs):
        return "own"
    counts = Counter(run["learning_rate"] for run in runs)
    rate, count = max(counts.items(), key=lambda item: (item[1], -item[0]))
    return f"{rate:g}" if count == len(runs) else f"{rate:g} ({count}/{len(runs)})"


def _format_fact(run: Line, name: str) -> str:
    """Returns a fact of a block, with what remains of the budget in brackets.

    It is empty for a model that has no such fact.
    """
    unmatched = f" ({run['unmatched']:+.1%})" if name == run.get("budget") else ""
    if name == "activation" or name not in run:
        return run.get(name, "")
    form = {"initial_variance": ".2g", "time": ",.0f"}.get(name, ",")
    return f"{run[name]:{form}}{unmatched}"


def _format_mean(runs: Sequence[Line], name: str) -> str:
    """Returns the mean of a validation score over runs as text; empty without any."""
    values = [(run["valid"] or {}).get(name) for run in runs]
    values = [value for value in values if value is not None]
    return f"{np.mean(values):.2g}" if values else ""


def _format_microseconds(value: float | None) -> str:
    """Returns a time as text; empty for runs that were only resumed at their end."""
    return "" if value is None else f"{value:.0f}"


def _at_the_edge(runs: Sequence[Line]) -> dict[str, str]:
    """Returns the blocks of which most runs chose the least or the greatest rate.

    Returns:
      Block to the word for the edge, `smallest` or `largest`.
    """
    tried: dict[tuple[str, int], set[float]] = {}
    for run in runs:
        tried.setdefault((run["block"], run["seed"]), set()).add(run["learning_rate"])
    untuned = {}
    for block, rows in _chosen_by_block(runs, prefixes=True).items():
        for word, edge in (("smallest", min), ("largest", max)):
            places = [
                len(rates) > 2 and run["learning_rate"] == edge(rates)
                for run in rows
                for rates in [tried[block, run["seed"]]]
            ]
            if 2 * sum(places) > len(rows):
                untuned[block] = word
    return untuned


def _stopped(comparisons: Sequence[stats.Comparison]) -> list[str]:
    """Returns a remark on the blocks that later stages would hardly have decided."""
    most = max(row.replicates for row in comparisons)
    counts: dict[int, list[str]] = {}
    for row in comparisons:
        if row.verdict == "undecided" and row.replicates < most:
            counts.setdefault(row.replicates, []).append(row.name)
    return [
        f"after {count} replicates, {', '.join(counts[count])} got no more, since the "
        "last stage would decide with a probability below 0.1"
        for count in sorted(counts)
    ]


def _remarks(runs: Sequence[Line], untuned: Mapping[str, str]) -> list[str]:
    """Returns remarks on learning rates at the edge, and on diverged runs."""
    remarks = []
    for what in dict.fromkeys(untuned.values()):
        blocks = ", ".join(block for block, edge in untuned.items() if edge == what)
        remarks.append(
            f"the {what} learning rate that was tried was best in most runs of "
            f"{blocks}: claims about them are marked untuned, since a rate beyond it "
            "may be better"
        )
    diverged = [run for run in runs if run["diverged_at"] is not None]
    if any(run["chosen"] for run in diverged):
        remarks.append("runs that diverged have the score of a trivial predictor")
    remarks += [
        f"{run['block']} diverged at step {run['diverged_at']} "
        f"(seed {run['seed']}, learning rate {_format_rates([run])})"
        for run in diverged
    ]
    if len(remarks) > 12:
        rest = len(remarks) - 12
        remarks = [*remarks[:12], f"and {rest} more diverged runs: see results.jsonl"]
    return remarks
