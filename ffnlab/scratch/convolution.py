"""Convolution by im2col: the windows of an image are rows of a matrix product."""

import math
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Primitive, Tensor, as_floating


def _unfold(x, *, window, stride, dilation):
    """Returns the windows of images, `[B, R, C, D]` → `[B, R', C', h, w, D]`."""
    spans = tuple(dilation * (side - 1) + 1 for side in window)
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=(1, 2))
    return np.moveaxis(views[:, ::stride, ::stride, :, ::dilation, ::dilation], 3, 5)


def _fold(x, *, window, stride, dilation, shape):
    """Returns the sum of windows at their positions, the transpose of `unfold`."""
    total = np.zeros(shape, x.dtype)
    rows, columns = (1 + stride * (n - 1) for n in x.shape[1:3])
    for i, j in np.ndindex(*window):
        top, left = i * dilation, j * dilation
        part = total[:, top : top + rows : stride, left : left + columns : stride]
        part += x[:, :, :, i, j]
    return total


unfold = Primitive(
    _unfold, lambda g, y, x, **options: fold(g, shape=x.shape, **options)
)
fold = Primitive(_fold, lambda g, y, x, shape, **options: unfold(g, **options))


def conv2d(
    x: Any,
    kernel: Any,
    *,
    stride: int = 1,
    padding: str = "same",
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Returns the cross-correlation of images with kernels, known as convolution.

    Args:
      x: `[B, R, C, D]`: images, rows, columns, channels.
      kernel: `[h, w, D / groups, H]`.
      stride: The distance between windows, at least 1.
      padding: `same` pads with zeros so that there are ⌈R / stride⌉ rows of results;
        `valid` does not pad.
      dilation: The distance between the entries of a window, at least 1.
      groups: How many equal parts the D channels are in, and the H results: each part
        of the results comes from one part of the channels. D groups convolve each
        channel alone.

    Returns:
      `[B, R', C', H]`.

    Raises:
      ValueError: The shapes do not fit, or an option is unknown or out of range.

    >>> conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), padding="valid").shape
    (1, 2, 2, 1)
    """
    x, kernel = as_floating(x), as_floating(kernel)
    _check(x, kernel, stride, padding, dilation, groups)
    *window, depth, outputs = kernel.shape
    if padding == "same":
        zeros = [
            _zeros(length, dilation * (side - 1) + 1, stride)
            for length, side in zip(x.shape[1:3], window, strict=True)
        ]
        x = ops.pad(x, [(0, 0), *zeros, (0, 0)])
    rows = unfold(x, window=tuple(window), stride=stride, dilation=dilation)
    shape = rows.shape[:3]  # rows is [B, R', C', h, w, D]
    if groups == 1:
        rows = ops.reshape(rows, shape=(*shape, math.prod(rows.shape[3:])))
        return rows @ ops.reshape(kernel, shape=(rows.shape[3], outputs))
    rows = ops.reshape(rows, (*shape, *window, groups, depth))
    kernel = ops.reshape(kernel, (*window, depth, groups, outputs // groups))
    y = ops.einsum("brchwgd,hwdgn->brcgn", rows, kernel)
    return ops.reshape(y, (*shape, outputs))


def _check(
    x: Tensor, kernel: Tensor, stride: int, padding: str, dilation: int, groups: int
) -> None:
    if min(stride, dilation, groups) < 1 or padding not in ("same", "valid"):
        raise ValueError(
            f"conv2d: padding {padding!r} should be 'same' or 'valid', and stride "
            f"{stride}, dilation {dilation} and groups {groups} at least 1"
        )
    fits = x.ndim == kernel.ndim == 4 and x.shape[3] == kernel.shape[2] * groups
    if not fits or kernel.shape[3] % groups:
        parts = f" / {groups}" if groups > 1 else ""
        multiple = f" with H a multiple of {groups}" if groups > 1 else ""
        raise ValueError(
            f"conv2d of shapes {x.shape} and {kernel.shape}: expected [B, R, C, D] and "
            f"[h, w, D{parts}, H]{multiple}"
        )


def _zeros(length: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the zeros needed before and after for ⌈length / stride⌉ windows."""
    windows = -(-length // stride)
    missing = max((windows - 1) * stride + window - length, 0)
    return missing // 2, missing - missing // 2
