"""Products of matrices and Einstein's sums against JAX, and their derivatives."""

import hypothesis
import jax.numpy as jnp
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffnlab.scratch import ops
from tests.scratch.agreement import (
    SEEDS,
    SETTINGS,
    check_function,
    check_numpy,
    normals,
)

pytestmark = pytest.mark.usefixtures("x64")


@SETTINGS
@hypothesis.given(
    lengths=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    batch=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3),
    kind=st.sampled_from(["matrices", "row", "column", "both"]),
    seed=SEEDS,
)
def test_matrix_products(lengths, batch, kind, seed):
    n, d, m = lengths
    left, right = ((*batch.input_shapes[0], n, d), (*batch.input_shapes[1], d, m))
    if kind in ("row", "both"):
        left = (d,)
    if kind in ("column", "both"):
        right = (d,)
    check_function(lambda a, b: a @ b, jnp.matmul, normals(seed, left, right), seed)


A, B, C, V, W, SQUARE = normals(
    0, (2, 3, 4), (4, 5), (2, 4, 3), (4,), (3,), (3, 3)
)  # fmt: skip


def summed(subscripts, *inputs):
    """Returns a case of `einsum`."""
    return (lambda xp, *xs: xp.einsum(subscripts, *xs), *inputs)


CASES = {
    "einsum": summed("abc,cd->abd", A, B),
    "einsum, in another order": summed("abc,cd->dba", A, B),
    "einsum, of one": summed("abc->ca", A),
    "einsum, to a number": summed("abc,acb", A, C),
    "einsum, without an arrow": summed("cb,ba", B.T, B),
    "einsum, of three": summed("abc,ace,c->be", A, C, V),
    "einsum, of a diagonal": summed("ii->i", SQUARE),
    "einsum, of a trace": summed("ii", SQUARE),
    "einsum, of a diagonal and a vector": summed("iji,j->i", SQUARE[..., None] * W, W),
    "einsum, of indices summed alone": summed("abc,de->ae", A, B),
    "einsum, of any axes": summed("...b,bc->...c", A, B),
    "einsum, of axes that broadcast": summed("...ij,...jk->...ki", A, C[:1]),
    "einsum, of no axes": summed("...,...", A, V),
    "einsum, of lengths 1": summed("ab,ab->b", B, B[:1]),
    "einsum, by numbers": (
        lambda xp, a, b: xp.einsum(a, [..., 0], b, [0, 1], [1, ...]), A, B,
    ),
    "einsum, by numbers alone": (lambda xp, a: xp.einsum(a, [2, 0, 1]), A),
    "tensordot": (lambda xp, a, c: xp.tensordot(a, c.T, 2), A, C),
    "tensordot, of no axes": (lambda xp, a, b: xp.tensordot(a, b, 0), V, W),
    "tensordot, of axes": (
        lambda xp, a, c: xp.tensordot(a, c, ((0, -1), (0, 1))), A, C,
    ),
    "dot": (lambda xp, a, c: xp.dot(a, c), A, C),
    "dot, of matrices": (lambda xp, a, b: xp.dot(a.T, b), B, B),
    "dot, of vectors": (lambda xp, v: xp.dot(v, v * v), V),
    "dot, with a vector": (lambda xp, a, v: xp.dot(a, v), A, V),
    "dot, with a number": (lambda xp, a: xp.dot(a, 3.0) * xp.dot(2.0, a), A),
    "inner": (lambda xp, a, b: xp.inner(a, b.T), A, B),
    "inner, with a number": (lambda xp, v: xp.inner(v, 2.0) * v, V),
    "outer": (lambda xp, a, v: xp.outer(a, v), B, V),
    "kron": (lambda xp, a, b: xp.kron(a, b), B, SQUARE),
    "kron, of other ranks": (lambda xp, a, v: xp.kron(v, a), A, V),
    "methods": (lambda xp, b: b.dot(b.T) ** 2, B),
}  # fmt: skip


def test_products_that_jax_has_under_the_same_name():
    check_numpy(CASES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ops.einsum("ab,bc", B, B),
            r"einsum 'ab,bc' of shapes \(4, 5\) and \(4, 5\): Size of label 'b'",
        ),
        (lambda: ops.einsum("ab", B, B), "Number of einsum subscripts"),
        (lambda: ops.einsum("abc", B), "correct number of indices for operand 0"),
        (lambda: ops.einsum("ab->ac", B), "Output character c did not appear"),
        (lambda: ops.einsum("aa->a", B), "Size of label 'a'"),
        (lambda: ops.einsum("a...->a", B), "the result has no `...`"),
        (lambda: ops.tensordot(B, B, 1), "einsum 'ab,bd->ad' of shapes"),
        (lambda: ops.tensordot(B, B, 3), "axis -3 is out of bounds"),
        (lambda: ops.dot(B, B), r"matmul of shapes \(4, 5\) and \(4, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
