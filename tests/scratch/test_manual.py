"""Backpropagation written out by hand, against the engine and JAX, in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.scratch import manual, models, trees, value_and_grad
from tests.scratch.agreement import normal

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("sizes", [[5, 3], [5, 7, 3], [5, 7, 6, 4, 3]])
def test_backpropagation_by_hand(activation, sizes):
    """By hand, by the engine and by JAX; with the δ of every layer."""
    from ffnlab.scratch.losses import cross_entropy

    model = models.perceptron(sizes, activation=activation)
    params = trees.map_leaves(lambda p: p + 0.1, model.init(0))
    x, labels = normal(8, 5), np.arange(8) % 3
    loss, gradient, errors = manual.backpropagate(params, x, labels, activation)

    value, engine = value_and_grad(
        lambda p: cross_entropy(model.apply(p, x)[0], labels)
    )(params)
    chex.assert_trees_all_close((loss, gradient), (value, engine), rtol=1e-12)

    def by_jax(params, nudges):
        a = x
        for number, nudge in enumerate(nudges, 1):
            layer = params[f"layer_{number}"]
            z = a @ layer["kernel"] + layer["bias"].reshape(1, -1) + nudge
            a = getattr(jax.nn, activation)(z)
        rows = jax.nn.log_softmax(z)[jnp.arange(8), labels]
        return -rows.mean()

    nudges = [np.zeros((8, width)) for width in sizes[1:]]
    expected = jax.jit(jax.grad(by_jax, argnums=(0, 1)))(params, nudges)
    chex.assert_trees_all_close((gradient, errors), expected, rtol=1e-9, atol=1e-13)
    zs, activations = manual.forward(params, x, activation)
    _, aux = model.apply(params, x)
    for number, z in enumerate(zs, 1):
        np.testing.assert_allclose(aux[f"z_{number}"].data, z, rtol=1e-12)
        if number > 1:
            named = aux[f"a_{number - 1}"].data
            np.testing.assert_allclose(named, activations[number - 1], rtol=1e-12)


def test_descent_by_hand_lowers_the_loss():
    model = models.perceptron([5, 7, 3])
    params, x, labels = model.init(0), normal(8, 5), np.arange(8) % 3
    losses = []
    for _ in range(20):
        loss, gradient, _ = manual.backpropagate(params, x, labels)
        params = manual.descend(params, gradient, 0.5)
        losses.append(loss)
    assert (np.diff(losses) < 0).all()
