"""Every operation of the engine against JAX, in float64: its value, vjp, and theirs."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffnlab.scratch import conv2d, losses, ops, vjp
from ffnlab.scratch.layers import gelu, silu
from ffnlab.scratch.tensor import Tensor
from tests.scratch.agreement import check_function, check_functions

pytestmark = pytest.mark.usefixtures("x64")
SETTINGS = hypothesis.settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
FILLED = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)
SEEDS = st.integers(0, 2**32 - 1)


def normal(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def positive(seed, *shapes):
    return [0.5 + np.abs(x) for x in normal(seed, *shapes)]


UNARY = {
    "negative": (ops.negative, jnp.negative, normal),
    "exp": (ops.exp, jnp.exp, normal),
    "log": (ops.log, jnp.log, positive),
    "tanh": (ops.tanh, jnp.tanh, normal),
    "sigmoid": (ops.sigmoid, jax.nn.sigmoid, normal),
    "relu": (ops.relu, jax.nn.relu, normal),
    "erf": (ops.erf, jax.scipy.special.erf, normal),
    "softplus": (ops.softplus, jax.nn.softplus, normal),
    "identity": (ops.identity, lambda x: x * 1.0, normal),
    "square": (lambda x: x**2, lambda x: x**2, normal),
    "inverse": (lambda x: x**-1.0, lambda x: x**-1.0, positive),
    "root": (lambda x: x**0.5, lambda x: x**0.5, positive),
    "to the power of 0": (lambda x: x**0, lambda x: x**0.0, normal),
    "number to the power of x": (lambda x: 2.0**x, lambda x: 2.0**x, normal),
    "number over x": (lambda x: 3.0 / x, lambda x: 3.0 / x, positive),
    "number minus x": (lambda x: 3.0 - x, lambda x: 3.0 - x, normal),
    "gelu": (gelu, functools.partial(jax.nn.gelu, approximate=False), normal),
    "silu": (silu, jax.nn.silu, normal),
    "sum": (lambda x: x.sum(), jnp.sum, normal),
    "transpose": (lambda x: x.T, jnp.transpose, normal),
    "flatten": (lambda x: x.reshape(x.size), lambda x: x.reshape(x.size), normal),
    "twice": (lambda x: x * x + x, lambda x: x * x + x, normal),
    "broadcast": (
        lambda x: ops.broadcast_to(x, shape=(2, *x.shape)),
        lambda x: jnp.broadcast_to(x, (2, *x.shape)),
        normal,
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
    "add": (lambda a, b: a + b, jnp.add, normal),
    "subtract": (lambda a, b: a - b, jnp.subtract, normal),
    "multiply": (lambda a, b: a * b, jnp.multiply, normal),
    "divide": (lambda a, b: a / b, jnp.divide, positive),
    "power": (lambda a, b: a**b, jnp.power, positive),
    "where": (
        lambda a, b: ops.where(ops.array(a) > 0, a, b),
        lambda a, b: jnp.where(a > 0, a, b),
        normal,
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
    inputs = normal(seed, shape)
    cases = reductions(
        REDUCTIONS.keys() - {"softmax"}, inputs, axis=axis, keepdims=keepdims
    )
    check_functions(cases | reductions(["softmax"], inputs, axis=axis), seed)


@pytest.mark.parametrize("axis", [None, (0, 2), (1, -1)])
def test_reductions_over_several_axes(axis):
    check_functions(reductions(("sum", "mean", "max"), normal(0, (2, 3, 4)), axis=axis))


def test_equal_largest_entries_share_the_gradient():
    check_function(ops.max, jnp.max, [np.array([1.0, 3.0, 3.0])])


def test_logsumexp_of_nothing_but_minus_infinity():
    x = np.full((2, 3), -np.inf)
    with np.errstate(divide="ignore"):
        assert ops.logsumexp(x).data.tolist() == [-np.inf, -np.inf]
    assert ops.logsumexp(np.array([1000.0, 1000.0])).data == 1000.0 + np.log(2.0)


PLACES = {
    "slice": lambda x: x[1:, ::-2],
    "integer": lambda x: x[-1],
    "new axis": lambda x: x[:, None, ..., 0],
    "gather": lambda x: x[np.array([0, 2, 2, 0])],
    "pairs": lambda x: x[np.array([0, 2, 2]), np.array([1, 1, 1])],
    "bools": lambda x: x[np.array([True, False, True])],
    "reshape": lambda x: x.reshape(2, -1),
    "axes": lambda x: x.transpose(1, 2, 0),
}


def test_places_and_shapes():
    inputs = normal(0, (3, 4, 2))
    check_functions({name: (f, f, inputs) for name, f in PLACES.items()})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(axis):
    shapes = [np.array((2, 3, 4)) for _ in range(3)]
    for n, shape in enumerate(shapes):
        shape[axis] = n
    check_function(
        lambda *xs: ops.concatenate(*xs, axis=axis),
        lambda *xs: jnp.concatenate(xs, axis),
        normal(0, *map(tuple, shapes)),
    )


@SETTINGS
@hypothesis.given(
    lengths=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    batch=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3),
    kind=st.sampled_from(["matrices", "row", "column", "both"]),
    seed=SEEDS,
)
def test_matrix_products(lengths, batch, kind, seed):
    n, d, m = lengths
    left, right = ((*batch.input_shapes[0], n, d), (*batch.input_shapes[1], d, m))
    if kind in ("row", "both"):
        left = (d,)
    if kind in ("column", "both"):
        right = (d,)
    check_function(lambda a, b: a @ b, jnp.matmul, normal(seed, left, right), seed)


@SETTINGS
@hypothesis.given(
    sides=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=SEEDS,
)
def test_convolution(sides, window, seed):
    inputs = normal(seed, (2, *sides, 2), (*window, 2, 3))

    def theirs(x, kernel, stride, padding):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding.upper(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    cases = {}
    for stride, padding in itertools.product((1, 2, 3), ("same", "valid")):
        options = {"stride": stride, "padding": padding}
        pair = (functools.partial(f, **options) for f in (conv2d, theirs))
        cases[f"{stride}, {padding}"] = (*pair, inputs)
    check_functions(cases, seed)


def test_cross_entropy_leaves_ignored_labels_out():
    import optax

    labels = np.array([[0, 2, losses.IGNORE], [losses.IGNORE, 1, 1]])

    def theirs(logits):
        counts = labels != losses.IGNORE
        values = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(counts, labels, 0)
        )
        return jnp.where(counts, values, 0.0).sum() / counts.sum()

    (logits,) = normal(0, (2, 3, 4))
    check_function(lambda x: losses.cross_entropy(x, labels), theirs, [logits])
    logits[0, 2] = np.nan  # padding may hold anything
    value, pull = vjp(lambda x: losses.cross_entropy(x, labels), logits)
    assert np.isfinite(value) and not pull(1.0)[0][0, 2].any()
    nothing = np.full((2, 3), losses.IGNORE)
    assert float(losses.cross_entropy(np.ones((2, 3, 4)), nothing)) == 0.0


def test_squared_error():
    check_function(
        losses.squared_error,
        lambda a, b: ((a - b) ** 2).mean(),
        normal(0, (3, 2), (3, 2)),
    )


def test_every_operation_is_tested():
    named = {name for name, op in vars(ops).items() if isinstance(op, ops.Primitive)}
    reached = {*UNARY, *BINARY, *REDUCTIONS} | {
        "power", "reshape", "broadcast_to", "concatenate", "_product"
    }  # fmt: skip
    # Through indices and their gradients, and by test_types_of_gradients.
    assert named - reached == {"getitem", "scatter", "cast"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_of_gradients(dtype):
    """A gradient has the type of its input; numbers of Python take the array's."""
    x = np.linspace(0.1, 1.0, 6, dtype=dtype)
    _, pull = vjp(lambda x: (2.0 * x.astype(np.float64) ** 1.5).sum(), x)
    assert pull(1.0)[0].dtype == dtype
    y = ops.mean(gelu(Tensor(x)) / 3 + ops.where(x > 0.5, 1.0, Tensor(x)))
    assert y.dtype == dtype
