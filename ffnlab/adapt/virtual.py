"""Prefix tuning and prompt tuning: virtual tokens that every text attends to."""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ffnlab.adapt.methods import Prefix, Prompt
from ffnlab.adapt.targets import trained_dtype
from ffnlab.nn import activations
from ffnlab.nn.adapters import fold_name
from ffnlab.nn.attention import Prefix as KeysAndValues
from ffnlab.types import Array, Key

if TYPE_CHECKING:
    from ffnlab.models.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PrefixLayer:
    """An adapter of a Transformer: keys and values before those of the text.

    Attributes:
      key: `[L, P, heads · h]`.
      value: `[L, P, heads · h]`.
      shift: The first position of the text.
    """

    key: Array
    value: Array
    shift: int = dataclasses.field(metadata={"static": True})

    def __call__(self, transformer: "Transformer") -> tuple[KeysAndValues, int]:
        """Returns `key` and `value` `[L, 1, P, heads · h]`, and the first position."""
        return {"key": self.key[:, None], "value": self.value[:, None]}, self.shift


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptLayer:
    """An adapter of a Transformer: vectors before the token embeddings.

    Attributes:
      embedding: `[P, D]`.
      shift: The first position of the text.
    """

    embedding: Array
    shift: int = dataclasses.field(metadata={"static": True})

    def __call__(self, transformer: "Transformer") -> tuple[KeysAndValues, int]:
        """Returns `key` and `value` `[L, 1, P, heads · h]`, and the first position."""
        table = transformer.embed.tokens.embedding[...]
        vectors = self.embedding.astype(table.dtype)[None]
        return transformer.keys_and_values(vectors), self.shift


def _sizes(encoder: Mapping[str, Array]) -> tuple[int, int]:
    """Returns the number of layers, and the width of the keys of all heads."""
    keys = [
        array
        for path, array in encoder.items()
        if re.fullmatch(r"layer(_\d+|s)/attention/key/kernel", path)
    ]
    layers = len(keys[0]) if keys[0].ndim == 3 else len(keys)
    return layers, keys[0].shape[-1]


def init_prefix(
    method: Prefix, encoder: Mapping[str, Array], key: Key
) -> dict[str, Array]:
    """Returns the arrays of prefix tuning by path.

    Without a projection these are `key` and `value` `[L, P, heads · h]`, normal (0.02).
    With one they are `embedding` `[P, D]` and the layers `up` and `down` of the MLP.
    The latter has the outputs `[L, 2, heads · h]`, keys before values.
    """
    layers, width = _sizes(encoder)
    table = encoder["embed/tokens/embedding"]
    features, dtype = table.shape[-1], trained_dtype(table)
    tokens, hidden = method.virtual_tokens, method.projection
    rows = {name: ((layers, tokens, width), 0.02) for name in ("key", "value")}
    if hidden:
        rows = {
            "embedding": ((tokens, features), 1.0),
            "up/kernel": ((features, hidden), features**-0.5),
            "down/kernel": ((hidden, layers, 2, width), 0.02),
        }
    arrays = {}
    for name, (shape, scale) in rows.items():
        path = f"prefix/{name}"
        arrays[path] = scale * jax.random.normal(fold_name(key, path), shape, dtype)
    if hidden:
        arrays["prefix/up/bias"] = jnp.zeros(hidden, dtype)
        arrays["prefix/down/bias"] = jnp.zeros((layers, 2, width), dtype)
    return arrays


def keys_and_values(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Returns `key` and `value` `[L, P, heads · h]` of arrays of `init_prefix`."""
    if "embedding" not in arrays:
        return {"key": arrays["key"], "value": arrays["value"]}
    up, down = ((arrays[f"{n}/kernel"], arrays[f"{n}/bias"]) for n in ("up", "down"))
    hidden = activations.tanh(arrays["embedding"] @ up[0] + up[1][None])  # [P, M]
    pairs = jnp.tensordot(hidden, down[0], axes=1) + down[1][None]  # [P, L, 2, ·]
    return {name: pairs[:, :, i].swapaxes(0, 1) for i, name in enumerate(_PAIR)}


_PAIR = ("key", "value")


def prefix_layer(method: Prefix, arrays: Mapping[str, Array]) -> PrefixLayer:
    """Returns the adapter of a Transformer with the arrays of `init_prefix`."""
    shift = method.virtual_tokens if method.shift_positions else 0
    return PrefixLayer(**keys_and_values(arrays), shift=shift)


def init_prompt(
    method: Prompt, encoder: Mapping[str, Array], key: Key
) -> dict[str, Array]:
    """Returns the array of prompt tuning by path: embeddings of random tokens."""
    table = encoder["embed/tokens/embedding"]
    rows = jax.random.randint(key, (method.virtual_tokens,), 0, len(table))
    return {"prompt/embedding": table[rows].astype(trained_dtype(table))}


def prompt_layer(method: Prompt, arrays: Mapping[str, Array]) -> PromptLayer:
    """Returns the adapter of a Transformer with the array of `init_prompt`."""
    shift = method.virtual_tokens if method.shift_positions else 0
    return PromptLayer(arrays["embedding"], shift)
