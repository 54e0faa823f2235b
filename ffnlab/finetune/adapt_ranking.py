"""The ranking of methods of fine-tuning: a table, a verdict and pictures."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import fonts, io, stats
from ffnlab.escape import markdown, picture, terminal
from ffnlab.finetune import example_scores, model_card
from ffnlab.finetune.adapt_compare_config import AdaptCompareConfig
from ffnlab.finetune.task import Task
from ffnlab.report import plots, point_labels, verdict_plots, verdict_text
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffnlab.stats import Comparison

Line = dict[str, Any]

_TWO_WAY = """Standard errors
count the draw of the test examples too (Cameron, Gelbach and Miller 2011), F1 by its
linear part (Cochran 1977), so that the verdict is about texts of this kind; the score
of each run on each example is in examples/. All runs have the same training part."""
_ONE_WAY = """The verdict is
about these files: another test part may give another one."""

_NOTE = """Every method starts from the same checkpoint and trains the same number of
steps on the same files. A replicate has its own initial values of what is new and its
own order of the data. The learning rate of a method is the one with the best mean on
the dev part over {tuned} of the replicates, among {rates} times what is common for the
method and up to {further} further ones while the best was at an end; a rate marked
"(end)" is still at one. The best epoch of each run was chosen by the dev part. Methods
are compared in pairs of equal order, over {seeds} replicates. {errors} Scores are means
with Student's 95 % intervals, each for itself. Δ is the mean of the paired differences
from {baseline}. Its intervals hold for all methods together, and p is adjusted for
their number, by the distribution of the largest studentised difference under random
signs (Liu 1988; Westfall and Young 1993; Romano and Wolf 2005): an interval excludes
zero exactly when p is at most 0.05. A method is equivalent if its interval is within
±{margin:g} points. Trained parameters include those of the head. The time of a step is
that of one run; temporary memory is what a step needs beside parameters and state, as
the compiler reports it."""


def publish(
    config: AdaptCompareConfig, task: Task, directory: Path
) -> "tuple[list[Line], list[Comparison], Table, str]":
    """Prints and writes the results of a comparison of methods.

    Args:
      config: The configuration.
      task: The task.
      directory: The run directory, with results.jsonl.

    Returns:
      The lines, the comparisons, the table and the verdict.
    """
    lines = io.read_lines(directory / "results.jsonl")
    chosen = {name: _chosen(lines, name) for name in config.variants()}
    at_end = {name: is_at_end(lines, name) for name in chosen}
    scores = {name: [row["test"] for row in rows] for name, rows in chosen.items()}
    examples = example_scores.read(directory, chosen)
    compare = functools.partial(
        stats.compare,
        scores,
        config.reference,
        True,
        margin=config.margin / 100,
        seed=config.seed,
    )
    comparisons = compare(examples=examples)
    verdict = verdict_text.verdict(comparisons, _points, config.margin / 100)
    table = _table(config, task, comparisons, chosen, at_end)
    print(f"\n{terminal(verdict)}\n")
    title = f"{task.monitor} of the {task.last_part} part, %"
    essential = ["", "method", "share", title, f"Δ {config.reference}", "verdict"]
    table.show(f"{title}; means with 95 % intervals", essential=essential)
    figures = {
        "differences.png": verdict_plots.forest(
            comparisons, title, 100.0, config.margin / 100
        ),
        "parameters.png": draw_parameters(comparisons, chosen, config.reference, title),
    }
    for name, figure in figures.items():
        plots.save(figure, directory / name)
    fixed = "" if examples is None else _on_these_texts(config, compare())
    io.write(directory / "report.md", _report(config, task, verdict, table, fixed))
    names = ["report.md", *figures, "results.jsonl"]
    print(f"\n{terminal(f'written to {directory}: ' + ', '.join(names))}")
    return lines, comparisons, table, verdict


def _on_these_texts(
    config: AdaptCompareConfig, comparisons: "Sequence[Comparison]"
) -> str:
    """Returns the part of a report about the texts that were scored, and no others."""
    verdict = verdict_text.verdict(comparisons, _points, config.margin / 100)
    rows = [[row.name, *_paired(row)] for row in comparisons if row.verdict]
    columns = ["method", f"Δ {config.reference}", "p", "verdict"]
    return f"""
## On these texts alone

Where the test texts are not drawn from others, intervals are narrower.
{markdown(verdict)}

{Table(columns, rows, words=1).markdown()}
"""


def _points(difference: float) -> str:
    return f"{100 * difference:.2f} points"


def _chosen(lines: Sequence[Line], name: str) -> list[Line]:
    """Returns the runs of a method at its learning rate, by seed."""
    own = [line for line in lines if line["method"] == name]
    rate = best_rate(own)
    rows = [line for line in own if line["learning_rate"] == rate]
    return sorted(rows, key=lambda line: line["seed"])


def _table(
    config: AdaptCompareConfig,
    task: Task,
    comparisons: "Sequence[Comparison]",
    chosen: dict[str, list[Line]],
    at_end: dict[str, bool],
) -> Table:
    """Returns a row for each method, the best first."""
    columns = [
        "", "method", "trained", "share", "rate", "dev, %",
        f"{task.monitor} of the {task.last_part} part, %", f"Δ {config.reference}", "p",
        "verdict", "ms/step", "temporary MB", "adapter MB",
    ]  # fmt: skip
    rows = [
        _row(place, each, chosen[each.name], at_end[each.name])
        for place, each in enumerate(comparisons, start=1)
    ]
    return Table(columns, rows, words=2)


def _row(
    place: int, row: "Comparison", lines: Sequence[Line], at_end: bool
) -> list[str]:
    """Returns the cells of a method."""
    first = lines[0]
    paired = _paired(row) if row.verdict else ["baseline", "", ""]
    dev = 100 * np.mean([line["dev"] for line in lines])
    times = [line["seconds_per_step"] for line in lines if line["seconds_per_step"]]
    temporary = [line["temporary_bytes"] for line in lines if line["temporary_bytes"]]
    return [
        str(place),
        row.name,
        f"{first['trained']:,}",
        f"{first['share']:.2%}",
        f"{first['learning_rate']:g}" + " (end)" * at_end,
        f"{dev:.2f}",
        _interval(row.score, row.interval),
        *paired,
        f"{1000 * np.median(times):.0f}" if times else "",
        f"{max(temporary) / 1e6:.0f}" if temporary else "",
        f"{first['bytes'] / 1e6:.2f}",
    ]


def _paired(row: "Comparison") -> list[str]:
    """Returns the cells of the difference of a method from the baseline."""
    p_value = "" if row.p_value is None else f"{row.p_value:.2g}"
    return [
        _interval(row.difference, row.difference_interval, "+"),
        p_value,
        row.verdict,
    ]


def _interval(middle: float, interval: stats.Interval | None, sign: str = "") -> str:
    """Returns a score with its interval within its range as text, in per cent."""
    text = f"{100 * middle:{sign}.2f}"
    if interval is None:
        return text
    ends = interval.clip(-1.0 if sign else 0.0, 1.0)
    low, high = (f"{100 * end:{sign}.2f}" for end in ends)
    return f"{text} [{low}, {high}]"


def draw_parameters(
    comparisons: "Sequence[Comparison]",
    chosen: dict[str, list[Line]],
    baseline: str,
    label: str,
) -> "Figure":
    """Draws the score of each method against its trained parameters.

    Args:
      comparisons: From `stats.compare`.
      chosen: The runs of each method.
      baseline: The method whose interval is drawn as a band.
      label: The label of the score.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    points = []
    for row in sorted(comparisons, key=lambda each: each.score):
        trained, score = chosen[row.name][0]["trained"], 100 * row.score
        color, marker = verdict_plots.STYLES.get(row.verdict, ("black", "D"))
        low, high = row.interval.clip(0.0, 1.0) if row.interval else (row.score,) * 2
        if row.name == baseline:
            axes.axhspan(100 * low, 100 * high, color="0.9", zorder=0)
        ends = [[score - 100 * low], [100 * high - score]]
        axes.errorbar(trained, score, ends, color=color, marker=marker, capsize=3)
        points.append((trained, score, picture(row.name)))
    axes.set(xscale="log", xlabel="trained parameters", ylabel=picture(label, 60))
    axes.set_xlim(right=axes.get_xlim()[1] * 2.5)
    axes.grid(alpha=0.3)
    title = f"means with Student's 95 % intervals; the band is {picture(baseline)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    point_labels.write(axes, points)
    return fonts.complete(figure)


def _report(
    config: AdaptCompareConfig, task: Task, verdict: str, table: Table, fixed: str
) -> str:
    """Returns report.md; `fixed` is its part about the texts that were scored."""
    name = markdown(model_card.checkpoint_name(config))
    file = markdown(Path(config.train).name)
    summary = "".join(f"- {markdown(line)}\n" for line in task.summary.splitlines())
    note = _NOTE.format(
        rates=", ".join(f"{factor:.3g}" for factor in config.rate_factors),
        further=config.extend_rates,
        tuned=min(config.tuning_seeds, config.seeds),
        seeds=config.seeds,
        baseline=markdown(config.reference),
        margin=config.margin,
        errors=_TWO_WAY if fixed else _ONE_WAY,
    )
    return f"""# Which method of fine-tuning {name} on {file}?

{markdown(verdict)}

{table.markdown()}

![differences from {markdown(config.reference)}](differences.png)
![score against trained parameters](parameters.png)
{fixed}
{summary}
## How the numbers were computed

{note}

## How to repeat it

Pass the file `flags` of this directory to the launcher as `--flagfile`. The versions of
the software are in versions.json, and all runs in results.jsonl.
"""


def is_at_end(lines: Sequence[Line], name: str) -> bool:
    """Returns whether the best rate of a method is the smallest or largest of several.

    >>> tried = [{"method": "full", "seed": 0, "learning_rate": r} for r in (1, 2, 3)]
    >>> scores = zip(tried, (0.5, 0.7, 0.6))
    >>> is_at_end([{**line, "dev": score} for line, score in scores], "full")
    False
    """
    own = [line for line in lines if line["method"] == name]
    rates = {line["learning_rate"] for line in own}
    return len(rates) > 1 and best_rate(own) in (min(rates), max(rates))


def best_rate(lines: Sequence[Line]) -> float:
    """Returns the learning rate with the best mean on the dev part.

    The mean is over the seeds that tried all learning rates.

    >>> one = {"seed": 0, "learning_rate": 0.1, "dev": 0.5}
    >>> best_rate([one, {**one, "learning_rate": 0.3, "dev": 0.6}])
    0.3
    """
    rates = dict.fromkeys(line["learning_rate"] for line in lines)
    scores = {(line["seed"], line["learning_rate"]): line["dev"] for line in lines}
    seeds = {line["seed"] for line in lines}
    tuned = [seed for seed in seeds if all((seed, rate) in scores for rate in rates)]
    means = {rate: np.mean([scores[seed, rate] for seed in tuned]) for rate in rates}
    return max(means, key=lambda rate: means[rate])
