"""The report of hand-made rankings: what is printed, written and drawn."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ffnlab.report import plots
from ffnlab.sweep import ranking
from ffnlab.sweep.report import Section, publish
from tests.sweep.test_ranking import GOOD, OBJECTIVE, WORSE, runs


@pytest.fixture(scope="module")
def section():
    lines = runs("mlp", WORSE, curve={"step": [5, 10], "accuracy": [0.5, 0.8]})
    lines += runs("glu", GOOD, curve={"step": [5, 10], "accuracy": [0.6, 0.9]})
    ranked = ranking.rank(lines, "mlp", OBJECTIVE)
    ranked.remarks.append("the moon was full")
    about = {
        "test_size": 7,
        "names": [*range(13)],
        "few": [*range(12)],
        "columns_without_features": {f"c{n}": "always 'a|b'" for n in range(14)},
    }
    return Section("moons", ranked, lines, about, {"best possible": 0.98765})


def test_the_report_has_every_part(section, tmp_path, capsys):
    other = section._replace(name="", marks={})
    pictures = {"extra.png": ("One more picture.", Figure())}
    publish(tmp_path, "Which block?", [section, other], "A note.", pictures)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.md", "differences-moons.png", "rates-moons.png", "curves-moons.png",
        "differences.png", "rates.png", "curves.png", "extra.png",
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(f"# Which block?\n\n## moons\n\n{section.ranking.verdict}")
    assert "## How the numbers were computed\n\nA note.\n\n## How to repeat" in text
    assert text.count("## moons") == 1
    for part in (
        section.ranking.verdict,
        section.ranking.table.markdown(),
        "- best possible: 98.77\n",
        "- the moon was full\n",
        "- test size: 7\n- names: 13 of them\n- few: 0, 1,",
        "- columns without features: c0: always 'a\\|b'; c1: always 'a\\|b'; c2: ",
        "![differences from the baseline](differences-moons.png)\n",
        "![validation score by learning rate](rates.png)\n",
        "![validation score over training](curves.png)\n",
        "![One more picture.](extra.png)\n\nOne more picture.\n",
    ):
        assert part in text, part
    assert text.count("best possible") == 1
    assert text.index("moons.png") < text.index("extra.png") < text.index("## How to")

    printed = capsys.readouterr().out
    assert "moons: test accuracy, %, higher is better; means with" in printed
    assert "Which block?: test accuracy, %, higher is better" in printed
    assert printed.count(section.ranking.verdict) == 2
    assert "best possible: 98.77" in printed and "note: the moon was full" in printed
    assert printed.endswith(
        f"written to {tmp_path}: report.md, differences-moons.png, differences.png, "
        "rates-moons.png, rates.png, curves-moons.png, curves.png, extra.png, "
        "results.jsonl\n"
    )


def test_lower_is_better_is_printed(section, tmp_path, capsys):
    lower = section.ranking._replace(higher_is_better=False)
    publish(tmp_path, "Title", [section._replace(ranking=lower)], "")
    assert "lower is better" in capsys.readouterr().out


def test_pictures_are_of_the_scores(section, tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr(
        plots, "save", lambda figure, path: figures.update({path.name: figure})
    )
    publish(tmp_path, "Title", [section], "")
    figure = figures["differences-moons.png"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["glu"]  # the baseline is the line at zero
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1].startswith("best possible")
    assert [axes.get_title() for axes in figures["rates-moons.png"].axes] == [
        "mlp", "glu"
    ]  # fmt: skip
    (axes,) = figures["curves-moons.png"].axes
    assert axes.get_ylabel() == "validation accuracy, %"
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["glu"].get_xydata(), [[5, 60], [10, 90]])
    assert {"glu, 0.01", "mlp, 0.01"} <= {text.get_text() for text in axes.texts}
