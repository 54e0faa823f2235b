"""Joint verdicts: by hand, and by simulation."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ffnlab.sweep import joint, ranking
from ffnlab.sweep.joint import mean_effect
from tests.sweep.test_ranking import GOOD, OBJECTIVE, WORSE, runs


def test_equal_effects_have_the_weighted_mean():
    result = mean_effect([1.0, 1.0, 1.0], [0.1, 0.2, 0.4])
    assert result.mean == pytest.approx(1) and result.spread == 0
    weights = 1 / np.square([0.1, 0.2, 0.4])
    half = scipy_stats.t.ppf(0.975, 2) / np.sqrt(weights.sum())
    assert result.interval == pytest.approx((1 - half, 1 + half))
    three = mean_effect([1.0, 1.0, 1.0], [0.1, 0.2, 0.4], tests=3).interval
    half = scipy_stats.t.ppf(1 - 0.05 / 6, 2) / np.sqrt(weights.sum())
    assert three == pytest.approx((1 - half, 1 + half))


def test_effects_that_differ_are_written_out_by_hand():
    y, v = np.array([0.2, 1.4, -0.6, 0.9]), np.square([0.1, 0.2, 0.15, 0.3])
    w = 1 / v
    fixed = (w * y).sum() / w.sum()
    q = (w * (y - fixed) ** 2).sum()
    between = (q - 3) / (w.sum() - (w**2).sum() / w.sum())
    w = 1 / (v + between)
    mean = (w * y).sum() / w.sum()
    factor = max(1, (w * (y - mean) ** 2).sum() / 3)
    half = scipy_stats.t.ppf(0.975, 3) * np.sqrt(factor / w.sum())
    result = mean_effect(y, np.sqrt(v))
    assert result.mean == pytest.approx(mean)
    assert result.spread == pytest.approx(np.sqrt(between))
    assert result.interval == pytest.approx((mean - half, mean + half))
    assert np.isfinite(mean_effect([1.0, 1.0], [0.0, 0.0]).interval).all()


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("count", [3, 8])
def test_intervals_cover_the_mean_effect(between, count):
    rng, covered = np.random.default_rng(count), 0
    for _ in range(600):
        errors = rng.uniform(0.1, 0.5, count)
        y = 0.3 + between * rng.normal(size=count) + errors * rng.normal(size=count)
        low, high = mean_effect(y, errors).interval
        covered += low <= 0.3 <= high
    assert covered / 600 >= 0.93


def ranked(*blocks):
    return ranking.rank([run for block in blocks for run in block], "mlp", OBJECTIVE)


def test_a_joint_verdict_names_the_direction_and_the_data_sets():
    one = ranked(runs("mlp", WORSE), runs("glu", GOOD), runs("elu", WORSE))
    lower = [score - 0.1 for score in WORSE]
    two = ranked(runs("mlp", WORSE), runs("glu", GOOD), runs("elu", lower))
    result = joint.judge_together({"digits": one, "wine": two, "iris": one})
    effect = result.effects["glu"]
    deviation = np.std(WORSE, ddof=1)
    assert effect.mean == pytest.approx(0.05 / deviation)
    assert result.verdict.startswith(
        "Over 3 data sets (digits, wine, iris), better than mlp: glu. All claims"
    )
    assert result.table.columns == [
        "block", "mean effect", "between data sets", "digits", "wine", "iris", "verdict"
    ]  # fmt: skip
    assert [row[0] for row in result.table.rows] == ["glu", "elu"]
    assert [row[-1] for row in result.table.rows] == ["better", "undecided"]
    assert result.effects["elu"].spread > 0 and result.table.rows[1][3] == "+0.00"
    assert result.table.rows[1][4] == f"{-0.1 / deviation:+.2f}"


def test_a_smaller_loss_is_a_positive_effect():
    one = ranked(runs("mlp", WORSE), runs("glu", GOOD))
    loss = one._replace(higher_is_better=False)
    result = joint.judge_together({"a": loss, "b": loss, "c": loss})
    assert result.effects["glu"].mean < 0 and "worse than mlp: glu" in result.verdict


def test_data_sets_on_which_the_baseline_never_differs_are_left_out():
    flat = ranked(runs("mlp", [1.0] * 8), runs("glu", GOOD))
    one = ranked(runs("mlp", WORSE), runs("glu", GOOD))
    result = joint.judge_together({"iris": flat, "a": one, "b": one, "c": one})
    assert "Over 3 data sets (a, b, c)" in result.verdict
    result = joint.judge_together({"iris": flat, "a": one})
    assert result.verdict.startswith("There is no joint verdict")
    assert result.table.rows == [] and result.effects == {}
