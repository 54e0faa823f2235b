"""Which arrays of a model train by each method."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ffnlab import trees
from ffnlab.adapt.methods import (
    AttentionOnly,
    BitFit,
    FFNOnly,
    Full,
    Method,
    TopLayers,
)
from ffnlab.errors import InputError
from ffnlab.types import Params

ENCODER = "encoder/"
_PATTERNS: dict[type[Method], str] = {
    BitFit: "(.*/)?bias",
    FFNOnly: r"layer(_\d+|s)/ffn/.*",
    AttentionOnly: r"layer(_\d+|s)/attention/.*",
    Full: ".*",
}


def encoder_prefix(params: Params) -> str:
    """Returns the path of the pretrained encoder: `encoder/`, or empty if it is all."""
    return ENCODER if "encoder" in params else ""


def encoder_arrays(params: Params) -> dict[str, Any]:
    """Returns the arrays of the pretrained encoder by path.

    >>> encoder_arrays({"encoder": {"norm": {"scale": 1.0}}, "head": {"bias": 0.0}})
    {'norm/scale': 1.0}
    """
    return trees.flatten(params.get("encoder", params))


def select(
    params: Params, methods: Iterable[Method], pooler: bool
) -> dict[str, int | None]:
    """Returns the paths of the arrays that train.

    Args:
      params: Parameters of the model; shapes are enough.
      methods: The methods.
      pooler: Whether the pooler of the encoder, if it has one, trains as well.

    Returns:
      For each path None, or the number of last layers that train of a stack of layers.

    Raises:
      InputError: There are fewer layers than `TopLayers` asks for.
    """
    prefix, encoder = encoder_prefix(params), encoder_arrays(params)
    chosen: dict[str, int | None] = {}
    for method in methods:
        if isinstance(method, TopLayers):
            chosen |= _top(method.layers, encoder)
    for pattern in (_PATTERNS[type(m)] for m in methods if type(m) in _PATTERNS):
        chosen |= {path: None for path in encoder if re.fullmatch(pattern, path)}
    if pooler:
        chosen |= {path: None for path in encoder if path.startswith("pooler/")}
    chosen = {prefix + path: count for path, count in chosen.items()}
    if prefix:
        outside = (p for p in trees.flatten(params) if not p.startswith(prefix))
        chosen |= dict.fromkeys(outside)
    return chosen


def _top(count: int, encoder: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns what trains of the last layers, and the norm after them."""
    stack = [path for path in encoder if path.startswith("layers/")]
    numbers = {int(m[1]) for m in (re.match(r"layer_(\d+)/", p) for p in encoder) if m}
    layers = np.shape(encoder[stack[0]])[0] if stack else len(numbers)
    if count > layers:
        raise InputError(
            f"layers: {count} must be at most {layers}, those of the model"
        )
    kept = tuple(f"layer_{number}/" for number in range(layers - count, layers))
    chosen = {path: None for path in encoder if path.startswith((*kept, "norm/"))}
    return {**chosen, **dict.fromkeys(stack, None if count == layers else count)}
