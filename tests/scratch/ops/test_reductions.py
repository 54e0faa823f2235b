"""Reductions against JAX, in float64: the value, the vjp, and theirs."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffnlab.scratch import losses, ops
from tests.scratch.agreement import (
    SEEDS,
    SETTINGS,
    check_functions,
    check_numpy,
    normals,
)

pytestmark = pytest.mark.usefixtures("x64")
FILLED = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


REDUCTIONS = {
    "sum": (ops.sum, jnp.sum),
    "mean": (ops.mean, jnp.mean),
    "max": (ops.max, jnp.max),
    "logsumexp": (ops.logsumexp, jax.scipy.special.logsumexp),
    "softmax": (losses.softmax, jax.nn.softmax),
}


def reductions(names, inputs, **options):
    """Returns the cases of some reductions with the same options."""
    return {
        name: (*(functools.partial(f, **options) for f in REDUCTIONS[name]), inputs)
        for name in names
    }


@SETTINGS
@hypothesis.given(shape=FILLED, keepdims=st.booleans(), seed=SEEDS, data=st.data())
def test_reductions(shape, keepdims, seed, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    inputs = normals(seed, shape)
    cases = reductions(
        REDUCTIONS.keys() - {"softmax"}, inputs, axis=axis, keepdims=keepdims
    )
    check_functions(cases | reductions(["softmax"], inputs, axis=axis), seed)


@pytest.mark.parametrize("axis", [None, (0, 2), (1, -1)])
def test_reductions_over_several_axes(axis):
    check_functions(
        reductions(("sum", "mean", "max"), normals(0, (2, 3, 4)), axis=axis)
    )


def test_logsumexp_of_nothing_but_minus_infinity():
    x = np.full((2, 3), -np.inf)
    with np.errstate(divide="ignore"):
        assert ops.logsumexp(x).data.tolist() == [-np.inf, -np.inf]
    assert ops.logsumexp(np.array([1000.0, 1000.0])).data == 1000.0 + np.log(2.0)


X = normals(0, (2, 3, 4))[0]
TIED = np.array([[1.0, 3.0, 3.0], [0.0, 0.0, 3.0]])
ZEROS = np.array([[2.0, 3.0, 4.0], [2.0, 0.0, 3.0], [0.0, 0.0, 5.0]])  # none, 1, 2
CASES = {
    "min": (lambda xp, x: xp.min(x), X),
    "min, of axes": (lambda xp, x: xp.min(x, (0, -1), keepdims=True), X),
    "prod": (lambda xp, x: xp.prod(x), X),
    "prod, of an axis": (lambda xp, x: xp.prod(x, axis=1), X),
    "prod, of axes": (lambda xp, x: xp.prod(x, axis=(2, 0), keepdims=True), X),
    "prod, of nothing": (lambda xp, x: xp.prod(x[:0], 0) * x[0], X),
    "prod, of zeros": (lambda xp, x: xp.prod(x, 1), ZEROS),
    "var": (lambda xp, x: xp.var(x), X),
    "var, of an axis": (lambda xp, x: xp.var(x, -1, ddof=1), X),
    "std": (lambda xp, x: xp.std(x), X),
    "std, of axes": (lambda xp, x: xp.std(x, (0, 2), ddof=1, keepdims=True), X),
    "cumsum": (lambda xp, x: xp.cumsum(x), X),
    "cumsum, along an axis": (lambda xp, x: xp.cumsum(x, 1), X),
    "trace": (lambda xp, x: xp.trace(x), X),
    "trace, of other axes": (lambda xp, x: xp.trace(x, 1, 2, 0), X),
    "max, of equal entries": (lambda xp, x: xp.max(x) + x[0] ** 2, TIED),
    "max, of equal entries along an axis": (lambda xp, x: xp.max(x, 1), TIED),
    "min, of equal entries": (lambda xp, x: xp.min(x, 1), TIED),
    "methods": (
        lambda xp, x: (
            x.min(0).sum() + x.std() + x.var(ddof=1) + x.prod(0, keepdims=True)
            + x.mean(0) * x.max(axis=1).mean() + x.cumsum(0) + x.trace(1).sum()
        ),
        X,
    ),
}  # fmt: skip


def test_reductions_that_jax_has_under_the_same_name():
    check_numpy(CASES)


def test_axes_are_checked():
    with pytest.raises(ValueError, match="axis 3 is out of bounds"):
        ops.prod(X, 3)
    with pytest.raises(ValueError, match="repeated axis"):
        ops.prod(X, (1, -2))
    with pytest.raises(IndexError, match=r"cumsum of shape \(2, 3, 4\): axis 3"):
        ops.cumsum(X, 3)
