"""All operations: each is tested, takes options by position, and keeps types."""

import inspect

import numpy as np
import pytest

from ffnlab.scratch import ops, vjp
from ffnlab.scratch.layers import gelu
from ffnlab.scratch.tensor import Tensor
from tests.scratch.ops import (
    test_elementwise,
    test_products,
    test_reductions,
    test_shapes,
)

TABLES = (
    test_elementwise.UNARY,
    test_elementwise.BINARY,
    test_elementwise.FUNCTIONS,
    test_elementwise.TIES,
    test_reductions.REDUCTIONS,
    test_reductions.CASES,
    test_shapes.CASES,
    test_products.CASES,
)


def test_every_operation_is_tested():
    reached = {key.partition(",")[0] for table in TABLES for key in table}
    named = {
        name
        for name, value in vars(ops).items()
        if isinstance(value, ops.Primitive)
        or (inspect.isfunction(value) and value.__module__.startswith(ops.__name__))
    }
    # Through operators, indices and their gradients, and by test_types_of_gradients.
    assert named - reached == {
        "along", "cast", "concatenation", "getitem", "matmul", "scatter", "sum_to"
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_of_gradients(dtype):
    """A gradient has the type of its input; numbers of Python take the array's."""
    x = np.linspace(0.1, 1.0, 6, dtype=dtype)
    _, pull = vjp(lambda x: (2.0 * x.astype(np.float64) ** 1.5).sum(), x)
    assert pull(1.0)[0].dtype == dtype
    y = ops.mean(gelu(Tensor(x)) / 3 + ops.where(x > 0.5, 1.0, Tensor(x)))
    assert y.dtype == dtype


def test_options_may_follow_the_inputs():
    x = np.arange(6.0).reshape(2, 3)
    assert ops.sum(x, 0).data.tolist() == [3.0, 5.0, 7.0]
    assert ops.max(x, 1, True).shape == ops.mean(x, 1, True).shape == (2, 1)
    assert ops.sum(x, 0, keepdims=True).shape == (1, 3)
    assert Tensor(x).sum(0, True).shape == (1, 3)
    with pytest.raises(TypeError, match="sum has two values for axis"):
        ops.sum(x, 0, axis=1)
    with pytest.raises(TypeError, match="sum takes 1 inputs and axis, keepdims, found"):
        ops.sum(x, 0, True, 3)
    assert ops.tanh(x).shape == x.shape
    scale = ops.Primitive(
        lambda x, factor: x * factor, lambda g, y, x, factor: g * factor
    )
    assert vjp(lambda x: scale(x, 3.0), x)[1](x)[0].tolist() == (3.0 * x).tolist()


def test_methods_of_arrays():
    x = Tensor([[1.5, 2.5]], requires_grad=True)
    assert x.tolist() == [[1.5, 2.5]] and x[0, 0].item() == 1.5
    assert type(x.numpy()) is np.ndarray and not x.numpy().flags.writeable
    assert (x.flatten().shape, x.squeeze().shape, x.ravel().shape) == ((2,),) * 3
    assert x.reshape([2, 1]).shape == x.reshape((2, 1)).shape == (2, 1)
    assert x.transpose((1, 0)).shape == x.transpose([1, 0]).shape == (2, 1)
    assert abs(-x).tolist() == x.tolist() and (-7.5 % x).tolist() == [[0.0, 0.0]]
    assert np.ones(2).__mod__(2.0).tolist() == (np.ones(2) % Tensor(2.0)).tolist()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (np.sum, "sum"), (np.var, "var"), (np.clip, "clip"), (np.split, "split"),
        (np.abs, "absolute"), (np.sin, "sin"), (np.maximum, "maximum"),
    ],
)  # fmt: skip
def test_functions_of_numpy_name_their_equal(call, name):
    args = {np.clip: (0, 1), np.split: (1,), np.maximum: (0.0,)}.get(call, ())
    match = f"np.{name} does not record .*: use scratch.ops.{name}, or .data"
    with pytest.raises(TypeError, match=match):
        call(Tensor([1.0]), *args)
    with pytest.raises(TypeError, match=r"such as ops.stack for a list of tensors"):
        np.sum([Tensor([1.0])])
