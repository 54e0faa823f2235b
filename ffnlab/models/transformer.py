"""Transformers: encoders and decoders around any feed-forward block.

    config = EncoderConfig.tiny(block="swiglu")
    model = transformer_model(config)
    params = model.init(jax.random.key(0))
    h, aux = model.apply(params, tokens, mask)    # [B, T, D]

Parameters are named `embed`, `layer_0` and so on, `norm`, `pooler`, `head`. With
`scan=True` the layers lie on top of each other in `layers`, `[L, ...]`, and are
compiled once whatever L is; `stack_layers` and `unstack_layers` go from one form to the other.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.models.transformer_config import (
    DecoderConfig,
    EncoderConfig,
    TransformerConfig,
)
from ffnlab.nn import activations
from ffnlab.nn.attention import Attention, visible
from ffnlab.nn.dropout import dropout
from ffnlab.nn.ffn import NORMS, FeedForward, parse
from ffnlab.nn.positions import sinusoids, token_positions
from ffnlab.nn.precision import uncast
from ffnlab.nn.pure import functional
from ffnlab.types import Array, Key, Model, Params

__all__ = [
    "DecoderConfig",
    "Embedding",
    "EncoderConfig",
    "Head",
    "Layer",
    "Transformer",
    "TransformerConfig",
    "empty_cache",
    "stack_layers",
    "transformer_model",
    "unstack_layers",
]

_normal = nnx.initializers.normal(0.02)


class Layer(nnx.Module):
    """Attention and a feed-forward block, each with its norm and the input added.

    Args:
      config: what the Transformer is made of.
      layer: which layer it is.
      rngs: where the arrays are drawn from.
    """

    def __init__(self, config: TransformerConfig, layer: int, *, rngs: nnx.Rngs):
        self.config = config
        self.attention = Attention(
            config.features,
            config.heads,
            config.key_value_heads,
            config.bias,
            config.positions == "rotary",
            config.attention_dropout,
            rngs=rngs,
        )
        self.attention_norm = _norm(config, rngs)
        self.ffn = FeedForward(config.feed_forward(layer), rngs=rngs)
        self.ffn_norm = _norm(config, rngs)

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: dict | None = None,
        key: Key | None = None,
    ) -> tuple[Array, tuple[Array, Array], dict | None]:
        """Returns `[B, T, D]`, what its block took and gave, and the cache."""
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        before = self.config.norm == "pre"

        def added(y: Array, key: Key | None) -> Array:
            return x + dropout(y, key, self.config.dropout)

        inside = self.attention_norm(x) if before else x
        y, cache = self.attention(inside, mask, positions, cache, keys[2])
        x = added(y, keys[0])
        x = x if before else self.attention_norm(x)
        inside = self.ffn_norm(x) if before else x
        y, _ = self.ffn(inside)
        x = added(y, keys[1])
        return (x if before else self.ffn_norm(x)), (inside, y), cache


def _norm(config: TransformerConfig, rngs: nnx.Rngs) -> nnx.Module:
    return NORMS[config.norm_kind](config.features, epsilon=config.epsilon, rngs=rngs)


class Embedding(nnx.Module):
    """Tokens, positions and types to vectors."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        table = functools.partial(
            nnx.Embed, embedding_init=_normal, promote_dtype=uncast, rngs=rngs
        )
        self.tokens = table(config.vocabulary, config.features)
        if config.positions == "learned":
            self.positions = table(config.length + config.offset, config.features)
        if config.types:
            self.types = table(config.types, config.features)
        if config.embed_norm:
            self.norm = _norm(config, rngs)

    def __call__(
        self,
        tokens: Array,
        positions: Array,
        types: Array | None,
        offset: Array | None = None,
    ) -> Array:
        x = self.tokens(tokens)  # [B, T, D]
        x = x if offset is None else x + offset
        if self.config.positions == "learned":
            x = x + self.positions(positions + self.config.offset)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.features).astype(x.dtype)
        if self.config.types:
            types = jnp.zeros_like(tokens) if types is None else types
            x = x + self.types(types)
        return self.norm(x) if self.config.embed_norm else x


class Head(nnx.Module):
    """Logits over the vocabulary, by the embeddings of the tokens."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.features
        if config.head_dense:
            self.dense = nnx.Linear(width, width, kernel_init=_normal, rngs=rngs)
            self.norm = _norm(config, rngs)
        if config.head_bias:
            self.bias = nnx.Param(jnp.zeros(config.vocabulary))

    def __call__(self, h: Array, embedding: Array) -> Array:
        if self.config.head_dense:
            name = parse(self.config.blocks[-1])[1]
            h = self.norm(activations.get(name).function(self.dense(h)))
        logits = h @ embedding.T  # [B, T, V]
        return logits + self.bias[...][None, None] if self.config.head_bias else logits


class Transformer(nnx.Module):
    """Embeddings, layers, and what follows them.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.

    >>> encoder = Transformer(EncoderConfig.tiny(pooler=True), rngs=nnx.Rngs(0))
    >>> h, aux = encoder(jnp.array([[1, 2, 3]]))
    >>> h.shape, aux["pooled"].shape, aux["states"].shape
    ((1, 3, 64), (1, 64), (3, 1, 3, 64))
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embedding(config, rngs=rngs)
        layers = [Layer(config, i, rngs=rngs) for i in range(config.layers)]
        if config.scan:
            graph, _ = nnx.split(layers[0])
            states = [nnx.split(layer)[1] for layer in layers]
            stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            self.layers = nnx.merge(graph, stack)
        else:
            for number, layer in enumerate(layers):
                setattr(self, f"layer_{number}", layer)
        if config.norm == "pre":
            self.norm = _norm(config, rngs)
        if config.pooler:
            self.pooler = nnx.Linear(
                config.features, config.features, kernel_init=_normal, rngs=rngs
            )
        if config.head == "tied":
            self.head = Head(config, rngs=rngs)

    def __call__(
        self,
        tokens: Array,
        mask: Array | None = None,
        *,
        types: Array | None = None,
        segment_ids: Array | None = None,
        positions: Array | None = None,
        offset: Array | None = None,
        cache: dict | None = None,
        key: Key | None = None,
        label_positions: Array | None = None,
        record: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Applies the model.

        Args:
          tokens: int `[B, T]`.
          mask: bool `[B, T]`, True where there is a token; None is everywhere.
          types: int `[B, T]`, the segment of each token; zeros if None.
          segment_ids: int `[B, T]`, the sequence of each token where several share a row.
          positions: int `[B, T]`, learned ones below the length; None counts from 0, in
            each pack anew.
          offset: `[B, T, D]`, added to the embeddings of the tokens.
          cache: from `empty_cache`, to go on after the tokens of before.
          key: the key of this call's dropout; None in evaluation.
          label_positions: int `[B, K]`, the places that logits are wanted of; None is all.
          record: whether to return what the feed-forward blocks took and gave, too:
            `inputs` and `outputs`, `[L, B, T, D]`.

        Returns:
          With a head, logits `[B, T or K, V]`, otherwise states `[B, T, D]`; and the
          `states` after the embeddings and after every layer, `[L + 1, B, T, D]`; the
          `pooled` first position, `[B, D]`; the `cache`, if there is one.

        Raises:
          InputError: there are more tokens than learned positions.
        """
        self._check(tokens, mask, segment_ids)
        if positions is None:
            self._check_length(tokens, cache)
            start = 0 if cache is None else cache["layers"]["index"][0]
            positions = token_positions(tokens.shape[1], segment_ids, start)
        x = self.embed(tokens, positions, types, offset)
        keys = None
        if key is not None:
            own, key = jax.random.split(key)
            x = dropout(x, own, self.config.dropout)
            keys = jax.random.split(key, self.config.layers)
        seen, cache = _seen(self.config, tokens, mask, segment_ids, cache)
        x, states, blocks, cache = self._layers(x, seen, positions, cache, keys)
        if self.config.norm == "pre":
            x = self.norm(x)
            states = states.at[-1].set(x)
        aux = {"states": states} | ({} if cache is None else {"cache": cache})
        if record:
            aux |= dict(zip(("inputs", "outputs"), blocks, strict=True))
        if self.config.pooler:
            aux["pooled"] = jnp.tanh(self.pooler(x[:, 0]))
        if self.config.head == "tied":
            x = (
                x
                if label_positions is None
                else jnp.take_along_axis(x, label_positions[..., None], axis=1)
            )
            x = self.head(x, self.embed.tokens.embedding[...])
        return x, aux

    def _check(
        self, tokens: Array, mask: Array | None, segment_ids: Array | None
    ) -> None:
        for name, other in (("mask", mask), ("segment_ids", segment_ids)):
            if other is not None and other.shape != tokens.shape:
                raise InputError(
                    f"{name} {[*other.shape]} must be as tokens {[*tokens.shape]}"
                )
        if tokens.ndim != 2:
            raise InputError(f"tokens {[*tokens.shape]} must be [B, T]")

    def _check_length(self, tokens: Array, cache: dict | None) -> None:
        last = tokens.shape[1] if cache is None else cache["mask"].shape[1]
        if self.config.positions == "learned" and last > self.config.length:
            raise InputError(
                f"{last} tokens are more than the {self.config.length} positions "
                "of this model; cut the sequences"
            )

    def _layers(
        self,
        x: Array,
        mask: Array | None,
        positions: Array,
        cache: dict | None,
        keys: Array | None,
    ) -> tuple[Array, Array, tuple[Array, Array], dict | None]:
        """Returns the last states, all states, inside the blocks, and the cache."""

        def applied(graph: Any, state: Any, x: Array, old: Any, key: Any) -> tuple:
            return nnx.merge(graph, state)(x, mask, positions, old, key)

        if self.config.remat:
            applied = jax.checkpoint(applied, static_argnums=0)
        old = None if cache is None else cache["layers"]
        if self.config.scan:
            graph, state = nnx.split(self.layers)
            parts = nnx.to_pure_dict(state), old, keys

            def turn(x: Array, part: tuple) -> tuple:
                x, *new = applied(graph, part[0], x, part[1], part[2])
                return x, (x, *new)

            last, (states, blocks, new) = jax.lax.scan(turn, x, parts)
            states = jnp.concatenate([x[None], states])
        else:
            last, every, told, new = x, [x], [], []
            for number in range(self.config.layers):
                graph, state = nnx.split(getattr(self, f"layer_{number}"))
                mine = None if old is None else jax.tree.map(lambda a: a[number], old)  # noqa: B023
                drop = None if keys is None else keys[number]
                last, block, fresh = applied(graph, state, last, mine, drop)
                every.append(last)
                told.append(block)
                new.append(fresh)
            states = jnp.stack(every)
            blocks = tuple(map(jnp.stack, zip(*told, strict=True)))
            new = None if old is None else jax.tree.map(lambda *a: jnp.stack(a), *new)
        cache = None if cache is None else {**cache, "layers": new}
        return last, states, blocks, cache


def _seen(
    config: TransformerConfig,
    tokens: Array,
    mask: Array | None,
    segment_ids: Array | None,
    cache: dict | None,
) -> tuple[Array | None, dict | None]:
    """Returns who sees whom, and the cache with the mask of these tokens."""
    length = tokens.shape[1]
    if cache is None:
        return visible(
            length, causal=config.causal, mask=mask, segment_ids=segment_ids
        ), None
    index = cache["layers"]["index"][0]
    there = jnp.ones(tokens.shape, bool) if mask is None else mask.astype(bool)
    known = jax.lax.dynamic_update_slice(cache["mask"], there, (0, index))  # [B, S]
    queries = index + jnp.arange(length)[:, None]
    before = jnp.arange(known.shape[1])[None] <= queries  # [T, S]
    return known[:, None, None] & before[None, None], {**cache, "mask": known}


def empty_cache(config: TransformerConfig, batch: int, length: int) -> dict[str, Any]:
    """Returns a cache for decoding, with room for `length` positions.

    Raises:
      InputError: the model is not causal: what it computed depends on what follows.

    >>> cache = empty_cache(DecoderConfig.tiny(), batch=1, length=8)
    >>> cache["layers"]["key"].shape
    (2, 1, 8, 4, 16)
    """
    if not config.causal:
        raise InputError("a cache needs a causal model; this one sees what follows")
    heads = config.key_value_heads or config.heads
    width = config.features // config.heads
    empty = jnp.zeros((config.layers, batch, length, heads, width))
    index = jnp.zeros(config.layers, jnp.int32)
    layers = {"key": empty, "value": empty, "index": index}
    return {"layers": layers, "mask": jnp.zeros((batch, length), bool)}


def transformer_model(config: TransformerConfig) -> Model:
    """Returns a Transformer as pure functions.

    >>> model = transformer_model(DecoderConfig.tiny(scan=True))
    >>> params = model.init(jax.random.key(0))
    >>> logits, _ = model.apply(params, jnp.array([[1, 2, 3]]))
    >>> logits.shape, params["layers"]["ffn"]["up"]["kernel"].shape
    ((1, 3, 256), (2, 64, 256))
    """
    return functional(lambda rngs: Transformer(config, rngs=rngs))


def stack_layers(params: Params) -> Params:
    """Returns parameters with `layer_0` and so on as one stack, `layers`.

    >>> stack_layers({"layer_0": {"w": jnp.ones(2)}, "layer_1": {"w": jnp.ones(2)}})[
    ...     "layers"]["w"].shape
    (2, 2)
    """
    names = sorted((k for k in params if k.startswith("layer_")), key=_number)
    rest = {name: part for name, part in params.items() if name not in names}
    layers = [params[name] for name in names]
    return {**rest, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(params: Params) -> Params:
    """Returns parameters with a stack of layers as `layer_0` and so on.

    >>> sorted(unstack_layers({"layers": {"w": jnp.ones((2, 3))}}))
    ['layer_0', 'layer_1']
    """
    rest = {name: part for name, part in params.items() if name != "layers"}
    layers = len(jax.tree.leaves(params["layers"])[0])
    for number in range(layers):
        layer = jax.tree.map(lambda leaf: leaf[number], params["layers"])  # noqa: B023
        rest[f"layer_{number}"] = layer
    return rest


def _number(name: str) -> int:
    return int(name.removeprefix("layer_"))
