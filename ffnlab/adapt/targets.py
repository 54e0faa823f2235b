"""Which linear layers of an encoder a method adapts."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from ffnlab.adapt.patterns import match_end
from ffnlab.errors import InputError, choose
from ffnlab.types import Array

GROUPS = {"ffn": "ffn/.*", "attention": "attention/.*", "all": ".*"}


def linear_layers(paths: Iterable[str]) -> list[str]:
    """Returns the paths of the linear layers inside the layers of an encoder.

    >>> linear_layers(["layer_0/ffn/up/kernel", "layer_0/ffn/up/bias", "norm/scale"])
    ['layer_0/ffn/up']
    """
    inside = re.compile(r"layer(_\d+|s)/(.*)/kernel")
    return [path.removesuffix("/kernel") for path in paths if inside.fullmatch(path)]


def match_targets(
    field: str, patterns: Sequence[str], paths: Iterable[str]
) -> list[str]:
    """Returns the paths of the linear layers that match a pattern.

    Args:
      field: Name of the field that holds the patterns, for error messages.
      patterns: Regular expressions of the ends of paths, as in `ffnlab.adapt.patterns`,
        or keys of `GROUPS`.
      paths: Paths of the arrays of the encoder.

    Raises:
      InputError: A pattern is not valid or matches no layer.

    >>> match_targets("targets", ["up"], ["layer_0/ffn/up/kernel"])
    ['layer_0/ffn/up']
    """
    layers, matched = linear_layers(paths), set()
    for pattern in patterns:
        end = GROUPS.get(pattern, pattern)
        try:
            found = {layer for layer in layers if match_end(end, layer, "/")}
        except InputError as error:
            raise InputError(f"{field}: {error}") from None
        if not found:
            choose(field, pattern, {*GROUPS, *(each.split("/")[-1] for each in layers)})
        matched |= found
    return [layer for layer in layers if layer in matched]


def trained_dtype(array: Any) -> Any:
    """Returns the data type in which an array trains: its own, at least float32."""
    return jnp.promote_types(array.dtype, jnp.float32)


def as_row(vector: Array, like: Array) -> Array:
    """Returns `[H]` as `[1, ..., 1, H]`, of the rank and data type of `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)
