"""Rates beyond those of the grid, by a hand-made training."""

import numpy as np
import pytest

from ffnlab.sweep import tuning
from ffnlab.sweep.result_lines import choose_members
from tests.sweep.test_result_lines import LOSS_PLAN, PLAN, population

BEST = {3: 0.01, 4: 1.0}  # the rate at which each seed scores best


def score(seed, rate):
    return -abs(np.log(rate / BEST[seed]))


@pytest.mark.parametrize(
    ("rates", "best", "expected"),
    [
        ([0.001, 0.003, 0.01], 0.003, None),
        ([0.001, 0.003, 0.01, 0.03], 0.03, 0.1),
        ([0.0003, 0.001, 0.003], 0.0003, 0.0001),
        ([0.1, 0.2], 0.2, 0.4),
        ([0.1, 0.2], 0.1, 0.05),
        ([0.1], 0.1, None),
    ],
)
def test_the_pattern_of_the_grid_goes_on(rates, best, expected):
    assert tuning.next_rate(rates, best) == expected


def trained(rates, plan=PLAN):
    """Returns a population of seeds 3 and 4 at some rates, with its best scores."""
    sign = 1 if plan.higher_is_better else -1
    best = [sign * score(seed, rate) for rate in rates for seed in (3, 4)]
    members = population(best, seeds=(3, 4))
    rates = np.repeat(np.float32(rates), 2)
    return members._replace(
        seeds=np.tile([3, 4], len(rates) // 2), learning_rates=rates
    )


def extended(grid, most, plan=PLAN):
    """Returns the extended population, and the extensions."""
    seen = []

    def fit(extension):
        seen.append(extension)
        seeds, rates, splits = extension.members
        assert splits.tolist() == (seeds - 3).tolist()
        sign = 1 if plan.higher_is_better else -1
        best = [sign * score(s, r) for s, r in zip(seeds, rates, strict=True)]
        return population(best)._replace(seeds=seeds, learning_rates=rates)

    return tuning.extend(trained(grid, plan), plan, most, fit), seen


@pytest.mark.parametrize("plan", [PLAN, LOSS_PLAN])
def test_each_seed_goes_on_until_its_best_is_inside(plan):
    runs, seen = extended([0.001, 0.01, 0.1], 3, plan)
    assert [extension.number for extension in seen] == [1, 2]
    assert [extension.count for extension in seen] == [1, 1]
    assert all(len(extension.members.seeds) == 2 for extension in seen)
    assert runs.seeds.tolist() == [3, 4, 3, 4, 3, 4, 4, 4]
    np.testing.assert_allclose(runs.learning_rates[6:], [1.0, 10.0])
    chosen = choose_members(runs, plan)
    np.testing.assert_allclose(runs.learning_rates[chosen], [0.01, 1.0])
    assert runs.fit.record.loss.shape == (8, 5)
    assert runs.fit.record.scores["accuracy"].shape == (8, 3)
    assert runs.fit.seconds_per_step == pytest.approx(8e-6 * 8 / 6)


def test_both_edges_are_extended_at_once_and_no_further_than_allowed():
    runs, seen = extended([0.03, 0.1, 0.3], 1)
    assert len(seen) == 1 and seen[0].count == 2
    assert sorted(runs.learning_rates[6:].round(6).tolist()) == [
        pytest.approx(0.01), pytest.approx(1.0)
    ]  # fmt: skip
    assert extended([0.03, 0.1, 0.3], 0)[1] == []
    assert extended([0.1], 3)[1] == []


def test_parameters_and_curves_follow_their_members():
    first = trained([0.001, 0.01, 0.1])

    def fit(extension):
        seeds, rates, _ = extension.members
        further = population([score(*pair) for pair in zip(seeds, rates, strict=True)])
        negative = {"w": -1 - further.fit.best["w"]}
        fit = further.fit._replace(best=negative)
        return further._replace(seeds=seeds, learning_rates=rates, fit=fit)

    runs = tuning.extend(first, PLAN, 1, fit)
    assert runs.seeds.tolist() == [3, 4, 3, 4, 3, 4, 4]
    np.testing.assert_array_equal(runs.fit.best["w"][:6], first.fit.best["w"])
    np.testing.assert_array_equal(runs.fit.best["w"][6:], [[-1, -2]])
    np.testing.assert_array_equal(runs.fit.record.loss[6], [0, 1, 2, 3, 4])
    assert runs.fit.record.step == 5


def test_a_member_is_a_seed_a_rate_and_a_split():
    extension = tuning._next(trained([0.001, 0.01]), PLAN, 1)
    assert extension.members.seeds.tolist() == [3, 4]
    assert extension.members.splits.tolist() == [0, 1]
    assert extension.members.learning_rates.dtype == np.float32
