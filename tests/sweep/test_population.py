import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import data
from ffnlab.errors import InputError
from ffnlab.models import mlp
from ffnlab.nn.ffn import BlockConfig
from ffnlab.sweep import result_lines
from ffnlab.sweep.population import fit_population
from ffnlab.sweep.scoring import evaluate_members
from ffnlab.train import loop, objectives, optimizers
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.evaluation import make_evaluate
from ffnlab.train.loop import Hooks, Learner
from ffnlab.train.record import Plan
from ffnlab.types import Model

OBJECTIVE = objectives.OBJECTIVES["classes"]
PLAN = Plan(24, 8, 16, monitor="accuracy", higher_is_better=True)
TOWER = mlp.tower(
    mlp.TowerConfig(13, 3, BlockConfig("swiglu", 8, 8, dropout=0.2), layers=1)
)
# A model that compiles fast, where the model is not the subject.
LINEAR = Model(
    lambda key: {"kernel": jax.random.normal(key, (13, 3))},
    lambda params, x, key=None: (x @ params["kernel"], {}),
)
LEARNER = Learner(
    TOWER,
    OBJECTIVE,
    optimizers.make(
        "adamw", schedule=optimizers.schedule("cosine", 24, 4), clip=1.0, flat=True
    ),
)
MEMBERS = {"seeds": [0, 1, 5], "learning_rates": [1e-3, 1e-2]}


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


@pytest.fixture(scope="module")
def population(wine):
    return fit_population(LEARNER, wine, PLAN, **MEMBERS)


@pytest.fixture(scope="module")
def three(wine):
    """Three members on two devices."""
    return fit_population(LEARNER, wine, PLAN, seeds=[0, 1, 2], learning_rates=[1e-2])


@pytest.fixture(scope="module")
def alone(wine):
    """Single runs, by their number among the members of the population."""

    def fit(seed, learning_rate):
        return loop.fit(LEARNER, wine, PLAN, seed=seed, learning_rate=learning_rate)

    return {1: fit(1, 1e-3), 5: fit(5, 1e-2)}


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_member_is_the_same_single_run(wine, population, alone, batching):
    if batching != "map":  # which is that of the fixture, on CPUs
        population = fit_population(LEARNER, wine, PLAN, **MEMBERS, batching=batching)
    assert population.seeds.tolist() == [0, 1, 5, 0, 1, 5]
    rates = population.learning_rates
    np.testing.assert_array_equal(rates, np.float32([1e-3] * 3 + [1e-2] * 3))
    fit = jax.device_get(population.fit)
    for member, single in alone.items():
        together = jax.tree.map(lambda a: a[member], (fit.best, fit.state))  # noqa: B023
        chex.assert_trees_all_close(
            together, (single.best, single.state), rtol=2e-4, atol=2e-6
        )
        np.testing.assert_allclose(
            fit.record.loss[member], single.record.loss, rtol=1e-4
        )
        assert fit.record.best_step[member] == single.record.best_step


def test_members_that_fill_a_device_are_dropped(three, population):
    assert jax.local_device_count() == 2
    assert three.fit.record.loss.shape == (3, 24)
    chex.assert_tree_shape_prefix((three.fit.state, three.fit.best), (3,))
    # Seeds 0 and 1 at the second rate, in a population that fills its devices.
    best, wanted = (
        jax.tree.map(lambda a: a[members], jax.device_get(run.fit.best))  # noqa: B023
        for run, members in ((three, slice(0, 2)), (population, slice(3, 5)))
    )
    chex.assert_trees_all_close(best, wanted, rtol=1e-5)


def test_a_population_takes_no_more_devices_than_it_has_members(wine):
    """A device without a member of its own would repeat the work of another."""
    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("sgd"))
    run = fit_population(learner, wine, PLAN, seeds=[0], learning_rates=[1e-2])
    for leaf in jax.tree.leaves((run.fit.state, run.fit.best)):
        assert leaf.shape[0] == 1 and len(leaf.sharding.device_set) == 1
    both = fit_population(learner, wine, PLAN, seeds=[0, 1], learning_rates=[1e-2])
    assert len(jax.tree.leaves(both.fit.best)[0].sharding.device_set) == 2
    np.testing.assert_allclose(run.fit.record.loss[0], both.fit.record.loss[0], 1e-4)


def test_a_diverging_member_does_not_sink_the_others(wine):
    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("sgd"))
    both, calm = (
        fit_population(learner, wine, PLAN, seeds=[0, 1], learning_rates=rates)
        for rates in ([1e-2, 1e38], [1e-2])
    )
    assert (both.fit.record.diverged[:2] == -1).all()
    assert (both.fit.record.diverged[2:] > 0).all()
    np.testing.assert_array_equal(both.fit.record.loss[:2], calm.fit.record.loss)
    chosen = result_lines.choose_members(both, PLAN)
    assert chosen.tolist() == [0, 1]


def test_a_population_ends_when_all_members_have_diverged(wine):
    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("sgd"))
    fit = fit_population(learner, wine, PLAN, seeds=[0, 1], learning_rates=[1e38])
    record = fit.fit.record
    assert (record.diverged > 0).all() and record.step.max() == PLAN.every
    assert np.isnan(record.loss[:, PLAN.every :]).all()


def test_of_members_that_all_fail_unscored_the_last_is_scored(wine):
    """Each has NaN as its loss from a step on that it draws, before the evaluation."""

    def init(key):
        limit = jnp.floor(jax.random.uniform(key, minval=3.0, maxval=7.0))
        return {"step": jnp.zeros(()), "limit": limit, "kernel": jnp.zeros((13, 3))}

    def gradient(params, batch, key):
        bad = jnp.where(params["step"] >= params["limit"], jnp.nan, 0.0)
        still = {"limit": jnp.float32(0), "kernel": jnp.zeros((13, 3))}
        return 1.0 + bad, {"step": jnp.float32(-1), **still}

    model = Model(init, LINEAR.apply)
    learner = Learner(model, OBJECTIVE, optimizers.make("sgd"), gradient)
    rates = [1.0]
    fit = fit_population(learner, wine, PLAN, seeds=[0, 1, 2, 3], learning_rates=rates)
    record, best = fit.fit.record, jax.device_get(fit.fit.best)
    np.testing.assert_array_equal(record.diverged, best["limit"])
    end = record.diverged.max() - 1
    kept = np.where(record.diverged >= end, end, 0)
    assert 0 < (kept > 0).sum() < 4
    np.testing.assert_array_equal(record.best_step, kept)
    np.testing.assert_array_equal(best["step"], kept)


def test_resumed_population_is_the_same_bit_for_bit(wine, population, tmp_path):
    checkpoints, seen = Checkpoints(tmp_path), []

    def stop(record):
        if record.step == 16:
            raise KeyboardInterrupt

    def fit(on_progress):
        hooks = Hooks(checkpoints, on_progress)
        return fit_population(LEARNER, wine, PLAN, **MEMBERS, hooks=hooks)

    with pytest.raises(KeyboardInterrupt):
        fit(stop)
    resumed = fit(lambda record: seen.append(int(record.step)))
    assert seen == [24]
    chex.assert_trees_all_equal(resumed.fit.state, population.fit.state)
    chex.assert_trees_all_equal(resumed.fit.best, population.fit.best)
    chex.assert_trees_all_equal(resumed.fit.record, population.fit.record)


def test_evaluate_members_is_evaluate_of_each(wine, three):
    scores = evaluate_members(TOWER, OBJECTIVE, wine.test, three.fit.best)
    evaluate = jax.jit(make_evaluate(TOWER, OBJECTIVE, data.take, data.size(wine.test)))
    best = jax.device_get(three.fit.best)
    for member in range(3):
        expected = evaluate(jax.tree.map(lambda a: a[member], best), wine.test)  # noqa: B023
        assert scores.keys() == expected.keys()
        for name, values in scores.items():
            assert values.shape == (3,)
            assert values[member] == pytest.approx(float(expected[name]), rel=1e-5)


def test_runs_of_a_seed_start_alike_whatever_the_rate(population):
    first = population.fit.record.loss[:, 0].reshape(2, 3)
    assert (first[0] == first[1]).all() and len(set(first[0].tolist())) == 3


def test_a_population_trains_by_the_gradient_that_it_is_given(wine):
    def none(params, batch, key):
        return jnp.float32(7.0), jax.tree.map(jnp.zeros_like, params)

    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("sgd"), none)
    run = fit_population(learner, wine, PLAN, seeds=[0, 1], learning_rates=[0.1])
    assert (run.fit.record.loss == 7.0).all()


def test_every_member_has_the_split_of_its_seed():
    """The same as a run alone on that split; steps, choices and test scores."""
    seeds = data.replicate_seeds(0, 3)
    wines = data.replicate(data.wine, seeds)
    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("adam"))
    members = fit_population(
        learner, wines, PLAN, seeds=seeds, learning_rates=[1e-2, 1e-1]
    )
    first = jax.tree.map(lambda leaf: leaf[:3], members.fit.best)
    tests = evaluate_members(LINEAR, OBJECTIVE, wines.test, first, wines.rows["test"])
    for number, seed in enumerate(seeds):
        one = data.wine(seed)
        alone = loop.fit(learner, one, PLAN, seed=seed, learning_rate=1e-1)
        record = jax.tree.map(
            lambda leaf: leaf[3 + number],  # noqa: B023
            members.fit.record._replace(step=np.zeros(6)),
        )
        np.testing.assert_allclose(record.loss, alone.record.loss, rtol=1e-4)
        for name, curve in alone.record.scores.items():
            np.testing.assert_allclose(record.scores[name], curve, rtol=1e-4)
        part = {name: jnp.asarray(array) for name, array in one.test.items()}
        params = jax.tree.map(lambda leaf: leaf[number], first)  # noqa: B023
        logits, _ = LINEAR.apply(params, part["x"])
        expected = (logits.argmax(axis=1) == part["y"]).mean()
        assert tests["accuracy"][number] == pytest.approx(float(expected), abs=1e-6)


def test_an_optimizer_of_your_own_has_the_rates_given_or_its_own(wine):
    """One by a function of the rate, one by a transformation, one by its name."""

    def fit(optimizer, rates):
        learner = Learner(LINEAR, OBJECTIVE, optimizer)
        return fit_population(learner, wine, PLAN, seeds=[0, 3], learning_rates=rates)

    function = fit(lambda learning_rate: optax.adam(learning_rate), [0.1])
    fixed = fit(optax.adam(0.1), None)
    named = fit("adam", [0.1])
    for population in (fixed, named):
        np.testing.assert_allclose(
            population.fit.record.loss, function.fit.record.loss, rtol=1e-5
        )
    assert np.isnan(fixed.learning_rates).all() and fixed.seeds.tolist() == [0, 3]
    assert fixed.fit.record.loss[0, 0] != fixed.fit.record.loss[1, 0]
    with pytest.raises(InputError, match="^learning_rate: the optimizer has a rate"):
        fit(optax.adam(0.1), [0.1])
