"""A comparison on a CSV file whose names are markup somewhere."""

import csv

import numpy as np
import pytest

from ffnlab import escape
from ffnlab.sweep.comparison import compare
from ffnlab.sweep.comparison_config import CompareConfig
from tests.hostile import LABELS, inlines

SMALL = {
    "blocks": ("mlp",), "activations": ("relu",), "seeds": 2, "steps": 2,
    "learning_rates": (1e-2,), "evaluations": 1, "batch_size": 8, "features": 4,
    "hidden": 4, "layers": 1, "extend_rates": 0,
}  # fmt: skip
NAME = "[red]$x$|<b>\u202e"


@pytest.fixture
def path(tmp_path):
    """A table with hostile columns and classes, six rows of each."""
    path, rng = tmp_path / f"{NAME}.csv", np.random.default_rng(0)
    names = [f"{label.strip()}." for label in LABELS[:10]]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "town\x1b[2J", NAME])
        for label in 6 * LABELS[:8]:
            writer.writerow([*rng.normal(size=10).round(3), label, label])
    return path


def test_names_of_a_csv_are_shown_as_they_are(path, tmp_path, capsys):
    out = tmp_path / f"out{NAME}"
    compare(CompareConfig(csv=str(path), target=NAME, out=str(out), **SMALL))
    printed, errors = capsys.readouterr()
    for text in (printed, errors):
        assert escape.terminal_lines(text) == text
    assert escape.terminal(f"Which feed-forward block? {NAME}: test") in printed
    lines = inlines((out / "report.md").read_text())
    title = escape.terminal(f"Which feed-forward block? {NAME}")
    assert lines[0] == title
    facts = lines[lines.index("The data:") :]
    assert escape.terminal(f"source: {path}") in facts
    (classes,) = (fact for fact in facts if fact and fact.startswith("class names: "))
    assert all(repr(label.strip()) in classes for label in LABELS[:4])
