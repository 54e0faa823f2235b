"""The picture of a comparison of blocks: differences, intervals and verdicts."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import fonts
from ffnlab.escape import picture
from ffnlab.stats import Comparison, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colour and the marker of each verdict. The colours differ by 30 units of CIELAB
# for readers with any kind of colour blindness, and the markers differ too.
STYLES = {
    "better": ("#0072B2", "^"),
    "worse": ("#D55E00", "v"),
    "equivalent": ("#882255", "s"),
    "undecided": ("#A0A0A0", "o"),
}
_MARKS = (("#117733", "--"), ("#AA8800", "-."))  # the colour and the dashes of marks
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
_WIDTH = 7.0  # inches, so that 9 points are 12 pixels in a page of 700 pixels


def forest(
    rows: Sequence[Comparison],
    label: str,
    scale: float = 1.0,
    margin: float | None = None,
    higher_is_better: bool = True,
    marks: Mapping[str, float] | None = None,
) -> "Figure":
    """Draws the difference of every block from the baseline, the best on top.

    A block has its mean difference with the simultaneous interval, a dot for each
    replicate, and its mean score at the right edge. The colour shows the verdict, and
    the line at zero is the baseline. What lies very far from all the rest is drawn as
    an arrowhead at the edge.

    Args:
      rows: From `stats.compare`, the best first. Rows without an interval, for lack of
        replicates, have dots and a mean only.
      label: The label of the score, with its unit after a comma.
      scale: The factor of the scores, 100 for per cent.
      margin: The margin that `stats.compare` was given, drawn as a band; or None.
      higher_is_better: Whether better is on the right.
      marks: Scores to draw a line at, such as the best possible one, by name.

    >>> from ffnlab import stats
    >>> losses = {"glu": [0.3, 0.31, 0.3, 0.3, 0.29, 0.3], "mlp": [0.4] * 6}
    >>> rows = stats.compare(losses, "mlp", higher_is_better=False)
    >>> forest(rows, "loss", higher_is_better=False).axes[0].get_xlabel()
    '← better   difference from mlp   worse →'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=forest_size(rows), layout="constrained")
    options = {"scale": scale, "margin": margin, "marks": marks}
    draw_forest(
        figure.add_subplot(),
        rows,
        label,
        higher_is_better=higher_is_better,
        whole_figure=True,
        **options,
    )
    return fonts.complete(figure)


def forest_size(rows: Sequence[Comparison]) -> tuple[float, float]:
    """Returns the width and the height of the picture of `forest`, in inches."""
    return _WIDTH, 1.5 + 0.32 * max(len(rows) - 1, 2) if len(rows) > 1 else 1.0


def draw_forest(
    axes: "Axes",
    rows: Sequence[Comparison],
    label: str,
    scale: float = 1.0,
    margin: float | None = None,
    higher_is_better: bool = True,
    marks: Mapping[str, float] | None = None,
    whole_figure: bool = False,
) -> None:
    """Draws what `forest` draws on given axes.

    Args:
      axes: The axes.
      rows: See `forest`, as for what is not named here.
      label: See `forest`.
      scale: See `forest`.
      margin: See `forest`.
      higher_is_better: See `forest`.
      marks: See `forest`.
      whole_figure: Whether the axes are alone in their figure, which then has the title
        and the legend.
    """
    rows, label = [_prepare(row, scale) for row in rows], picture(label, 60)
    (baseline,) = (row for row in rows if row.verdict is None)
    blocks = [row for row in reversed(rows) if row is not baseline]
    if not blocks:
        text = f"{baseline.name} is alone: there is nothing to compare"
        axes.text(0.5, 0.5, text, ha="center", va="center")
        axes.axis("off")
        return
    # Score and difference from the baseline, by name.
    lines = {
        n: (scale * s, scale * s - baseline.score) for n, s in (marks or {}).items()
    }
    band = None if margin is None else scale * margin
    places = [place for _, place in lines.values()]
    low, high = _difference_range(blocks, band or 0.0, places)
    axes.set(xlim=(low, high), ylim=(-0.6, len(blocks) - 0.4))
    _draw_lines(axes, lines, band, _difference_unit(label))
    for height, row in enumerate(blocks):
        _draw_block(axes, height, row)
    _write_scores(axes, baseline, blocks, label)
    names = [row.name for row in blocks]
    _write_axes(axes, names, baseline.name, label, higher_is_better)
    _write_title(axes, label, blocks, whole_figure)
    _add_legend(axes, {row.verdict for row in blocks}, whole_figure)


def _prepare(row: Comparison, scale: float) -> Comparison:
    """Returns a comparison with a name for a picture, and all that is drawn scaled."""

    def scale_interval(interval: Interval | None) -> Interval | None:
        return interval and Interval(scale * interval.low, scale * interval.high)

    return dataclasses.replace(
        row,
        name=picture(row.name),
        score=scale * row.score,
        interval=scale_interval(row.interval),
        difference=None if row.difference is None else scale * row.difference,
        difference_interval=scale_interval(row.difference_interval),
        differences=tuple(scale * difference for difference in row.differences),
    )


def _difference_range(
    rows: Sequence[Comparison], margin: float, marks: Iterable[float]
) -> tuple[float, float]:
    """Returns a range for all dots and intervals, but for outliers.

    What is more than four times as far from zero as three quarters of the blocks reach
    lies beyond the range. A mark is included where that less than doubles the range.
    """
    points = [(0.0, *row.differences, *(row.difference_interval or ())) for row in rows]
    ends = np.array([(min(row), max(row)) for row in points])  # [blocks, 2]
    limit = 4 * np.quantile(np.abs(ends).max(axis=1), 0.75)
    near = [x for row in points for x in row if abs(x) <= limit]
    low, high = min(*near, -margin), max(*near, margin)
    near = [x for x in marks if max(high, x) - min(low, x) < 2 * (high - low)]
    low, high = min([low, *near]), max([high, *near])
    space = 0.04 * (high - low) or 1.0
    return low - space, high + space


def _draw_lines(
    axes: "Axes",
    marks: Mapping[str, tuple[float, float]],
    margin: float | None,
    unit: str,
) -> None:
    """Draws the baseline, the margin, and the marks: name to score and place.

    A mark that lies beyond an edge is in the legend only.
    """
    axes.axvline(0.0, color="black", linewidth=1.0, zorder=1)
    if margin is not None:
        text = f"no difference that matters, ±{margin:g} {unit}".rstrip()
        axes.axvspan(-margin, margin, color="0.92", zorder=0, label=text)
    low, high = axes.get_xlim()
    styles = itertools.cycle(_MARKS)
    for (name, (score, place)), (color, dashes) in zip(
        marks.items(), styles, strict=False
    ):
        text = f"{picture(name)}: {score:.4g}"
        line = {"color": color, "linestyle": dashes}
        if low <= place <= high:
            axes.axvline(place, label=text, **line)
        else:
            side = "left" if place < low else "right"
            axes.plot([], [], label=f"{text}, further {side}", **line)


def _draw_block(axes: "Axes", height: int, row: Comparison) -> None:
    """Draws the replicates, the interval and the mean of a block."""
    color, marker = STYLES[row.verdict or "undecided"]
    dots, (low, high) = np.array(row.differences), axes.get_xlim()
    heights = height + 0.6 * ((0.618034 * np.arange(len(dots)) + 0.5) % 1 - 0.5)
    style = {"markersize": 4, "markeredgewidth": 0, "alpha": 0.35, "zorder": 2}
    _draw_points(axes, dots, heights, "o", color=color, **style)
    if row.difference_interval is not None:
        style = {"linewidth": 3.5, "solid_capstyle": "butt", "zorder": 3}
        axes.plot(row.difference_interval, [height, height], color=color, **style)
    style = {"markersize": 8, "markeredgecolor": "white", "zorder": 4}
    mean = np.array([row.difference])
    _draw_points(axes, mean, np.array([height]), marker, color=color, **style)
    if not low <= row.difference <= high:
        text = _interval_text(row.difference, row.difference_interval, "{:+.3g}".format)
        left = row.difference < low
        style = {"fontsize": 8, "va": "center", "ha": "left" if left else "right"}
        style |= {"textcoords": "offset points", "color": color, "zorder": 5}
        end, shift = (low, 9) if left else (high, -9)
        axes.annotate(text, (end, height), (shift, 0), bbox=_WHITE, **style)


def _draw_points(
    axes: "Axes", x: np.ndarray, y: np.ndarray, marker: str, **style: Any
) -> None:
    """Draws points; those beyond an edge are arrowheads at the edge."""
    low, high = axes.get_xlim()
    symbols = {"<": x < low, ">": x > high, marker: (low <= x) & (x <= high)}
    for symbol, mask in symbols.items():
        if mask.any():
            points = x.clip(low, high)[mask], y[mask]
            axes.plot(*points, symbol, clip_on=symbol == marker, **style)


def _write_scores(
    axes: "Axes", baseline: Comparison, rows: Sequence[Comparison], label: str
) -> None:
    """Writes the mean of the baseline above its line, and of blocks at the right."""
    show = _formatter([row.score for row in (baseline, *rows)])
    low, high = axes.get_xlim()
    fraction = low / (low - high)
    align = "left" if fraction < 0.25 else "right" if fraction > 0.75 else "center"
    text = f"{baseline.name}: {_interval_text(baseline.score, baseline.interval, show)}"
    style = {"textcoords": "offset points", "fontsize": 8.5}
    above = {"xycoords": axes.get_xaxis_transform(), "va": "bottom"} | style
    axes.annotate(text, (0.0, 1.0), (0, 4), ha=align, **above)
    unit = _unit(label)
    axes.annotate(f"mean, {unit}" if unit else "mean", (high, 1.0), (6, 4), **above)
    for height, row in enumerate(rows):
        beside = {"va": "center_baseline", "annotation_clip": False} | style
        axes.annotate(show(row.score), (high, height), (6, 0), **beside)


def _write_axes(
    axes: "Axes",
    names: Sequence[str],
    baseline: str,
    label: str,
    higher_is_better: bool,
) -> None:
    """Writes the names of blocks, and in which direction better is."""
    unit = _difference_unit(label)
    difference = f"difference from {baseline}" + (f", {unit}" if unit else "")
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    axes.set_xlabel(f"← {left}   {difference}   {right} →", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)


def _unit(label: str) -> str:
    """Returns the unit of a label, which follows its last comma, or ""."""
    return label.rpartition(", ")[2] if ", " in label else ""


def _difference_unit(label: str) -> str:
    """Returns the unit of differences: points for per cent."""
    unit = _unit(label)
    return "points" if unit == "%" else unit


def _formatter(scores: Sequence[float]) -> Callable[[float], str]:
    """Returns what formats scores, the largest with four significant digits."""
    largest = max(map(abs, scores))
    digits = 3 - math.floor(math.log10(largest)) if largest > 0 else 0
    return f"{{:.{min(max(digits, 0), 8)}f}}".format


def _interval_text(
    mean: float, interval: Interval | None, show: Callable[[float], str]
) -> str:
    if interval is None:
        return show(mean)
    return f"{show(mean)} ({show(interval.low)} to {show(interval.high)})"


def _write_title(
    axes: "Axes", label: str, rows: Sequence[Comparison], whole_figure: bool
) -> None:
    """Writes what is drawn, in two lines on the left."""
    count, text = max(row.replicates for row in rows), "mean differences"
    if any(row.difference_interval is not None for row in rows):
        text += " with simultaneous intervals"
    each = (
        "each of" if all(row.replicates == count for row in rows) else "each of up to"
    )
    text += f", one dot for {each} {count} replicates" if count > 1 else ""
    if whole_figure:
        axes.figure.suptitle(f"{label}\n{text}", x=0.01, ha="left", fontsize=9)
    else:
        axes.set_title(label, loc="left", fontsize=9, pad=18)


def _add_legend(axes: "Axes", verdicts: set[str | None], whole_figure: bool) -> None:
    """Adds a legend of the verdicts that occur, and of all artists with a label."""
    from matplotlib.lines import Line2D

    handles, _ = axes.get_legend_handles_labels()
    styles = [(name, *style) for name, style in STYLES.items() if name in verdicts]
    entries = [
        Line2D([], [], color=color, marker=marker, linewidth=3.5, label=name,
               markersize=8, markeredgecolor="white")
        for name, color, marker in styles
    ]  # fmt: skip
    # Long texts of marks have the room of two columns.
    columns = 5 if len(handles) < 2 else 2
    style = {"fontsize": 8.5, "frameon": False, "columnspacing": 1.4}
    owner, place = axes.figure, {"loc": "outside lower center"}
    if not whole_figure:
        owner, place = axes, {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
    owner.legend(handles=[*entries, *handles], ncols=columns, **place, **style)
