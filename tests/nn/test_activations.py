import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.nn import activations
from tests import oracles

NAMES = sorted(activations.ACTIVATIONS)
POINTS = np.array([-20.0, -3.0, -1.3, -0.2, 0.0, 0.4, 1.0, 2.5, 3.0, 20.0])


def test_every_activation_has_an_oracle():
    assert sorted(oracles.ACTIVATIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_values_against_numpy(name, x64):
    got = activations.get(name).function(jnp.asarray(POINTS))
    expected = oracles.ACTIVATIONS[name](POINTS)
    chex.assert_trees_all_close(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_against_finite_differences(name, x64):
    points = np.array([-4.1, -1.7, -0.6, 0.3, 1.1, 2.2, 5.3])  # away from every kink
    step = 1e-6
    function = oracles.ACTIVATIONS[name]
    expected = (function(points + step) - function(points - step)) / (2 * step)
    got = jax.vmap(jax.grad(activations.get(name).function))(jnp.asarray(points))
    chex.assert_trees_all_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_lipschitz_constant_is_the_largest_slope(name, x64):
    slopes = jax.vmap(jax.grad(activations.get(name).function))(
        jnp.linspace(-12.0, 12.0, 240_001) + 1e-7
    )
    largest, bound = float(jnp.abs(slopes).max()), activations.get(name).lipschitz
    if np.isinf(bound):
        assert largest > 20  # grows with the range
    else:
        assert largest <= bound * (1 + 1e-9)
        # Approached only in the limit by softplus, and at 3 from below by hard_swish.
        assert largest >= bound * (1 - 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_finite_far_out_and_gradient_too(name):
    far = jnp.array([-1e4, 1e4], jnp.float32)
    function = activations.get(name).function
    assert jnp.isfinite(function(far)).all()
    assert jnp.isfinite(jax.vmap(jax.grad(function))(far)).all()


def test_swish_worked_numbers_and_limits():
    x = jnp.array([-2.0, 0.0, 2.0])
    np.testing.assert_allclose(activations.swish(x), [-0.2384, 0.0, 1.7616], atol=5e-5)
    np.testing.assert_allclose(activations.swish(x, 0.0), x / 2)
    np.testing.assert_allclose(activations.swish(x, 200.0), jax.nn.relu(x), atol=1e-6)


def test_swish_takes_a_beta_per_channel():
    x, beta = jnp.ones((2, 3, 4)), jnp.arange(4.0)
    got = activations.swish(x, beta)
    chex.assert_shape(got, (2, 3, 4))
    np.testing.assert_allclose(got[0, 0], 1 / (1 + np.exp(-np.arange(4.0))), rtol=1e-6)


def test_slope_of_swish_does_not_depend_on_beta(x64):
    x = jnp.linspace(-20.0, 20.0, 100_001)
    for beta in (0.3, 1.0, 4.0):
        slope = jax.vmap(jax.grad(lambda v, b=beta: activations.swish(v, b)))(x)
        assert float(slope.max()) == pytest.approx(
            activations.get("swish").lipschitz, rel=1e-5
        )


def test_unknown_name_offers_the_nearest():
    with pytest.raises(InputError, match="nearest: gelu"):
        activations.get("gellu")
