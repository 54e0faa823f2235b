"""Tokens hidden to be found again: the objective of BERT, on the device.

Of the tokens that may be hidden a share is chosen, whole words together if words are
given; most of them are replaced by a mask, some by any token, and some stay, so that
what a model sees says nothing about what it is asked for.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ffnlab.types import Array, Key


class Masked(NamedTuple):
    """Rows of tokens of which some are hidden.

    Attributes:
      tokens: what the model sees, int32 `[B, T]`.
      at: the places that are asked for, int32 `[B, K]`.
      live: which of those count, bool `[B, K]`: a row may have fewer than others.
    """

    tokens: Array
    at: Array
    live: Array


def mask_tokens(
    key: Key,
    tokens: Array,
    words: Array,
    *,
    rate: float,
    mask: int,
    vocabulary: int,
    whole: bool = False,
    replaced: float = 0.8,
    swapped: float = 0.1,
) -> Masked:
    """Hides a share of the tokens of each row.

    Args:
      key: of the draw.
      tokens: int `[B, T]`.
      words: the number of the word that each is part of, ascending from 0, int
        `[B, T]`; −1 where nothing is to be hidden: padding and special tokens.
      rate: the share of a row's tokens to hide, in (0, 1]; at least one is.
      mask: the token that stands for a hidden one.
      vocabulary: V; any of its tokens may stand where one is swapped.
      whole: whether a word is hidden as a whole. Words are taken in random order, the
        last one left out if it would be too many.
      replaced: the share of the hidden that the mask stands for.
      swapped: the share that any token stands for; the rest stays as it is.

    Returns:
      The rows, and the places that are asked for: K = ⌈rate · T⌉.

    Source: Devlin et al. 2019, section 3.1; whole words as in its later code.

    >>> words = jnp.arange(20).reshape(1, 20)
    >>> found = mask_tokens(jax.random.key(0), words, words, rate=0.15, mask=99,
    ...              vocabulary=100)
    >>> found.at.shape, int(found.live.sum())
    ((1, 3), 3)
    """
    tokens, words = jnp.asarray(tokens), jnp.asarray(words)
    order, kind, other = jax.random.split(key, 3)
    rows, length = tokens.shape
    asked = max(math.ceil(rate * length - 1e-6), 1)
    may = words >= 0
    allowed = jnp.maximum(jnp.round(rate * may.sum(axis=1)), 1).astype(jnp.int32)
    at, live = _chosen(order, words, asked, allowed, whole)
    draw = jax.random.uniform(kind, at.shape)
    old = jnp.take_along_axis(tokens, at, axis=1)
    new = jnp.where(
        draw < replaced, mask, jax.random.randint(other, at.shape, 0, vocabulary)
    )
    new = jnp.where(live & (draw < replaced + swapped), new, old).astype(tokens.dtype)
    seen = tokens.at[jnp.arange(rows)[:, None], at].set(new)
    return Masked(seen, at, live)


def _chosen(
    key: Key, words: Array, asked: int, allowed: Array, whole: bool
) -> tuple[Array, Array]:
    """Returns the places of K tokens, and which of them are to be hidden."""
    rows, length = words.shape
    draw = jax.random.uniform(key, (rows, length))
    if whole:
        draw = jnp.take_along_axis(draw, jnp.maximum(words, 0), axis=1)  # one a word
    draw = jnp.where(words >= 0, draw, jnp.inf)
    at = jnp.argsort(draw, axis=1)[:, :asked]  # [B, K]
    rank = jnp.arange(asked)[None]
    live = (rank < allowed[:, None]) & jnp.isfinite(
        jnp.take_along_axis(draw, at, axis=1)
    )
    if not whole:
        return at, live
    mine = jnp.take_along_axis(words, at, axis=1)  # [B, K]
    size = (words[:, None, :] == mine[:, :, None]).sum(axis=-1)
    there = (live[:, None, :] & (mine[:, None, :] == mine[:, :, None])).sum(axis=-1)
    return at, live & (there == size)
