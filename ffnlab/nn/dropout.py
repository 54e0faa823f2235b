"""Dropout with a fast random mask.

`jax.random.bernoulli` runs threefry as a loop over rounds and keeps its counters in
memory between them. Here the twenty rounds are unrolled. They are elementwise, so XLA
fuses them with the comparison and the product: the same bits in a tenth of the time on
CPU (`benchmarks/ffn.py`).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.nn.batch_axis import draw_rows, is_divided, own_part
from ffnlab.types import Array, Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_PIECES, _LEAST = 4, 2**15  # of a mask that a loop draws, and its least values


def threefry(key_data: Array, low: Array) -> Array:
    """Returns threefry-2x32 of 64-bit counters below 2³², folded to 32 bits.

    Args:
      key_data: The two words of the key, uint32 `[2]`.
      low: The low words of the counters, uint32 of any shape; the high words are 0.

    Returns:
      uint32 of the shape of `low`, equal to `jax.random.bits` for these counters.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    first, second = key_data[0], key_data[1]
    schedule = (first, second, first ^ second ^ jnp.uint32(_PARITY))
    left = jnp.broadcast_to(first, low.shape)
    right = low + second
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left = left + right
            right = left ^ ((right << distance) | (right >> (32 - distance)))
        left = left + schedule[(group + 1) % 3]
        right = right + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return left ^ right


def keep_mask(key: Key, rate: float, shape: tuple[int, ...]) -> Array:
    """Returns the mask `jax.random.bernoulli(key, 1 - rate, shape)`.

    Args:
      key: A single key. JAX's own generator is used for a key that is not of
        partitionable threefry.
      rate: Probability of dropping a value, in [0, 1).
      shape: Shape of the mask.

    Returns:
      bool of the given shape, True where a value is kept, bit for bit as JAX draws it.

    >>> bool(keep_mask(jax.random.key(0), 0.5, (2, 3)).any())
    True
    """
    size, (part, parts) = math.prod(shape), own_part()
    unrolled = (
        jax.config.jax_threefry_partitionable
        and not jax.config.jax_enable_x64  # in x64 mode JAX draws 64 bits per value
        and jax.random.key_impl(key) == "threefry2x32"
        and parts * size < 2**32
    )
    if not unrolled:
        return draw_rows(partial(jax.random.bernoulli, key, 1.0 - rate), shape)
    words, first = jax.random.key_data(key), jnp.uint32(part * size)
    # JAX turns the top 23 bits into a float32 before it compares; comparing the
    # integers gives the same result.
    threshold = jnp.uint32(math.ceil(float(np.float32(1.0 - rate)) * 2**23))

    def draw(counters: Array) -> Array:
        return (threefry(words, counters) >> 9) < threshold

    if not _draws_in_pieces(size):
        return draw(jax.lax.iota(jnp.uint32, size).reshape(shape) + first)
    length = -(-size // _PIECES)
    within = jax.lax.iota(jnp.uint32, length) + first
    starts = np.arange(_PIECES, dtype=np.uint32) * np.uint32(length)
    kept = jax.lax.map(lambda start: draw(start + within), jnp.asarray(starts))
    return kept.ravel()[:size].reshape(shape)


def _draws_in_pieces(size: int) -> bool:
    """Returns whether a mask is drawn by a loop over its pieces.

    XLA fuses the rounds into all that reads the mask, so that a CPU draws it again for
    each reader, such as the backward pass. It does not fuse loops. Where a mesh divides
    arrays, every device would draw the whole of a loop.
    """
    return size >= _LEAST and not is_divided() and jax.default_backend() == "cpu"


def dropout(x: Array, key: Key | None, rate: float) -> Array:
    """Returns values of which some are set to 0, the rest scaled to keep the mean.

    Args:
      x: Values of any shape.
      key: A single key, or None in evaluation, where x is returned unchanged.
      rate: Probability of dropping a value, in [0, 1).

    Returns:
      Values of the shape and dtype of `x`.

    Source: Srivastava et al. 2014, "Dropout" (scaled at training time).

    >>> float(dropout(jnp.ones(4), None, 0.5).sum())
    4.0
    """
    if key is None or rate == 0.0:
        return x
    keep = keep_mask(key, rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
