"""The lines of a hand-made population, and what is read from lines."""

import numpy as np
import pytest

from ffnlab.sweep import result_lines
from ffnlab.sweep.population import Population
from ffnlab.train.loop import Fit
from ffnlab.train.record import Plan, Record
from tests.sweep.test_ranking import GOOD, WORSE, at_three_rates, runs

PLAN = Plan(steps=5, every=2, batch=4, monitor="accuracy", higher_is_better=True)
LOSS_PLAN = Plan(steps=5, every=2, batch=4)


def choose(members, plan, shared_rate=False):
    return result_lines.choose_members(members, plan, shared_rate).tolist()


def population(best, diverged=None, seeds=(3, 4), **record):
    """Returns a population of two rates and as many seeds, by the best scores."""
    members = len(best)
    diverged = np.full(members, -1) if diverged is None else np.array(diverged)
    curve = np.arange(3.0 * members).reshape(members, 3)
    fields = {
        "step": np.array(5),
        "loss": np.arange(5.0 * members).reshape(members, 5),
        "scores": {"accuracy": curve, "loss": -curve},
        "best": np.array(best, np.float32),
        "best_step": np.tile([2, 4, 5], members)[:members],
        "waited": np.zeros(members, np.int32),
        "diverged": diverged,
    }
    best_params = {"w": np.arange(2.0 * members).reshape(members, 2)}
    fit = Fit(None, best_params, Record(**fields | record), 8e-6, 2.5)
    rates = np.repeat(np.float32([0.001, 0.01]), len(seeds))[:members]
    return Population(np.tile(seeds, 2)[:members], rates, fit)


@pytest.mark.parametrize(
    ("best", "chosen"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0, 1]),
        ([0.7, 0.6, 0.9, 0.8], [2, 3]),
        ([0.9, 0.8, 0.8, 0.9], [0, 1]),  # equal: the first
    ],
)
def test_the_best_shared_learning_rate_is_chosen(best, chosen):
    assert choose(population(best), PLAN, shared_rate=True) == chosen
    losses = population([-score for score in best])
    assert choose(losses, LOSS_PLAN, shared_rate=True) == chosen


@pytest.mark.parametrize(
    ("best", "chosen"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0, 1]),
        ([0.9, 0.8, 0.8, 0.9], [0, 3]),
        ([0.7, 0.8, 0.8, 0.8], [2, 3]),  # equal: the lower loss, which falls here
    ],
)
def test_every_run_has_the_learning_rate_that_is_best_for_it(best, chosen):
    assert choose(population(best), PLAN) == chosen
    assert choose(population([-score for score in best]), LOSS_PLAN) == chosen


def test_of_equal_scores_one_inside_the_rates_is_chosen():
    members = population([0.9, 0.9, 0.9, 0.8], seeds=(3, 3, 3, 3))
    rates = np.float32([0.01, 0.001, 0.003, 0.1])
    members = members._replace(learning_rates=rates)
    assert choose(members, PLAN) == [2]  # the lower loss of 0.01 and 0.003
    assert choose(members._replace(learning_rates=rates[[0, 1, 3, 2]]), PLAN) == [0]


def test_a_diverged_run_is_the_worst_of_its_learning_rate():
    members = population([0.9, 0.8, 0.7, 0.6], diverged=[0, -1, -1, -1])
    assert choose(members, PLAN, shared_rate=True) == [2, 3]
    assert choose(members, PLAN) == [2, 1]
    losses = population([0.1, 0.2, 0.3, 0.4], diverged=[-1, 7, -1, -1])
    assert choose(losses, LOSS_PLAN, shared_rate=True) == [2, 3]
    assert choose(losses, LOSS_PLAN) == [0, 3]


def test_of_one_learning_rate_all_are_chosen():
    members = population([0.9, 0.8])
    assert choose(members, PLAN) == choose(members, PLAN, True) == [0, 1]


def test_lines_hold_everything_of_a_run():
    members = population([0.9, 0.8, 0.7, 0.6])
    test = {"accuracy": np.array([0.75, 0.5]), "loss": np.array([1.0, 2.0])}
    facts = {"block": "glu", "parameters": np.int64(7)}
    lines = result_lines.lines(facts, members, PLAN, np.array([2, 3]), test)
    assert [(line["seed"], line["learning_rate"]) for line in lines] == [
        (3, 0.001), (4, 0.001), (3, 0.01), (4, 0.01),
    ]  # fmt: skip
    assert lines[3] == {
        "block": "glu",
        "parameters": 7,
        "microseconds_per_step": 2.0,  # of each of the four members
        "compile_seconds": 2.5,
        "seed": 4,
        "tried": 2,
        "learning_rate": 0.01,
        "diverged_at": None,
        "best_step": 2,
        "valid": {"accuracy": 9.0, "loss": -9.0},
        "chosen": True,
        "test": {"accuracy": 0.5, "loss": 2.0},
        "curve": {
            "step": [2, 4, 5],
            "train_loss": [15.5, 17.5, 19.0],
            "accuracy": [9.0, 10.0, 11.0],
            "loss": [-9.0, -10.0, -11.0],
        },
    }
    # The score of the evaluation at the best step: the second and the third.
    assert [line["valid"]["accuracy"] for line in lines] == [0.0, 4.0, 8.0, 9.0]
    assert [line["chosen"] for line in lines] == [False, False, True, True]
    assert lines[0]["test"] is lines[1]["test"] is None


def test_lines_of_runs_that_diverged_or_were_never_scored():
    members = population(
        [0.9, 0.8, 0.7, 0.6], diverged=[-1, -1, 0, -1], best_step=np.array([2, 4, 5, 0])
    )
    test = {"accuracy": np.array([0.75, 0.5])}
    lines = result_lines.lines({}, members, PLAN, np.array([2, 3]), test)
    assert [line["diverged_at"] for line in lines] == [None, None, 0, None]
    for line in lines[2:]:
        assert line["best_step"] is line["valid"] is line["test"] is None
        assert line["chosen"]


def test_the_trivial_score_is_that_of_the_split():
    members = population([0.9, 0.8, 0.7, 0.6], seeds=(0, 1))
    test = {"accuracy": np.array([0.75, 0.5])}
    lines = result_lines.lines({}, members, PLAN, np.array([2, 3]), test, [0.1, 0.2])
    assert [line["trivial"] for line in lines] == [0.1, 0.2, 0.1, 0.2]
    lines = result_lines.lines({}, members, PLAN, np.array([2, 3]), test, [0.1])
    assert [line["trivial"] for line in lines] == [0.1] * 4


# curves and rates


def test_curves_are_of_the_chosen():
    other = [run | {"chosen": False} for run in runs("mlp", [0.1])]
    curves = result_lines.curves(
        other + runs("mlp", GOOD) + runs("glu", WORSE), "accuracy"
    )
    np.testing.assert_array_equal(curves["mlp"], np.array(GOOD)[:, None])
    np.testing.assert_array_equal(curves["glu"], np.array(WORSE)[:, None])


def test_infinite_scores_are_left_out_of_curves():
    rows = runs("mlp", [0.5], curve={"accuracy": [0.5, np.inf, None]})
    curve = result_lines.curves(rows, "accuracy")["mlp"]
    np.testing.assert_array_equal(curve, [[0.5, np.nan, np.nan]])


def test_scores_and_choices_by_rate():
    rows = at_three_rates("mlp", GOOD, 0.1, 3)
    rows[1]["valid"] = None
    scores, chosen = result_lines.rate_scores(rows, "accuracy")
    assert chosen == {"mlp": {0.001: 0, 0.01: 5, 0.1: 3}}
    np.testing.assert_allclose(scores["mlp"][0.1], np.array(GOOD) - 0.01)
    assert np.isnan(scores["mlp"][0.001]).tolist() == [False, True] + 6 * [False]


def test_a_curve_ends_where_its_run_diverged_whatever_the_others_do():
    """The evaluations are after 2, 4 and 5 steps; what was best stays."""
    members = population(
        [0.9, 0.8, 0.7, 0.6],
        diverged=[3, 4, 2, -1],
        best_step=np.array([2, 4, 0, 5], np.int32),
    )
    given = members, PLAN, np.array([0, 3]), {"accuracy": np.array([0.5, 0.5])}
    rows = result_lines.lines({"block": "a"}, *given)
    curves = [row["curve"]["accuracy"] for row in rows]
    assert curves == [[0, None, None], [3, 4, None], [None] * 3, [9, 10, 11]]
    losses = [row["curve"]["train_loss"] for row in rows]
    assert losses == [[0.5, None, None], [5.5, 7.5, None], [None] * 3, [15.5, 17.5, 19]]
