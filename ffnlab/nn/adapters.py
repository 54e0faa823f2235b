"""Adapters: callables with arrays of their own that change what a module computes.

A tree of parameters may have an entry `adapter` beside the arrays of a module: a tuple
of callables that are pytrees. `functional` attaches them to the module. Each kind of
module calls them in its own way:

    Linear       adapter(call, x, weights) -> y, where call(x) is the layer without it
    Layer        adapter(part, x, y) -> y, where part(x) = y is attention or ffn
    Transformer  adapter(transformer) -> keys and values before those of the text

`ffnlab.adapt` makes such trees.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffnlab.types import Key, Params

ADAPTER = "adapter"
Adapters = tuple[Callable[..., Any], ...]


def attached(module: nnx.Module) -> Adapters:
    """Returns the adapters of a module, in the order in which they apply.

    >>> attached(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    ()
    """
    variable = getattr(module, ADAPTER, None)
    return () if variable is None else variable.get_value()


def detach(params: Params) -> tuple[Params, dict[tuple[str, ...], Adapters]]:
    """Returns parameters without their adapters, and the adapters by path of a module.

    >>> detach({"up": {"kernel": 1.0, "adapter": (abs,)}})
    ({'up': {'kernel': 1.0}}, {('up',): (<built-in function abs>,)})
    """
    plain, found = {}, {}
    for name, part in params.items():
        if name == ADAPTER:
            found[()] = part
        elif isinstance(part, dict):
            plain[name], inside = detach(part)
            found |= {(name, *path): adapters for path, adapters in inside.items()}
        else:
            plain[name] = part
    return plain, found


def attach(module: nnx.Module, adapters: dict[tuple[str, ...], Adapters]) -> None:
    """Attaches adapters to the parts of a module; see `detach`.

    A `nnx.Param` holds them, so that `nnx.split` and `nnx.merge` carry their arrays
    through scans and checkpoints.
    """
    for path, each in adapters.items():
        part: Any = module
        for name in path:
            part = part[name] if isinstance(part, dict) else getattr(part, name)
        setattr(part, ADAPTER, nnx.Param(each))


def fold_name(key: Key | None, name: str) -> Key | None:
    """Returns the key of a part, so that parts draw independently; None for None.

    >>> bool(fold_name(jax.random.key(0), "a") == fold_name(jax.random.key(0), "b"))
    False
    """
    if key is None:
        return None
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
