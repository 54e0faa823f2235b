"""Statistics of comparison against scipy, published examples, and their invariances."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.stats import (
    bootstrap_interval,
    iqm,
    paired_permutation_test,
)

pytestmark = pytest.mark.filterwarnings("error")
INF = float("inf")
unhurried = settings(deadline=None, max_examples=50)  # machines are loaded at times

# Eighths are exact in float64, also after a shift or a scale by whole numbers, so that
# an invariance holds to the last bit and ties are ties.
eighths = st.integers(-80, 80).map(lambda n: n / 8)
runs = st.lists(eighths, min_size=1, max_size=12)
diverging_runs = st.lists(
    st.one_of(eighths, st.just(-INF)), min_size=1, max_size=9
)  # of a score of which higher is better


def pairs(elements, max_size=9):
    return st.lists(st.tuples(elements, elements), min_size=1, max_size=max_size).map(
        lambda rows: tuple(map(list, zip(*rows, strict=True)))
    )


def scores(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# iqm


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 11])
def test_iqm_is_scipys_trimmed_mean(n):
    values = scores(3, n)
    expected = [np.sort(row)[n // 4 : n - n // 4].mean() for row in values]
    assert_allclose(iqm(values), expected, rtol=1e-12)
    assert_allclose(iqm(values.T, axis=0), expected, rtol=1e-12)
    assert_allclose(iqm(values), scipy_stats.trim_mean(values, 0.25, axis=-1))


def test_iqm_by_hand():
    assert iqm([1, 2, 3, 4, 5, 6, 7, 800]) == 4.5
    assert iqm([3]) == 3


@pytest.mark.parametrize("worst", [-INF, INF])
def test_iqm_trims_a_quarter_of_diverged_runs_and_no_more(worst):
    assert iqm([worst, worst, 1, 2, 3, 4, 5, 6]) in (2.5, 4.5)
    assert iqm([worst, worst, worst, 2, 3, 4, 5, 6]) == worst
    assert iqm([worst]) == worst
    assert iqm([-INF, 1.0, 2.0, INF]) == 1.5


def test_iqm_refuses_what_has_no_mean():
    with pytest.raises(InputError, match="inf and -inf"):
        iqm([[1.0, 2.0], [-INF, INF]])


def test_a_single_nan_is_refused():
    with pytest.raises(InputError, match="iqm: NaN; score a diverged run inf"):
        iqm([1.0, float("nan")])
    with pytest.raises(InputError, match="second scores: NaN"):
        paired_permutation_test([1.0, 2.0], [1.0, float("nan")])


@given(runs, st.integers(-9, 9), st.randoms())
@unhurried
def test_iqm_ignores_the_order_of_seeds_and_follows_a_shift(values, shift, random):
    shuffled = random.sample(values, len(values))
    assert_allclose(iqm(np.add(shuffled, shift)), iqm(values) + shift, atol=1e-12)
    assert_allclose(iqm(np.multiply(values, -3)), -3 * iqm(values), atol=1e-12)


# bootstrap_interval


def test_bootstrap_of_the_mean_is_scipys_percentile_interval():
    values = scores(30)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert_allclose(bootstrap_interval(values, np.mean), tuple(theirs), atol=0.02)


def test_bootstrap_follows_the_exact_bootstrap_distribution():
    """All 4^4 resamples of 4 runs, counted, against random ones."""
    values = np.array([1.0, 2.0, 4.0, 8.0])
    exact = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=4)])
    low, high = bootstrap_interval(values, np.mean, level=0.8)
    assert (low, high) == (exact[25], exact[-26])


def test_bootstrap_stays_within_strata():
    easy, hard = 0.9 + 0.01 * scores(12), 0.1 + 0.01 * scores(12, seed=1)
    stratified = bootstrap_interval([easy, hard], np.mean)
    pooled = bootstrap_interval(np.concatenate([easy, hard]), np.mean)
    assert stratified.high - stratified.low < 0.02 < pooled.high - pooled.low
    theirs = scipy_stats.bootstrap(
        (easy, hard),
        lambda a, b, axis: np.concatenate([a, b], axis=axis).mean(axis=axis),
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert_allclose(stratified, tuple(theirs), atol=3e-4)


def test_bootstrap_level_counts_estimates_from_both_ends():
    """Of 19 resamples and 90 %, the ends are the smallest and the largest estimate."""
    seen = []

    def spy(samples, axis):
        seen.append(samples.mean(axis=axis))
        return seen[-1]

    interval = bootstrap_interval(scores(15), spy, level=0.9, resamples=19)
    (estimates,) = seen
    assert interval == (estimates.min(), estimates.max())
    with pytest.raises(InputError, match="resamples=18"):
        bootstrap_interval(scores(5), level=0.9, resamples=18)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_bootstrap_ends_are_symmetric_and_widen_with_the_level(level):
    values = np.concatenate([scores(10), -scores(10)])
    low, high = bootstrap_interval(values, np.mean, level)
    assert_allclose(low, -high, atol=0.05)
    wider = bootstrap_interval(values, np.mean, (1 + level) / 2)
    assert wider.low <= low < high <= wider.high


def test_bootstrap_is_repeatable_and_depends_on_the_seed():
    values = scores(10)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values) == bootstrap_interval(
        values, iqm, 0.95, resamples=9_999, seed=0
    )


def test_bootstrap_of_many_runs_is_drawn_in_batches(monkeypatch):
    monkeypatch.setattr(stats, "_BATCH", 100)
    sizes = []

    def spy(samples, axis):
        sizes.append(len(samples))
        return samples.mean(axis=axis)

    bootstrap_interval(scores(2, 15), spy, level=0.5, resamples=10)
    assert sizes == [3, 3, 3, 1]


def test_bootstrap_of_one_run_is_the_point():
    assert bootstrap_interval([0.7]) == (0.7, 0.7)
    assert bootstrap_interval([[0.5], [0.75]]) == (0.625, 0.625)
    assert bootstrap_interval([-INF]) == (-INF, -INF)


def test_bootstrap_of_diverged_runs_is_infinite_at_their_end_only():
    low, high = bootstrap_interval([-INF, *range(7)])
    assert low == -INF and np.isfinite(high)
    low, high = bootstrap_interval([INF, *range(7)], np.median)
    assert np.isfinite(low) and np.isfinite(high)
    with pytest.raises(InputError, match="inf and -inf"):
        bootstrap_interval([INF, -INF, 0.0], np.mean)


@given(runs, st.integers(-9, 9), st.integers(1, 5))
@settings(unhurried, max_examples=20)
def test_bootstrap_follows_shift_and_scale(values, shift, scale):
    expected = np.multiply(scale, bootstrap_interval(values, resamples=99)) + shift
    moved = bootstrap_interval(np.multiply(scale, values) + shift, resamples=99)
    assert_allclose(moved, expected, atol=1e-12)


def test_bootstrap_covers_at_about_its_level():
    """400 experiments of 30 runs each, of mean 0; standard error of coverage is 1 %."""
    intervals = np.array(
        [
            bootstrap_interval(row, np.mean, level=0.9, resamples=999)
            for row in scores(400, 30)
        ]
    )
    covered = np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0))
    assert 0.83 < covered < 0.95


def test_bootstrap_refuses_more_than_strata_and_seeds():
    with pytest.raises(InputError, match="bootstrap_interval: expected one score"):
        bootstrap_interval(scores(2, 3, 4))


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_bootstrap_refuses_a_level_that_is_no_fraction(level):
    with pytest.raises(InputError, match="level"):
        bootstrap_interval([1.0, 2.0], level=level)


# paired_permutation_test


def scipys_permutation_test(differences):
    return scipy_stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(differences),
    ).pvalue


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11])
def test_permutation_test_is_scipys(n):
    a, b = scores(2, n, seed=n) + [[0.5], [0.0]]
    assert_allclose(paired_permutation_test(a, b), scipys_permutation_test(a - b))


@given(pairs(eighths, max_size=7))
@settings(unhurried, max_examples=30)
def test_permutation_test_is_scipys_with_ties_and_zeros(pair):
    difference = np.subtract(*pair)
    if len(difference) > 1:  # scipy refuses a single pair
        expected = scipys_permutation_test(difference)
        assert_allclose(paired_permutation_test(*pair), expected)


def test_permutation_test_of_darwins_maize():
    """Fisher 1935, section 21: 863 of 2^15 sums reach the observed 314, either way."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(differences) == 314
    assert paired_permutation_test(differences, [0] * 15) == 2 * 863 / 2**15


def test_permutation_test_smallest_p_is_one_assignment_and_its_mirror():
    for n in (1, 2, 6, 20):
        assert paired_permutation_test(np.arange(1, n + 1), np.zeros(n)) == 2 ** (1 - n)


def test_permutation_test_of_no_evidence():
    assert paired_permutation_test([0.5] * 7, [0.5] * 7) == 1
    assert paired_permutation_test([0.5] * 30, [0.5] * 30) == 1
    assert paired_permutation_test([0.5], [0.1]) == 1
    assert paired_permutation_test([-INF], [0.1]) == 1


def test_permutation_test_counts_ties_that_rounding_breaks():
    """0.1 + 0.2 - 0.3 is 0 but for rounding, and so is each way to reach it."""
    assert paired_permutation_test([0.1, 0.2, 0.0], [0.0, 0.0, 0.3]) == 1
    a, b = np.array([0.91, 0.92, 0.94, 0.95]), np.array([0.90, 0.90, 0.93, 0.97])
    exact = paired_permutation_test([91, 92, 94, 95], [90, 90, 93, 97])
    assert paired_permutation_test(a, b) == exact
    assert paired_permutation_test(a * 1e-200, b * 1e-200) == exact


def test_permutation_test_counts_ties_of_float32_scores():
    hits = np.random.default_rng(0).integers(300, 350, size=(2, 12))
    single = (hits / np.float64(360)).astype(np.float32)
    assert paired_permutation_test(*single) == paired_permutation_test(*hits)


def test_permutation_test_drawn_agrees_with_counted(monkeypatch):
    a, b = scores(2, 12, seed=5) + [[0.6], [0.0]]
    exact = paired_permutation_test(a, b)
    monkeypatch.setattr(stats, "EXACT_SEEDS", 0)
    drawn = paired_permutation_test(a, b)
    assert 0.01 < exact < 0.5
    assert_allclose(drawn, exact, atol=5 * np.sqrt(exact / 9_999))
    assert drawn == paired_permutation_test(a, b)
    assert drawn != paired_permutation_test(a, b, seed=1)
    assert drawn == paired_permutation_test(a, b, resamples=9_999, seed=0)


def test_permutation_test_drawn_is_never_zero():
    a = 10 + scores(40)
    assert paired_permutation_test(a, np.zeros(40)) == 1e-4
    assert paired_permutation_test(a, np.zeros(40), resamples=99) == 0.01


@given(pairs(st.one_of(eighths, st.just(-INF)), max_size=7))
@settings(unhurried, max_examples=30)
def test_permutation_test_of_diverged_runs_is_wilcoxons(pair):
    a, b = map(np.array, pair)
    differences = np.subtract(a, b, out=np.zeros(len(a)), where=a != b)
    if np.isinf(differences).any() and len(a) > 1:
        everything = scipy_stats.PermutationMethod(n_resamples=np.inf)
        expected = scipy_stats.wilcoxon(
            np.clip(differences, -1e6, 1e6), zero_method="pratt", method=everything
        ).pvalue
        assert_allclose(paired_permutation_test(a, b), expected)


def test_permutation_test_counts_a_diverged_run_as_the_largest_difference():
    better = np.arange(1.0, 9.0)
    assert paired_permutation_test(better, [0.0] * 7 + [-INF]) == 2**-7
    assert paired_permutation_test([-INF, *better[1:]], [0.0] * 8) > 0.1
    assert paired_permutation_test([-INF, *better[1:]], [-INF] + [0.0] * 7) == 2**-6
    assert paired_permutation_test([-INF] * 3 + [0.0] * 20, [0.0] * 23) > 0.2


@given(pairs(eighths), st.integers(-9, 9), st.integers(1, 5), st.randoms())
@unhurried
def test_permutation_test_invariances(pair, shift, scale, random):
    p = paired_permutation_test(*pair)
    order = random.sample(range(len(pair[0])), len(pair[0]))
    a, b = np.array(pair)[:, order] * scale + shift
    assert paired_permutation_test(a, b) == p
    assert paired_permutation_test(b, a) == p
    assert paired_permutation_test(-a, -b) == p
    assert 2.0 ** (1 - len(a)) <= p <= 1


@pytest.mark.parametrize("n", [6, 8])
def test_permutation_test_rejects_a_true_null_at_its_level(n):
    """1000 experiments; the standard error of the share rejected is 0.7 % to 1.3 %."""
    p = np.array([paired_permutation_test(*pair) for pair in scores(1000, 2, n)])
    for alpha in (0.05, 0.25):
        assert 0.5 * alpha < np.mean(p <= alpha) < alpha + 0.04


def test_permutation_test_refuses_unpaired_seeds():
    with pytest.raises(InputError, match="3 seeds against 2"):
        paired_permutation_test([1, 2, 3], [1, 2])
