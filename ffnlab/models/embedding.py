"""Embeddings of a Transformer, and the head that reuses those of tokens."""

import functools

import jax.numpy as jnp
from flax import nnx

from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.nn.linear import product
from ffnlab.nn.norms import NORMS
from ffnlab.nn.positions import sinusoids
from ffnlab.nn.precision import keep_dtype
from ffnlab.types import Array

normal = nnx.initializers.normal(0.02)


def norm(
    config: TransformerConfig, rngs: nnx.Rngs, width: int | None = None
) -> nnx.Module:
    """Returns a new norm of the kind of a Transformer, by default of its width."""
    width = width or config.features
    return NORMS[config.norm_kind](width, epsilon=config.epsilon, rngs=rngs)


class Embedding(nnx.Module):
    """Embeddings of tokens, positions and token types, of the width E."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config, width = config, config.embedding_width
        table = functools.partial(
            nnx.Embed, embedding_init=normal, promote_dtype=keep_dtype, rngs=rngs
        )
        self.tokens = table(config.vocabulary, width)
        if config.positions == "learned":
            self.positions = table(config.length + config.offset, width)
        if config.types:
            self.types = table(config.types, width)
        if config.embed_norm:
            self.norm = norm(config, rngs, width)
        if config.embedding:
            self.project = nnx.Linear(
                width, config.features, kernel_init=normal, rngs=rngs
            )

    def __call__(
        self,
        tokens: Array,
        positions: Array,
        types: Array | None,
        offset: Array | None = None,
    ) -> Array:
        x = self.tokens(tokens)  # [B, T, E]
        x = x if offset is None else x + offset
        return self.complete(x, positions, types)

    def complete(self, x: Array, positions: Array, types: Array | None) -> Array:
        """Returns token embeddings `[B, T, E]` with all that is added to them."""
        if self.config.positions == "learned":
            x = x + self.positions(positions + self.config.offset)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, x.shape[-1]).astype(x.dtype)
        if self.config.types:
            types = jnp.zeros(x.shape[:2], int) if types is None else types
            x = x + self.types(types)
        return self.norm(x) if self.config.embed_norm else x

    def widen(self, x: Array) -> Array:
        """Returns embeddings `[B, T, E]` in the model width, `[B, T, D]`."""
        return self.project(x) if self.config.embedding else x


class Head(nnx.Module):
    """Logits over the vocabulary, with the token embeddings as output weights."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config, width = config, config.embedding_width
        if config.head_dense:
            self.dense = nnx.Linear(
                config.features, width, kernel_init=normal, rngs=rngs
            )
            self.norm = norm(config, rngs, width)
        if config.head_bias:
            self.bias = nnx.Param(jnp.zeros(config.vocabulary))

    def __call__(self, h: Array, embedding: Array) -> Array:
        if self.config.head_dense:
            h = self.norm(self.config.head_function.function(self.dense(h)))
        logits = product(h, embedding, transposed=True)  # [B, T, V]
        return logits + self.bias[...][None, None] if self.config.head_bias else logits
