"""Masked language modelling: which tokens to mask, and what replaces them.

A share of the tokens is chosen, on request as whole words. Most chosen tokens are
replaced by the mask token, some by a random token, and some stay, so that the input
does not show which tokens are to be predicted. All of it runs on the device.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ffnlab.nn.batch_axis import draw_rows
from ffnlab.types import Array, Key


class MaskedTokens(NamedTuple):
    """Rows of tokens of which some are masked.

    Attributes:
      tokens: Input of the model, int `[B, T]`.
      label_positions: Positions of the tokens to predict, int32 `[B, K]`.
      label_mask: Bool `[B, K]`, True where a position counts; a row may have fewer than
        K tokens to predict.
    """

    tokens: Array
    label_positions: Array
    label_mask: Array


def mask_tokens(
    key: Key,
    tokens: Array,
    words: Array,
    *,
    rate: float,
    mask_token: int,
    vocabulary: int,
    whole_words: bool = False,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> MaskedTokens:
    """Returns rows in which a share of the tokens is masked.

    Args:
      key: Random key.
      tokens: Int `[B, T]`.
      words: Int `[B, T]`, the index of the word that each token belongs to, ascending
        from 0; −1 for tokens that are never masked, such as padding.
      rate: Share of the tokens of a row to mask, in (0, 1]; at least one is masked.
      mask_token: Id of the mask token.
      vocabulary: Number of different tokens V; a random token is any of them.
      whole_words: Whether to mask all tokens of a word together. Words are taken in
        random order, and a word that exceeds the number of tokens is not masked.
      mask_share: Share of the chosen tokens that the mask token replaces.
      random_share: Share of the chosen tokens that a random token replaces; the rest
        stay unchanged.

    Returns:
      The rows, and the positions of the chosen tokens, K = ⌈rate · T⌉.

    Source: Devlin et al. 2019, section 3.1; whole words as in its later code.

    >>> words = jnp.arange(20).reshape(1, 20)
    >>> masked = mask_tokens(
    ...     jax.random.key(0), words, words, rate=0.15, mask_token=99, vocabulary=100
    ... )
    >>> masked.label_positions.shape, int(masked.label_mask.sum())
    ((1, 3), 3)
    """
    tokens, words = jnp.asarray(tokens), jnp.asarray(words)
    order_key, kind_key, token_key = jax.random.split(key, 3)
    rows, length = tokens.shape
    most = max(math.ceil(rate * length - 1e-6), 1)
    counts = jnp.round(rate * (words >= 0).sum(axis=1))  # [B]
    counts = jnp.maximum(counts, 1).astype(jnp.int32)
    positions, chosen = _choose(order_key, words, most, counts, whole_words)
    shape = positions.shape  # [B, K]
    draw = draw_rows(partial(jax.random.uniform, kind_key), shape)
    old = jnp.take_along_axis(tokens, positions, axis=1)
    random = draw_rows(
        lambda shape: jax.random.randint(token_key, shape, 0, vocabulary), shape
    )
    new = jnp.where(draw < mask_share, mask_token, random)
    new = jnp.where(chosen & (draw < mask_share + random_share), new, old)
    row = jnp.arange(rows)[:, None]
    masked = tokens.at[row, positions].set(new.astype(tokens.dtype))
    return MaskedTokens(masked, positions, chosen)


def _choose(
    key: Key, words: Array, most: int, counts: Array, whole_words: bool
) -> tuple[Array, Array]:
    """Returns K candidate positions in random order, and which of them are chosen.

    Args:
      key: Random key.
      words: See `mask_tokens`.
      most: Number of candidates K.
      counts: Number of tokens to choose in each row, `[B]`.
      whole_words: See `mask_tokens`.
    """
    draw = draw_rows(partial(jax.random.uniform, key), words.shape)
    if whole_words:  # one draw per word
        draw = jnp.take_along_axis(draw, words, axis=1)
    draw = jnp.where(words >= 0, draw, jnp.inf)
    positions = jnp.argsort(draw, axis=1)[:, :most]  # [B, K]
    allowed = jnp.isfinite(jnp.take_along_axis(draw, positions, axis=1))
    chosen = allowed & (jnp.arange(most)[None] < counts[:, None])
    if not whole_words:
        return positions, chosen
    word = jnp.take_along_axis(words, positions, axis=1)  # [B, K]
    size = (words[:, None, :] == word[:, :, None]).sum(axis=-1)
    same = word[:, None, :] == word[:, :, None]  # [B, K, K]
    complete = (chosen[:, None, :] & same).sum(axis=-1) == size
    return positions, chosen & complete
