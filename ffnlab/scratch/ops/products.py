"""The product of matrices.

>>> matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).data
array([3., 7.])
"""

import math
from typing import Any

import numpy as np

from ffnlab.scratch.ops.shapes import reshape, transpose
from ffnlab.scratch.tensor import Primitive, Tensor, tensor


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
