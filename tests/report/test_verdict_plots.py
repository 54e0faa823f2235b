"""What the picture of the verdicts shows, read from the figure."""

import dataclasses

import numpy as np
import pytest

from ffnlab import stats
from ffnlab.report.verdict_plots import STYLES, forest
from ffnlab.stats import Comparison, Interval


def block(name, difference, verdict, half=0.01):
    """Returns a block with two replicates, as far from the mean as its interval."""
    ends = difference - half, difference + half
    return Comparison(
        name, 2, 0.8 + difference, None, difference, Interval(*ends), ends,
        verdict=verdict,
    )  # fmt: skip


MLP = Comparison("mlp", 2, 0.8, Interval(0.75, 0.85))
ROWS = [
    block("swiglu", 0.05, "better"),
    block("geglu", 0.02, "undecided", 0.03),
    MLP,
    block("glu", 0.0, "equivalent", 0.005),
    block("relu", -0.04, "worse"),
]


def drawn(axes, marker):
    """Returns `(color, points)` of the lines with a marker, from below."""
    lines = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [(line.get_color(), line.get_xydata().tolist()) for line in lines]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def figure():
    return forest(ROWS, "test accuracy, %", 100.0, 0.015)


def test_blocks_have_their_differences_in_the_color_of_the_verdict(figure):
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["relu", "glu", "geglu", "swiglu"]
    expected = {"worse": -4.0, "equivalent": 0.0, "undecided": 2.0, "better": 5.0}
    halves = {"worse": 1.0, "equivalent": 0.5, "undecided": 3.0, "better": 1.0}
    bars = [line for line in axes.get_lines() if line.get_linewidth() > 3]
    assert len(bars) == 4
    for height, (verdict, mean) in enumerate(expected.items()):
        color, marker = STYLES[verdict]
        points = [p for c, line in drawn(axes, marker) if c == color for p in line]
        np.testing.assert_allclose(points[-1], [mean, height], atol=1e-9)
        ends = [[mean - halves[verdict], height], [mean + halves[verdict], height]]
        np.testing.assert_allclose(bars[height].get_xydata(), ends, atol=1e-9)
        assert bars[height].get_color() == color


def test_styles_are_distinct_and_of_every_verdict():
    assert tuple(STYLES) == stats.VERDICTS
    for kind in zip(*STYLES.values(), strict=True):
        assert len(set(kind)) == 4


def test_replicates_are_dots_at_heights_that_do_not_change(figure):
    (axes,) = figure.axes
    dots = [line for line in axes.get_lines() if line.get_alpha() == 0.35]
    assert [line.get_markersize() < 5 for line in dots] == [True] * 4
    np.testing.assert_allclose(dots[0].get_xdata(), [-5.0, -3.0])
    heights = np.array([line.get_ydata() - place for place, line in enumerate(dots)])
    assert (np.abs(heights) <= 0.3).all() and heights[0, 0] != heights[0, 1]
    np.testing.assert_allclose(heights, heights[[0]].repeat(4, axis=0))


def test_the_baseline_is_a_line_at_zero_with_its_score(figure):
    (axes,) = figure.axes
    (zero,) = (line for line in axes.get_lines() if line.get_color() == "black")
    np.testing.assert_allclose(zero.get_xdata(), 0.0)
    label, heading, *scores = axes.texts
    assert label.get_text() == "mlp: 80.00 (75.00 to 85.00)" and label.xy == (0.0, 1.0)
    assert heading.get_text() == "mean, %"
    low, high = axes.get_xlim()
    assert [(text.xy, text.get_text()) for text in scores] == [
        ((high, 0), "76.00"), ((high, 1), "80.00"), ((high, 2), "82.00"),
        ((high, 3), "85.00"),
    ]  # fmt: skip
    assert low < -5.0 and high > 6.0


def test_the_margin_is_a_band(figure):
    (band,) = figure.axes[0].patches
    np.testing.assert_allclose([band.get_x(), band.get_width()], [-1.5, 3.0])
    text = "no difference that matters, ±1.5 points"
    assert legend(figure) == ["better", "worse", "equivalent", "undecided", text]
    plain = forest([ROWS[0], MLP], "loss")
    assert not plain.axes[0].patches and legend(plain) == ["better"]


@pytest.mark.parametrize(
    ("higher", "label", "text"),
    [
        (True, "accuracy, %", "← worse   difference from mlp, points   better →"),
        (False, "bits, nats", "← better   difference from mlp, nats   worse →"),
        (False, "loss (of 1)", "← better   difference from mlp   worse →"),
    ],
)
def test_the_axis_has_the_direction_and_the_unit(higher, label, text):
    figure = forest(ROWS, label, higher_is_better=higher)
    assert figure.axes[0].get_xlabel() == text
    assert figure.get_suptitle() == (
        f"{label}\nmean differences with simultaneous intervals, one dot for each of "
        "2 replicates"
    )


@pytest.mark.parametrize(
    ("rows", "align"),
    [
        ([ROWS[0], MLP], "left"),
        ([ROWS[0], MLP, ROWS[4]], "center"),
        ([MLP, ROWS[4]], "right"),
    ],
)
def test_the_label_of_the_baseline_is_kept_inside(rows, align):
    assert forest(rows, "loss").axes[0].texts[0].get_ha() == align


def test_few_replicates_have_dots_and_a_mean_only():
    scores = {"glu": [0.5, 0.7], "mlp": [0.4, 0.5]}
    figure = forest(stats.compare(scores, "mlp", True), "score")
    (axes,) = figure.axes
    points = [points for _, points in drawn(axes, "o")]
    np.testing.assert_allclose([x for x, _ in points[0]], [0.1, 0.2])
    np.testing.assert_allclose(points[1], [[0.15, 0.0]])
    assert len(axes.get_lines()) == 3 and "intervals" not in figure.get_suptitle()
    one = {"glu": [0.5], "mlp": [0.5]}
    figure = forest(stats.compare(one, "mlp", True), "score")
    assert texts(figure.axes[0]) == ["mlp: 0.5000", "mean", "0.5000"]
    assert figure.get_suptitle() == "score\nmean differences"
    assert figure.axes[0].get_xlim() == (-1.0, 1.0)


def test_a_baseline_alone_is_a_sentence():
    (axes,) = forest([MLP], "loss", 1.0, 0.1).axes
    assert texts(axes) == ["mlp is alone: there is nothing to compare"]
    assert not axes.axison


def test_outliers_are_arrowheads_at_the_edge():
    near = [block(f"near{i}", 0.005 * i, "undecided") for i in range(8)]
    near[3] = dataclasses.replace(near[3], differences=(0.02, 0.9))
    far = block("far", -0.7, "worse")
    (axes,) = forest([*near, MLP, far], "accuracy, %", 100.0).axes
    low, high = axes.get_xlim()
    assert -2.0 < low < -1.0 and 4.0 < high < 6.0
    (dots, mean) = drawn(axes, "<")
    assert [x for x, _ in dots[1]] == [low, low] and mean[1] == [[low, 0.0]]
    ((_, points),) = drawn(axes, ">")
    assert [x for x, _ in points] == [high]
    (text,) = (text for text in axes.texts if text.get_text().startswith("-70"))
    assert text.get_text() == "-70 (-71 to -69)" and text.xy == (low, 0)
    assert text.get_color() == mean[0] == STYLES["worse"][0]
    # Two blocks are no majority, so that neither is an outlier.
    (axes,) = forest([near[1], MLP, far], "accuracy, %", 100.0).axes
    assert axes.get_xlim()[0] < -70


def test_marks_are_lines_at_their_distance_from_the_baseline():
    marks = {"limit": 0.88, "chance": 0.1, "perfect": 1.0}
    figure = forest(ROWS, "accuracy, %", 100.0, marks=marks)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["limit: 88"].get_xdata(), 8.0)
    assert legend(figure)[-3:] == [
        "limit: 88", "chance: 10, further left", "perfect: 100, further right",
    ]  # fmt: skip
    assert len(lines["chance: 10, further left"].get_xdata()) == 0
    assert 8.0 < axes.get_xlim()[1] < 12.0
    styles = [(line.get_color(), line.get_linestyle()) for line in lines.values()]
    assert len(set(styles[1:3])) == 2


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.00123, 0.00042), ["0.001230", "0.000420"]),
        ((123.456, 7.0), ["123.5", "7.0"]),
        ((12345.0, 7.0), ["12345", "7"]),
        ((0.0, 0.0), ["0", "0"]),
    ],
)
def test_scores_have_four_digits(scores, expected):
    rows = stats.compare({"a": scores[:1], "mlp": scores[1:]}, "mlp", True)
    label, _, score = texts(forest(rows, "x").axes[0])
    assert [score, label.removeprefix("mlp: ")] == expected


@pytest.mark.parametrize("baseline", [0, 5, 11])
def test_nothing_overlaps_or_is_clipped(baseline):
    names = ["a_block_with_a_long_name" * 9, *(f"block{i}" for i in range(11))]
    rng = np.random.default_rng(0)
    scores = {
        n: 0.9 + 0.01 * i + 0.02 * rng.normal(size=8) for i, n in enumerate(names)
    }
    marks = {"best possible from both sides": 1.0, "best possible from the left": 0.97}
    rows = stats.compare(scores, names[baseline], True, margin=0.01)
    figure = forest(rows, "test accuracy, %", 100.0, 0.01, marks=marks)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    artists = [*axes.get_yticklabels(), *axes.texts, *figure.legends[0].get_texts()]
    boxes = [artist.get_window_extent() for artist in artists]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:index])
