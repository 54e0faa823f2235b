"""What pictures of validation scores show, read from the figures."""

import numpy as np
import pytest
from matplotlib.text import Text

from ffnlab.report.validation_plots import curves, rates

NAN = np.nan
SCORES = {
    "mlp": {
        0.1: np.array([0.6, NAN, 0.2]),
        0.001: np.array([0.1, 0.2, 0.3]),
        0.01: np.array([0.5, 0.6, 0.7]),
        1.0: np.array([NAN, NAN, NAN]),
    },
    "glu": {0.01: np.array([0.5, 0.5, 0.8])},
}
CHOSEN = {"mlp": {0.01: 2, 0.1: 1}, "glu": {0.01: 3}}


def test_rates_have_means_bands_and_counts():
    figure = rates(SCORES, CHOSEN, "accuracy, %", 100.0)
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("mlp", "glu")
    (line,) = left.get_lines()
    points = [[0.001, 20], [0.01, 60], [0.1, 40]]  # ascending, and none without scores
    np.testing.assert_allclose(line.get_xydata(), points)
    band, *circles = left.collections
    (path,) = band.get_paths()
    np.testing.assert_allclose(
        [path.vertices[:, 1].min(), path.vertices[:, 1].max()], [15, 65]
    )
    np.testing.assert_allclose([c.get_offsets()[0] for c in circles], points)
    none, two, one = (circle.get_sizes()[0] for circle in circles)
    assert none < one < two
    np.testing.assert_allclose(right.collections[-1].get_sizes(), 300)
    texts = {text.get_position(): text.get_text() for text in left.texts}
    assert texts == {(0.01, 60.0): "2", (0.1, 40.0): "1"}
    assert left.get_xscale() == "log" and left.get_xlim() == right.get_xlim()
    labels = [label.get_text() for label in left.get_xticklabels()]
    assert labels == ["0.001", "0.01", "0.1", "1"]
    assert figure.get_suptitle().startswith("accuracy, %\n")
    assert figure.get_supxlabel() == "learning rate"


def test_one_rate_is_a_point_with_its_middle_half():
    (axes,) = rates({"glu": SCORES["glu"]}, CHOSEN, "score").axes
    (bar,) = (c for c in axes.collections if hasattr(c, "get_segments"))
    np.testing.assert_allclose(bar.get_segments(), [[[0.01, 0.5], [0.01, 0.65]]])
    low, high = axes.get_xlim()
    assert low < 0.01 < high
    assert [text.get_text() for text in axes.texts] == ["3"]


def test_panels_have_four_columns_and_labels_at_the_bottom():
    scores = {f"block{i}": SCORES["mlp"] for i in range(6)}
    figure = rates(scores, {}, "score")
    assert [axes.get_visible() for axes in figure.axes] == [True] * 6 + [False] * 2
    starts = [axes.get_subplotspec().colspan.start for axes in figure.axes]
    assert starts == [0, 1, 2, 3] * 2
    bottom = [axes.xaxis.get_tick_params()["labelbottom"] for axes in figure.axes[:6]]
    assert bottom == [False, False, True, True, True, True]
    assert [len(axes.texts) for axes in figure.axes[:6]] == [0] * 6
    long = rates(dict.fromkeys("abc", {}) | {"d" * 99: {}}, {}, "score")
    assert len(long.axes[3].get_title()) < 24
    few = rates(SCORES, {}, "score")
    assert few.get_figheight() < figure.get_figheight()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("numbers", "least"),
    [
        ([0.90, 0.92, 0.80, 0.1, 0.1], 0.80),  # the median
        ([0.90, 0.80, 0.79, 0.78, 0.0], 0.60),  # twice the range of the chosen ones
        ([0.90, 0.80, 0.79, 0.78, 0.77], 0.77),  # all
    ],
)
def test_rates_far_worse_than_the_chosen_ones_lie_beyond_the_edge(sign, numbers, least):
    rows = {0.1 * i: sign * np.array([x, x]) for i, x in enumerate(numbers, 1)}
    options = {"label": "score", "higher_is_better": sign == 1}
    (axes,) = rates({"mlp": rows}, {"mlp": {0.1: 1, 0.2: 1}}, **options).axes
    space = 0.08 * (max(numbers) - least)
    ends = sorted([sign * (max(numbers) + space), sign * (least - space)])
    np.testing.assert_allclose(axes.get_ylim(), ends)
    # Without a chosen rate, all scores are in the range.
    (axes,) = rates({"mlp": rows}, {}, **options).axes
    assert np.abs(axes.get_ylim()).min() < min(numbers) or min(numbers) == 0.0


def test_rates_without_any_score_are_an_empty_picture():
    (axes,) = rates({"mlp": {0.1: np.array([NAN])}}, {"mlp": {0.1: 1}}, "score").axes
    assert not axes.get_lines() and not axes.texts
    assert rates({}, {}, "score").axes[0].get_visible() is False


@pytest.mark.parametrize(("higher", "order"), [(True, ["b", "a"]), (False, ["a", "b"])])
def test_curves_are_medians_in_the_order_of_the_last(higher, order):
    scores = {
        "a": np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0], [0.0, 9.0, NAN]]),
        "b": np.array([[0.0, 5.0, 8.0]]),
        "lost": np.array([[0.0, NAN, NAN]]),
    }
    names = {"a": "a at 0.1"}
    figure = curves([1, 2, 3], scores, "a", "score", 10.0, higher, names)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == order
    np.testing.assert_allclose(lines["a"].get_ydata(), [0, 30, 30])
    assert lines["a"].get_color() == "black" != lines["b"].get_color()
    bands = dict(zip(order, axes.collections, strict=True))  # the middle halves
    vertices = bands["a"].get_paths()[0].vertices
    np.testing.assert_allclose(sorted({*vertices[:, 1]}), [0, 20, 25, 35, 60])
    # The first evaluation does not count for the range.
    np.testing.assert_allclose(axes.get_ylim(), [20 - 3, 80 + 3])
    ends = {text.get_text(): (text.xy, text.get_color()) for text in axes.texts}
    assert set(ends) == {"a at 0.1", "b"} and figure.axes[0].get_legend() is None
    assert ends["b"][1] == lines["b"].get_color()
    np.testing.assert_allclose([ends["a at 0.1"][0], ends["b"][0]], [[3, 30], [3, 80]])


def test_the_first_quarter_does_not_count_for_the_range():
    rows = np.array([[0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]])
    (axes,) = curves(range(8), {"a": rows}, "a", "score").axes
    np.testing.assert_allclose(axes.get_ylim(), [5 - 0.25, 10 + 0.25])


def test_curves_of_two_evaluations_or_of_equal_scores_have_a_range():
    (axes,) = curves([1, 2], {"a": np.array([[0.0, 9.0]])}, "a", "score").axes
    assert axes.get_ylim()[0] < 0 < 9 < axes.get_ylim()[1]
    (axes,) = curves([1, 2, 3], {"a": np.ones((2, 3))}, "a", "score").axes
    assert axes.get_ylim() == (0.0, 2.0)
    (axes,) = curves([1], {"a": np.ones((2, 1))}, "a", "score").axes
    assert axes.get_lines()[0].get_marker() == "o"
    assert not curves([1], {}, "a", "score").axes[0].texts


@pytest.mark.parametrize(("blocks", "far"), [(2, 0), (12, 0), (12, 11), (30, 0)])
def test_names_are_in_the_order_of_the_lines_and_do_not_overlap(blocks, far):
    scores = {f"block{i}": np.full((2, 3), 0.9 + 1e-4 * i) for i in range(blocks)}
    scores[f"block{far}"] += 0.5 if far else -0.5
    long = {"block1": "a_block_with_a_long_name" * 9}
    figure = curves([1, 2, 3], scores, "block0", "score", names=long)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = sorted(axes.texts, key=lambda text: text.xyann[1])
    shown = [text.get_text() for text in names]
    assert [shown[0], *shown[2:]] == [f"block{i}" for i in range(blocks) if i != 1]
    assert len(shown[1]) < 40
    assert names[0].xyann[1] >= 0 and names[-1].xyann[1] <= 1
    boxes = [Text.get_window_extent(text) for text in names]  # without the lines
    for below, above in zip(boxes[:-1], boxes[1:], strict=True):
        assert above.y0 > below.y0 + 0.8 * below.height
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert boxes[0].y0 >= 0 and boxes[-1].y1 <= figure.bbox.y1
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(styles) == blocks


def test_rates_that_some_replicates_tried_are_dashed_and_without_a_band():
    rows = {0.01: [0.5, 0.6, 0.7], 0.1: [0.6, 0.7, 0.8], 1.0: [0.9]}
    scores = {"mlp": {rate: np.array(row) for rate, row in rows.items()}}
    figure = rates(scores, {}, "score")
    solid, dashed = figure.axes[0].get_lines()
    np.testing.assert_allclose(solid.get_xdata(), [0.01, 0.1])
    np.testing.assert_allclose(dashed.get_xdata(), [0.01, 0.1, 1.0])
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    (path,) = figure.axes[0].collections[0].get_paths()
    assert path.vertices[:, 0].max() == 0.1
    assert figure.get_suptitle().endswith("dashed: not tried by all")
    figure = rates({"mlp": {0.1: scores["mlp"][0.1]}}, {}, "score")
    assert "dashed" not in figure.get_suptitle()
