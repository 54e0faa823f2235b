"""Parameters of layers as one stack, as a scan takes them, and one by one."""

import jax
import jax.numpy as jnp

from ffnlab.types import Params


def stack_layers(params: Params) -> Params:
    """Returns parameters with `layer_0` and so on stacked as `layers`.

    >>> stack_layers({"layer_0": {"w": jnp.ones(2)}, "layer_1": {"w": jnp.ones(2)}})[
    ...     "layers"]["w"].shape
    (2, 2)
    """
    names = sorted((k for k in params if k.startswith("layer_")), key=_layer_index)
    rest = {name: part for name, part in params.items() if name not in names}
    layers = [params[name] for name in names]
    return {**rest, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(params: Params) -> Params:
    """Returns parameters with the stack `layers` split into `layer_0` and so on.

    >>> sorted(unstack_layers({"layers": {"w": jnp.ones((2, 3))}}))
    ['layer_0', 'layer_1']
    """
    rest = {name: part for name, part in params.items() if name != "layers"}
    layers = len(jax.tree.leaves(params["layers"])[0])
    for number in range(layers):
        layer = jax.tree.map(lambda leaf: leaf[number], params["layers"])  # noqa: B023
        rest[f"layer_{number}"] = layer
    return rest


def _layer_index(name: str) -> int:
    return int(name.removeprefix("layer_"))
