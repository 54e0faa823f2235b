"""Multi-head attention, its mask, and its cache for decoding.

The products are those of `jax.nn.dot_product_attention`, except with dropout of the
attention weights, which that function does not support, and in bfloat16 on a CPU that
multiplies such matrices (`bfloat16_attention`). A mask is bool, True where a
query may attend to a key; padding, causality and packing are all expressed by it. Only
cuDNN (see `attention_kernel`) has a causality of its own.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.nn import bfloat16_attention
from ffnlab.nn.attention_kernel import XLA, Kernel
from ffnlab.nn.dropout import dropout
from ffnlab.nn.linear import Linear, as_rows, from_rows
from ffnlab.nn.positions import rotary
from ffnlab.types import Array, Key

Cache = dict[str, Array]
Prefix = dict[str, Array]


def attention_mask(
    length: int,
    *,
    causal: bool = False,
    mask: Array | None = None,
    segment_ids: Array | None = None,
) -> Array | None:
    """Returns which keys each query may attend to.

    Args:
      length: Sequence length T.
      causal: Whether a position attends only to itself and to earlier positions.
      mask: Bool `[B, T]`, True where there is a token; padding is not attended to.
      segment_ids: Int `[B, T]`. Tokens attend only to tokens of the same segment, so
        that several sequences can share a row.

    Returns:
      bool `[B or 1, 1, T, T]`, queries before keys; None if nothing is masked.

    >>> attention_mask(3, causal=True)[0, 0].astype(int).tolist()
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
    dropout_key: Key | None = None,
    rate: float = 0.0,
    kernel: Kernel = XLA,
) -> Array:
    """Returns softmax(q kᵀ / √h) v, with dropout of the weights if there is a key.

    Args:
      query: `[B, T, N, h]`.
      key: `[B, S, n, h]`; N is a multiple of n.
      value: `[B, S, n, h]`.
      mask: Bool `[B or 1, 1, T, S]`, True where a query attends to a key.
      dropout_key: Dropout key; None for no dropout.
      rate: Dropout rate of the attention weights.
      kernel: From `choose_kernel`; XLA with dropout.

    Returns:
      `[B, T, N, h]`.

    Source: Vaswani et al. 2017; dropout of the weights as in BERT and GPT-2.

    >>> one = jnp.ones((1, 2, 1, 4))
    >>> attend(one, one, one).shape
    (1, 2, 1, 4)
    """
    fast = kernel.name == "xla" and bfloat16_attention.takes(query, key, value)
    if not fast and (dropout_key is None or not rate):
        options = {}
        if kernel.name == "cudnn":
            options = {"implementation": "cudnn", "is_causal": kernel.causal}
            if mask is not None:
                mask = fill_empty_rows(mask, query.shape[1] if kernel.causal else None)
        return jax.nn.dot_product_attention(query, key, value, mask=mask, **options)
    if fast:
        scores = bfloat16_attention.scores(query, key)
        weights = _weights(scores, query, mask, dropout_key, rate)
        return bfloat16_attention.weighted_sum(weights, value)
    groups = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(part, groups, axis=2) for part in (key, value))
    # Sums are in float32, as in `jax.nn.dot_product_attention`.
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=wide)
    weights = _weights(scores, query, mask, dropout_key, rate)
    return jnp.einsum("bnts,bsnh->btnh", weights, value)


def fill_empty_rows(mask: Array, causal_length: int | None = None) -> Array:
    """Returns a mask in which a query that attends to no key, as padding, does to all.

    Nothing depends on what it computes, but cuDNN's gradients are wrong for a row
    without keys, and become NaN in training.

    Args:
      mask: Bool `[B or 1, 1, T or 1, S]`.
      causal_length: T, if the kernel leaves out later keys too.

    Returns:
      bool `[B or 1, 1, T or 1, S]`; `[B or 1, 1, T, S]` if the kernel is causal.

    >>> mask = jnp.array([[[[True, False], [False, False]]]])
    >>> fill_empty_rows(mask)[0, 0].tolist()
    [[True, False], [True, True]]
    >>> padding = jnp.array([[[[False, True]]]])  # before the text
    >>> fill_empty_rows(padding, causal_length=2)[0, 0].tolist()
    [[True, True], [False, True]]
    """
    seen = mask
    if causal_length is not None:
        seen = mask & attention_mask(causal_length, causal=True)
    return mask | ~seen.any(axis=-1, keepdims=True)


def _weights(
    scores: Array, query: Array, mask: Array | None, key: Key | None, rate: float
) -> Array:
    """Returns the weights `[B, N, T, S]` of values, from products of queries and keys.

    Args:
      scores: `[B, N, T, S]`.
      query: Queries, whose last axis and dtype are used.
      mask: See `attend`.
      key: Dropout key; None for no dropout.
      rate: Dropout rate.
    """
    # The softmax is in float32, as in `jax.nn.dot_product_attention`.
    scores = (scores / math.sqrt(query.shape[-1])).astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(query.dtype)
    return weights if key is None or not rate else dropout(weights, key, rate)


class Attention(nnx.Module):
    """Multi-head self-attention.

    Args:
      features: Model width D.
      heads: Number of query heads N, a divisor of D.
      key_value_heads: Number of key and value heads, a divisor of N; query heads
        share them in groups. 1 is multi-query attention, and None means N.
      bias: Whether the projections have biases.
      rotate: Whether queries and keys have rotary position embeddings.
      dropout: Dropout rate of the attention weights in training.
      rngs: Random streams that initialise the arrays.

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
        key_value_width = (key_value_heads or heads) * self.width
        linear = functools.partial(
            Linear,
            use_bias=bias,
            kernel_init=nnx.initializers.normal(0.02),
            rngs=rngs,
        )
        self.query, self.out = linear(features, features), linear(features, features)
        self.key = linear(features, key_value_width)
        self.value = linear(features, key_value_width)

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        dropout_key: Key | None = None,
        prefix: Prefix | None = None,
        adapter_key: Key | None = None,
        kernel: Kernel = XLA,
    ) -> tuple[Array, Cache | None]:
        """Returns the attention output.

        Args:
          x: `[B, T, D]`.
          mask: Bool `[B or 1, 1, T, P + S]`, True where a query attends to a key; S is
            T without a cache, and P is 0 without a prefix.
          positions: Int `[B or 1, T]`, for rotary position embeddings.
          cache: `key` and `value` `[B, S, heads, h]` of earlier positions, and `index`,
            the number of filled positions; made by `key_value_cache.empty_cache`.
          dropout_key: Dropout key; None in evaluation.
          prefix: `key` and `value` `[1, P, heads · h]` before those of x and the cache;
            rotary positions do not apply to them.
          adapter_key: Dropout key of adapters; None in evaluation.
          kernel: See `attend`.

        Returns:
          `[B, T, D]`, and the cache extended by T positions.
        """
        rows = as_rows(x)
        query, key, value = (
            self._heads(from_rows(getattr(self, name)(rows, adapter_key, name), x))
            for name in ("query", "key", "value")
        )
        if self.rotate:
            query, key = rotary(query, positions), rotary(key, positions)
        if cache is not None:
            cache = _extend_cache(cache, key, value)
            key, value = cache["key"], cache["value"]
        if prefix is not None:
            key = _prepend(self._heads(prefix["key"]), key)
            value = _prepend(self._heads(prefix["value"]), value)
        heads = attend(query, key, value, mask, dropout_key, self.dropout, kernel)
        return self.out(heads.reshape(x.shape), adapter_key, "out"), cache

    def _heads(self, y: Array) -> Array:
        return y.reshape(*y.shape[:-1], -1, self.width)  # [B, T, N, h]


def _prepend(prefix: Array, array: Array) -> Array:
    """Returns `[B, P + S, n, h]` of `[1, P, n, h]` and `[B, S, n, h]`."""
    shape = (array.shape[0], *prefix.shape[1:])
    prefix = jnp.broadcast_to(prefix.astype(array.dtype), shape)
    return jnp.concatenate([prefix, array], axis=1)


def _extend_cache(cache: Cache, key: Array, value: Array) -> Cache:
    """Returns a cache with the keys and values of the next positions."""

    def put(old: Array, new: Array) -> Array:
        start = (0, cache["index"], 0, 0)
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

    return {
        "key": put(cache["key"], key),
        "value": put(cache["value"], value),
        "index": cache["index"] + key.shape[1],
    }
