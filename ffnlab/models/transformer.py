"""Transformer encoders and decoders with any feed-forward block.

    config = EncoderConfig.tiny(block="swiglu")
    model = transformer_model(config)
    params = model.init(jax.random.key(0))
    h, aux = model.apply(params, tokens, mask)    # [B, T, D]

Parameters are named `embed`, `layer_0` and so on, `norm`, `pooler`, `head`. With
`scan=True` the parameters of all layers are stacked in `layers`, `[L, ...]`, and one
layer is compiled for any L; `layer_stack` converts between the two forms.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.models.attention_pairs import attention_pairs, kernel_of
from ffnlab.models.embedding import Embedding, Head, norm, normal
from ffnlab.models.key_value_cache import empty_layers
from ffnlab.models.transformer_config import (
    DecoderConfig,
    EncoderConfig,
    TransformerConfig,
)
from ffnlab.nn import activations
from ffnlab.nn.adapters import attached
from ffnlab.nn.attention import Attention, Prefix, attention_mask
from ffnlab.nn.attention_kernel import XLA, Kernel
from ffnlab.nn.batch_axis import divide_batch
from ffnlab.nn.dropout import dropout
from ffnlab.nn.ffn import FeedForward
from ffnlab.nn.indices import check_indices
from ffnlab.nn.positions import token_positions
from ffnlab.nn.pure import functional
from ffnlab.nn.random_streams import check_rngs
from ffnlab.types import Array, Key, Model

__all__ = [
    "DecoderConfig",
    "Embedding",
    "EncoderConfig",
    "Head",
    "Layer",
    "Transformer",
    "TransformerConfig",
    "transformer_model",
]


# What the backward pass of a layer keeps if it recomputes the rest.
POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,  # recomputes all
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Layer(nnx.Module):
    """Attention and a feed-forward block, each with a norm and a residual connection.

    Args:
      config: Configuration of the Transformer.
      layer: Index of the layer.
      rngs: Random streams that initialise the arrays.
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
        self.attention_norm = norm(config, rngs)
        self.ffn = FeedForward(config.feed_forward(layer), rngs=rngs)
        self.ffn_norm = norm(config, rngs)

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: dict | None = None,
        key: Key | None = None,
        prefix: Prefix | None = None,
        *,
        kernel: Kernel = XLA,
    ) -> tuple[Array, tuple[Array, Array], dict | None]:
        """Returns the states, the block's input and output, and the cache.

        All arrays but the cache and the prefix are `[B, T, D]`.
        """
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        pre, rate = self.config.norm == "pre", self.config.dropout
        inside = self.attention_norm(x) if pre else x
        y, cache = self.attention(
            inside, mask, positions, cache, keys[2], prefix, key, kernel
        )
        for adapter in attached(self):
            y = adapter("attention", inside, y)
        x = x + dropout(y, keys[0], rate)
        x = x if pre else self.attention_norm(x)
        inside = self.ffn_norm(x) if pre else x
        y, _ = self.ffn(inside, key)
        for adapter in attached(self):
            y = adapter("ffn", inside, y)
        x = x + dropout(y, keys[1], rate)
        return (x if pre else self.ffn_norm(x)), (inside, y), cache


class Transformer(nnx.Module):
    """A Transformer: embeddings, layers, and an optional norm, pooler and head.

    Args:
      config: Configuration of the model.
      rngs: Random streams that initialise the arrays.

    >>> encoder = Transformer(EncoderConfig.tiny(pooler=True), rngs=nnx.Rngs(0))
    >>> h, aux = encoder(jnp.array([[1, 2, 3]]))
    >>> h.shape, aux["pooled"].shape, aux["states"].shape
    ((1, 3, 64), (1, 64), (3, 1, 3, 64))
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        check_rngs(rngs)
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
            self.norm = norm(config, rngs)
        if config.pooler:
            self.pooler = nnx.Linear(
                config.features, config.features, kernel_init=normal, rngs=rngs
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
        """Returns the logits or states, and the intermediate states.

        Args:
          tokens: Int `[B, T]`.
          mask: Bool `[B, T]`, True where there is a token; None means everywhere.
          types: Int `[B, T]`, the token types; zeros if None.
          segment_ids: Int `[B, T]`, the sequence of each token if several share a row.
          positions: Int `[B, T]`; learned positions must be below `config.length`. None
            counts from 0 in each sequence.
          offset: `[B, T, E]`, added to the token embeddings.
          cache: Made by `empty_cache`; the tokens continue those in the cache.
          key: Dropout key; None in evaluation.
          label_positions: Int `[B, K]`, the positions to return logits of; None means
            all.
          record: Whether to return the inputs and outputs of the feed-forward blocks.

        Returns:
          With a head, logits `[B, T or K, V]`, otherwise states `[B, T, D]`; and a dict
          with `states` `[L + 1, B, T, D]`, after the embeddings and after every layer;
          with a pooler, `pooled` `[B, D]`, the pooled first position; with a cache, the
          extended `cache`; and with `record`, `inputs` and `outputs` `[L, B, T, D]`.

        Raises:
          InputError: There are more tokens than learned positions, or a token, a type
            or a position has no row in its table, which inside `jax.jit` gives NaN.
        """
        self._check(tokens, mask, segment_ids)
        prefix, shift = self._prefix()
        if positions is None:
            positions = self._positions(tokens, segment_ids, cache, shift)
        positions = positions + shift if shift else positions
        self._check_indices(tokens, types, positions, label_positions)
        x, keys = self._embed(tokens, positions, types, offset, key)
        masked = mask is not None or segment_ids is not None
        kernel = kernel_of(self.config, x, masked, cache, keys, prefix)
        causal = self.config.causal and not kernel.causal
        pairs, cache = attention_pairs(causal, tokens, mask, segment_ids, cache)
        x, states, blocks, cache = self._layers(
            x, pairs, positions, cache, keys, prefix, kernel
        )
        if self.config.norm == "pre":
            x = self.norm(x)
            states = states.at[-1].set(x)
        aux = {"states": states} | ({} if cache is None else {"cache": cache})
        if record:
            aux |= dict(zip(("inputs", "outputs"), blocks, strict=True))
        if self.config.pooler:
            aux["pooled"] = activations.tanh(self.pooler(x[:, 0]))
        if self.config.head == "tied":
            x = self._logits(x, label_positions)
        return x, aux

    def _embed(
        self,
        tokens: Array,
        positions: Array,
        types: Array | None,
        offset: Array | None,
        key: Key | None,
    ) -> tuple[Array, Array | None]:
        """Returns the embeddings `[B, T, D]`, and a dropout key for each layer."""
        x = self.embed(tokens, positions, types, offset)
        if key is None:
            return self.embed.widen(x), None
        embed_key, key = jax.random.split(key)
        x = dropout(x, embed_key, self.config.dropout)
        return self.embed.widen(x), jax.random.split(key, self.config.layers)

    def _logits(self, x: Array, label_positions: Array | None) -> Array:
        """Returns the logits `[B, T or K, V]` of states, at the label positions."""
        if label_positions is not None:
            x = jnp.take_along_axis(x, label_positions[..., None], axis=1)
        return self.head(x, self.embed.tokens.embedding[...])

    def _positions(
        self,
        tokens: Array,
        segment_ids: Array | None,
        cache: dict | None,
        shift: int,
    ) -> Array:
        """Returns positions that count from 0 in each sequence, or go on in a cache."""
        self._check_length(tokens, cache, shift)
        start = 0 if cache is None else cache["layers"]["index"][0]
        return token_positions(tokens.shape[1], segment_ids, start)

    def _check(
        self, tokens: Array, mask: Array | None, segment_ids: Array | None
    ) -> None:
        for name, array in (("mask", mask), ("segment_ids", segment_ids)):
            if array is not None and array.shape != tokens.shape:
                raise InputError(
                    f"{name} {[*array.shape]} must have the shape of tokens, "
                    f"{[*tokens.shape]}"
                )
        if tokens.ndim != 2:
            raise InputError(f"tokens {[*tokens.shape]} must be [B, T]")

    def _check_indices(
        self,
        tokens: Array,
        types: Array | None,
        positions: Array,
        label_positions: Array | None,
    ) -> None:
        """Raises if an index of a look-up is out of the range of its table."""
        config = self.config
        check_indices("tokens", tokens, config.vocabulary, "embeddings")
        if types is not None and config.types:
            check_indices("types", types, config.types, "token types")
        if config.positions == "learned":
            check_indices("positions", positions, config.length, "positions")
        if label_positions is not None:
            length = tokens.shape[1]
            check_indices("label_positions", label_positions, length, "tokens")

    def _check_length(self, tokens: Array, cache: dict | None, shift: int) -> None:
        last = tokens.shape[1] if cache is None else cache["mask"].shape[1]
        if self.config.positions == "learned" and last + shift > self.config.length:
            virtual = f" and {shift} virtual ones" if shift else ""
            raise InputError(
                f"{last} tokens{virtual} are more than the {self.config.length} "
                "positions of this model; shorten the sequences"
            )

    def _prefix(self) -> tuple[Prefix | None, int]:
        """Returns the keys and values before those of the text, and their positions.

        They are those of the adapters, `[L, 1, P, heads · h]`; the positions of the
        text start at the second number.
        """
        parts = [adapter(self) for adapter in attached(self)]
        if not parts:
            return None, 0
        prefixes, shifts = zip(*parts, strict=True)
        prefix = jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves, axis=2), *prefixes
        )
        return prefix, sum(shifts)

    def keys_and_values(self, vectors: Array) -> Prefix:
        """Returns the keys and values of virtual tokens in every layer.

        The virtual tokens are at the positions from 0 and attend to each other alone,
        so that texts, which attend to them, can share them and share rows.

        Args:
          vectors: `[1, P, E]`, in place of token embeddings.

        Returns:
          `key` and `value` `[L, 1, P, heads · h]`.
        """
        length = vectors.shape[1]
        positions = token_positions(length)
        x = self.embed.widen(self.embed.complete(vectors, positions, None))
        cache = {"layers": empty_layers(self.config, 1, length, x.dtype)}
        mask = attention_mask(length, causal=self.config.causal)
        _, _, _, cache = self._layers(x, mask, positions, cache, None, None)
        pair = {name: cache["layers"][name] for name in ("key", "value")}
        return jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:3], -1), pair)

    def _layers(
        self,
        x: Array,
        mask: Array | None,
        positions: Array,
        cache: dict | None,
        keys: Array | None,
        prefix: Prefix | None,
        kernel: Kernel = XLA,
    ) -> tuple[Array, Array, tuple[Array, Array], dict | None]:
        """Returns the last states, all states, the blocks' arrays, and the cache.

        `mask` is the attention mask `[B or 1, 1, T, S]`; all tokens attend to the
        prefix.
        """
        if prefix is not None and mask is not None:
            first = prefix["key"].shape[2]
            mask = jnp.pad(mask, [(0, 0)] * 3 + [(first, 0)], constant_values=True)

        def apply(graph: Any, state: Any, x: Array, *parts: Any) -> tuple:
            layer, x = nnx.merge(graph, state), divide_batch(x)
            y, *rest = layer(x, mask, positions, *parts, kernel=kernel)
            return divide_batch(y), *rest

        if self.config.remat:
            policy = POLICIES[self.config.remat_policy]
            apply = jax.checkpoint(apply, static_argnums=0, policy=policy)
        old = None if cache is None else cache["layers"]
        run = self._scan_layers if self.config.scan else self._unrolled_layers
        last, states, blocks, new = run(apply, x, (old, keys, prefix))
        cache = None if cache is None else {**cache, "layers": new}
        return last, jnp.concatenate([x[None], states]), blocks, cache

    def _scan_layers(
        self, apply: Callable[..., tuple], x: Array, parts: tuple
    ) -> tuple:
        """Returns the last states and, stacked over layers, what each layer returns.

        `parts` are the cache, the keys and the prefix, stacked over layers.
        """
        graph, state = nnx.split(self.layers)

        def step(x: Array, layer: tuple) -> tuple:
            x, *rest = apply(graph, layer[0], x, *layer[1])
            return x, (x, *rest)

        x, stacks = jax.lax.scan(step, x, (nnx.to_pure_dict(state), parts))
        return x, *stacks

    def _unrolled_layers(
        self, apply: Callable[..., tuple], x: Array, parts: tuple
    ) -> tuple:
        """Returns the same as `_scan_layers`, without a scan."""
        outputs = []
        for number in range(self.config.layers):
            graph, state = nnx.split(getattr(self, f"layer_{number}"))
            part = jax.tree.map(lambda leaf: leaf[number], parts)  # noqa: B023
            x, *rest = apply(graph, state, x, *part)
            outputs.append((x, *rest))
        return x, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def transformer_model(config: TransformerConfig) -> Model:
    """Returns a `Transformer` as pure functions.

    >>> model = transformer_model(DecoderConfig.tiny(scan=True))
    >>> params = model.init(jax.random.key(0))
    >>> logits, _ = model.apply(params, jnp.array([[1, 2, 3]]))
    >>> logits.shape, params["layers"]["ffn"]["up"]["kernel"].shape
    ((1, 3, 256), (2, 64, 256))
    """
    return functional(lambda rngs: Transformer(config, rngs=rngs))
