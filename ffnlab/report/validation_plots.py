"""Pictures of validation scores: by learning rate, and over training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffnlab import fonts
from ffnlab.escape import picture

if TYPE_CHECKING:
    from cycler import Cycler
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 7.0  # inches, so that 9 points are 12 pixels in a page of 700 pixels
_COLORS = (  # of blocks, dark enough for text; by Paul Tol, "Colour schemes"
    "#0077BB", "#CC3311", "#009988", "#AA4499", "#997700",
    "#7755CC", "#EE7733", "#117733", "#882255", "#6699CC",
)  # fmt: skip


def rates(
    scores: Mapping[str, Mapping[float, np.ndarray]],
    chosen: Mapping[str, Mapping[float, int]],
    label: str,
    scale: float = 1.0,
    higher_is_better: bool = True,
) -> "Figure":
    """Draws the validation score of each block against the learning rate.

    The line is the mean over replicates, and the band their middle half. It is dashed,
    without a band, to rates that were tried by some replicates alone: these are others
    than all, such as those that did best at the next rate. The larger a circle, the
    more replicates chose the rate, and their number is in it. Scores far worse than
    those of the chosen rates lie beyond the edge.

    Args:
      scores: Block to rate to scores, `[replicates]`; NaN for a run without a score.
      chosen: Block to rate to the number of replicates that chose it, 0 if not given.
      label: The label of the score, with its unit.
      scale: The factor of the scores, 100 for per cent.
      higher_is_better: Whether the best scores are on top.

    >>> by_rate = {0.01: np.array([0.7, 0.8]), 0.1: np.array([0.9, 0.8])}
    >>> figure = rates({"mlp": by_rate}, {"mlp": {0.1: 2}}, "accuracy")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['2']
    """
    from matplotlib.figure import Figure

    columns = max(min(4, len(scores)), 1)
    lines = max(math.ceil(len(scores) / columns), 1)
    height = 0.9 + (1.5 if columns > 2 else 2.2) * lines
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = dict(zip(scores, grid.flat, strict=False))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    summaries = {name: _summarize(scale, by_rate) for name, by_rate in scores.items()}
    for place, (name, axes) in enumerate(panels.items()):
        by_all = _tried_by_all(scores[name])
        _draw_rates(axes, summaries[name], chosen.get(name, {}), by_all)
        axes.set_title(picture(name, 88 // columns), fontsize=9)
        axes.tick_params(labelsize=8, labelbottom=place >= len(panels) - columns)
        axes.spines[["right", "top"]].set_visible(False)
        axes.grid(alpha=0.3)
    ticks = sorted({rate for by_rate in scores.values() for rate in by_rate})
    _set_rates(grid[0, 0], ticks, most=3 if columns > 2 else 7)
    _set_score_range(grid[0, 0], summaries, chosen, higher_is_better)
    figure.supxlabel("learning rate", fontsize=9)
    text = "line: mean, band: middle half, circle: replicates that chose the rate"
    if any(len(_tried_by_all(each)) < len(each) for each in scores.values()):
        text += ", dashed: not tried by all"
    figure.suptitle(f"{picture(label, 60)}\n{text}", x=0.01, ha="left", fontsize=9)
    return fonts.complete(figure)


def _summarize(
    scale: float, by_rate: Mapping[float, np.ndarray]
) -> dict[float, tuple[float, float, float]]:
    """Returns lower quartile, mean and upper quartile of the rates with a score."""
    finite = {
        rate: scale * np.asarray(row)[np.isfinite(row)]
        for rate, row in sorted(by_rate.items())
    }
    return {
        rate: (np.quantile(row, 0.25), row.mean(), np.quantile(row, 0.75))
        for rate, row in finite.items()
        if row.size
    }


def _tried_by_all(by_rate: Mapping[float, np.ndarray]) -> list[float]:
    """Returns the rates that as many replicates tried as any."""
    most = max(map(len, by_rate.values()), default=0)
    return [rate for rate, row in by_rate.items() if len(row) == most]


def _draw_rates(
    axes: "Axes",
    summary: Mapping[float, tuple[float, float, float]],
    counts: Mapping[float, int],
    by_all: Sequence[float],
) -> None:
    """Draws the scores of a block by rate; `by_all` are those that all tried."""
    if not summary:
        return
    rates, total = list(summary), max(sum(counts.values()), 1)
    low, means, high = np.array(list(summary.values())).T
    solid = np.isin(rates, [*by_all])
    axes.plot(np.array(rates)[solid], means[solid], color=_COLORS[0], linewidth=1.2)
    if not solid.all():
        axes.plot(rates, means, color=_COLORS[0], linewidth=0.8, linestyle="--")
    band = {"color": _COLORS[0], "alpha": 0.2, "linewidth": 0}
    axes.fill_between(np.array(rates)[solid], low[solid], high[solid], **band)
    if len(rates) == 1:
        axes.vlines(rates, low, high, color=_COLORS[0], alpha=0.4, linewidth=3)
    for rate, mean in zip(rates, means, strict=True):
        count = counts.get(rate, 0)
        area = 60 + 240 * count / total if count else 10  # square points
        axes.scatter(rate, mean, area, color=_COLORS[0], linewidth=0, zorder=3)
        if count:
            style = {"color": "white", "fontsize": 7, "ha": "center", "zorder": 4}
            axes.text(rate, mean, str(count), va="center_baseline", **style)


def _set_rates(axes: "Axes", rates: Sequence[float], most: int) -> None:
    """Sets a logarithmic axis with ticks at some of the rates."""
    axes.set_xscale("log")
    ticks = rates[:: max(math.ceil(len(rates) / most), 1)]
    axes.set_xticks(ticks, [f"{rate:.2g}" for rate in ticks])
    axes.minorticks_off()
    if rates:
        axes.set_xlim(rates[0] / 1.8, rates[-1] * 1.8)


def _set_score_range(
    axes: "Axes",
    summaries: Mapping[str, Mapping[float, tuple[float, float, float]]],
    chosen: Mapping[str, Mapping[float, int]],
    higher_is_better: bool,
) -> None:
    """Sets a range for the better half of all scores, and for those of chosen rates.

    The latter have twice as much space again on the worse side.
    """
    rows = [row for summary in summaries.values() for row in summary.values()]
    kept = [
        row
        for name, summary in summaries.items()
        for rate, row in summary.items()
        if chosen.get(name, {}).get(rate, 0)
    ]
    if not rows:
        return
    lows, _, highs = np.array(rows).T
    bottom, top = np.min(kept or rows), np.max(kept or rows)
    low, high, reach = lows.min(), highs.max(), 2 * (top - bottom)
    if higher_is_better:
        low = max(low, min(bottom - reach, np.median(lows)))
    else:
        high = min(high, max(top + reach, np.median(highs)))
    space = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - space, high + space)


def curves(
    steps: Sequence[int],
    scores: Mapping[str, np.ndarray],
    baseline: str,
    label: str,
    scale: float = 1.0,
    higher_is_better: bool = True,
    names: Mapping[str, str] | None = None,
) -> "Figure":
    """Draws the validation score over training, as the median replicate of each block.

    The band is the middle half of replicates. The name is at the end of the line.

    Args:
      steps: The steps of the evaluations.
      scores: Block to scores, `[replicates, evaluations]`; NaN where a run has none.
        Blocks without a score at some evaluation are left out.
      baseline: The block drawn in black.
      label: The label of the score, with its unit.
      scale: The factor of the scores, 100 for per cent.
      higher_is_better: Whether the block with the highest last score is drawn first.
      names: Block to the text at the end of its line, where that is not its name.

    >>> figure = curves([10, 20], {"mlp": np.ones((3, 2))}, "mlp", "loss")
    >>> figure.axes[0].get_ylabel()
    'loss'
    """
    from matplotlib.figure import Figure

    quartiles = {
        name: np.nanpercentile(scale * rows, [25, 50, 75], axis=0)
        for name, rows in scores.items()
        if np.isfinite(rows).any(axis=0).all()
    }
    sign = -1 if higher_is_better else 1
    order = sorted(quartiles, key=lambda name: sign * quartiles[name][1][-1])
    height = max(4.2, 0.8 + 0.2 * len(order))
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(_block_styles())
    for name in order:
        low, middle, high = quartiles[name]
        style = {"color": "black", "linestyle": "-"} if name == baseline else {}
        style = {"linewidth": 1.5, "marker": "o" if len(steps) == 1 else ""} | style
        (line,) = axes.plot(steps, middle, label=name, **style)
        band = {"color": line.get_color(), "alpha": 0.1, "linewidth": 0}
        axes.fill_between(steps, low, high, **band)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel(picture(label, 60), fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    axes.spines[["right", "top"]].set_visible(False)
    _skip_first_evaluations(axes, quartiles.values())
    _write_names(axes, names or {}, 10.0 / (72 * (height - 0.6)))
    return fonts.complete(figure)


def _block_styles() -> "Cycler":
    """Returns ten colours, and the same with other line styles for more blocks."""
    from matplotlib import cycler

    return cycler(linestyle=["-", "--", ":"]) * cycler(color=_COLORS)


def _skip_first_evaluations(axes: "Axes", quartiles: Iterable[np.ndarray]) -> None:
    """Sets the vertical range without the first quarter, which dwarfs the rest."""
    skipped = [(rows, math.ceil(rows.shape[1] / 4)) for rows in quartiles]
    rest = [rows[:, count:] for rows, count in skipped if rows.shape[1] > 2]
    if rest:
        low, high = min(r.min() for r in rest), max(r.max() for r in rest)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _write_names(axes: "Axes", names: Mapping[str, str], gap: float) -> None:
    """Writes the name of each line beside its end, names at least `gap` apart."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    lines = axes.get_lines()
    ends = np.array([(line.get_ydata()[-1] - low) / (high - low) for line in lines])
    for line, height in zip(lines, _move_apart(ends, gap), strict=True):
        name, color = str(line.get_label()), line.get_color()
        arrow = {"arrowstyle": "-", "color": color, "linewidth": 0.6}
        arrow |= {"relpos": (0, 0.5), "patchA": None, "shrinkA": 2, "shrinkB": 1}
        style = {"color": color, "fontsize": 8.5, "va": "center_baseline"}
        style |= {"textcoords": "axes fraction", "annotation_clip": False}
        text, end = picture(names.get(name, name)), line.get_xydata()[-1]
        axes.annotate(text, end, (1.05, height), arrowprops=arrow, **style)


def _move_apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Returns the nearest places from 0 to 1 that are at least `gap` apart.

    >>> _move_apart(np.array([0.5, 0.5, 0.9]), 0.2).round(3).tolist()
    [0.4, 0.6, 0.9]
    """
    from scipy.optimize import isotonic_regression

    if not places.size:
        return places
    order = np.argsort(places, kind="stable")
    shifts = gap * np.arange(places.size)
    # Without the gaps below them, places must only not fall.
    fit = isotonic_regression(places[order] - shifts).x
    apart = np.empty_like(places)
    apart[order] = fit.clip(0.0, max(1.0 - shifts[-1], 0.0)) + shifts
    return apart
