"""What a comparison detects, and how many replicates it needs."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from ffnlab import stats
from ffnlab.stats import compare
from tests.stats.oracles import by_name, normal

# detectable_effect, needed


@pytest.mark.parametrize("n, critical", [(6, 4.0), (16, 3.2), (40, 2.0)])
def test_detectable_effect_is_detected_four_times_in_five(n, critical):
    """A run estimates the error, and a new one has a difference of the printed size."""
    first, second = normal(2, 20_000, n)
    errors = first.std(axis=1, ddof=1) / math.sqrt(n)
    effects = [stats.detectable_effect(critical, error, n) for error in errors]
    means = second.mean(axis=1) + effects
    errors = second.std(axis=1, ddof=1) / math.sqrt(n)
    assert abs((means / errors > critical).mean() - 0.8) < 0.012


def test_detectable_effect_at_its_limits():
    for n in (3, 6, 30):
        # The mean over an estimated error is t-distributed, and so is the effect.
        effect = stats.detectable_effect(0.0, 2.0, n)
        assert_allclose(effect, 2 * scipy_stats.t.ppf(0.8, n - 1), rtol=5e-3)
        for critical in (1e4, 4e6):  # only the two estimated errors matter
            effect = stats.detectable_effect(critical, 1.0, n)
            ratio = math.sqrt(scipy_stats.f.ppf(0.8, n - 1, n - 1))
            assert_allclose(effect, critical * ratio, rtol=5e-3)


def standardised(n, mean, spread, seed=0):
    """Returns scores of two blocks whose difference has this mean and spread."""
    numbers = normal(n, seed=seed)
    numbers = (numbers - numbers.mean()) / numbers.std(ddof=1)
    return {"a": np.zeros(n), "b": mean + spread * numbers}


def needed(n, mean, spread, **options):
    row = by_name(compare(standardised(n, mean, spread), "a", True, **options))["b"]
    assert row.verdict == "undecided"
    return row.needed


def test_needed_falls_with_the_mean_and_rises_with_the_spread():
    counts = [needed(10, mean, 1.0) for mean in (0.001, 0.01, 0.1, 0.3, 0.6)]
    assert counts[0] is None and counts[1:] == sorted(counts[1:], reverse=True)
    counts = [needed(10, 0.3, spread) for spread in (0.6, 1.0, 3.0)]
    assert counts == sorted(set(counts)) and counts[0] > 10
    assert needed(10, -0.3, 1.0) == needed(10, 0.3, 1.0)
    assert needed(10, 0.0, 1.0) is None
    assert needed(10, 0.0027, 1.0) is None
    assert needed(10, 0.0028, 1.0) > 900_000
    margins = [needed(10, 0.0, 1.0, margin=margin) for margin in (0.1, 0.3, 0.7)]
    assert margins == sorted(set(margins), reverse=True)
    # A small margin leaves the way of a difference open.
    assert needed(10, 0.3, 1.0, margin=0.01) == needed(10, 0.3, 1.0)
    sides = [needed(10, mean, 1.0, margin=0.5) for mean in (0.1, -0.1)]
    assert sides[0] == sides[1] < needed(10, 0.1, 1.0)


@pytest.mark.parametrize(
    "mean, margin, kind", [(0.5, None, "better"), (0.0, 0.4, "equivalent")]
)
def test_needed_replicates_decide_four_times_in_five(mean, margin, kind):
    count = needed(12, mean, 1.0, margin=margin)
    rng, decided = np.random.default_rng(0), 0
    for _ in range(200):
        scores = {"a": np.zeros(count), "b": mean + rng.normal(size=count)}
        row = by_name(compare(scores, "a", True, margin=margin))["b"]
        decided += row.verdict == kind
    assert 0.7 < decided / 200 < 0.9


@pytest.mark.parametrize("replicates, mean", [(7, 0.1), (16, 0.3)])
def test_needed_is_the_number_at_which_power_reaches_four_fifths(replicates, mean):
    count = needed(replicates, mean, 1.0)
    row = by_name(compare(standardised(replicates, mean, 1.0), "a", True))["b"]
    low, high = row.difference_interval
    critical = (high - low) / 2 * math.sqrt(replicates)
    tail = scipy_stats.t.sf(critical, replicates - 1)

    def power(n):
        bound = scipy_stats.t.isf(tail, n - 1)
        return scipy_stats.norm.cdf(mean * math.sqrt(n) - bound)

    assert power(count - 1) < 0.8 <= power(count)
