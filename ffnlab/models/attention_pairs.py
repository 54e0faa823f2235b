"""Which tokens of a Transformer attend to which, and by which kernel."""

import jax
import jax.numpy as jnp

from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.nn.attention import Prefix, attention_mask
from ffnlab.nn.attention_kernel import XLA, Kernel, choose_kernel
from ffnlab.types import Array


def kernel_of(
    config: TransformerConfig,
    x: Array,
    masked: bool,
    cache: dict | None,
    keys: Array | None,
    prefix: Prefix | None,
) -> Kernel:
    """Returns the kernel of all layers; that of decoding is XLA.

    Args:
      config: Configuration of the Transformer.
      x: The states before the first layer, `[B, T, D]`.
      masked: Whether there is a mask, or several sequences share a row.
      cache: The cache, or None.
      keys: Dropout keys; None in evaluation.
      prefix: `key` and `value` `[L, 1, P, heads · h]`, to which all tokens attend.

    Raises:
      InputError: The configuration asks for cuDNN, which cannot be used.

    >>> kernel_of(TransformerConfig(), jnp.ones((1, 4, 64)), False, None, None, None)
    Kernel(name='xla', causal=False)
    """
    if cache is not None:
        return XLA
    (batch, length, _), width = x.shape, config.features // config.heads
    total = length + (0 if prefix is None else prefix["key"].shape[2])
    heads = (length, config.heads), (total, config.key_value_heads or config.heads)
    query, key = (
        jax.ShapeDtypeStruct((batch, *sizes, width), x.dtype) for sizes in heads
    )
    causal = config.causal and prefix is None
    return choose_kernel(
        config.attention_implementation,
        query,
        key,
        causal=causal,
        masked=masked or config.causal and not causal,
        dropout=0.0 if keys is None else config.attention_dropout,
    )


def attention_pairs(
    causal: bool,
    tokens: Array,
    mask: Array | None,
    segment_ids: Array | None,
    cache: dict | None,
) -> tuple[Array | None, dict | None]:
    """Returns the attention mask, and the cache with the mask of these tokens.

    Args:
      causal: Whether the mask leaves out later keys; with a cache it always does.
      tokens: Int `[B, T]`.
      mask: Bool `[B, T]`, True where there is a token, or None.
      segment_ids: Int `[B, T]`, the sequence of each token, or None.
      cache: The cache, or None.

    >>> attention_pairs(True, jnp.ones((1, 2), int), None, None, None)[0].shape
    (1, 1, 2, 2)
    """
    length = tokens.shape[1]
    if cache is None:
        mask = attention_mask(length, causal=causal, mask=mask, segment_ids=segment_ids)
        return mask, None
    index = cache["layers"]["index"][0]
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask.astype(bool)
    mask = jax.lax.dynamic_update_slice(cache["mask"], mask, (0, index))  # [B, S]
    queries = index + jnp.arange(length)[:, None]
    earlier = jnp.arange(mask.shape[1])[None] <= queries  # [T, S]
    return mask[:, None, None] & earlier[None, None], {**cache, "mask": mask}
