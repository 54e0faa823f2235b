"""The operators and methods of tensors: `a + b`, `x[i]`, `x.sum()`."""

import operator
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Tensor, array

BINARY = {
    "add": ops.add,
    "sub": ops.subtract,
    "mul": ops.multiply,
    "truediv": ops.divide,
    "pow": ops.power,
    "matmul": ops.matmul,
}
REDUCTIONS = {"sum": ops.sum, "mean": ops.mean, "max": ops.max}


def _index(index: Any) -> Any:
    """Returns a copy of an index, so that changing it later has no effect."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return Tensor(index).data if isinstance(index, ops.INDEX_ARRAYS) else index


def _unpack(numbers: tuple) -> tuple:
    """Returns numbers that are passed as arguments or as one tuple."""
    return numbers[0] if numbers and isinstance(numbers[0], tuple) else numbers


def _format(x: Tensor, specification: str) -> str:
    return format(x.data.item(), specification) if specification else repr(x)


def _reduction(function: Any) -> Any:
    def method(x: Tensor, axis: ops.Axis = None, keepdims: bool = False) -> Tensor:
        return function(x, axis=axis, keepdims=keepdims)

    return method


def bind() -> None:
    """Adds the operators and methods to `Tensor`."""
    for name, function in BINARY.items():
        setattr(Tensor, f"__{name}__", lambda x, y, f=function: f(x, y))
        setattr(Tensor, f"__r{name}__", lambda x, y, f=function: f(y, x))
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        compare = getattr(operator, name)
        setattr(Tensor, f"__{name}__", lambda x, y, f=compare: f(x.data, array(y)))
    for name, function in REDUCTIONS.items():
        setattr(Tensor, name, _reduction(function))
    Tensor.__neg__ = lambda x: ops.negative(x)
    Tensor.__getitem__ = lambda x, index: ops.getitem(x, index=_index(index))
    Tensor.__format__ = _format
    Tensor.T = property(lambda x: ops.transpose(x))
    Tensor.transpose = lambda x, *axes: ops.transpose(x, axes=_unpack(axes) or None)
    Tensor.reshape = lambda x, *shape: ops.reshape(x, shape=_unpack(shape))
    Tensor.astype = lambda x, dtype: ops.cast(x, dtype=np.dtype(dtype))
    Tensor.item = lambda x: x.data.item()


bind()
