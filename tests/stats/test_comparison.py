"""Statistics of comparison against plain loops, simulations and their invariances."""

import dataclasses
import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.report.verdict_text import verdict
from ffnlab.stats import Comparison, Interval, compare, intervals, signs

NAN, INF = float("nan"), float("inf")
FEW = settings(deadline=None, max_examples=30)

# Eighths are exact in float64, also after a shift or a scale by whole numbers.
eighths = st.integers(-40, 40).map(lambda n: n / 8)


@st.composite
def datasets(draw, most=9):
    """Draws scores of two to four blocks; `a` is the baseline."""
    replicates, blocks = draw(st.integers(2, most)), draw(st.integers(2, 4))
    row = st.lists(eighths, min_size=replicates, max_size=replicates)
    return {name: np.array(draw(row)) for name in "abcd"[:blocks]}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def named(rows):
    return dict(zip("abcdefghijklmnop", rows, strict=False))


def by_name(comparisons):
    return {row.name: row for row in comparisons}


def excludes_zero(interval):
    return interval.low > 0 or interval.high < 0


# Oracles


def student(values):
    """Returns the mean over its standard error."""
    spread = statistics.stdev(values)
    return statistics.fmean(values) / (spread / math.sqrt(len(values)))


def count_signs(rows):
    """Returns the largest statistic of all rows for each choice of the signs."""
    largest = []
    for choice in itertools.product((1, -1), repeat=len(rows[0])):
        if choice[0] == 1:
            flipped = [
                [sign * (x - statistics.fmean(row)) for sign, x in zip(choice, row)]  # noqa: B905
                for row in rows
            ]
            largest.append(max(abs(student(row)) for row in flipped))
    return sorted(largest)


def exact_p_values(rows):
    """Returns the p-value of each row of whole numbers, by exact arithmetic."""

    def square(values):
        total, squares = sum(values), sum(x * x for x in values)
        rest = len(values) * squares - total * total
        if rest == 0:
            return INF if total else 0
        return Fraction(total * total, rest)

    n, largest = len(rows[0]), []
    centred = [[n * x - sum(row) for x in row] for row in rows]
    for choice in itertools.product((1, -1), repeat=n - 1):
        flipped = [
            [s * x for s, x in zip((1, *choice), row, strict=True)] for row in centred
        ]
        largest.append(max(map(square, flipped)))
    reached = [sum(draw >= square(row) for draw in largest) for row in rows]
    return [(1 + count) / (1 + len(largest)) for count in reached]


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


def same(first, second, flipped=False):
    """Checks that comparisons agree, but for rounding and perhaps all signs."""
    sign = -1 if flipped else 1
    assert first.p_value == second.p_value
    assert first.p_new_data == second.p_new_data
    assert first.improvement == second.improvement
    assert first.verdict == second.verdict
    most = 10**6
    assert (first.needed or most) == pytest.approx(second.needed or most, rel=1e-3)
    if first.difference is not None:
        assert_allclose(second.difference, sign * first.difference, atol=1e-9)
    if first.difference_interval is not None:
        ends = np.multiply(sign, first.difference_interval[::sign])
        assert_allclose(second.difference_interval, ends, rtol=1e-4, atol=1e-4)
        assert_allclose(second.detectable, first.detectable, rtol=1e-4, atol=1e-3)


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
