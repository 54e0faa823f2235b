"""Convolution by im2col: the windows of an image are rows of a matrix product."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Primitive, Tensor, as_floating


def _unfold(x, *, window, stride):
    """Returns the windows of images, `[B, R, C, D]` → `[B, R', C', h, w, D]`."""
    views = np.lib.stride_tricks.sliding_window_view(x, window, axis=(1, 2))
    return np.moveaxis(views[:, ::stride, ::stride], 3, 5)


def _fold(x, *, window, stride, shape):
    """Returns the sum of windows at their positions, the transpose of `unfold`."""
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
    """Returns x with zeros before and after it along each axis.

    >>> pad(Tensor([1.0]), [(2, 1)]).data
    array([0., 0., 1., 0.])
    """
    pairs = list(zip(widths, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in pairs)
    index = tuple(slice(before, before + n) for (before, _), n in pairs)
    return ops.scatter(x, index=index, shape=shape)


def conv2d(x: Any, kernel: Any, *, stride: int = 1, padding: str = "same") -> Tensor:
    """Returns the cross-correlation of images with kernels, known as convolution.

    Args:
      x: `[B, R, C, D]`: images, rows, columns, channels.
      kernel: `[h, w, D, H]`.
      stride: The distance between windows, at least 1.
      padding: `same` pads with zeros so that there are ⌈R / stride⌉ rows of results;
        `valid` does not pad.

    Returns:
      `[B, R', C', H]`.

    Raises:
      ValueError: The shapes do not fit, or the padding or the stride is unknown.

    >>> conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), padding="valid").shape
    (1, 2, 2, 1)
    """
    x, kernel = as_floating(x), as_floating(kernel)
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
    *window, _, outputs = kernel.shape
    if padding == "same":
        zeros = [
            _zeros(length, side, stride)
            for length, side in zip(x.shape[1:3], window, strict=True)
        ]
        x = pad(x, [(0, 0), *zeros, (0, 0)])
    rows = unfold(x, window=tuple(window), stride=stride)  # [B, R', C', h, w, D]
    rows = ops.reshape(rows, shape=(*rows.shape[:3], math.prod(rows.shape[3:])))
    return rows @ ops.reshape(kernel, shape=(rows.shape[3], outputs))


def _zeros(length: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the zeros needed before and after for ⌈length / stride⌉ windows."""
    windows = -(-length // stride)
    missing = max((windows - 1) * stride + window - length, 0)
    return missing // 2, missing - missing // 2
