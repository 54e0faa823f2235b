"""The products of attention in bfloat16 on a CPU that multiplies such matrices.

They are those of `bfloat16_linear`, one for each sequence and head.
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
    if min(query.shape[1], key.shape[1], query.shape[3]) < SMALLEST:
        return False
    can_take = bfloat16_linear.can_take
    return can_take(query, key) and can_take(query, value)


def scores(query: Array, key: Array) -> Array:
    """Returns the products of queries and keys.

    Args:
      query: bfloat16 `[B, T, N, h]`.
      key: bfloat16 `[B, S, N, h]`.

    Returns:
      float32 `[B, N, T, S]`.

    >>> one = jax.numpy.ones((1, 2, 1, 3), "bfloat16")
    >>> scores(one, one)
    Array([[[[3., 3.],
             [3., 3.]]]], dtype=float32)
    """
    return _products(query.swapaxes(1, 2), key.transpose(0, 2, 3, 1))


def weighted_sum(weights: Array, value: Array) -> Array:
    """Returns the sums of values with weights, summed in float32 and rounded once.

    Args:
      weights: bfloat16 `[B, N, T, S]`.
      value: bfloat16 `[B, S, N, h]`.

    Returns:
      bfloat16 `[B, T, N, h]`.

    >>> half = jax.numpy.full((1, 1, 1, 2), 0.5, "bfloat16")
    >>> weighted_sum(half, jax.numpy.ones((1, 2, 1, 3), "bfloat16"))
    Array([[[[1, 1, 1]]]], dtype=bfloat16)
    """
    sums = _products(weights, value.swapaxes(1, 2)).astype(value.dtype)
    return sums.swapaxes(1, 2)


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
