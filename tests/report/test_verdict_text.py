"""Verdicts in words, of every kind."""

import dataclasses

import pytest

from ffnlab.report import verdict_text
from ffnlab.report.verdict_text import verdict
from ffnlab.stats import Comparison, compare
from tests.stats.test_comparison import by_name, normal

BASE = 0.5 + 0.01 * normal(12, seed=5)
NOISE = 0.01 * normal(4, 12, seed=6)


def test_verdict_names_every_kind_in_one_sentence():
    scores = {
        "mlp": BASE,
        "glu": BASE + NOISE[0] + 0.2,
        "relu": BASE + NOISE[1] - 0.3,
        "silu": BASE + NOISE[1] - 0.2,
        "mish": BASE + NOISE[2],
        "elu": BASE + 20 * NOISE[3],
    }
    rows = compare(scores, "mlp", True, margin=0.05)
    undecided = by_name(rows)["elu"]
    assert verdict(rows, "{:.1f} %".format, margin=0.05) == (
        "Over 12 replicates, better than mlp: glu; worse than mlp: silu, relu; "
        "equivalent to mlp within ±0.1 %: mish; undecided: elu. "
        "All claims hold together at 95 % confidence; a difference of "
        f"{undecided.detectable:.1f} % would be detected four times in five, and about "
        f"{verdict_text._rounded(undecided.needed)} replicates would decide."
    )
    sentence = verdict(
        compare(scores, "mlp", True, margin=0.05, level=0.999), level=0.999
    )
    assert "All claims hold together at 99.9 % confidence" in sentence


def row(name, **fields):
    return Comparison(name, 8, 0.5, None, **fields)


def undecided(name, detectable, needed):
    return row(name, verdict="undecided", detectable=detectable, needed=needed)


MLP = row("mlp")


@pytest.mark.parametrize(
    "rows, reach",
    [
        ([undecided("a", 0.25, None)], "a difference of 0.25 would be"),
        (
            [undecided("a", 2.0, 20), undecided("b", 1.0, 1201)],
            "a difference of 1 to 2 would be detected four times in five, and about "
            "1,300 replicates would decide all.",
        ),
        (
            [undecided("a", 1.0, 20), undecided("b", 1.0, None)],
            "a difference of 1 would be detected four times in five, and about 20 "
            "replicates would decide.",
        ),
        (
            [undecided("a", 1.0, None), undecided("b", 3.0, None)],
            "a difference of 1 to 3 would be detected four times in five.",
        ),
    ],
)
def test_verdict_reports_what_could_have_been_detected(rows, reach):
    sentence = verdict([rows[0], MLP, *rows[1:], row("c", verdict="better")])
    assert sentence.startswith("Over 8 replicates, better than mlp: c; undecided: a")
    assert f"All claims hold together at 95 % confidence; {reach}" in sentence
    assert sentence.endswith(".")


def test_verdict_without_undecided_blocks_and_of_the_baseline_alone():
    assert verdict([row("a", verdict="worse"), MLP]) == (
        "Over 8 replicates, worse than mlp: a. All claims hold together at 95 % "
        "confidence."
    )
    assert verdict([row("a", verdict="equivalent"), MLP], margin=0.02) == (
        "Over 8 replicates, equivalent to mlp within ±0.02: a. "
        "All claims hold together at 95 % confidence."
    )
    assert verdict(compare({"mlp": [1.0] * 8}, "mlp", True)) == (
        "mlp is alone, so there is nothing to compare."
    )
    pair = (MLP, undecided("a", 1, 9))
    six = [dataclasses.replace(each, replicates=6) for each in pair]
    assert verdict(six) == (
        "Over 6 replicates, nothing is shown to differ from mlp, at 95 % confidence. "
        "A difference of 1 would be detected four times in five, and about 9 "
        "replicates would decide."
    )
    assert "differ from mlp, or to be within ±0.5 of it, at" in verdict(six, margin=0.5)


def test_a_verdict_names_at_most_four_undecided_blocks_and_a_unit_once():
    def points(difference):
        return f"{difference:.1f} points"

    rows = [undecided(name, size, 9) for size, name in enumerate("abcde", 1)]
    better = [MLP, row("z", verdict="better")]
    assert "; undecided: a, b, c, d. All" in verdict([*better, *rows[:4]], points)
    sentence = verdict([*better, *rows], points)
    assert "; undecided: the other 5. All" in sentence
    assert "a difference of 1.0 to 5.0 points would" in sentence


@pytest.mark.parametrize(
    "count, text",
    [(7, "7"), (99, "99"), (100, "100"), (101, "110"), (12_345, "13,000"), (9, "9")],
)
def test_numbers_are_rounded_up_to_two_digits(count, text):
    assert verdict_text._rounded(count) == text
