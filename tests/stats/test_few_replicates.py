"""Comparisons of few replicates, of equal scores and of rounded ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ffnlab import stats
from ffnlab.report.verdict_text import verdict
from ffnlab.stats import Comparison, compare, intervals
from tests.stats.oracles import by_name, excludes_zero, normal, same

# few replicates, equal differences


@pytest.mark.parametrize("n", [3, 4, 5])
def test_fewer_than_six_replicates_give_p_but_no_claim(n):
    scores = {"a": 1e-3 * normal(n), "b": 9 + 1e-3 * normal(n, seed=1)}
    row = compare(scores, "a", True, margin=100.0, test_ratio=0.1)[0]
    assert row.p_value == 1 / (1 + 2 ** (n - 1)) <= row.p_new_data
    assert row.verdict == "undecided"
    assert row.difference_interval is row.detectable is row.needed is None
    assert row.interval is not None
    assert verdict([row, Comparison("a", n, 0.0, None)]) == (
        f"Over {n} replicates, nothing can be claimed about a and the others: "
        "a claim needs at least 6 replicates."
    )


def test_two_replicates_give_a_p_value_that_never_suffices():
    """Signs that differ make the centred differences equal, and their error 0."""
    row = compare({"a": [0.0, 0.1], "b": [9.0, 9.0]}, "a", True, level=0.3)[0]
    assert row.p_value == 2 / 3 and row.verdict == "undecided"
    assert row.difference_interval is row.detectable is None


def test_one_replicate_gives_neither_interval_nor_p():
    for level in (0.2, 0.95):
        rows = compare(
            {"a": [0.8], "b": [0.9]}, "a", True, margin=1.0, test_ratio=0.1, level=level
        )
        best, baseline = rows
        assert best.difference == pytest.approx(0.1)
        assert best.improvement == 1.0 and best.verdict == "undecided"
        assert best.p_value is best.p_new_data is best.needed is None
        assert best.difference_interval is best.detectable is None
        assert best.interval is baseline.interval is None
        assert verdict(rows, level=level) == (
            "Over 1 replicate, nothing can be claimed about a and the others: a claim "
            f"needs at least {stats.least_replicates(level)} replicates."
        )


@pytest.mark.parametrize("n", [6, 7, 16])
def test_equal_differences(n):
    rng = np.random.default_rng(n)
    base = rng.integers(300, 350, size=n) / np.float32(359)
    noisy = base + 0.1 * np.float32(normal(n))
    for shift, kind in ((0.0, "undecided"), (0.1, "better"), (-0.1, "worse")):
        scores = {"a": base, "b": base + np.float32(shift), "c": noisy}
        results = by_name(compare(scores, "a", True))
        row = results["b"]
        assert row.verdict == kind
        assert_allclose(row.difference_interval, (shift, shift), atol=1e-4)
        assert row.detectable < 1e-4
        assert excludes_zero(row.difference_interval) == (shift != 0)
        least = max(1 / (1 + 2 ** (n - 1)), 2**-13)
        assert row.p_value == (least if shift else 1.0)
        assert row.needed is None
        # Such a block changes nothing about the others.
        alone = by_name(compare({"a": base, "c": noisy}, "a", True))
        same(alone["c"], results["c"])


def test_scores_that_are_all_equal_are_undecided_or_equivalent():
    for value in (0.0, 0.7, -1e6):
        scores = {"a": [value] * 8, "b": [value] * 8}
        row = by_name(compare(scores, "a", True))["b"]
        assert (row.p_value, row.verdict) == (1.0, "undecided")
        assert_allclose(
            row.difference_interval, (0, 0), atol=1e-6 * abs(value) + 1e-300
        )
        assert row.improvement == 0.5 and row.needed is None
        row = by_name(compare(scores, "a", True, margin=10.0))["b"]
        assert row.verdict == "equivalent"


def test_differences_of_one_size_have_finite_detectable_effects():
    """Signs exist that make all differences equal, and the largest statistic huge."""
    scores = {"a": np.zeros(6), "b": np.array([0, 0, 0, 1, 1, 1.0]), "c": normal(6)}
    for row in compare(scores, "a", True):
        if row.verdict is not None:
            assert row.verdict == "undecided" and row.p_value > 0.05
            assert 1e3 < row.detectable < 1e9
            assert excludes_zero(row.difference_interval) is False


def test_rounding_is_that_of_the_largest_score_in_float32():
    small, large = np.array([1.0, 0.0]), np.array([2.0, -8.0, 3.0])
    for rows in ((small, large), (large, small)):
        assert intervals.rounding_error(*rows) == 2 * 2.0**-23 * 8
    assert 0 < intervals.rounding_error(np.zeros(3), np.zeros(3)) < 1e-300
