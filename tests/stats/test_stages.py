"""Comparisons in stages: boundaries against a plain loop, and what is dropped."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ffnlab.errors import InputError
from ffnlab.stats import compare, power, signs, stages
from ffnlab.stats.comparison import going_on
from ffnlab.stats.stages import Draws, stages_for
from tests.stats.test_comparison import by_name, named, normal


def spend(statistics, shares, count):
    """Returns the boundaries by going through the draws from the largest one."""
    alive, spent, results = set(range(len(statistics[0]))), 0, []
    for row, share in zip(statistics, shares, strict=True):
        may = math.floor(count * share + 1e-9) - 1 - spent  # the observed one is a draw
        ordered = sorted((row[i] for i in alive), reverse=True)
        critical = [*ordered, -math.inf][may] if may >= 0 else math.inf
        beyond = {i for i in alive if row[i] > critical}
        assert len(beyond) <= max(may, 0)
        alive -= beyond
        spent += len(beyond)
        results.append(critical)
    return results


def test_boundaries_spend_what_each_stage_may():
    rng = np.random.default_rng(1)
    for trial in range(20):
        rows = [
            np.round(row, 1 if trial % 2 else 9) for row in rng.normal(size=(3, 99))
        ]
        draws = Draws(rows, [0.2, 0.5, 1.0], [20, 40, 60])
        for count in (1, 4, 10, 40, 100):
            assert draws.criticals(count) == spend(rows, draws.shares, count)
        assert draws.size == 99 and draws.count(0.9) == 10


def test_one_stage_is_the_comparison_without_stages():
    for n in (14, 20):
        scores = named(normal(4, n) + np.array([[0.0], [0.3], [1.5], [0.0]]))
        staged = by_name(compare(scores, "a", True, stages=(n,), margin=2.0))
        for row in compare(scores, "a", True, margin=2.0):
            assert staged[row.name] == row


def test_p_is_the_least_error_at_which_the_interval_excludes_zero():
    scores, plan = named(normal(3, 40) + np.array([[0.0], [0.3], [0.5]])), (20, 40, 60)
    for count in (20, 40):
        rows = {name: row[:count] for name, row in scores.items()}
        for name in "bc":
            p_value = by_name(compare(rows, "a", True, stages=plan))[name].p_value
            assert 0.003 < p_value < 0.9
            for change, excluded in ((0.0, True), (0.001, False)):
                level = 1 - p_value + change
                again = by_name(compare(rows, "a", True, stages=plan, level=level))
                low, high = again[name].difference_interval
                assert (low > 0 or high < 0) == excluded


def test_an_early_stage_asks_for_more():
    scores = named(normal(3, 20) + np.array([[0.0], [0.6], [0.9]]))
    alone = by_name(compare(scores, "a", True))
    first = by_name(compare(scores, "a", True, stages=(20, 40, 60, 80)))
    for name in "bc":
        assert first[name].p_value > alone[name].p_value
        assert first[name].detectable > alone[name].detectable
        assert first[name].difference == alone[name].difference


def test_what_a_stage_found_does_not_change_later():
    scores = named(normal(4, 48) + np.array([[0.0], [3.0], [0.2], [0.0]]))
    plan = (16, 32, 48)
    first = {name: row[:16] for name, row in scores.items()}
    before = by_name(compare(first, "a", True, stages=plan))
    assert before["b"].verdict == "better" and before["c"].verdict == "undecided"
    later = {name: row[: 16 if name == "b" else 48] for name, row in scores.items()}
    after = by_name(compare(later, "a", True, stages=plan))
    assert after["b"] == before["b"]
    assert after["c"].replicates == 48 and after["a"].replicates == 48
    # The block that was dropped is still in the family of the others.
    without = {name: row for name, row in later.items() if name != "b"}
    alone = by_name(compare(without, "a", True, stages=plan))
    assert alone["c"].p_value < after["c"].p_value


def test_blocks_go_on_that_may_still_be_decided():
    scores = named(normal(5, 16) + np.array([[0.0], [3.0], [0.7], [0.0], [0.0]]))
    noise = normal(16, seed=5)
    scores["d"] = scores["a"] + noise - noise.mean()
    plan = (16, 32, 48, 64)
    rows = by_name(compare(scores, "a", True, stages=plan))
    assert rows["b"].verdict == "better" and rows["b"].chance is None
    assert rows["e"].chance > 0.5 and 0 < rows["d"].chance < stages.FUTILE
    assert going_on(rows.values()) == ["e"]
    whole = {name: np.tile(row, 4) for name, row in scores.items()}
    last = compare(whole, "a", True, stages=plan)
    assert going_on(last) == []  # there is no further stage


def test_the_chance_is_the_share_of_runs_that_the_last_stage_decides():
    rng = np.random.default_rng(0)
    mean, error, share, critical = 0.8, 0.5, 0.25, 2.6
    truth = rng.normal(mean, error, size=200_000)
    rest = truth + error * math.sqrt(share / (1 - share)) * rng.normal(size=truth.size)
    final, half = share * mean + (1 - share) * rest, critical * error * math.sqrt(share)
    for margin in (None, 1.2):
        decided = np.abs(final) > half
        if margin is not None:
            decided |= np.abs(final) + half <= margin
        chance = power.chance_of_decision(mean, error, critical, share, margin)
        assert_allclose(chance, decided.mean(), atol=0.005)


def test_draws_of_a_stage_continue_those_of_the_one_before():
    for few, many in ((10, 14), (15, 40)):
        short, long = signs._signs(few, 3, False), signs._signs(many, 3, False)
        assert (long[:, :few] == short).all()
        assert set(np.unique(long)) == {-1.0, 1.0}


def test_few_replicates_have_few_choices_of_signs():
    """Drawn signs make no more of six replicates than all 32 choices of them."""
    largest = np.sort(np.random.default_rng(0).random(32))
    every = Draws([largest], [1.0], [6])
    drawn = Draws([np.repeat(largest, 256)[:-1]], [1.0], [6])
    for place in (-1, -2, -5):
        between = (largest[place] + largest[place - 1]) / 2
        expected = (1 - place) / 33
        assert_allclose(every.p_value(0, between), expected)
        assert_allclose(drawn.p_value(0, between), expected, atol=2e-4)
    assert_allclose(drawn.p_value(0, 99.0), 1 / 33)
    for level in (0.95, 0.9, 0.8):
        counts = [each.count(level) for each in (every, drawn)]
        assert every.criticals(counts[0]) == drawn.criticals(counts[1])


def test_stages_end_where_replicates_do():
    assert stages_for(16, 64) == (16, 32, 48, 64)
    assert stages_for(16, 16) == (16,)
    assert stages_for(20, 50) == (20, 40, 50)
    with pytest.raises(InputError, match=r"^6 replicates in each of 4 stages: a stage"):
        stages_for(6, 24)


def test_replicates_that_end_no_stage_are_refused():
    scores = {"a": normal(32), "b": normal(20, seed=1)}
    message = r"^b has 20 replicates, which is not the end of a stage; stages end after"
    with pytest.raises(InputError, match=message):
        compare(scores, "a", True, stages=(16, 32))
    with pytest.raises(InputError, match="^b has 20 replicates, a has 32"):
        compare(scores, "a", True)
