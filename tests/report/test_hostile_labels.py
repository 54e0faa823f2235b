"""Every picture, of hostile labels: nothing warns, fails, or is read as a formula."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.text import Text

from ffnlab import stats
from ffnlab.escape import picture
from ffnlab.report import plots, validation_plots, verdict_plots
from tests.hostile import LABELS, ORDINARY

LONG, SOME, ONE = "l" * 300, LABELS[:6], np.linspace(1.0, 2.0, 4)
MARKS = {label: 0.5 + 0.01 * place for place, label in enumerate(SOME)}


def forest(label):
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(0.8, 0.1, 8).tolist() for name in LABELS}
    rows = stats.compare(scores, label, True)
    return verdict_plots.forest(rows, f"{label}, {label}", 100.0, 0.05, marks=MARKS)


def rates():
    scores = {name: {0.01: np.ones(2), 0.1: np.zeros(2)} for name in LABELS[:8]}
    return validation_plots.rates(scores, {}, LONG)


def curves():
    scores = {name: np.full((3, 2), place) for place, name in enumerate(LABELS)}
    return validation_plots.curves([1, 2], scores, "$x$", LONG)


def graph():
    count = len(LABELS)
    edges = [(place, place + 1) for place in range(count - 1)]
    depths = [place % 3 for place in range(count)]
    return plots.graph(LABELS, depths, [True] * count, edges)


FIGURES = {
    "forest": lambda: forest("$x$"),
    "forest of a long baseline": lambda: forest("f" * 300),
    "rates": rates,
    "curves": curves,
    "scores": lambda: plots.scores_by_label(dict.fromkeys(LABELS, 0.5), LONG),
    "two scores": lambda: plots.scores_by_label({LONG: 0.5, "[red]": 1.0}),
    "confusion": lambda: plots.confusion(np.eye(len(LABELS)), LABELS),
    "confusion of two": lambda: plots.confusion(np.eye(2), [LONG, LONG + "$x$"]),
    "ordinary": lambda: plots.confusion(np.eye(len(ORDINARY)), ORDINARY),
    "curve": lambda: plots.training_curve(ONE, [2, 4], ONE[:2], LONG, MARKS),
    "settings": lambda: plots.scores_by_setting(
        [1], [2], [(1, 3)], ("$x$", LONG), MARKS
    ),
    "convergence": lambda: plots.convergence(
        {name: dict.fromkeys(SOME, np.ones((2, 3))) for name in ("$x$", LONG)}
    ),
    "relaxation": lambda: plots.relaxation({LONG: np.ones((2, 3))}),
    "parity": lambda: plots.parity(
        {label: (ONE, ONE) for label in LABELS[:6]},
        dict.fromkeys(LABELS[:6], ONE),
        (LONG, "$x$"),
        1e-9,
    ),
    "graph": graph,
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_of_hostile_labels(name):
    figure = FIGURES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)
    texts = [text.get_text() for text in figure.findobj(Text)]
    formulas = [text for text in texts if "$" in text.replace(r"\$", "")]
    assert all(r"\mathdefault" in text for text in formulas), formulas  # of the ticks
    assert not any("\x1b" in text or "\u202e" in text for text in texts)
    widths = [axes.get_window_extent().width for axes in figure.axes]
    assert widths[0] > 0.2 * figure.bbox.width / len(widths)


def test_names_are_shown_as_they_are():
    (axes,) = plots.scores_by_label(dict.fromkeys(LABELS, 0.5)).axes
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    assert shown == [picture(label) for label in LABELS]
    assert {r"\$x\$", r"a\x1b[31mb\x9b1m", "[/b]", "c|d\\|e\\"} < {*shown}
