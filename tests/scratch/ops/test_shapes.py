"""Shapes, parts, order and copies against JAX: the value, the vjp, and theirs."""

import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Tensor
from tests.scratch.agreement import (
    check_function,
    check_functions,
    check_numpy,
    normals,
)

pytestmark = pytest.mark.usefixtures("x64")


PLACES = {
    "slice": lambda x: x[1:, ::-2],
    "integer": lambda x: x[-1],
    "new axis": lambda x: x[:, None, ..., 0],
    "gather": lambda x: x[np.array([0, 2, 2, 0])],
    "pairs": lambda x: x[np.array([0, 2, 2]), np.array([1, 1, 1])],
    "bools": lambda x: x[np.array([True, False, True])],
    "reshape": lambda x: x.reshape(2, -1),
    "axes": lambda x: x.transpose(1, 2, 0),
}


def test_places_and_shapes():
    inputs = normals(0, (3, 4, 2))
    check_functions({name: (f, f, inputs) for name, f in PLACES.items()})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(axis):
    shapes = [np.array((2, 3, 4)) for _ in range(3)]
    for n, shape in enumerate(shapes):
        shape[axis] = n
    check_function(
        lambda *xs: ops.concatenate(*xs, axis=axis),
        lambda *xs: jnp.concatenate(xs, axis),
        normals(0, *map(tuple, shapes)),
    )


X, ROWS, ROW, SQUARE = normals(0, (2, 3, 4), (2, 3), (3,), (3, 3))
TIED = np.array([[2.0, 1.0, 2.0, 1.0], [0.0, 3.0, 0.0, 3.0]])
ORDER = np.argsort(X, 1)


def joined(xp, parts):
    """Returns a function of every part, whose derivative differs between them."""
    return sum((i + 1.0) * xp.sum(part**2) for i, part in enumerate(parts))


CASES = {
    "reshape": (lambda xp, x: xp.reshape(x, (4, -1)), X),
    "squeeze": (lambda xp, x: xp.squeeze(x[:, None, :1]) ** 2, X),
    "squeeze, of an axis": (lambda xp, x: xp.squeeze(x[:, None, :1], (1, 2)), X),
    "expand_dims": (lambda xp, x: xp.expand_dims(x, 1), X),
    "expand_dims, of axes": (lambda xp, x: xp.expand_dims(x, (0, -1)), X),
    "ravel": (lambda xp, x: xp.ravel(x) ** 2, X),
    "atleast_1d": (lambda xp, x: xp.atleast_1d(x[0, 0, 0]), X),
    "atleast_2d": (lambda xp, x: xp.atleast_2d(x[0, 0]), X),
    "atleast_3d": (lambda xp, x: xp.atleast_3d(x[0]), X),
    "broadcast_to": (lambda xp, x: xp.broadcast_to(x[:, :1], (5, 2, 3, 4)), X),
    "transpose": (lambda xp, x: xp.transpose(x, (-1, 0, 1)), X),
    "swapaxes": (lambda xp, x: xp.swapaxes(x, 0, -1), X),
    "moveaxis": (lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), X),
    "flip": (lambda xp, x: xp.flip(x), X),
    "flip, of axes": (lambda xp, x: xp.flip(x, (0, 2)), X),
    "flipud": (lambda xp, x: xp.flipud(x), X),
    "fliplr": (lambda xp, x: xp.fliplr(x), X),
    "roll": (lambda xp, x: xp.roll(x, 5), X),
    "roll, of axes": (lambda xp, x: xp.roll(x, (1, -2), (0, 2)), X),
    "rot90": (lambda xp, x: xp.rot90(x, 3, (0, 2)), X),
    "tril": (lambda xp, x: xp.tril(x, -1), X),
    "triu": (lambda xp, x: xp.triu(x, 1), X),
    "take": (lambda xp, x: xp.take(x, np.array([7, 0, 7]), None), X),
    "take, of an axis": (lambda xp, x: xp.take(x, np.array([[2, 0], [2, 1]]), 1), X),
    "take_along_axis": (lambda xp, x: xp.take_along_axis(x, ORDER, 1), X),
    "sort": (lambda xp, x: xp.sort(x) ** 2, X),
    "sort, along an axis": (lambda xp, x: xp.sort(x, 0), X),
    "sort, of all": (lambda xp, x: xp.sort(x, None), X),
    "sort, of equal entries": (lambda xp, x: xp.sort(x, 1), TIED),
    "diff": (lambda xp, x: xp.diff(x), X),
    "diff, twice": (lambda xp, x: xp.diff(x, 2, axis=1), X),
    "diagonal": (lambda xp, x: xp.diagonal(x, -1), X),
    "diagonal, of other axes": (lambda xp, x: xp.diagonal(x, 1, 2, 1), X),
    "diag": (lambda xp, x: xp.diag(x), SQUARE),
    "diag, above": (lambda xp, x: xp.diag(x, 1), ROWS),
    "diag, of a vector": (lambda xp, x: xp.diag(x, -2), ROW),
    "split": (lambda xp, x: joined(xp, xp.split(x, 2, axis=-1)), X),
    "split, at indices": (lambda xp, x: joined(xp, xp.split(x, [1, 1, 3], 2)), X),
    "array_split": (lambda xp, x: joined(xp, xp.array_split(x, 3, 2)), X),
    "vsplit": (lambda xp, x: joined(xp, xp.vsplit(x, 2)), X),
    "hsplit": (lambda xp, x: joined(xp, xp.hsplit(x, [2])), X),
    "hsplit, of a vector": (lambda xp, x: joined(xp, xp.hsplit(x, 3)), ROW),
    "dsplit": (lambda xp, x: joined(xp, xp.dsplit(x, 2)), X),
    "concatenate": (lambda xp, a, b: xp.concatenate([a, b]), X, X),
    "concatenate, along an axis": (lambda xp, a: xp.concatenate((a, a * a), 1), X),
    "concatenate, of all": (lambda xp, a, b: xp.concatenate([a, b], None), X, ROW),
    "stack": (lambda xp, a, b: xp.stack([a, b]), X, X),
    "stack, along an axis": (lambda xp, a: xp.stack((a, a * a, a), -1), X),
    "vstack": (lambda xp, a, b: xp.vstack([a, b]), ROWS, ROW),
    "hstack": (lambda xp, a, b: xp.hstack([a, b]), ROWS, ROWS),
    "hstack, of vectors": (lambda xp, a: xp.hstack([a, a * a]), ROW),
    "column_stack": (lambda xp, a, b: xp.column_stack([a, b]), ROW, SQUARE),
    "append": (lambda xp, a, b: xp.append(a, b), ROWS, ROW),
    "append, along an axis": (lambda xp, a, b: xp.append(a, b, 0), ROWS, SQUARE),
    "repeat": (lambda xp, x: xp.repeat(x, 2), X),
    "repeat, along an axis": (
        lambda xp, x: xp.repeat(x, np.array([1, 0, 2]), 1, total_repeat_length=3)
        if xp is jnp else xp.repeat(x, [1, 0, 2], 1),
        X,
    ),
    "tile": (lambda xp, x: xp.tile(x, 2), X),
    "tile, along axes": (lambda xp, x: xp.tile(x, (2, 1, 3, 1)), X),
    "tile, along the last": (lambda xp, x: xp.tile(x, (2, 1)), X),
    "pad": (lambda xp, x: xp.pad(x, 1), ROWS),
    "pad, by pairs": (lambda xp, x: xp.pad(x, ((1, 0), (0, 2))), ROWS),
    "pad, with a number": (lambda xp, x: xp.pad(x, 1, constant_values=2.0), ROWS),
    **{
        f"pad, {mode}": (lambda xp, x, mode=mode: xp.pad(x, (2, 1), mode), ROWS)
        for mode in ("edge", "reflect", "symmetric", "wrap")
    },
    "methods": (
        lambda xp, x: (
            x.ravel() * x.flatten() + x.reshape((6, 4)).transpose((1, 0)).reshape(24)
            + x.swapaxes(0, 1).take(np.array([0]), 0).squeeze().repeat(3)
            + x.diagonal().clip(-1.0, 0.5).sum()
        ),
        X,
    ),
}  # fmt: skip


def test_functions_that_jax_has_under_the_same_name():
    check_numpy(CASES)


def test_empty_lists_are_indices():
    x = Tensor(X, requires_grad=True)
    assert x[[]].shape == (0, 3, 4) and x[:, []].shape == (2, 0, 4)
    assert x[[], []].shape == (0, 4)
    with pytest.raises(IndexError, match="must be of integer"):
        x[np.array([])]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ops.pad(X, (1, 2, 3, 4)), "pad_width .* should be a number, a pair"),
        (lambda: ops.pad(X, -1), "pad_width -1 should be"),
        (lambda: ops.pad(X, 1, "mean"), "unknown mode 'mean'; expected one of const"),
        (lambda: ops.diag(X), r"diag of shape \(2, 3, 4\): expected a vector or a mat"),
        (lambda: ops.split(X, 3, 2), "not result in an equal division"),
        (lambda: ops.take(X, [0], 3), "axis 3 is out of bounds"),
        (lambda: ops.squeeze(X, 0), r"squeeze of shape \(2, 3, 4\)"),
        (lambda: ops.stack([X, ROW]), r"concatenate of shapes \(1, 2, 3, 4\) and \("),
        (lambda: ops.stack([]), "need at least one array"),
    ],
)
def test_bad_shapes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
