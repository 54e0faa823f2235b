"""The products of attention in bfloat16 on a CPU that multiplies such matrices.

They are those of `bfloat16_linear`, one for each sequence and head of the keys. Queries
of heads that share keys are rows of one product.
"""

import jax

from ffnlab.nn import bfloat16_linear
from ffnlab.types import Array

SMALLEST = 16  # queries, keys and width of a head, from which the products are faster


def takes(query: Array, key: Array, value: Array) -> bool:
    """Returns whether `scores` and `weighted_sum` are the faster way to attend.

    Args:
      query: `[B, T, N, h]`.
      key: `[B, S, n, h]`.
      value: `[B, S, n, h]`.

    >>> one = jax.numpy.ones((1, 64, 1, 64))
    >>> takes(one, one, one)
    False
    """
    can_take = bfloat16_linear.can_take
    return (
        can_take(query, key)
        and can_take(query, value)
        and min(query.shape[1], key.shape[1], query.shape[3]) >= SMALLEST
    )


def scores(query: Array, key: Array) -> Array:
    """Returns the products of queries and keys.

    Args:
      query: bfloat16 `[B, T, N, h]`.
      key: bfloat16 `[B, S, n, h]`; N is a multiple of n.

    Returns:
      float32 `[B, N, T, S]`.

    >>> one = jax.numpy.ones((1, 2, 1, 3), "bfloat16")
    >>> scores(one, one)
    Array([[[[3., 3.],
             [3., 3.]]]], dtype=float32)
    """
    batch, length, heads, width = query.shape
    queries = query.swapaxes(1, 2).reshape(batch, key.shape[2], -1, width)
    found = _products(queries, key.transpose(0, 2, 3, 1))
    return found.reshape(batch, heads, length, -1)


def weighted_sum(weights: Array, value: Array) -> Array:
    """Returns the sums of values with weights, summed in float32 and rounded once.

    Args:
      weights: bfloat16 `[B, N, T, S]`.
      value: bfloat16 `[B, S, n, h]`; N is a multiple of n.

    Returns:
      bfloat16 `[B, T, N, h]`.

    >>> half = jax.numpy.full((1, 1, 1, 2), 0.5, "bfloat16")
    >>> weighted_sum(half, jax.numpy.ones((1, 2, 1, 3), "bfloat16"))
    Array([[[[1, 1, 1]]]], dtype=bfloat16)
    """
    batch, heads, length, keys = weights.shape
    rows = weights.reshape(batch, value.shape[2], -1, keys)
    sums = _products(rows, value.swapaxes(1, 2)).astype(value.dtype)
    return sums.reshape(batch, heads, length, -1).swapaxes(1, 2)


@jax.custom_vjp
def _products(left: Array, right: Array) -> Array:
    """Returns `left @ right` in float32; it has no forward mode."""
    return _forward(left, right)[0]


def _forward(left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    return bfloat16_linear.product(left, right), (left, right)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    left, right = kept
    slope = slope.astype(left.dtype)
    left_slope = bfloat16_linear.product(slope, right, transposed=True)
    right_slope = bfloat16_linear.product(left.swapaxes(2, 3), slope)
    return left_slope.astype(left.dtype), right_slope.astype(right.dtype)


_products.defvjp(_forward, _backward)
