"""Parts, order and copies of arrays, all made of the operations in `shapes`.

>>> stack([[1.0, 2.0], [3.0, 4.0]], axis=1).data.tolist()
[[1.0, 3.0], [2.0, 4.0]]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch.ops.elementwise import where
from ffnlab.scratch.ops.shapes import (
    along,
    atleast_1d,
    atleast_2d,
    broadcast_to,
    concatenation,
    expand_dims,
    moveaxis,
    ravel,
    reshape,
    scatter,
)
from ffnlab.scratch.tensor import Tensor, array, tensor

# Parts and order.


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """Returns the entries of x at some indices of an axis, or of all if it is None.

    >>> take([[1.0, 2.0, 3.0]], [2, 2, 0], axis=1).data
    array([[3., 3., 1.]])
    """
    x = ravel(x) if axis is None else tensor(x)
    return x[along(x, axis or 0, np.array(array(indices)))]


def take_along_axis(x: Any, indices: Any, axis: int) -> Tensor:
    """Returns entries of x by an index for each along an axis, as from `np.argsort`."""
    indices = np.asarray(array(indices))
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis] = indices
    return tensor(x)[tuple(grid)]


def sort(x: Any, axis: int | None = -1) -> Tensor:
    """Returns x in ascending order along an axis, or of all entries if it is None.

    >>> sort([3.0, 1.0, 2.0]).data
    array([1., 2., 3.])
    """
    x, axis = (ravel(x), 0) if axis is None else (tensor(x), axis)
    return take_along_axis(x, np.argsort(x.data, axis, kind="stable"), axis)


def diff(x: Any, n: int = 1, axis: int = -1) -> Tensor:
    """Returns the differences of neighbours along an axis, n times over.

    >>> diff([1.0, 4.0, 9.0]).data
    array([3., 5.])
    """
    x = tensor(x)
    for _ in range(n):
        x = x[along(x, axis, slice(1, None))] - x[along(x, axis, slice(-1))]
    return x


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Returns the diagonals of matrices in two axes of x, as the last axis.

    >>> diagonal([[1.0, 2.0], [3.0, 4.0]], offset=1).data
    array([2.])
    """
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows = np.arange(max(-offset, 0), min(x.shape[-2], x.shape[-1] - offset))
    return x[..., rows, rows + offset]


def diag(x: Any, k: int = 0) -> Tensor:
    """Returns the k-th diagonal of a matrix, or a matrix with it for a vector.

    >>> diag([1.0, 2.0], k=1).data.tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    """
    x = tensor(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"diag of shape {x.shape}: expected a vector or a matrix")
    side = x.size + abs(k)
    rows = np.arange(x.size) + max(-k, 0)
    return scatter(x, index=(rows, rows + k), shape=(side, side))


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Returns equal parts of x along an axis, or parts that end before some indices.

    >>> [part.data.tolist() for part in split([1.0, 2.0, 3.0], [1])]
    [[1.0], [2.0, 3.0]]
    """
    return _split(np.split, x, indices_or_sections, axis)


def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Returns parts of x as `split` does, of which the first may be longer by one."""
    return _split(np.array_split, x, indices_or_sections, axis)


def vsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """Returns parts of x along its first axis, as `split` does."""
    return split(x, indices_or_sections, 0)


def hsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """Returns parts of x along its second axis, or along that of a vector."""
    x = tensor(x)
    return split(x, indices_or_sections, int(x.ndim > 1))


def dsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """Returns parts of x along its third axis, as `split` does."""
    return split(x, indices_or_sections, 2)


def _split(cut, x, sections, axis):
    x = tensor(x)
    lengths = [len(part) for part in cut(np.arange(x.shape[axis]), sections)]
    ends = np.cumsum(lengths).tolist()
    pairs = zip(ends, lengths, strict=True)
    return [x[along(x, axis, slice(end - length, end))] for end, length in pairs]


# Several arrays in one, and copies.


def concatenate(*xs: Any, axis: int | None = 0, name: str = "") -> Tensor:
    """Returns arrays one after another along an axis.

    Args:
      *xs: The arrays, or one list of them, which the axis may follow as in NumPy.
      axis: The axis; None is that of flattened arrays.
      name: The name of the result in a diagram.

    >>> concatenate([[1.0], [2.0, 3.0]]).data, concatenate([1.0], [2.0, 3.0]).data
    (array([1., 2., 3.]), array([1., 2., 3.]))
    """
    if len(xs) == 2 and (xs[1] is None or isinstance(xs[1], int)):
        xs, axis = xs
    elif len(xs) == 1 and isinstance(xs[0], (list, tuple)):
        (xs,) = xs
    xs, axis = (map(ravel, xs), 0) if axis is None else (xs, axis)
    return concatenation(*xs, axis=axis, name=name)


def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Returns arrays of one shape along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def vstack(xs: Sequence[Any]) -> Tensor:
    """Returns arrays one below another; vectors are rows."""
    return concatenate([atleast_2d(x) for x in xs])


def hstack(xs: Sequence[Any]) -> Tensor:
    """Returns arrays one beside another, along the second axis if they have one."""
    xs = [atleast_1d(x) for x in xs]
    return concatenate(xs, int(xs[0].ndim > 1))


def column_stack(xs: Sequence[Any]) -> Tensor:
    """Returns columns one beside another; vectors are columns."""
    xs = [tensor(x) for x in xs]
    return concatenate([x if x.ndim > 1 else atleast_2d(x).T for x in xs], 1)


def append(x: Any, values: Any, axis: int | None = None) -> Tensor:
    """Returns x and then values along an axis, both flattened if it is None."""
    return concatenate([x, values], axis=axis)


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Returns each entry along an axis, or of all if it is None, some times over.

    >>> repeat([1.0, 2.0], [1, 2]).data
    array([1., 2., 2.])
    """
    x, axis = (ravel(x), 0) if axis is None else (tensor(x), axis)
    return take(x, np.repeat(np.arange(x.shape[axis]), repeats), axis)


def tile(x: Any, reps: int | Sequence[int]) -> Tensor:
    """Returns x some times over along each axis.

    >>> tile([1.0, 2.0], 2).data
    array([1., 2., 1., 2.])
    """
    x, reps = tensor(x), np.atleast_1d(reps).tolist()
    shape = (1,) * (len(reps) - x.ndim) + x.shape
    reps = (1,) * (x.ndim - len(reps)) + tuple(reps)
    once = np.ravel([(1,) * len(shape), shape], "F").tolist()
    copies = np.ravel([reps, shape], "F").tolist()
    x = broadcast_to(reshape(x, once), copies)
    return reshape(x, tuple(np.multiply(reps, shape).tolist()))


_COPYING = ("edge", "reflect", "symmetric", "wrap")


def pad(
    x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0
) -> Tensor:
    """Returns x with entries before and after it along each axis.

    Args:
      x: Of any shape.
      pad_width: How many entries; a number, a pair (before, after), or a pair for each
        axis.
      mode: `constant`, or `edge`, `reflect`, `symmetric` or `wrap`, which copy entries
        as `numpy.pad` does.
      constant_values: The number that `constant` adds.

    Raises:
      ValueError: The widths do not fit or are negative, or the mode is unknown.

    >>> pad([1.0], (2, 1)).data
    array([0., 0., 1., 0.])
    """
    x = tensor(x)
    widths = _pad_widths(pad_width, x.shape)
    if mode in _COPYING:
        for axis, width in enumerate(widths):
            x = take(x, np.pad(np.arange(x.shape[axis]), width, mode), axis)
        return x
    if mode != "constant":
        modes = ", ".join(("constant", *_COPYING))
        raise ValueError(f"pad: unknown mode {mode!r}; expected one of {modes}")
    pairs = list(zip(widths, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in pairs)
    index = tuple(slice(before, before + n) for (before, _), n in pairs)
    y = scatter(x, index=index, shape=shape)
    if constant_values == 0:
        return y
    inside = scatter(np.ones(x.shape, bool), index=index, shape=shape)
    return where(inside.data, y, constant_values)


def _pad_widths(pad_width: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns a pair for each axis."""
    try:
        widths = np.broadcast_to(pad_width, (len(shape), 2)).tolist()
    except ValueError:
        widths = [[-1]]
    if any(min(pair) < 0 for pair in widths):
        raise ValueError(
            f"pad of shape {shape}: pad_width {pad_width} should be a number, a pair, "
            "or a pair for each axis, none below 0"
        )
    return widths
