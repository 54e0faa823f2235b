"""Token positions, sinusoidal position vectors and rotary position embeddings."""

import jax
import jax.numpy as jnp

from ffnlab.types import Array


def token_positions(
    length: int, segment_ids: Array | None = None, start: Array | int = 0
) -> Array:
    """Returns the position of each token.

    Args:
      length: Sequence length T.
      segment_ids: Int `[B, T]`. The positions of each segment start at 0.
      start: First position; ignored with `segment_ids`.

    Returns:
      int `[B or 1, T]`.

    >>> token_positions(5, jnp.array([[1, 1, 2, 2, 2]])).tolist()
    [[0, 1, 0, 1, 2]]
    """
    count = jnp.arange(length)[None]  # [1, T]
    if segment_ids is None:
        return count + start
    starts = jnp.where(segment_ids != jnp.roll(segment_ids, 1, axis=1), count, 0)
    return count - jax.lax.cummax(starts.at[:, 0].set(0), axis=1)


def sinusoids(positions: Array, features: int) -> Array:
    """Returns sinusoidal position vectors: all sines, then all cosines.

    Args:
      positions: Int `[B or 1, T]`.
      features: Model width D, even.

    Returns:
      `[B or 1, T, D]`.

    Source: Vaswani et al. 2017, section 3.5.

    >>> sinusoids(jnp.array([[0]]), 4).tolist()
    [[[0.0, 0.0, 1.0, 1.0]]]
    """
    half = features // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None] * frequencies[None, None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def rotary(x: Array, positions: Array, base: float = 10_000.0) -> Array:
    """Returns vectors rotated by angles that are proportional to their positions.

    The dot product of a rotated query and key depends on the distance of their
    positions. Entry i is paired with entry i + h/2.

    Args:
      x: `[B, T, N, h]`, h even.
      positions: Int `[B or 1, T]`.
      base: Base of the frequencies; the slowest pair turns once in about 2π · base
        positions.

    Returns:
      `[B, T, N, h]`.

    Source: Su et al. 2021, equation 34; the pairing of Llama and GPT-NeoX.

    >>> x = jnp.ones((1, 2, 1, 2))
    >>> rotary(x, jnp.array([[0, 1]]))[0, :, 0].round(3).tolist()[0]
    [1.0, 1.0]
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)  # [h/2]
    angles = positions[..., None, None] * frequencies[None, None, None]  # [B, T, 1, ·]
    cos, sin = (f(angles).astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1)
