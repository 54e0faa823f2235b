"""Systems of equations that couple each position with its neighbours."""

import jax
import jax.numpy as jnp

from ffnlab.feedback.iteration import shift
from ffnlab.types import Array


def block_tridiagonal(
    lower: Array, diagonal: Array, upper: Array, right: Array, parallel: bool = False
) -> Array:
    """Solves lower_t x_{t−1} + diagonal_t x_t + upper_t x_{t+1} = right_t.

    Args:
      lower, diagonal, upper: `[..., T, H, H]`; the first of `lower` and the last of
        `upper` are not read.
      right: `[..., T, H]`.
      parallel: Whether to use cyclic reduction instead of block Thomas.

    Returns:
      x, `[..., T, H]`.

    >>> ones = jnp.ones((3, 1, 1))
    >>> x = block_tridiagonal(-ones, 4 * ones, -ones, jnp.array([[3.0], [2], [3]]))
    >>> [round(float(v), 4) for v in x[:, 0]]
    [1.0, 1.0, 1.0]
    """
    count = diagonal.shape[-3]
    row = jnp.arange(count).reshape((1,) * (diagonal.ndim - 3) + (count, 1, 1))
    lower = jnp.where(row == 0, 0.0, lower)
    upper = jnp.where(row == count - 1, 0.0, upper)
    solve = _cyclic_reduction if parallel else _thomas
    return solve(lower, diagonal, upper, right[..., None])[..., 0]


def _thomas(lower: Array, diagonal: Array, upper: Array, right: Array) -> Array:
    """Eliminates from the left, then substitutes from the right."""
    lower, diagonal, upper, right = (
        jnp.moveaxis(array, -3, 0) for array in (lower, diagonal, upper, right)
    )

    def eliminate(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        a, b, c, d = row
        pivot = b - a @ carry[0]
        both = jnp.linalg.solve(pivot, jnp.concatenate([c, d - a @ carry[1]], axis=-1))
        carry = both[..., :-1], both[..., -1:]
        return carry, carry

    def substitute(after: Array, row: tuple) -> tuple[Array, Array]:
        x = row[1] - row[0] @ after
        return x, x

    first = jnp.zeros_like(diagonal[0]), jnp.zeros_like(right[0])
    _, rows = jax.lax.scan(eliminate, first, (lower, diagonal, upper, right))
    _, x = jax.lax.scan(substitute, first[1], rows, reverse=True)
    return jnp.moveaxis(x, 0, -3)


def _cyclic_reduction(
    lower: Array, diagonal: Array, upper: Array, right: Array
) -> Array:
    """Eliminates every other position, in parallel, until one is left."""
    count = diagonal.shape[-3]
    if count == 1:
        return jnp.linalg.solve(diagonal, right)
    if count % 2:  # an independent equation x = 0 makes the number even
        lower, diagonal, upper, right = (
            jnp.pad(a, [*[(0, 0)] * (a.ndim - 3), (0, 1), (0, 0), (0, 0)])
            for a in (lower, diagonal, upper, right)
        )
        diagonal = diagonal.at[..., -1, :, :].set(jnp.eye(diagonal.shape[-1]))
    (a, b, c, d), odd = (
        [array[..., start::2, :, :] for array in (lower, diagonal, upper, right)]
        for start in (0, 1)
    )
    width = b.shape[-1]
    both = jnp.concatenate([odd[0], odd[2], odd[3]], axis=-1)
    both = jnp.linalg.solve(odd[1], both)  # x = r − p x_before − q x_after
    p, q, r = both[..., :width], both[..., width : 2 * width], both[..., 2 * width :]
    p_left, q_left, r_left = (shift(array, axis=-3) for array in (p, q, r))
    even = _cyclic_reduction(
        -a @ p_left, b - a @ q_left - c @ p, -c @ q, d - a @ r_left - c @ r
    )
    after = shift(even, axis=-3, back=True)
    x = jnp.stack([even, r - p @ even - q @ after], axis=-3)
    return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])[..., :count, :, :]
