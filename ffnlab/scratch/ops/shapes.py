"""Operations that move entries, with rules that move the gradient back.

>>> roll([1.0, 2.0, 3.0], 1).data
array([3., 1., 2.])
"""

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ffnlab.scratch.tensor import Primitive, Tensor

INDEX_ARRAYS = (Tensor, np.ndarray, list)  # indices that gather, unlike slices

# Shapes.


def _reshape(x, *, shape):
    return np.reshape(x, shape)


reshape = Primitive(_reshape, lambda g, y, x, shape: reshape(g, shape=x.shape))
squeeze = Primitive(np.squeeze, lambda g, y, x, axis=None: reshape(g, x.shape))
expand_dims = Primitive(np.expand_dims, lambda g, y, x, axis: reshape(g, x.shape))
ravel = Primitive(np.ravel, lambda g, y, x: reshape(g, x.shape))
atleast_1d = Primitive(np.atleast_1d, lambda g, y, x: reshape(g, x.shape))
atleast_2d = Primitive(np.atleast_2d, lambda g, y, x: reshape(g, x.shape))
atleast_3d = Primitive(np.atleast_3d, lambda g, y, x: reshape(g, x.shape))
broadcast_to = Primitive(np.broadcast_to, lambda g, y, x, shape: g)

# The order of axes, and along axes.


def _transpose_rule(g, y, x, axes=None):
    order = None if axes is None else np.argsort(np.array(axes) % x.ndim)
    return transpose(g, None if axes is None else tuple(order.tolist()))


transpose = Primitive(np.transpose, _transpose_rule)
swapaxes = Primitive(
    np.swapaxes, lambda g, y, x, axis1, axis2: swapaxes(g, axis1, axis2)
)
moveaxis = Primitive(
    np.moveaxis, lambda g, y, x, source, destination: moveaxis(g, destination, source)
)
flip = Primitive(np.flip, lambda g, y, x, axis=None: flip(g, axis))
flipud = Primitive(np.flipud, lambda g, y, x: flipud(g))
fliplr = Primitive(np.fliplr, lambda g, y, x: fliplr(g))
roll = Primitive(
    np.roll, lambda g, y, x, shift, axis=None: roll(g, np.negative(shift), axis)
)
rot90 = Primitive(np.rot90, lambda g, y, x, k=1, axes=(0, 1): rot90(g, -k, axes))
tril = Primitive(np.tril, lambda g, y, x, k=0: tril(g, k))
triu = Primitive(np.triu, lambda g, y, x, k=0: triu(g, k))

# Parts, and several arrays in one.


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


getitem = Primitive(
    _getitem, lambda g, y, x, index: scatter(g, index=index, shape=x.shape)
)
scatter = Primitive(_scatter, lambda g, y, x, index, shape: getitem(g, index=index))


def along(x: Tensor, axis: int, part: Any) -> tuple:
    """Returns the index of a part of x along an axis."""
    return (*[slice(None)] * normalize_axis_index(axis, x.ndim), part)


def _concatenate(*xs, axis):
    return np.concatenate(xs, axis)


def _concatenate_rule(g, y, *xs, axis):
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()
    return [
        g[along(g, axis, slice(end - x.shape[axis], end))]
        for x, end in zip(xs, ends, strict=True)
    ]


concatenation = Primitive(_concatenate, joint=_concatenate_rule)
