"""Operations and the rules of their gradients.

A rule takes the gradient g of the result y, y itself and the inputs, and returns the
gradient of one input. Rules consist of the same operations, so they can be
differentiated again. `graph` sums gradients over axes along which an input was
broadcast.

>>> from ffnlab.scratch import grad
>>> grad(lambda x: sum(tanh(x)))(np.array([0.0, 1.0])).round(4)
array([1.  , 0.42])
"""

import math
from typing import Any

import numpy as np

from ffnlab.scratch.tensor import Primitive, Tensor, array, tensor, wrap

Axis = int | tuple[int, ...] | None

# Arithmetic: a rule for a and a rule for b.

add = Primitive(np.add, lambda g, y, a, b: g, lambda g, y, a, b: g)
subtract = Primitive(np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g)
multiply = Primitive(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
divide = Primitive(np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
negative = Primitive(np.negative, lambda g, y, x: -g)


def _power_base(g, y, a, b):
    """Returns g b a^(b−1), which is 0 where b is 0, even for infinite a^(b−1)."""
    if isinstance(b, Tensor):
        zero = b.data == 0
        return g * where(zero, 0.0, b * a ** where(zero, 1.0, b - 1.0))
    return g * (b * a ** (b - 1)) if b else g * 0.0


def _power_exponent(g, y, a, b):
    """Returns g a^b log a, which is 0 where a is 0."""
    return g * y * log(where(array(a) == 0, 1.0, a))


power = Primitive(np.power, _power_base, _power_exponent)

# Elementwise functions.


def _erf(x):
    dtype = x.dtype if x.dtype.kind == "f" else float
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype)  # a slow Python loop


def _sigmoid(x):
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # no overflow


def _softplus(x):
    return np.logaddexp(x, 0)


def _relu(x):
    return np.maximum(x, 0)


exp = Primitive(np.exp, lambda g, y, x: g * y)
log = Primitive(np.log, lambda g, y, x: g / x)
tanh = Primitive(np.tanh, lambda g, y, x: g * (1 - y * y))
sigmoid = Primitive(_sigmoid, lambda g, y, x: g * (y * (1 - y)))
relu = Primitive(_relu, lambda g, y, x: g * wrap((x.data > 0).astype(x.dtype)))
erf = Primitive(_erf, lambda g, y, x: g * (2 / math.sqrt(math.pi) * exp(-x * x)))
softplus = Primitive(_softplus, lambda g, y, x: g * sigmoid(x))
where = Primitive(  # g passes to the side that was chosen, so that no NaN leaks
    np.where,
    None,
    lambda g, y, condition, a, b: where(condition, g, 0.0),
    lambda g, y, condition, a, b: where(condition, 0.0, g),
)

# Indices and shapes.


def _identity(x):
    return x


def _cast(x, *, dtype):
    return x.astype(dtype)


def _reshape(x, *, shape):
    return np.reshape(x, shape)


def _transpose_rule(g, y, x, axes=None):
    return transpose(g, axes=None if axes is None else tuple(np.argsort(axes).tolist()))


def _concatenate(*xs, axis=0):
    return np.concatenate(xs, axis)


def _concatenate_rule(g, y, *xs, axis=0):
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()
    before = (slice(None),) * (axis % y.ndim)
    return [
        g[(*before, slice(end - x.shape[axis], end))]
        for x, end in zip(xs, ends, strict=True)
    ]


def _getitem(x, *, index):
    return x[index]


def _scatter(x, *, index, shape):
    """Returns zeros of a shape with x added at an index, also at repeated indices."""
    total = np.zeros(shape, x.dtype)
    parts = index if type(index) is tuple else [index]
    if any(isinstance(part, INDEX_ARRAYS) for part in parts):
        np.add.at(total, index, x)
    else:
        total[index] = x
    return total


identity = Primitive(_identity, lambda g, y, x: g)
cast = Primitive(_cast, lambda g, y, x, dtype: g)
reshape = Primitive(_reshape, lambda g, y, x, shape: reshape(g, shape=x.shape))
broadcast_to = Primitive(np.broadcast_to, lambda g, y, x, shape: g)
transpose = Primitive(np.transpose, _transpose_rule)
concatenate = Primitive(_concatenate, joint=_concatenate_rule)
getitem = Primitive(
    _getitem, lambda g, y, x, index: scatter(g, index=index, shape=x.shape)
)
scatter = Primitive(_scatter, lambda g, y, x, index, shape: getitem(g, index=index))


INDEX_ARRAYS = (Tensor, np.ndarray, list)  # indices that gather, unlike slices


# Reductions.


def _restore_axes(g, x, axis, keepdims):
    """Returns the gradient of a reduction with the reduced axes as axes of length 1."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis) % x.ndim
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return g if keepdims else reshape(g, shape=shape)


def _sum_rule(g, y, x, axis=None, keepdims=False):
    return broadcast_to(_restore_axes(g, x, axis, keepdims), shape=x.shape)


def _max_rule(g, y, x, axis=None, keepdims=False):
    """Returns g at the largest entry, shared by equal entries."""
    largest = x.data == _restore_axes(y, x, axis, keepdims).data
    share = largest / largest.sum(axis=axis, keepdims=True)
    return _restore_axes(g, x, axis, keepdims) * share.astype(x.dtype)


def _logsumexp(x, *, axis=-1, keepdims=False):
    """Returns log Σ eˣ without overflow."""
    top = np.nan_to_num(np.max(x, axis=axis, keepdims=True), neginf=0)
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis)


def _logsumexp_rule(g, y, x, axis=-1, keepdims=False):
    g, y = (_restore_axes(array, x, axis, keepdims) for array in (g, y))
    return g * exp(x - y)


sum = Primitive(np.sum, _sum_rule)
max = Primitive(np.max, _max_rule)
logsumexp = Primitive(_logsumexp, _logsumexp_rule)


def mean(
    x: Any, *, axis: Axis = None, keepdims: bool = False, name: str = ""
) -> Tensor:
    """Returns the mean over some axes, or over all."""
    x = tensor(x)
    total = sum(x, axis=axis, keepdims=keepdims)
    return divide(total, x.size // (total.size or 1), name=name)


def sum_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns the sum of g over the axes along which `shape` was broadcast to g's.

    >>> sum_to(Tensor(np.ones((4, 2, 3))), (2, 1)).data.tolist()
    [[12.0], [12.0]]
    """
    if g.shape == shape:
        return g
    added = g.ndim - len(shape)
    wide = [added + i for i, n in enumerate(shape) if n == 1 != g.shape[added + i]]
    g = sum(g, axis=(*range(added), *wide))
    return g if g.shape == shape else reshape(g, shape=shape)


# The matrix product.


def _swap_last_axes(x):
    """Returns x with its last two axes exchanged."""
    x = tensor(x)
    return transpose(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


_product = Primitive(
    np.matmul,
    lambda g, y, a, b: _product(g, _swap_last_axes(b)),
    lambda g, y, a, b: _product(_swap_last_axes(a), g),
)


def matmul(a: Any, b: Any, *, name: str = "") -> Tensor:
    """Returns the matrix product `[..., N, D]`, `[..., D, M]` → `[..., N, M]`.

    A vector is a row on the left and a column on the right.

    >>> matmul([1.0, 2.0, 3.0], [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]).data
    array([14., 32.])
    """
    y = _matmul(tensor(a), tensor(b))
    y.name = name
    return y


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 1 and b.ndim:
        y = matmul(reshape(a, shape=(1, a.size)), b)
        return y[0] if b.ndim == 1 else y[..., 0, :]
    if b.ndim == 1 and a.ndim:
        return matmul(a, reshape(b, shape=(b.size, 1)))[..., 0]
    if b.ndim == 2 and a.ndim > 2 and a.shape[-1] == b.shape[0]:
        # One product of all rows, so that the gradient of b is one product too.
        rows = reshape(a, shape=(math.prod(a.shape[:-1]), a.shape[-1]))
        return reshape(_product(rows, b), shape=(*a.shape[:-1], b.shape[1]))
    return _product(a, b)
