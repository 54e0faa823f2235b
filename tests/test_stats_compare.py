"""Corrections, improvements, comparisons and verdicts, as `test_stats.py` the rest."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats as scipy_stats

from ffnlab.errors import InputError
from ffnlab.stats import (
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    holm,
    iqm,
    probability_of_improvement,
    verdict,
)
from tests.test_stats import INF, diverging_runs, eighths, pairs, scores, unhurried

pytestmark = pytest.mark.filterwarnings("error")

# holm


def test_holm_of_benjamini_and_hochbergs_thrombolysis_study():
    """Benjamini and Hochberg 1995, section 3.2: at 0.05, Bonferroni finds three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    adjusted = holm(p)
    assert_allclose(adjusted[:5], [0.0015, 0.0056, 0.0247, 0.114, 0.2211])
    assert (adjusted <= 0.05).sum() == 3


def test_holm_keeps_the_order_given():
    """The example of pingouin's and of Wikipedia's page on Holm's method."""
    assert_allclose(
        holm([0.50, 0.003, 0.32, 0.054, 0.0003]), [0.64, 0.012, 0.64, 0.162, 0.0015]
    )
    assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(p_values, st.floats(0.001, 0.999))
@unhurried
def test_holm_rejects_what_the_step_down_procedure_rejects(p, alpha):
    """Holm 1979 as stated: from the smallest up to the first p > α / left."""
    adjusted, rejected = holm(p), set()
    for left, index in zip(range(len(p), 0, -1), np.argsort(p), strict=True):
        if p[index] * left > alpha:
            break
        rejected.add(int(index))
    assert rejected == set(np.flatnonzero(adjusted <= alpha))


@given(p_values, st.randoms())
@unhurried
def test_holm_is_monotone_and_between_p_and_bonferroni(p, random):
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, np.multiply(len(p), p))).all()
    order = random.sample(range(len(p)), len(p))
    assert_array_equal(holm(np.array(p)[order]), adjusted[order])


def test_holm_of_one_and_of_none():
    assert holm([0.03]) == [0.03]
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("p", [[float("nan")], [1.5], [-0.1, 0.2], [[0.1]], 0.1])
def test_holm_refuses_what_are_no_p_values(p):
    with pytest.raises(InputError, match="holm"):
        holm(p)


# probability_of_improvement


@given(diverging_runs, diverging_runs)
@unhurried
def test_improvement_counts_pairs(a, b):
    wins = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert_allclose(probability_of_improvement(a, b), np.mean(wins))
    both = probability_of_improvement(a, b) + probability_of_improvement(b, a)
    assert_allclose(both, 1)


def test_improvement_is_mann_whitneys_u():
    a, b = scores(9), scores(7, seed=1)
    u = scipy_stats.mannwhitneyu(a, b).statistic
    assert_allclose(probability_of_improvement(a, b), u / 63)


def test_improvement_of_many_at_once():
    a, b = scores(4, 9), scores(4, 7, seed=1)
    rows = [probability_of_improvement(*pair) for pair in zip(a, b, strict=True)]
    assert_allclose(probability_of_improvement(a, b), rows)


def test_improvement_has_a_bootstrap_interval():
    def improvement(both, axis):
        return probability_of_improvement(*np.split(both, 2, axis))

    better, worse = scores(2, 20) + [[0.8], [0.0]]
    low, high = bootstrap_interval([better, worse], improvement)
    assert 0.5 < low < probability_of_improvement(better, worse) < high < 1
    theirs = scipy_stats.bootstrap(
        (better, worse),
        lambda a, b, axis: probability_of_improvement(a, b),
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert_allclose((low, high), tuple(theirs), atol=0.02)


# compare


ACCURACIES = {
    "mlp": [0.90, 0.91, 0.89, 0.92, 0.90, 0.91, 0.90, 0.88],
    "glu": [0.93, 0.93, 0.92, 0.94, 0.92, 0.94, 0.93, 0.92],
    "relu": [0.85, 0.87, 0.84, 0.88, 0.86, 0.85, 0.85, 0.84],
    "mish": [0.90, 0.92, 0.88, 0.92, 0.91, 0.90, 0.90, 0.89],
}


def test_compare_ranks_and_tests_each_block():
    glu, mish, mlp, relu = compare(ACCURACIES, "mlp", higher_is_better=True)
    names = [row.name for row in (glu, mish, mlp, relu)]
    assert names == ["glu", "mish", "mlp", "relu"]
    assert mlp == Comparison(
        "mlp", 8, 0, iqm(ACCURACIES["mlp"]), bootstrap_interval(ACCURACIES["mlp"])
    )
    differences = np.subtract(ACCURACIES["glu"], ACCURACIES["mlp"])
    assert glu.difference == differences.mean()
    assert glu.difference_interval == bootstrap_interval(differences, np.mean)
    assert glu.p_value == relu.p_value == 2**-7
    assert glu.p_corrected == relu.p_corrected == 3 * 2**-7
    assert mish.p_value == mish.p_corrected > 0.5
    assert (glu.direction, mish.direction, relu.direction) == (1, 1, -1)
    assert glu.improvement == probability_of_improvement(
        ACCURACIES["glu"], ACCURACIES["mlp"]
    )
    assert relu.improvement == 0.5 / 64 and 0.4 < mish.improvement < 0.6
    assert [row.significant() for row in (glu, mish, mlp, relu)] == [1, 0, 0, 1]
    assert glu.significant(alpha=3 * 2**-7) and not glu.significant(alpha=0.01)


def test_compare_of_losses_mirrors_compare_of_scores():
    losses = {name: np.negative(row) for name, row in ACCURACIES.items()}
    up = compare(ACCURACIES, "mlp", higher_is_better=True)
    down = compare(losses, "mlp", higher_is_better=False)
    for high, low in zip(up, down, strict=True):
        same = ("name", "p_value", "p_corrected", "direction")
        assert all(getattr(high, field) == getattr(low, field) for field in same)
        assert_allclose(low.iqm, -high.iqm)
        if high.name != "mlp":
            assert_allclose(low.difference, -high.difference)
            assert_allclose(low.improvement, high.improvement)


def test_compare_resamples_by_its_seed_and_level():
    blocks = {"mlp": scores(9), "glu": scores(9, seed=1)}
    default, other = (compare(blocks, "mlp", True, seed=seed) for seed in (0, 1))
    assert default == compare(blocks, "mlp", True, level=0.95) != other
    for row in compare(blocks, "mlp", True, level=0.5, seed=2):
        values = blocks[row.name]
        assert row.interval == bootstrap_interval(values, level=0.5, seed=2)
        if row.name == "glu":
            differences = values - blocks["mlp"]
            assert row.difference_interval == bootstrap_interval(
                differences, np.mean, 0.5, seed=2
            )


@given(st.permutations(list(ACCURACIES)))
@settings(unhurried, max_examples=4)
def test_compare_ignores_the_order_of_blocks(names):
    shuffled = {name: ACCURACIES[name] for name in names}
    assert compare(shuffled, "mlp", True) == compare(ACCURACIES, "mlp", True)


def test_compare_accepts_float32_arrays_and_gives_plain_numbers():
    arrays = {name: np.float32(row) for name, row in ACCURACIES.items()}
    for exact, single in zip(
        compare(ACCURACIES, "mlp", True), compare(arrays, "mlp", True), strict=True
    ):
        assert (exact.name, exact.p_corrected) == (single.name, single.p_corrected)
        for value in dataclasses.astuple(single):
            assert type(value) in (str, int, float, Interval, type(None))


def test_compare_of_a_single_seed_is_defined():
    best, baseline = compare({"mlp": [0.8], "glu": [0.9]}, "mlp", True)
    assert best.interval == (0.9, 0.9) and baseline.interval == (0.8, 0.8)
    assert_allclose(best.difference_interval, (best.difference, best.difference))
    assert (best.p_value, best.p_corrected, best.improvement) == (1, 1, 1)


def test_compare_of_the_baseline_alone():
    (row,) = compare({"mlp": [0.8, 0.9]}, "mlp", True)
    assert row.p_value is row.difference is row.improvement is row.direction is None
    assert not row.significant(alpha=1.0)


def test_compare_of_diverged_runs():
    losses = {
        "mlp": [1.0] * 9,
        "glu": [0.5] * 8 + [INF],
        "relu": [2.0] * 6 + [INF] * 3,
    }
    glu, mlp, relu = compare(losses, "mlp", higher_is_better=False)
    assert [row.diverged for row in (glu, mlp, relu)] == [1, 0, 3]
    assert (glu.name, glu.iqm, relu.iqm) == ("glu", 0.5, INF)
    assert glu.difference == INF and glu.difference_interval == (-0.5, INF)
    assert glu.direction == 1 and relu.direction == -1


def test_compare_of_runs_diverged_on_both_sides():
    """A mean of +inf and -inf does not exist, but ranks do: nothing is even here."""
    first, second = compare(
        {"mlp": [1.0, 2.0, INF], "glu": [INF, 2.0, 1.0]}, "mlp", higher_is_better=False
    )
    assert first.name == "glu" and first.difference is None
    assert first.difference_interval is None and first.p_value == 1
    assert first.direction == 0 and first.improvement == 0.5
    only, _ = compare({"mlp": [1.0, INF], "glu": [INF, 1.0]}, "mlp", False)
    assert only.difference is None and only.direction == 0


def test_compare_refuses_what_cannot_be_compared():
    with pytest.raises(InputError, match="glu has 3 seeds, mlp has 2"):
        compare({"mlp": [1, 2], "glu": [1, 2, 3]}, "mlp", True)
    with pytest.raises(InputError, match="baseline: unknown 'mpl'; nearest: mlp"):
        compare(ACCURACIES, "mpl", True)
    with pytest.raises(InputError, match="scores of glu: NaN"):
        compare({"mlp": [1.0], "glu": [float("nan")]}, "mlp", True)
    with pytest.raises(InputError, match="glu: a score is inf; diverged is -inf"):
        compare({"mlp": [1.0], "glu": [INF]}, "mlp", True)


@pytest.mark.parametrize("bad", [[], 3.0, ["high"], [[1.0], [1.0, 2.0]], [None], [[1]]])
def test_scores_that_are_none_are_refused(bad):
    with pytest.raises(InputError, match="scores of mlp: expected"):
        compare({"mlp": bad}, "mlp", True)


# verdict


def test_verdict_names_blocks_and_directions():
    rows = compare(ACCURACIES, "mlp", higher_is_better=True)
    scale = "from mlp at α = {} after Holm correction over 3 tests with 8 seeds"
    assert verdict(rows) == (
        f"Significantly different {scale.format(0.05)}: glu (better); relu (worse)."
    )
    assert verdict(rows, alpha=0.001) == (
        f"No significant difference {scale.format(0.001)}"
        "; with so few seeds the smallest corrected p is 0.0234375."
    )


def test_verdict_without_a_difference():
    blocks = {"mlp": scores(12), "glu": scores(12, seed=1), "relu": scores(12, seed=2)}
    assert verdict(compare(blocks, "mlp", True)) == (
        "No significant difference from mlp at α = 0.05 after Holm correction over "
        "2 tests with 12 seeds."
    )
    assert verdict(compare(blocks, "mlp", True), alpha=2**-10).endswith("12 seeds.")


def test_verdict_of_the_baseline_alone():
    assert verdict(compare({"mlp": [0.1, 0.9]}, "mlp", True)) == (
        "No significant difference from mlp at α = 0.05 after Holm correction over "
        "0 tests with 2 seeds."
    )


def test_verdict_of_one_seed_claims_nothing():
    assert verdict(compare({"mlp": [0.1], "glu": [0.9]}, "mlp", True)) == (
        "No significant difference from mlp at α = 0.05 after Holm correction over "
        "1 test with 1 seed; with so few seeds the smallest corrected p is 1."
    )


def test_verdict_tells_of_diverged_runs():
    blocks = {"mlp": [0.5] * 8, "glu": [0.9] * 7 + [-INF], "relu": [-INF] * 8}
    sentence = verdict(compare(blocks, "mlp", higher_is_better=True))
    assert ": relu (worse) (diverged runs: 1 of glu, 8 of relu)." in sentence


@given(pairs(eighths), st.sampled_from([0.01, 0.05, 0.5]))
@settings(unhurried, max_examples=20)
def test_verdict_claims_exactly_what_is_significant(pair, alpha):
    rows = compare(dict(zip(["mlp", "glu"], pair, strict=True)), "mlp", True)
    claimed = verdict(rows, alpha).startswith("Significantly different")
    assert claimed == any(row.significant(alpha) for row in rows)
