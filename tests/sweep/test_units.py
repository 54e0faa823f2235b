"""How scores are shown."""

import math

import pytest

from ffnlab import stats
from ffnlab.sweep import ranking, units
from ffnlab.train import objectives
from tests.sweep.test_ranking import OBJECTIVE, runs


def test_every_score_has_a_unit_and_a_range():
    monitors = {row.monitor for row in objectives.OBJECTIVES.values()}
    assert monitors == set(units.UNITS) == set(units.RANGES)


@pytest.mark.parametrize(
    "name,middle,ends,sign,expected",
    [
        ("classes", 0.99, (0.97, 1.02), "", "99.00 [97.00, 100.00]"),
        ("classes", 0.01, (-0.02, 0.03), "", "1.00 [0.00, 3.00]"),
        ("classes", 0.5, (0.4, 0.6), "", "50.00 [40.00, 60.00]"),
        ("classes", 0.5, (-1.5, 2.5), "+", "+50.00 [-100.00, +100.00]"),
        ("classes", -0.01, (-0.02, 0.01), "+", "-1.00 [-2.00, +1.00]"),
        ("bytes", 0.1, (-0.1, 9.5), "", "0.100 [0.000, 9.500]"),
        ("values", 0.1, (-0.1, 9.5), "+", "+0.1000 [-0.1000, +9.5000]"),
        ("values", 0.1, None, "", "0.1000"),
    ],
)
def test_intervals_end_where_the_range_of_the_score_ends(
    name, middle, ends, sign, expected
):
    interval = ends and stats.Interval(*ends)
    objective = objectives.OBJECTIVES[name]
    assert units.format_score(objective, middle, interval, sign) == expected


def test_only_what_is_shown_is_clipped():
    scores = [1.0, 1.0, 1.0, 1.0, 1.0, 0.9]
    assert stats.mean_interval(scores).high > 1.0
    result = ranking.rank(
        runs("mlp", [0.9] * 6) + runs("glu", scores), "mlp", OBJECTIVE
    )
    assert result.comparisons[0].interval.high > 1.0  # the statistic itself
    assert ", 100.00]" in result.table.rows[0][8]
    middle, ends = ranking.block_score(runs("glu", scores), "glu", OBJECTIVE)
    assert ends.low < middle < ends.high == 1.0


def test_a_range_may_be_open():
    assert stats.Interval(-1.0, 5.0).clip(0.0, math.inf) == (0.0, 5.0)
    assert stats.Interval(-1.0, 5.0).clip(-math.inf, 2.0) == (-1.0, 2.0)
