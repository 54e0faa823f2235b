"""Arrays that no step changes: what trains, and that they are held once."""

import chex
import jax
import numpy as np
import optax
import pytest

from ffnlab import data
from ffnlab.errors import InputError
from ffnlab.sweep import fit_population
from ffnlab.train import loop, objectives, optimizers, train_step
from ffnlab.train.learner import Frozen, Learner, bind, with_frozen
from ffnlab.train.program import Program
from ffnlab.train.record import Plan
from ffnlab.types import Model

OBJECTIVE = objectives.OBJECTIVES["classes"]
PLAN = Plan(12, 6, 16)
KERNEL = np.random.default_rng(0).normal(size=(13, 3)).astype("f4")


def init(key):
    return {"bias": jax.random.normal(key, (3,)), "scale": np.ones(3, "f4")}


def make(arrays):
    def apply(params, x, key=None):
        scaled = x @ arrays["kernel"] * params["scale"][None]
        return scaled + params["bias"][None], {}

    return Learner(Model(init, apply), OBJECTIVE, optimizers.make("adam"))


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


def test_a_frozen_learner_trains_as_one_that_holds_the_arrays(wine):
    frozen = Frozen({"kernel": KERNEL}, make)
    result = loop.fit(frozen, wine, PLAN, learning_rate=0.1)
    plain = loop.fit(make({"kernel": KERNEL}), wine, PLAN, learning_rate=0.1)
    chex.assert_trees_all_close(result.best, plain.best, rtol=1e-5)
    np.testing.assert_allclose(result.record.loss, plain.record.loss, rtol=1e-5)
    assert sorted(result.state.params) == ["bias", "scale"]
    assert result.record.loss[-1] < result.record.loss[0]


def test_a_population_shares_the_frozen_arrays(wine):
    frozen = Frozen({"kernel": KERNEL}, make)
    many = fit_population(frozen, wine, PLAN, seeds=[0, 1], learning_rates=[0.1])
    for seed in range(2):
        one = loop.fit(frozen, wine, PLAN, seed=seed, learning_rate=0.1)
        best = jax.tree.map(lambda array: array[seed], many.fit.best)  # noqa: B023
        chex.assert_trees_all_close(best, one.best, rtol=1e-5)
        scores = many.fit.record.scores["accuracy"][seed]
        np.testing.assert_allclose(scores, one.record.scores["accuracy"], rtol=1e-5)


def test_frozen_arrays_are_arguments_of_the_program(wine):
    """As constants they would be copied into it."""
    frozen = Frozen({"kernel": KERNEL}, make)
    steps = Program(train_step.make_steps(frozen))
    state = train_step.init_state(frozen, jax.random.key(0), 0, 0.1)
    arrays = with_frozen(frozen, wine.train)
    text = steps.lower(state, arrays, np.zeros((2, 4), "i4")).as_text()
    assert (
        "tensor<13x3xf32>" in text.partition("func.func private")[0].partition("{")[2]
    )
    assert 'dense<"0x' not in text
    assert bind(frozen, arrays)[1] is wine.train
    learner = make({"kernel": KERNEL})
    assert bind(learner, wine.train) == (learner, wine.train)
    assert with_frozen(learner, wine.train) is wine.train


def test_fit_uses_a_learning_rate_or_refuses_it(wine):
    model = Model(
        lambda key: {"kernel": KERNEL}, lambda p, x, key: (x @ p["kernel"], {})
    )
    rated = Learner(model, OBJECTIVE, lambda learning_rate: optax.sgd(learning_rate))
    fixed = Learner(model, OBJECTIVE, optax.sgd(0.1))
    losses = [
        loop.fit(rated, wine, PLAN, learning_rate=0.1).record.loss,
        loop.fit(fixed, wine, PLAN).record.loss,
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    with pytest.raises(InputError, match="^learning_rate: .* would not be used"):
        loop.fit(fixed, wine, PLAN, learning_rate=0.1)
