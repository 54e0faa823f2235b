"""Statistics of comparison against plain loops, simulations and their invariances."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.stats import Comparison, Interval, compare
from tests.stats.oracles import (
    INF,
    NAN,
    by_name,
    count_signs,
    exact_p_values,
    excludes_zero,
    named,
    normal,
    same,
    student,
)

FEW = settings(deadline=None, max_examples=30)

# Eighths are exact in float64, also after a shift or a scale by whole numbers.
eighths = st.integers(-40, 40).map(lambda n: n / 8)


@st.composite
def datasets(draw, most=9):
    """Draws scores of two to four blocks; `a` is the baseline."""
    replicates, blocks = draw(st.integers(2, most)), draw(st.integers(2, 4))
    row = st.lists(eighths, min_size=replicates, max_size=replicates)
    return {name: np.array(draw(row)) for name in "abcd"[:blocks]}


# compare, against the oracles


@pytest.mark.parametrize("n", [3, 5, 6, 7, 8])
def test_compare_is_the_count_of_all_signs(n):
    for seed in range(6):
        scores = named(normal(4, n, seed=seed) + [[0.0], [2.0], [0.4], [-1.0]])
        rows = [scores[name] - scores["a"] for name in "bcd"]
        largest = count_signs(rows)
        beyond = math.floor(0.05 * (1 + len(largest)))
        results = by_name(compare(scores, "a", True))
        for name, row in zip("bcd", rows, strict=True):
            reached = sum(draw >= abs(student(row)) for draw in largest)
            assert results[name].p_value == (1 + reached) / (1 + len(largest))
            if n < 6:
                assert results[name].difference_interval is None
                continue
            half = largest[-beyond] * scipy_stats.sem(row)
            expected = (row.mean() - half, row.mean() + half)
            assert_allclose(results[name].difference_interval, expected, atol=1e-5)


def test_compare_of_whole_numbers_is_exact():
    """Small whole numbers, so that many statistics tie."""
    rng = np.random.default_rng(0)
    for n in (3, 4, 5, 6, 7, 8):
        for _ in range(6):
            hits = rng.integers(0, 4, size=(3, n))
            rows = [[int(x) for x in row - hits[0]] for row in hits[1:]]
            expected = exact_p_values(rows)
            for scores in (hits, hits.astype(np.float64) / 7, hits / np.float32(7)):
                results = by_name(compare(named(scores), "a", True))
                assert [results[name].p_value for name in "bc"] == expected


@pytest.mark.parametrize("n", [6, 9, 12, 16])
def test_float32_accuracies_tie_as_exact_fractions_do(n):
    rng = np.random.default_rng(n)
    for _ in range(8):
        hits = rng.integers(340, 352, size=(4, n))
        hits[3] = hits[0] + 2  # the difference is always 2/359
        exact = by_name(compare(named(hits), "a", True))
        single = (hits / np.float64(359)).astype(np.float32)
        rounded = by_name(compare(named(single), "a", True))
        for name in "bcd":
            assert rounded[name].p_value == exact[name].p_value
            assert rounded[name].verdict == exact[name].verdict
            assert rounded[name].improvement == exact[name].improvement
        assert rounded["d"].verdict == "better"


def test_fields_of_a_comparison():
    scores = named(normal(3, 10) + [[0.0], [2.0], [-2.0]])
    best, baseline, worst = compare(scores, "a", True, test_ratio=0.25)
    assert [best.name, baseline.name, worst.name] == ["b", "a", "c"]
    assert baseline == Comparison(
        "a",
        10,
        scores["a"].mean(),
        stats.mean_interval(scores["a"]),
        scores=tuple(scores["a"]),
    )
    for row in (best, worst):
        differences = scores[row.name] - scores["a"]
        assert row.replicates == 10
        assert row.score == scores[row.name].mean()
        assert row.scores == tuple(scores[row.name])
        assert row.interval == stats.mean_interval(scores[row.name])
        assert row.difference == differences.mean()
        assert row.differences == tuple(differences)
        assert row.improvement == (differences > 0).mean()
        low, high = row.difference_interval
        assert_allclose((low + high) / 2, row.difference)
        error = scipy_stats.sem(differences)
        critical = (high - low) / 2 / error
        effect = stats.detectable_effect(critical, error, 10, blocks=2, beyond=25)
        assert_allclose(row.detectable, effect, rtol=1e-5)
    assert [best.verdict, worst.verdict] == ["better", "worse"]
    assert best.needed is worst.needed is None


def test_compare_accepts_float32_and_whole_numbers_and_returns_plain_numbers():
    scores = {"a": np.float32(normal(7)), "b": np.arange(7), "c": [1.5] * 7}
    plain = (str, int, float, tuple, Interval, type(None))
    for row in compare(scores, "a", True, margin=0.5, test_ratio=0.2):
        for value in dataclasses.astuple(row):
            assert type(value) in plain
        assert all(type(value) is float for value in row.differences)


def test_the_seed_matters_only_where_signs_are_drawn():
    for n in (13, 14):
        scores = named(normal(3, n) + [[0.0], [0.5], [0.4]])
        default, same, other = (
            compare(scores, "a", True, **seed)
            for seed in ({}, {"seed": 0}, {"seed": 1})
        )
        assert default == same
        assert (default == other) == (n == 13)


def test_ties_of_mean_scores_are_ranked_by_name():
    scores = {"c": [1.0, 2.0], "a": [2.0, 1.0], "b": [1.5, 1.5], "d": [3.0, 3.0]}
    assert [row.name for row in compare(scores, "b", True)] == ["d", "a", "b", "c"]
    assert [row.name for row in compare(scores, "b", False)] == ["a", "b", "c", "d"]


# compare, invariances


@given(datasets(), st.integers(-9, 9), st.integers(1, 5), st.randoms())
@FEW
def test_compare_follows_shift_and_scale(scores, shift, scale, random):
    replicates = scores["a"].size
    effects = np.array([random.randint(-9, 9) for _ in range(replicates)])
    before = by_name(compare(scores, "a", True, test_ratio=0.5))
    shifted = {name: row + shift + effects for name, row in scores.items()}
    for row in compare(shifted, "a", True, test_ratio=0.5):
        same(before[row.name], row)
    # A power of two keeps every digit.
    scaled = {name: row * 2.0**scale for name, row in scores.items()}
    for row in compare(scaled, "a", True, test_ratio=0.5):
        one = before[row.name]
        assert (row.p_value, row.verdict) == (one.p_value, one.verdict)
        if row.difference_interval is not None:
            ends = 2.0**scale * np.array(one.difference_interval)
            assert_allclose(row.difference_interval, ends, rtol=1e-9, atol=1e-12)
            assert_allclose(row.detectable, 2.0**scale * one.detectable, 1e-9, 1e-12)


@given(datasets(most=13), st.randoms())
@FEW
def test_order_of_blocks_and_replicates_does_not_matter(scores, random):
    before = by_name(compare(scores, "a", True))
    names = random.sample(sorted(scores), len(scores))
    assert compare({name: scores[name] for name in names}, "a", True) == compare(
        scores, "a", True
    )
    order = random.sample(range(scores["a"].size), scores["a"].size)
    for row in compare({k: v[order] for k, v in scores.items()}, "a", True):
        same(before[row.name], row)


@given(datasets())
@FEW
def test_losses_mirror_scores(scores):
    up = compare(scores, "a", True, margin=1.0)
    losses = {name: -row for name, row in scores.items()}
    down = compare(losses, "a", False, margin=1.0)
    assert [row.name for row in up] == [row.name for row in down]
    for high, low in zip(up, down, strict=True):
        same(high, low, flipped=True)
    mirrored = {"better": "worse", "worse": "better"}
    for row in compare(scores, "a", False, margin=1.0):
        one = by_name(up)[row.name]
        assert row.difference == one.difference and row.p_value == one.p_value
        assert row.verdict == mirrored.get(one.verdict, one.verdict)
        if row.improvement is not None:
            assert_allclose(row.improvement, 1 - one.improvement)


# p-value, interval and verdict agree


def awkward_datasets(n, rng):
    """Yields scores that are continuous, tied, or rounded to float32."""
    shifts = rng.choice([0.0, 0.5, 1.0, 2.0], size=(3, 1))
    yield rng.normal(size=(3, n)) + shifts
    yield rng.integers(0, 5, size=(3, n)) + np.round(shifts)
    hits = np.clip(rng.integers(340, 356, size=(3, n)) + np.round(4 * shifts), 0, 359)
    yield (hits / 359).astype(np.float32)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.96])
def test_interval_excludes_zero_exactly_when_p_says_so(level):
    rng, kinds = np.random.default_rng(0), {True: 0, False: 0}
    for n in range(6, 21):
        for scores in awkward_datasets(n, rng):
            rows = compare(named(scores), "a", True, level=level)
            # And where an end is moved to zero, as near as numbers get.
            low = by_name(rows)["b"].difference_interval.low
            moved = np.array(scores, np.float64)
            moved[1] -= low
            rows += compare(named(moved), "a", True, level=level)
            for row in rows:
                if row.verdict is not None:
                    claimed = row.verdict in ("better", "worse")
                    assert claimed == (row.p_value <= 1 - level + 1e-12)
                    assert claimed == excludes_zero(row.difference_interval)
                    kinds[claimed] += 1
                if row.verdict == "better":
                    assert row.difference_interval.low > 0
                if row.verdict == "worse":
                    assert row.difference_interval.high < 0
    assert min(kinds.values()) > 20


def test_p_at_the_level_itself_is_a_claim():
    """With 4 replicates the least p is a ninth."""
    scores = {"a": [0.0] * 4, "b": [1.0, 1.1, 0.9, 1.05]}
    row = compare(scores, "a", True, level=8 / 9)[0]
    assert row.p_value == 1 / 9 and row.verdict == "better"
    assert row.difference_interval.low > 0
    row = compare(scores, "a", True, level=0.9)[0]
    assert row.verdict == "undecided" and row.difference_interval is None


def test_least_p_value_never_rises_with_replicates():
    least = []
    for n in range(6, 23):
        scores = {"a": np.zeros(n), "b": 1 + 1e-3 * normal(n)}
        least.append(compare(scores, "a", True)[0].p_value)
    expected = [max(1 / (1 + 2 ** (n - 1)), 2**-13) for n in range(6, 23)]
    assert least == expected


# margin


def test_equivalent_whether_or_not_the_interval_excludes_zero():
    noise = 0.01 * normal(10)
    for shift in (0.0, 0.1, -0.1):
        scores = {"a": np.zeros(10), "b": noise + shift}
        row = by_name(compare(scores, "a", True, margin=0.2))["b"]
        assert row.verdict == "equivalent" and row.needed is None
        assert excludes_zero(row.difference_interval) == (shift != 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_equivalent_exactly_when_the_interval_lies_within_the_margin(sign):
    scores = {"a": np.zeros(9), "b": sign * (normal(9) + 0.1)}
    row = by_name(compare(scores, "a", True))["b"]
    widest = max(map(abs, row.difference_interval))
    for factor, kind in ((1.0, "equivalent"), (0.9999, "undecided")):
        row = by_name(compare(scores, "a", True, margin=factor * widest))["b"]
        assert row.verdict == kind
    row = by_name(compare(scores, "a", True, margin=0.01))["b"]
    assert row.verdict == "undecided"


# new data


@given(datasets(), st.sampled_from([0.1, 0.25, 1.0]))
@FEW
def test_p_of_new_data_is_not_below_p(scores, ratio):
    for row in compare(scores, "a", True, test_ratio=ratio):
        if row.name != "a":
            assert row.p_value <= row.p_new_data <= 1


def test_p_of_new_data_uses_nadeau_and_bengios_variance():
    """The variance of the mean is (1/n + n_test/n_train) of that of a difference."""
    for n, ratio in ((7, 0.25), (8, 0.1), (8, 1.0)):
        scores = named(normal(3, n, seed=n) + [[0.0], [2.0], [1.0]])
        rows = [scores[name] - scores["a"] for name in "bc"]
        largest = count_signs(rows)
        results = by_name(compare(scores, "a", True, test_ratio=ratio))
        for name, row in zip("bc", rows, strict=True):
            error = math.sqrt((1 / n + ratio) * statistics.variance(row))
            statistic = abs(statistics.fmean(row)) / error
            reached = sum(draw >= statistic for draw in largest)
            assert results[name].p_new_data == (1 + reached) / (1 + len(largest))
        assert by_name(compare(scores, "a", True))["b"].p_new_data is None


# Wrong input


@pytest.mark.parametrize("margin", [0, -1.0, NAN])
def test_a_margin_that_is_not_above_0_is_refused(margin):
    with pytest.raises(InputError, match=f"^margin: {margin:g} must be above 0$"):
        compare({"a": [1, 2], "b": [1, 2]}, "a", True, margin=margin)


@pytest.mark.parametrize("ratio", [0, -1.0, NAN])
def test_a_test_ratio_that_is_not_above_0_is_refused(ratio):
    with pytest.raises(InputError, match=f"^test_ratio: {ratio:g} must be above 0$"):
        compare({"a": [1, 2], "b": [1, 2]}, "a", True, test_ratio=ratio)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, NAN, 0.9999])
def test_a_level_out_of_range_is_refused(level):
    calls = (
        lambda: compare({"a": [1, 2], "b": [1, 2]}, "a", True, level=level),
        lambda: stats.mean_interval([1.0, 2.0], level),
        lambda: stats.least_replicates(level),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"^level: {level:g} must be above 0 and"):
            call()


def test_the_highest_level_has_an_interval():
    scores = {"a": np.zeros(16), "b": 1 + 1e-3 * normal(16)}
    row = compare(scores, "a", True, level=1 - 2**-13)[0]
    assert row.verdict == "better" and row.difference_interval.low > 0


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_scores_that_are_not_finite_are_refused(value):
    message = f"scores of b: {value} in replicate 1; give a run that diverged"
    with pytest.raises(InputError, match=message):
        compare({"a": [1.0, 2.0, 3.0], "b": [0.0, value, value]}, "a", True)
    with pytest.raises(InputError, match=f"^scores: {value} in replicate 0"):
        stats.mean_interval([value, 1.0])


@pytest.mark.parametrize("bad", [[], 3.0, ["high"], [[1.0], [1.0, 2.0]], [None], [[1]]])
def test_scores_that_are_no_row_of_numbers_are_refused(bad):
    with pytest.raises(InputError, match="^scores of a: expected"):
        compare({"a": bad}, "a", True)


def test_blocks_of_other_lengths_and_unknown_baselines_are_refused():
    with pytest.raises(InputError, match="^b has 3 replicates, a has 2; they are"):
        compare({"a": [1, 2], "b": [1, 2, 3]}, "a", True)
    with pytest.raises(InputError, match="^baseline: unknown 'mpl'; nearest: mlp"):
        compare({"mlp": [1, 2]}, "mpl", True)


# Calibration


def test_one_null_comparison_in_twenty_claims_something():
    """300 data sets of 12 blocks; 99.9 % of binomial counts lie within the bounds."""
    rng, claims = np.random.default_rng(0), 0
    for _ in range(300):
        rows = compare(named(rng.normal(size=(12, 8))), "a", True)
        claims += any(row.verdict in ("better", "worse") for row in rows)
    low, high = scipy_stats.binom.interval(0.999, 300, 0.05)
    assert low <= claims <= high
