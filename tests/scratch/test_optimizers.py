"""The engine's optimizers against optax, step for step, on NumPy's and JAX's arrays."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import data
from ffnlab.models import mlp
from ffnlab.nn.ffn import BlockConfig
from ffnlab.scratch import optimizers, trees
from ffnlab.train import loop, objectives
from ffnlab.train import optimizers as recipes
from ffnlab.train.record import Plan

PARAMS = {
    "up": {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.1, 0.2])},
    "scale": np.array(1.5),
}


def kernels(params):
    return recipes.decayed(params)


PAIRS = {
    "sgd": (optimizers.sgd(0.1), optax.sgd(0.1)),
    "momentum": (optimizers.momentum(0.1, 0.8), optax.sgd(0.1, momentum=0.8)),
    "nesterov": (
        optimizers.nesterov(0.1, 0.8),
        optax.sgd(0.1, momentum=0.8, nesterov=True),
    ),
    "adagrad": (optimizers.adagrad(0.1), optax.adagrad(0.1)),
    "adagrad from 0": (
        optimizers.adagrad(0.1, initial_accumulator_value=0.0, epsilon=1e-3),
        optax.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-3),
    ),
    "rmsprop": (optimizers.rmsprop(0.1), optax.rmsprop(0.1, decay=0.9)),
    "rmsprop, ε outside": (
        optimizers.rmsprop(0.1, 0.99, epsilon=1e-3, eps_in_sqrt=False),
        optax.rmsprop(0.1, decay=0.99, eps=1e-3, eps_in_sqrt=False),
    ),
    "adam": (
        optimizers.adam(0.1, 0.8, 0.95, epsilon=1e-4),
        optax.adam(0.1, 0.8, 0.95, eps=1e-4),
    ),
    "adamw": (
        optimizers.adamw(0.1, weight_decay=0.03, mask=kernels),
        optax.adamw(0.1, weight_decay=0.03, mask=kernels),
    ),
    "adamw of all": (optimizers.adamw(0.1), optax.adamw(0.1)),
    "sgd with a schedule": (
        optimizers.sgd(lambda count: 0.1 * 0.9**count),
        optax.sgd(lambda count: 0.1 * 0.9**count),
    ),
    "adamw with a schedule": (
        optimizers.adamw(lambda count: 0.1 / (1 + count), weight_decay=0.1),
        optax.adamw(lambda count: 0.1 / (1 + count), weight_decay=0.1),
    ),
}


def gradient(params, step):
    """Returns the slope of a bowl, which changes with the step."""
    return trees.map_leaves(lambda p: 2 * (p - 1) + np.cos(1.0 * step), params)


def descend(optimizer, steps):
    """Returns the parameters after every step, on NumPy's arrays."""
    state, params, path = optimizer.init(PARAMS), PARAMS, []
    for step in range(steps):
        updates, state = optimizer.update(gradient(params, step), state, params)
        params = optimizers.apply_updates(params, updates)
        path.append(params)
    return path


def descend_on_jax(optimizer, steps):
    """Returns the parameters after every step, stacked, from one compiled program."""

    @jax.jit
    def run(params, slopes):
        def step(carry, slope):
            params, state = carry
            grads = jax.tree.map(lambda p: 2 * (p - 1) + slope, params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, optimizer.init(params)), slopes)[1]

    return run(jax.tree.map(jnp.asarray, PARAMS), np.cos(np.arange(float(steps))))


def stack(path):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path)


@pytest.mark.parametrize("name", PAIRS)
def test_a_hundred_steps_as_optax(name, x64):
    ours, theirs = PAIRS[name]
    path = descend(ours, 100)
    expected = descend_on_jax(theirs, 100)
    chex.assert_trees_all_close(stack(path), expected, rtol=1e-12, atol=1e-12)
    leaf = path[-1]["up"]["kernel"]
    assert type(leaf) is np.ndarray and leaf.dtype == np.float64


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_code_on_jax_compiled(name, x64):
    """On traced arrays, with a state whose types do not change from step to step."""
    ours, _ = PAIRS[name]
    expected = stack(descend(ours, 10))
    chex.assert_trees_all_close(descend_on_jax(ours, 10), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_types_are_kept(name):
    optimizer = optimizers.OPTIMIZERS[name](lambda count: np.float64(0.1))
    params = trees.map_leaves(lambda p: p.astype(np.float32), PARAMS)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(params, state, params)
    for leaf in jax.tree.leaves((updates, state.memory)):
        assert leaf.dtype == np.float32
    assert state.count == 2 and state.count.dtype == np.int32


def test_conventions_that_differ():
    """Adagrad's start, where ε goes, and what the decay is scaled by."""
    g, one = {"w": np.array(0.5)}, {"w": np.array(1.0)}

    def step(optimizer):
        return float(optimizer.update(g, optimizer.init(one), one)[0]["w"])

    assert step(optimizers.adagrad(1.0)) == pytest.approx(-0.5 / np.sqrt(0.35), 1e-6)
    paper = optimizers.adagrad(
        1.0, initial_accumulator_value=0.0, epsilon=1e-10, eps_in_sqrt=False
    )
    assert step(paper) == pytest.approx(-1.0)
    inside = optimizers.rmsprop(1.0, epsilon=0.1)
    outside = optimizers.rmsprop(1.0, epsilon=0.1, eps_in_sqrt=False)
    assert step(inside) == pytest.approx(-0.5 / np.sqrt(0.025 + 0.1))
    assert step(outside) == pytest.approx(-0.5 / (np.sqrt(0.025) + 0.1))
    decayed = optimizers.with_weight_decay(optimizers.sgd(0.1), 0.1, 0.2)
    assert step(decayed) == pytest.approx(-0.1 * 0.5 - 0.1 * 0.2)
    for scaled, expected in [(True, 0.99899), (False, 0.989)]:
        adamw = optimizers.adamw(0.001, weight_decay=0.01, scaled=scaled)
        assert 1.0 + step(adamw) == pytest.approx(expected, abs=1e-9)


def test_every_optimizer_has_a_reference():
    assert {name.split()[0].strip(",") for name in PAIRS} == set(optimizers.OPTIMIZERS)


def test_they_train_a_model_of_jax():
    """The engine's Adam in `train.fit`, on the path of optax's."""
    digits = data.load("digits")
    model = mlp.tower(mlp.TowerConfig(64, 10, BlockConfig("mlp", 8, 16)))
    plan = Plan(steps=60, every=30, batch=64)
    objective = objectives.OBJECTIVES["classes"]
    result, expected = (
        loop.fit(loop.Learner(model, objective, optimizer), digits, plan)
        for optimizer in (optimizers.adam(1e-2), optax.adam(1e-2))
    )
    chex.assert_trees_all_close(
        result.state.params, expected.state.params, rtol=1e-2, atol=1e-3
    )
    assert result.record.scores["accuracy"][-1] > 0.7


def test_no_parameters_are_no_error():
    optimizer = optimizers.adam(0.1)
    updates, state = optimizer.update({}, optimizer.init({}), {})
    assert updates == {} and state.count == 1


def test_trees_may_come_in_another_order():
    """JAX sorts the keys of dicts; moments must not be exchanged for it."""
    params = {"b": np.ones(3), "a": np.zeros(2)}
    optimizer = optimizers.momentum(0.1)
    state = optimizer.init(params)
    for _ in range(2):
        grads = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0, 5.0])}
        updates, state = optimizer.update(grads, state, params)
        params = optimizers.apply_updates(params, updates)
    np.testing.assert_allclose(params["a"], [-0.29, -0.58])
    np.testing.assert_allclose(params["b"], 1 - 0.29 * np.array([3.0, 4.0, 5.0]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="needs arrays, found a float"):
        optimizers.adam(0.1).init({"w": 1.0})
    with pytest.raises(ValueError, match="for parameters of"):
        optimizers.apply_updates({"w": np.ones(2)}, {"w": np.ones((3, 2))})
