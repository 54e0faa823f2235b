"""Operations over axes: sums, products, extremes and moments.

>>> var([1.0, 3.0]).data, prod([2.0, 0.0]).data
(array(1.), array(0.))
"""

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ffnlab.scratch.ops.arrange import concatenate, diagonal
from ffnlab.scratch.ops.elementwise import divide, exp, sqrt
from ffnlab.scratch.ops.shapes import broadcast_to, flip, reshape, transpose
from ffnlab.scratch.tensor import Primitive, Tensor, tensor

Axis = int | tuple[int, ...] | None


def _normalize_axes(x, axis):
    """Returns the reduced axes as numbers from 0."""
    axes = range(x.ndim) if axis is None else axis
    return normalize_axis_tuple(axes, x.ndim)


def _restore_axes(g, x, axis, keepdims):
    """Returns the gradient of a reduction with the reduced axes as axes of length 1."""
    axes = _normalize_axes(x, axis)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return g if keepdims else reshape(g, shape=shape)


def _sum_rule(g, y, x, axis=None, keepdims=False):
    return broadcast_to(_restore_axes(g, x, axis, keepdims), shape=x.shape)


def _extreme_rule(g, y, x, axis=None, keepdims=False):
    """Returns g at the largest or smallest entry, shared by equal entries."""
    chosen = x.data == _restore_axes(y, x, axis, keepdims).data
    share = chosen / chosen.sum(axis=axis, keepdims=True)
    return _restore_axes(g, x, axis, keepdims) * share.astype(x.dtype)


def _logsumexp(x, *, axis=-1, keepdims=False):
    """Returns log Σ eˣ without overflow."""
    top = np.nan_to_num(np.max(x, axis=axis, keepdims=True), neginf=0)
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis)


def _logsumexp_rule(g, y, x, axis=-1, keepdims=False):
    g, y = (_restore_axes(array, x, axis, keepdims) for array in (g, y))
    return g * exp(x - y)


def _cumsum_rule(g, y, x, axis=None):
    """Returns the sums of g from each entry on."""
    along = 0 if axis is None else axis
    return reshape(flip(cumsum(flip(g, along), along), along), x.shape)


sum = Primitive(np.sum, _sum_rule)
max = Primitive(np.max, _extreme_rule)
min = Primitive(np.min, _extreme_rule)
logsumexp = Primitive(_logsumexp, _logsumexp_rule)
cumsum = Primitive(np.cumsum, _cumsum_rule)


def mean(x: Any, axis: Axis = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Returns the mean over some axes, or over all."""
    x = tensor(x)
    total = sum(x, axis=axis, keepdims=keepdims)
    return divide(total, x.size // (total.size or 1), name=name)


def var(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Returns the variance over some axes, or over all, divided by n − ddof."""
    x = tensor(x)
    centered = x - mean(x, axis, keepdims=True)
    total = sum(centered * centered, axis=axis, keepdims=keepdims)
    return total / (x.size // (total.size or 1) - ddof)


def std(x: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Returns the root of the variance, without a derivative where that is 0: NaN."""
    return sqrt(var(x, axis, ddof=ddof, keepdims=keepdims))


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Returns the product over some axes, or over all.

    It multiplies halves with each other, and not by a rule g y / x, so that derivatives
    are right where entries are 0.
    """
    x = tensor(x)
    axes = _normalize_axes(x, axis)
    kept = [i for i in range(x.ndim) if i not in axes]
    shape = tuple(x.shape[i] for i in kept)
    count = math.prod(x.shape[i] for i in axes)
    y = reshape(transpose(x, (*axes, *kept)), (count, *shape))
    while len(y) > 1:
        half = len(y) // 2
        y = concatenate(y[:half] * y[half : 2 * half], y[2 * half :])
    y = y[0] if count else Tensor(np.ones(shape, x.dtype))
    return _restore_axes(y, x, axis, False) if keepdims else y


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Returns the sums of the diagonals of matrices in two axes of x."""
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


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
