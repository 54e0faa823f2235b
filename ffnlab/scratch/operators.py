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
    "mod": ops.remainder,
    "floordiv": ops.floor_divide,
}
# Functions of `ops` that are methods, too: `x.sum(0)`.
METHODS = (
    "sum", "mean", "max", "min", "prod", "var", "std", "cumsum", "dot", "ravel", "clip",
    "squeeze", "swapaxes", "diagonal", "trace", "repeat", "take",
)  # fmt: skip
# What NumPy calls for `array + tensor` and `array < tensor`.
_ARITHMETIC = {
    getattr(np, name): getattr(ops, name)
    for name in (
        "add", "subtract", "multiply", "divide", "power", "matmul", "remainder",
        "floor_divide",
    )
}  # fmt: skip
_COMPARISONS = (
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
)  # fmt: skip
_SHAPES = (np.shape, np.ndim, np.size)  # which need no graph


def _index(index: Any) -> Any:
    """Returns a copy of an index, so that changing it later has no effect."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if not isinstance(index, ops.INDEX_ARRAYS):
        return index
    places = Tensor(index).data
    empty = isinstance(index, list) and not places.size  # which NumPy takes for floats
    return places.astype(int) if empty else places


def _unpack(numbers: tuple) -> tuple:
    """Returns numbers that are passed as arguments, or as one tuple or list."""
    return numbers[0] if numbers and isinstance(numbers[0], (tuple, list)) else numbers


def _format(x: Tensor, specification: str) -> str:
    return format(x.data.item(), specification) if specification else repr(x)


def _method(function: Any) -> Any:
    def method(x: Tensor, *args: Any, **options: Any) -> Tensor:
        return function(x, *args, **options)

    method.__doc__ = function.__doc__
    return method


def _ufunc(
    x: Tensor, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any
) -> Any:
    """Returns `array + tensor` and the like, and raises for any other ufunc."""
    if "out" in options:
        raise TypeError(
            f"np.{ufunc.__name__} cannot change an array by a tensor, as in a += t: "
            "make a new one, as in a = a + t"
        )
    if method == "__call__" and not options and ufunc in _ARITHMETIC:
        return _ARITHMETIC[ufunc](*inputs)
    if method == "__call__" and not options and ufunc in _COMPARISONS:
        return ufunc(*map(array, inputs))
    raise _forgets(ufunc.__name__)


def _function(x: Tensor, function: Any, types: Any, args: tuple, options: dict) -> Any:
    """Returns the shape, and raises for any other function of NumPy."""
    if function in _SHAPES:
        return function(*map(array, args), **options)
    raise _forgets(function.__name__)


def _forgets(name: str) -> TypeError:
    """Returns the error for a function of NumPy that is given a tensor."""
    remedy = "scratch.ops, or a Primitive of your own"
    remedy = f"scratch.ops.{name}" if callable(getattr(ops, name, None)) else remedy
    return TypeError(
        f"np.{name} does not record the graph of a tensor: use {remedy}, or .data to "
        "leave the graph"
    )


def bind() -> None:
    """Adds the operators and methods to `Tensor`."""
    for name, function in BINARY.items():
        setattr(Tensor, f"__{name}__", lambda x, y, f=function: f(x, y))
        setattr(Tensor, f"__r{name}__", lambda x, y, f=function: f(y, x))
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        compare = getattr(operator, name)
        setattr(Tensor, f"__{name}__", lambda x, y, f=compare: f(x.data, array(y)))
    for name in METHODS:
        setattr(Tensor, name, _method(getattr(ops, name)))
    Tensor.flatten = Tensor.ravel
    Tensor.__array_ufunc__ = _ufunc
    Tensor.__array_function__ = _function
    Tensor.__neg__ = lambda x: ops.negative(x)
    Tensor.__abs__ = lambda x: ops.abs(x)
    Tensor.__getitem__ = lambda x, index: ops.getitem(x, index=_index(index))
    Tensor.__format__ = _format
    Tensor.T = property(lambda x: ops.transpose(x))
    Tensor.transpose = lambda x, *axes: ops.transpose(x, axes=_unpack(axes) or None)
    Tensor.reshape = lambda x, *shape: ops.reshape(x, shape=_unpack(shape))
    Tensor.astype = lambda x, dtype: ops.cast(x, dtype=np.dtype(dtype))
    Tensor.item = lambda x: x.data.item()
    Tensor.tolist = lambda x: x.data.tolist()
    Tensor.numpy = lambda x: x.data


bind()
