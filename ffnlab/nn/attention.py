"""Multi-head attention: who sees whom, and a cache for decoding.

The products are `jax.nn.dot_product_attention`'s, but where weights are dropped out,
which it cannot. A mask is bool, True where a query may see a key; it is the one place
where padding, order and packing meet.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.nn.dropout import dropout
from ffnlab.nn.positions import rotary
from ffnlab.types import Array, Key

Cache = dict[str, Array]


def visible(
    length: int,
    *,
    causal: bool = False,
    mask: Array | None = None,
    segment_ids: Array | None = None,
) -> Array | None:
    """Returns who sees whom in sequences of one length.

    Args:
      length: T.
      causal: whether a position sees only itself and what came before.
      mask: bool `[B, T]`, True where there is a token; nobody sees padding.
      segment_ids: int `[B, T]`: tokens see those of their own number alone, so that several
        sequences can share a row.

    Returns:
      bool `[B or 1, 1, T, T]`, queries before keys; None if all see all.

    >>> visible(3, causal=True)[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    parts = []
    if causal:
        parts.append(jnp.tril(jnp.ones((1, 1, length, length), bool)))
    if mask is not None:
        parts.append(mask[:, None, None, :].astype(bool))  # [B, 1, 1, T]
    if segment_ids is not None:
        parts.append(segment_ids[:, None, :, None] == segment_ids[:, None, None, :])
    return functools.reduce(jnp.logical_and, parts) if parts else None


def attend(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    drop: Key | None = None,
    rate: float = 0.0,
) -> Array:
    """Returns softmax(q kᵀ / √h) v, of whose weights some may be dropped out.

    Args:
      query: `[B, T, N, h]`.
      key: `[B, S, n, h]`; N is a multiple of n.
      value: `[B, S, n, h]`.
      mask: who sees whom, bool `[B or 1, 1, T, S]`.
      drop: the key of the dropout; None for none.
      rate: the share of weights to drop.

    Returns:
      `[B, T, N, h]`.

    Source: Vaswani et al. 2017; weights are dropped out as in BERT and GPT-2.

    >>> one = jnp.ones((1, 2, 1, 4))
    >>> attend(one, one, one).shape
    (1, 2, 1, 4)
    """
    if drop is None or not rate:
        return jax.nn.dot_product_attention(query, key, value, mask=mask)
    times = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(part, times, axis=2) for part in (key, value))
    # Sums and softmax are of float32 whatever the inputs, as the library has it.
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=wide)
    scores = (scores / math.sqrt(query.shape[3])).astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores).astype(value.dtype), drop, rate)
    return jnp.einsum("bnts,bsnh->btnh", weights, value)


class Attention(nnx.Module):
    """Multi-head attention of a sequence to itself.

    Args:
      features: D.
      heads: N; D must be divisible by it.
      key_value_heads: how many heads of keys and values there are; each serves N over
        that many queries (1 is multi-query attention). None is N.
      bias: whether the projections have one.
      rotate: whether queries and keys are turned by their positions.
      dropout: the share of attention weights to drop out in training.
      rngs: where the arrays are drawn from.

    Source: Vaswani et al. 2017, section 3.2; Ainslie et al. 2023 for grouped queries.

    >>> attention = Attention(8, 2, rngs=nnx.Rngs(0))
    >>> y, _ = attention(jnp.ones((1, 3, 8)))
    >>> y.shape
    (1, 3, 8)
    """

    def __init__(
        self,
        features: int,
        heads: int,
        key_value_heads: int | None = None,
        bias: bool = True,
        rotate: bool = False,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.width, self.rotate, self.dropout = features // heads, rotate, dropout
        few = (key_value_heads or heads) * self.width
        linear = functools.partial(
            nnx.Linear,
            use_bias=bias,
            kernel_init=nnx.initializers.normal(0.02),
            rngs=rngs,
        )
        self.query, self.out = linear(features, features), linear(features, features)
        self.key, self.value = linear(features, few), linear(features, few)

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        drop: Key | None = None,
    ) -> tuple[Array, Cache | None]:
        """Attends.

        Args:
          x: `[B, T, D]`.
          mask: who sees whom, bool `[B or 1, 1, T, S]`; S is T without a cache.
          positions: int `[B or 1, T]`, if queries and keys are turned.
          cache: `key` and `value` `[B, S, heads, h]` of before, and `index`, how many
            positions of them are filled; from `empty_cache`.
          drop: the key of this call's dropout; None in evaluation.

        Returns:
          `[B, T, D]`, and the cache with T more positions.
        """
        query, key, value = (self._heads(part, x) for part in ("query", "key", "value"))
        if self.rotate:
            query, key = rotary(query, positions), rotary(key, positions)
        if cache is not None:
            cache = _extended(cache, key, value)
            key, value = cache["key"], cache["value"]
        heads = attend(query, key, value, mask, drop, self.dropout)
        return self.out(heads.reshape(x.shape)), cache

    def _heads(self, part: str, x: Array) -> Array:
        y: Any = getattr(self, part)(x)
        return y.reshape(*y.shape[:-1], -1, self.width)  # [B, T, N, h]


def _extended(cache: Cache, key: Array, value: Array) -> Cache:
    """Returns a cache with the keys and values of the next positions."""

    def put(old: Array, new: Array) -> Array:
        place = (0, cache["index"], 0, 0)
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), place)

    return {
        "key": put(cache["key"], key),
        "value": put(cache["value"], value),
        "index": cache["index"] + key.shape[1],
    }
