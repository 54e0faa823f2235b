"""Operations on each entry against JAX, in float64: the value, the vjp, and theirs."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from ffnlab.scratch import ops, vjp
from ffnlab.scratch.layers import gelu, silu
from tests.scratch.agreement import (
    SEEDS,
    SETTINGS,
    check_functions,
    check_numpy,
    normals,
    positives,
)

pytestmark = pytest.mark.usefixtures("x64")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


UNARY = {
    "negative": (ops.negative, jnp.negative, normals),
    "exp": (ops.exp, jnp.exp, normals),
    "log": (ops.log, jnp.log, positives),
    "tanh": (ops.tanh, jnp.tanh, normals),
    "sigmoid": (ops.sigmoid, jax.nn.sigmoid, normals),
    "relu": (ops.relu, jax.nn.relu, normals),
    "erf": (ops.erf, jax.scipy.special.erf, normals),
    "softplus": (ops.softplus, jax.nn.softplus, normals),
    "identity": (ops.identity, lambda x: x * 1.0, normals),
    "square": (lambda x: x**2, lambda x: x**2, normals),
    "inverse": (lambda x: x**-1.0, lambda x: x**-1.0, positives),
    "root": (lambda x: x**0.5, lambda x: x**0.5, positives),
    "to the power of 0": (lambda x: x**0, lambda x: x**0.0, normals),
    "number to the power of x": (lambda x: 2.0**x, lambda x: 2.0**x, normals),
    "number over x": (lambda x: 3.0 / x, lambda x: 3.0 / x, positives),
    "number minus x": (lambda x: 3.0 - x, lambda x: 3.0 - x, normals),
    "gelu": (gelu, functools.partial(jax.nn.gelu, approximate=False), normals),
    "silu": (silu, jax.nn.silu, normals),
    "sum": (lambda x: x.sum(), jnp.sum, normals),
    "transpose": (lambda x: x.T, jnp.transpose, normals),
    "flatten": (lambda x: x.reshape(x.size), lambda x: x.reshape(x.size), normals),
    "twice": (lambda x: x * x + x, lambda x: x * x + x, normals),
    "broadcast": (
        lambda x: ops.broadcast_to(x, shape=(2, *x.shape)),
        lambda x: jnp.broadcast_to(x, (2, *x.shape)),
        normals,
    ),
}


@SETTINGS
@hypothesis.example(shape=(), seed=0)
@hypothesis.example(shape=(2, 0), seed=0)
@hypothesis.given(shape=SHAPES, seed=SEEDS)
def test_operations_of_one_input(shape, seed):
    check_functions(
        {
            name: (ours, theirs, draw(seed, shape))
            for name, (ours, theirs, draw) in UNARY.items()
        },
        seed,
    )


BINARY = {
    "add": (lambda a, b: a + b, jnp.add, normals),
    "subtract": (lambda a, b: a - b, jnp.subtract, normals),
    "multiply": (lambda a, b: a * b, jnp.multiply, normals),
    "divide": (lambda a, b: a / b, jnp.divide, positives),
    "power": (lambda a, b: a**b, jnp.power, positives),
    "where": (
        lambda a, b: ops.where(ops.array(a) > 0, a, b),
        lambda a, b: jnp.where(a > 0, a, b),
        normals,
    ),
}


@SETTINGS
@hypothesis.given(
    shapes=hnp.mutually_broadcastable_shapes(
        num_shapes=2, min_side=0, max_side=3, max_dims=3
    ),
    seed=SEEDS,
)
def test_operations_of_two_inputs_broadcast(shapes, seed):
    check_functions(
        {
            name: (ours, theirs, draw(seed, *shapes.input_shapes))
            for name, (ours, theirs, draw) in BINARY.items()
        },
        seed,
    )


ROWS, MORE = normals(0, (2, 3), (3,))
INSIDE, ABOVE = 0.9 * np.tanh(ROWS), 0.5 + np.abs(ROWS)  # in (−1, 1), and above 0
ONE = (
    "sin cos tan arctan sinh cosh arcsinh exp2 expm1 square reciprocal degrees radians "
    "rad2deg deg2rad abs absolute fabs sign floor ceil round nan_to_num"
)
TWO = (
    "maximum minimum fmax fmin arctan2 hypot logaddexp logaddexp2 remainder "
    "floor_divide"
)
FUNCTIONS = {
    **{name: (ROWS,) for name in ONE.split(" ")},
    **{name: (ABOVE,) for name in ("log2", "log10", "log1p", "sqrt")},
    **{name: (INSIDE,) for name in ("arcsin", "arccos", "arctanh")},
    "arccosh": (1.0 + ABOVE,),
    **{name: (ROWS, MORE) for name in TWO.split(" ")},
}


def test_functions_that_jax_has_under_the_same_name():
    check_numpy(
        {
            name: (lambda xp, *xs, name=name: getattr(xp, name)(*xs), *inputs)
            for name, inputs in FUNCTIONS.items()
        }
    )


CORNERS, OTHERS = np.array([-1.0, 0.0, 1.0, 2.0]), np.array([-1.0, 0.0, 0.0, 3.0])
TIES = {
    "maximum": (lambda xp, a, b: xp.maximum(a, b), CORNERS, OTHERS),
    "minimum": (lambda xp, a, b: xp.minimum(a, b), CORNERS, OTHERS),
    "maximum and a number": (lambda xp, x: xp.maximum(x, 1.0), CORNERS),
    "twice the same": (lambda xp, x: xp.maximum(x, x) * xp.minimum(x, x), CORNERS),
    "clip": (lambda xp, x: xp.clip(x, 0.0, 1.0) * x, CORNERS),
    "clip below": (lambda xp, x: xp.clip(x, 0.0) * x, CORNERS),
    "clip above": (lambda xp, x: xp.clip(x, None, 1.0) * x, CORNERS),
    "clip to one number": (lambda xp, x: xp.clip(x, 1.0, 1.0) * x, CORNERS),
    "remainder": (lambda xp, x: (x * x) % 1.5 + 7.5 % (x + 3.0), CORNERS),
    "floor": (lambda xp, x: x * (x // 2.0) + xp.floor(x) + 5.0 // (x + 3.0), CORNERS),
    "sign": (lambda xp, x: xp.sign(x) * x, CORNERS),
}


def test_ties_and_corners_are_those_of_jax():
    check_numpy(TIES)


def test_the_derivative_of_abs_at_0_is_0():
    """As in PyTorch; JAX has 1 there."""
    gradient = vjp(lambda x: ops.abs(x).sum(), CORNERS)[1](1.0)[0]
    assert gradient.tolist() == [-1.0, 0.0, 1.0, 1.0]


def test_not_a_number_has_no_derivative():
    """A choice that NaN is made for goes to neither side, and fmax passes over it."""
    x = np.array([np.nan, 1.0])
    for function, expected in ((ops.maximum, [0, 0]), (ops.fmax, [0, 0])):
        gradient = vjp(lambda x, f=function: f(x, 2.0).sum(), x)[1](1.0)[0]
        assert gradient.tolist() == expected
    assert ops.fmax(x, 2.0).data.tolist() == [2.0, 2.0]
    x = np.array([np.nan, np.inf, 1.0])
    gradient = vjp(lambda x: ops.nan_to_num(x).sum(), x)[1](1.0)[0]
    assert gradient.tolist() == [0.0, 0.0, 1.0]
