"""Keys and values of earlier positions, for decoding."""

from typing import Any

import jax.numpy as jnp

from ffnlab.errors import InputError
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.types import Array


def empty_cache(
    config: TransformerConfig, batch: int, length: int, dtype: Any = float
) -> dict[str, Any]:
    """Returns an empty cache of keys and values for decoding.

    Args:
      config: Configuration of a causal Transformer.
      batch: Number of sequences B.
      length: Number of positions S that the cache has room for.
      dtype: Data type of keys and values: that of the parameters.

    Returns:
      `layers`, with `key` and `value` `[L, B, S, heads, h]` and `index` `[L]`, the
      number of filled positions; and `mask` bool `[B, S]`.

    Raises:
      InputError: The model is not causal, so that later tokens change earlier states.

    >>> cache = empty_cache(TransformerConfig(causal=True), batch=1, length=8)
    >>> cache["layers"]["key"].shape
    (2, 1, 8, 4, 16)
    """
    if not config.causal:
        raise InputError("a cache needs a causal model; this model is bidirectional")
    layers = empty_layers(config, batch, length, dtype)
    return {"layers": layers, "mask": jnp.zeros((batch, length), bool)}


def empty_layers(
    config: TransformerConfig, batch: int, length: int, dtype: Any = float
) -> dict[str, Array]:
    """Returns the entry `layers` of an empty cache."""
    heads = config.key_value_heads or config.heads
    width = config.features // config.heads
    empty = jnp.zeros((config.layers, batch, length, heads, width), dtype)
    index = jnp.zeros(config.layers, jnp.int32)
    return {"key": empty, "value": empty, "index": index}
