"""Activations against NumPy: values, slopes, and their bounds."""

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
SMOOTH = np.array([-4.1, -1.7, -0.6, 0.3, 1.1, 2.2, 5.3])  # away from every kink
GRID = np.linspace(-12.0, 12.0, 240_001) + 1e-7
WIDE = np.linspace(-20.0, 20.0, 100_001)
BETAS = (0.3, 1.0, 4.0)


def slope(function):
    return jax.vmap(jax.grad(function))


@pytest.fixture(scope="module")
def computed():
    """Values and slopes of all activations in float64, in one program."""

    def run(points, smooth, grid, wide):
        results = {}
        for name in NAMES:
            function = activations.get(name).function
            results[name] = {
                "values": function(points),
                "slopes": slope(function)(smooth),
                "largest": jnp.abs(slope(function)(grid)).max(),
            }
        largest = [slope(lambda x, b=b: activations.swish(x, b))(wide) for b in BETAS]
        return results, [values.max() for values in largest]

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(run)(POINTS, SMOOTH, GRID, WIDE))


def test_every_activation_has_an_oracle():
    assert sorted(oracles.ACTIVATIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_values_against_numpy(name, computed):
    expected = oracles.ACTIVATIONS[name](POINTS)
    chex.assert_trees_all_close(
        computed[0][name]["values"], expected, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_against_finite_differences(name, computed):
    step = 1e-6
    function = oracles.ACTIVATIONS[name]
    expected = (function(SMOOTH + step) - function(SMOOTH - step)) / (2 * step)
    chex.assert_trees_all_close(
        computed[0][name]["slopes"], expected, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("name", NAMES)
def test_lipschitz_constant_is_the_largest_slope(name, computed):
    largest = float(computed[0][name]["largest"])
    bound = activations.get(name).lipschitz
    if np.isinf(bound):
        assert largest > 20  # grows with the range
    else:
        assert largest <= bound * (1 + 1e-9)
        # Approached only in the limit by softplus, and at 3 from below by hard_swish.
        assert largest >= bound * (1 - 1e-4)


def test_finite_far_out_and_gradient_too():
    far = np.array([-1e4, 1e4], np.float32)
    functions = {name: activations.get(name).function for name in NAMES}
    run = jax.jit(lambda x: {n: (f(x), slope(f)(x)) for n, f in functions.items()})
    for name, arrays in run(far).items():
        assert np.isfinite(np.asarray(arrays)).all(), name


def test_swish_worked_numbers_and_limits():
    x = np.array([-2.0, 0.0, 2.0], np.float32)
    one, zero, large, relu = jax.jit(
        lambda: (
            activations.swish(x),
            activations.swish(x, 0.0),
            activations.swish(x, 200.0),
            jax.nn.relu(x),
        )
    )()
    np.testing.assert_allclose(one, [-0.2384, 0.0, 1.7616], atol=5e-5)
    np.testing.assert_allclose(zero, x / 2)
    np.testing.assert_allclose(large, relu, atol=1e-6)


def test_swish_takes_a_beta_per_channel():
    x, beta = np.ones((2, 3, 4), np.float32), np.arange(4, dtype=np.float32)
    y = jax.jit(activations.swish)(x, beta)
    chex.assert_shape(y, (2, 3, 4))
    expected = 1 / (1 + np.exp(-np.arange(4.0)))
    np.testing.assert_allclose(np.asarray(y)[0, 0], expected, rtol=1e-6)


def test_slope_of_swish_does_not_depend_on_beta(computed):
    bound = activations.get("swish").lipschitz
    for largest in computed[1]:
        assert float(largest) == pytest.approx(bound, rel=1e-5)


def test_unknown_name_offers_the_nearest():
    with pytest.raises(InputError, match="nearest: gelu"):
        activations.get("gellu")


HALF = np.concatenate([np.linspace(-12.0, 12.0, 4001), SMOOTH])


@pytest.fixture(scope="module")
def half():
    """Values and slopes of all activations by dtype, and in float64 at those points."""

    def run(x):
        functions = {name: activations.get(name).function for name in NAMES}
        return {name: (f(x), slope(f)(x)) for name, f in functions.items()}

    results = {}
    for dtype in ("bfloat16", "float16"):
        x = HALF.astype(jnp.dtype(dtype))
        with jax.enable_x64(True):
            exact = jax.jit(run)(x.astype(np.float64))
            results[dtype] = jax.tree.map(np.asarray, (jax.jit(run)(x), exact))
    return results


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_rounds_once(name, dtype, half):
    """Values and slopes are those of float32, to a unit of the last place."""
    info = jnp.finfo(dtype)
    for ours, exact in zip(*(part[name] for part in half[dtype]), strict=True):
        assert ours.dtype == info.dtype
        with np.errstate(divide="ignore"):
            unit = 2.0 ** np.floor(np.log2(np.abs(exact))) * float(info.eps)
        unit = np.maximum(unit, float(info.smallest_subnormal))
        # Float32 is this far off where large terms cancel, as in the tail of gelu_tanh.
        error = np.abs(ours.astype(np.float64) - exact) - 1e-5
        assert (error <= 1.001 * unit).all(), (error / unit).max()


def test_half_precision_gives_a_beta_its_gradient():
    """The gradient by β sums over the positions in float32."""
    x = np.linspace(-4, 4, 3000).reshape(1000, 3).astype(jnp.bfloat16)

    def total(beta, x):
        return activations.swish(x, beta).sum(dtype=jnp.float32)

    beta = np.ones(3, jnp.bfloat16)
    run = jax.jit(jax.grad(total))
    found, exact = run(beta, x), run(beta.astype(np.float32), x.astype(np.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), exact, rtol=2**-8)
