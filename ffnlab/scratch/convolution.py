"""Convolution by im2col: the windows of a picture as rows of one matrix product."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Primitive, Tensor, floating


def _unfold(x, *, window, stride):
    """The windows of pictures: `[B, R, C, D]` → `[B, R', C', h, w, D]`."""
    views = np.lib.stride_tricks.sliding_window_view(x, window, axis=(1, 2))
    return np.moveaxis(views[:, ::stride, ::stride], 3, 5)


def _fold(x, *, window, stride, shape):
    """Windows added up where they lie: the transposed of `unfold`."""
    total = np.zeros(shape, x.dtype)
    rows, columns = (1 + stride * (n - 1) for n in x.shape[1:3])
    for i, j in np.ndindex(*window):
        total[:, i : i + rows : stride, j : j + columns : stride] += x[:, :, :, i, j]
    return total


unfold = Primitive(
    _unfold,
    lambda g, y, x, window, stride: fold(
        g, window=window, stride=stride, shape=x.shape
    ),
)
fold = Primitive(
    _fold,
    lambda g, y, x, window, stride, shape: unfold(g, window=window, stride=stride),
)


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Returns x between zeros: so many before and after, along each axis.

    >>> pad(Tensor([1.0]), [(2, 1)]).data
    array([0., 0., 1., 0.])
    """
    pairs = list(zip(widths, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in pairs)
    inside = tuple(slice(before, before + n) for (before, _), n in pairs)
    return ops.scatter(x, index=inside, shape=shape)


def conv2d(x: Any, kernel: Any, *, stride: int = 1, padding: str = "same") -> Tensor:
    """Returns the cross-correlation of pictures with kernels, the field's convolution.

    Args:
      x: `[B, R, C, D]`: pictures, rows, columns, channels.
      kernel: `[h, w, D, H]`.
      stride: how far apart the windows are, at least 1.
      padding: `same`, for ⌈R / stride⌉ rows of results, or `valid`, for no zeros.

    Returns:
      `[B, R', C', H]`.

    Raises:
      ValueError: shapes that do not fit, named, or another padding or stride.

    >>> conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), padding="valid").shape
    (1, 2, 2, 1)
    """
    x, kernel = floating(x), floating(kernel)
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"conv2d of shapes {x.shape} and {kernel.shape}: expected [B, R, C, D] and "
            "[h, w, D, H]"
        )
    if padding not in ("same", "valid") or stride < 1:
        raise ValueError(
            f"conv2d: padding {padding!r} should be 'same' or 'valid', and stride "
            f"{stride} at least 1"
        )
    *window, _, wide = kernel.shape
    if padding == "same":
        zeros = [
            _zeros(*each, stride) for each in zip(x.shape[1:3], window, strict=True)
        ]
        x = pad(x, [(0, 0), *zeros, (0, 0)])
    rows = unfold(x, window=tuple(window), stride=stride)  # [B, R', C', h, w, D]
    rows = ops.reshape(rows, shape=(*rows.shape[:3], math.prod(rows.shape[3:])))
    return rows @ ops.reshape(kernel, shape=(rows.shape[3], wide))


def _zeros(length: int, window: int, stride: int) -> tuple[int, int]:
    """Returns how many zeros go before and after, for ⌈length / stride⌉ windows."""
    windows = -(-length // stride)
    missing = max((windows - 1) * stride + window - length, 0)
    return missing // 2, missing - missing // 2
