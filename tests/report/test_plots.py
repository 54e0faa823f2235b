"""What pictures show: places, colours, labels and ranges, read from the figures."""

import numpy as np
from matplotlib.colors import to_rgba

from ffnlab.report import plots


def test_convergence_shows_the_median_and_replaces_nan():
    residuals = np.array([[1.0, 2.0, 3.0], [0.0, np.nan, np.nan]])
    figure = plots.convergence({"first": {"jacobi": residuals}, "second": {}})
    assert [axes.get_title() for axes in figure.axes] == ["first", "second"]
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0, 2.0], [1, 1e3]])
    (axes,) = plots.convergence({"a": {"b": np.zeros((1, 3))}}).axes
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), 1e-8)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "jacobi"


def test_relaxation_is_logarithmic():
    distances = np.array([[1.0, 0.01], [0.0, 1e-9]])
    figure = plots.relaxation({"one": distances, "two": distances})
    (image,) = figure.axes[1].images
    np.testing.assert_allclose(image.get_array(), [[0, -2], [-6, -6]], atol=1e-12)
    assert image.get_clim() == (-6, 0) and len(figure.axes) == 3


def test_parity_draws_both_losses_and_the_limit():
    first, second = np.linspace(2.0, 1.0, 100), np.linspace(2.0, 1.1, 100)
    figure = plots.parity(
        {"sgd": (first, second)}, {"sgd": np.array([0.0, 1e-12])}, ("a", "b"), 1e-9
    )
    left, right = figure.axes
    line, dots = left.get_lines()
    np.testing.assert_allclose(line.get_ydata(), first)
    np.testing.assert_allclose(dots.get_xdata(), range(0, 100, 2))
    np.testing.assert_allclose(dots.get_ydata(), second[::2])
    assert left.get_title() == "lines: a, dots: b"
    gaps, limit = right.get_lines()
    np.testing.assert_allclose(gaps.get_xydata(), [[1, 1e-17], [2, 1e-12]])
    np.testing.assert_allclose(limit.get_ydata(), 1e-9)


def test_a_training_curve_has_losses_scores_and_marks():
    figure = plots.training_curve(
        np.array([4.0, 3.0]), [1, 2], np.array([2.0, 1.0]), "bits", {"gzip": 3.0}
    )
    (axes,) = figure.axes
    losses, scores, mark = axes.get_lines()
    np.testing.assert_allclose(losses.get_xydata(), [[1, 4], [2, 3]])
    np.testing.assert_allclose(scores.get_xydata(), [[1, 2], [2, 1]])
    np.testing.assert_allclose(mark.get_ydata(), 3)
    np.testing.assert_allclose(axes.get_ylim(), [0.9, 3.6])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training, each step", "validation", "gzip"]


def test_of_many_labels_the_worst_are_drawn():
    scores = {f"label {i}": i / 40 for i in range(40)}
    (axes,) = plots.scores_by_label(scores, "accuracy").axes
    assert len(axes.patches) == 30 and axes.get_xlabel() == "accuracy, %"
    widths = [patch.get_width() for patch in axes.patches]
    np.testing.assert_allclose(widths, 100 * np.arange(30) / 40)


def test_confusion_shows_shares_of_the_truth_and_counts():
    counts = np.array([[3, 1], [0, 0]])
    (axes,) = plots.confusion(counts, ["a", "b"]).axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    texts = {text.get_position(): text for text in axes.texts}
    assert {place: text.get_text() for place, text in texts.items()} == {
        (0, 0): "3", (1, 0): "1",
    }  # fmt: skip
    assert texts[0, 0].get_color() == "white" and texts[1, 0].get_color() == "black"
    many = plots.confusion(np.eye(21), [str(i) for i in range(21)])
    assert not many.axes[0].texts


def test_a_graph_has_a_column_for_each_depth():
    labels = ["x [2]", "w [2]", "multiply [2]"]
    figure = plots.graph(labels, [0, 0, 1], [True, True, False], [(0, 2), (1, 2)])
    (axes,) = figure.axes
    nodes = {text.get_text(): text for text in axes.texts if text.get_text()}
    assert {text: node.get_position() for text, node in nodes.items()} == {
        "x\n[2]": (0, 0), "w\n[2]": (0, 1), "multiply\n[2]": (1, 0.5),
    }  # fmt: skip
    faces = [node.get_bbox_patch().get_facecolor()[:3] for node in nodes.values()]
    assert faces[0] == faces[1] == to_rgba("C1")[:3] and faces[2] == to_rgba("C0")[:3]
    assert sum(not text.get_text() for text in axes.texts) == 2  # arrows


def test_scores_by_setting_have_their_intervals_and_marks():
    intervals, labels = [(2.0, 4.0), (3.5, 6.0)], ("γ", "accuracy")
    figure = plots.scores_by_setting(
        [0.1, 0.2], [3.0, 5.0], intervals, labels, {"limit": 7.0}
    )
    (axes,) = figure.axes
    line, mark = axes.get_lines()[0], axes.get_lines()[-1]
    np.testing.assert_allclose(line.get_xydata(), [[0.1, 3], [0.2, 5]])
    np.testing.assert_allclose(mark.get_ydata(), 7)
    (bars,) = axes.containers[0].lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, intervals)
    plain = plots.scores_by_setting([0.1, 0.2], [3.0, 5.0], intervals, labels)
    assert plain.axes[0].get_legend() is None


def test_a_figure_is_written_without_the_software(tmp_path):
    figure = plots.scores_by_label({"a": 0.5})
    plots.save(figure, tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG") and b"Software" not in data
