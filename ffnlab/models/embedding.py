"""Embeddings of a Transformer, and the head that reuses those of tokens."""

import functools

import jax.numpy as jnp
from flax import nnx

from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.nn.ffn import NORMS
from ffnlab.nn.positions import sinusoids
from ffnlab.nn.precision import keep_dtype
from ffnlab.types import Array

normal = nnx.initializers.normal(0.02)


def norm(config: TransformerConfig, rngs: nnx.Rngs) -> nnx.Module:
    """Returns a new norm of the kind and width of a Transformer."""
    return NORMS[config.norm_kind](config.features, epsilon=config.epsilon, rngs=rngs)


class Embedding(nnx.Module):
    """Embeddings of tokens, positions and token types."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        table = functools.partial(
            nnx.Embed, embedding_init=normal, promote_dtype=keep_dtype, rngs=rngs
        )
        self.tokens = table(config.vocabulary, config.features)
        if config.positions == "learned":
            self.positions = table(config.length + config.offset, config.features)
        if config.types:
            self.types = table(config.types, config.features)
        if config.embed_norm:
            self.norm = norm(config, rngs)

    def __call__(
        self,
        tokens: Array,
        positions: Array,
        types: Array | None,
        offset: Array | None = None,
    ) -> Array:
        x = self.tokens(tokens)  # [B, T, D]
        x = x if offset is None else x + offset
        return self.complete(x, positions, types)

    def complete(self, x: Array, positions: Array, types: Array | None) -> Array:
        """Returns token embeddings `[B, T, D]` with all that is added to them."""
        if self.config.positions == "learned":
            x = x + self.positions(positions + self.config.offset)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.features).astype(x.dtype)
        if self.config.types:
            types = jnp.zeros(x.shape[:2], int) if types is None else types
            x = x + self.types(types)
        return self.norm(x) if self.config.embed_norm else x


class Head(nnx.Module):
    """Logits over the vocabulary, with the token embeddings as output weights."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.features
        if config.head_dense:
            self.dense = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
            self.norm = norm(config, rngs)
        if config.head_bias:
            self.bias = nnx.Param(jnp.zeros(config.vocabulary))

    def __call__(self, h: Array, embedding: Array) -> Array:
        if self.config.head_dense:
            block = self.config.feed_forward(self.config.layers - 1)
            h = self.norm(block.activation.function(self.dense(h)))
        logits = h @ embedding.T  # [B, T, V]
        return logits + self.bias[...][None, None] if self.config.head_bias else logits
