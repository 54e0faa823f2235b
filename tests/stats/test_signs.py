"""Intervals of a mean, and the largest statistic under all or drawn signs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from ffnlab import stats
from ffnlab.stats import Interval, signs
from tests.stats.oracles import count_signs, normal

# mean_interval


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_mean_interval_is_students(n, level):
    scores = 3 + 2 * normal(n, seed=n)
    expected = scipy_stats.t.interval(
        level, n - 1, loc=scores.mean(), scale=scipy_stats.sem(scores)
    )
    assert_allclose(stats.mean_interval(scores, level), expected, rtol=1e-12)
    if level == 0.95:
        assert stats.mean_interval(scores) == stats.mean_interval(scores, level)


def test_mean_interval_of_equal_scores_and_of_one():
    assert stats.mean_interval([0.5] * 7) == Interval(0.5, 0.5)
    assert stats.mean_interval([0.5]) is None
    assert type(stats.mean_interval(np.float32([1, 2])).low) is float


# largest_statistics, least_replicates


@pytest.mark.parametrize("n", range(2, 9))
def test_largest_statistics_count_all_signs(n):
    rows = normal(3, n, seed=n) * [[1.0], [100.0], [0.01]] + [[5.0], [0.0], [-1.0]]
    if n == 2:  # Signs that differ undo the centring, so that one draw is infinite.
        (low, high) = stats.largest_statistics(rows)
        assert low < 1e-6 and high > 1e5
        return
    assert_allclose(stats.largest_statistics(rows), count_signs(rows), 1e-6, 1e-9)
    assert_allclose(
        stats.largest_statistics(rows[0]), count_signs(rows[:1]), 1e-6, 1e-9
    )


@pytest.mark.parametrize("n, draws", [(12, 2**11), (13, 2**12), (14, 8191), (21, 8191)])
def test_signs_are_counted_up_to_13_replicates_and_drawn_beyond(n, draws):
    rows = normal(2, n)
    largest = stats.largest_statistics(rows)
    assert largest.shape == (draws,)
    assert (np.diff(largest) >= 0).all() and largest[0] >= 0
    assert (stats.largest_statistics(rows, seed=0) == largest).all()
    same = (stats.largest_statistics(rows, seed=1) == largest).all()
    assert same == (n <= 13)


def test_drawn_signs_agree_with_all_signs(monkeypatch):
    rows = normal(4, 14)
    drawn = stats.largest_statistics(rows)
    monkeypatch.setattr(signs, "EXACT", 14)
    counted = stats.largest_statistics(rows)
    assert counted.shape == (2**13,)
    shares = [0.1, 0.5, 0.8, 0.95]
    for share, quantile in zip(shares, np.quantile(counted, shares), strict=True):
        assert abs((drawn <= quantile).mean() - share) < 0.02


def test_equal_differences_have_the_statistic_0():
    noise = 1e-9 * normal(1, 6)
    constant = 0.3 + noise
    assert (stats.largest_statistics(constant, rounding=1e-8) == 0).all()
    assert (stats.largest_statistics(constant, rounding=1e-11) > 0).any()
    other = normal(1, 6, seed=1)
    both = stats.largest_statistics([*constant, *other], rounding=[1e-8, 0.0])
    assert_allclose(both, stats.largest_statistics(other), atol=1e-9)
    assert_allclose(
        stats.largest_statistics([*constant, *other]),
        count_signs([*noise, *other]),
        rtol=1e-5,
        atol=1e-6,
    )
    assert (stats.largest_statistics(np.full((2, 5), 2.0)) == 0).all()


def test_least_replicates_is_where_the_least_p_value_suffices():
    for level in (0.1, 0.5, 0.6, 0.75, 0.9, 0.95, 0.97, 0.99, 0.999, 0.9998):
        least = stats.least_replicates(level)
        enough = [n for n in range(3, 20) if 1 / (1 + 2 ** (n - 1)) <= 1 - level]
        assert least == enough[0], level
    assert stats.least_replicates() == 6
    # 1 / (1 + 2^(4 - 1)) is a ninth.
    assert stats.least_replicates(8 / 9) == 4
