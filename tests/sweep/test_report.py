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
    about = {"test_size": 7, "names": [*range(13)], "few": [*range(12)]}
    return Section("moons", ranked, lines, about, {"best possible": 0.98765})


def test_the_report_has_every_part(section, tmp_path, capsys):
    other = section._replace(name="", marks={})
    pictures = {"extra.png": ("One more picture.", Figure())}
    publish(tmp_path, "Which block?", [section, other], "A note.", pictures)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.md", "ranking-moons.png", "curves-moons.png", "ranking.png",
        "curves.png", "extra.png",
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Which block?\n\nA note.\n\n## moons\n\n")
    assert text.count("## moons") == 1
    for part in (
        section.ranking.verdict,
        section.ranking.table.markdown(),
        "- best possible: 98.77\n",
        "- the moon was full\n",
        "- test size: 7\n- names: 13\n- few: [0, 1,",
        "![ranking](ranking-moons.png)\n![curves](curves-moons.png)\n",
        "![ranking](ranking.png)\n![curves](curves.png)\n",
        "![One more picture.](extra.png)\n\nOne more picture.\n",
    ):
        assert part in text, part
    assert text.count("best possible") == 1
    assert text.index("moons.png") < text.index("extra.png") < text.index("## How to")

    printed = capsys.readouterr().out
    assert "moons: test accuracy, %, higher is better; ranked by" in printed
    assert "Which block?: test accuracy, %, higher is better" in printed
    assert printed.count(section.ranking.verdict) == 2
    assert "best possible: 98.77" in printed and "note: the moon was full" in printed
    assert printed.endswith(
        f"written to {tmp_path}: report.md, ranking-moons.png, ranking.png, "
        "curves-moons.png, curves.png, extra.png, results.jsonl\n"
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
    (axes,) = figures["ranking-moons.png"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mlp", "glu"]
    assert axes.get_legend().get_texts()[0].get_text() == "best possible"
    (axes,) = figures["curves-moons.png"].axes
    assert axes.get_ylabel() == "validation accuracy, %"
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["glu"].get_xydata(), [[5, 60], [10, 90]])
    assert list(lines) == ["glu", "mlp"]  # the better one first
