import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import data
from ffnlab.models import mlp
from ffnlab.nn.ffn import BlockConfig
from ffnlab.sweep import ranking
from ffnlab.sweep.population import evaluate_members, fit_population
from ffnlab.train import loop, objectives, optimizers
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.evaluation import make_evaluate
from ffnlab.train.loop import Learner
from ffnlab.train.record import Plan

OBJECTIVE = objectives.OBJECTIVES["classes"]
PLAN = Plan(24, 8, 16, monitor="accuracy", higher_is_better=True)


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


def tower(dropout=0.2):
    block = BlockConfig("swiglu", 8, 8, dropout=dropout)
    return mlp.tower(mlp.TowerConfig(13, 3, block, layers=1))


def population(wine, **options):
    optimizer = optimizers.make(
        "adamw", schedule=optimizers.schedule("cosine", 24, 4), clip=1.0, flat=True
    )
    given = {"seeds": [0, 1, 5], "learning_rates": [1e-3, 1e-2], **options}
    return optimizer, fit_population(
        Learner(tower(), OBJECTIVE, optimizer), wine, PLAN, **given
    )


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_member_is_the_same_single_run(wine, batching):
    optimizer, found = population(wine, batching=batching)
    assert found.seeds.tolist() == [0, 1, 5, 0, 1, 5]
    for member in (1, 5):
        alone = loop.fit(
            Learner(tower(), OBJECTIVE, optimizer),
            wine,
            PLAN,
            seed=int(found.seeds[member]),
            learning_rate=float(found.learning_rates[member]),
        )
        together = jax.tree.map(lambda a: a[member], (found.fit.best, found.fit.state))  # noqa: B023
        chex.assert_trees_all_close(
            together, (alone.best, alone.state), rtol=2e-4, atol=2e-6
        )
        np.testing.assert_allclose(
            found.fit.record.loss[member], alone.record.loss, rtol=1e-4
        )
        assert found.fit.record.best_step[member] == alone.record.best_step


def test_members_that_fill_a_device_are_dropped(wine):
    assert jax.local_device_count() == 2
    _, found = population(wine, seeds=[0, 1, 2], learning_rates=[1e-2])
    _, pair = population(wine, seeds=[0, 1], learning_rates=[1e-2])
    assert found.fit.record.loss.shape == (3, 24)
    chex.assert_tree_shape_prefix((found.fit.state, found.fit.best), (3,))
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a[:2], found.fit.best), pair.fit.best, rtol=1e-5
    )


def test_a_diverging_member_does_not_sink_the_others(wine):
    optimizer = optimizers.make("sgd")
    both, calm = (
        fit_population(
            Learner(tower(0.0), OBJECTIVE, optimizer),
            wine,
            PLAN,
            seeds=[0, 1],
            learning_rates=r,
        )
        for r in ([1e-2, 1e20], [1e-2])
    )
    assert (both.fit.record.diverged[:2] == -1).all()
    assert (both.fit.record.diverged[2:] > 0).all()
    np.testing.assert_array_equal(both.fit.record.loss[:2], calm.fit.record.loss)
    chosen = ranking.choose_members(both, PLAN)
    assert chosen.tolist() == [0, 1]


def test_resumed_population_is_the_same_bit_for_bit(wine, tmp_path):
    _, whole = population(wine)

    def stop(record):
        if record.step == 16:
            raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        population(wine, hooks=Hooks(checkpoints, stop))
    seen = []
    _, resumed = population(
        wine, hooks=Hooks(checkpoints, lambda record: seen.append(record.step))
    )
    assert seen == [24]
    chex.assert_trees_all_equal(resumed.fit.state, whole.fit.state)
    chex.assert_trees_all_equal(resumed.fit.best, whole.fit.best)
    chex.assert_trees_all_equal(resumed.fit.record, whole.fit.record)


def test_evaluate_members_is_evaluate_of_each(wine):
    _, found = population(wine, seeds=[0, 1, 2], learning_rates=[1e-2])
    got = evaluate_members(tower(), OBJECTIVE, wine.test, found.fit.best)
    one = make_evaluate(tower(), OBJECTIVE, data.take, data.size(wine.test))
    for member in range(3):
        params = jax.tree.map(lambda a: a[member], found.fit.best)  # noqa: B023
        expected = one(params, jax.device_put(wine.test))
        for name in got:
            assert got[name][member] == pytest.approx(float(expected[name]), rel=1e-5)


def test_runs_of_a_seed_start_alike_whatever_the_rate(wine):
    plan = Plan(1, 1, 16)
    found = fit_population(
        Learner(tower(0.0), OBJECTIVE, optimizers.make("sgd")),
        wine,
        plan,
        seeds=[0, 1],
        learning_rates=[1e-3, 1e-2],
    )
    first = found.fit.record.loss[:, 0]
    assert first[0] == first[2] and first[1] == first[3] and first[0] != first[1]


def test_a_population_trains_by_the_gradient_that_it_is_given(wine):
    def none(params, batch, key):
        return jnp.float32(7.0), jax.tree.map(jnp.zeros_like, params)

    _, found = population(wine, seeds=[0, 1], learning_rates=[0.1], gradient=none)
    assert (found.fit.record.loss == 7.0).all()
