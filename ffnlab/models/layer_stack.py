"""Parameters of layers as one stack, as a scan takes them, and one by one."""

import dataclasses

import jax
import jax.numpy as jnp

from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.nn.stacks import STACK
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
    return {**rest, STACK: jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(params: Params) -> Params:
    """Returns parameters with the stack `layers` split into `layer_0` and so on.

    >>> sorted(unstack_layers({"layers": {"w": jnp.ones((2, 3))}}))
    ['layer_0', 'layer_1']
    """
    rest = {name: part for name, part in params.items() if name != STACK}
    layers = len(jax.tree.leaves(params[STACK])[0])
    for number in range(layers):
        layer = jax.tree.map(lambda leaf: leaf[number], params[STACK])  # noqa: B023
        rest[f"layer_{number}"] = layer
    return rest


def with_scan(
    config: TransformerConfig, params: Params, scan: bool
) -> tuple[TransformerConfig, Params]:
    """Returns the same model with its layers stacked, or with its layers one by one.

    Args:
      config: Configuration of the model.
      params: Its parameters, in the form that `config.scan` says.
      scan: Whether the layers are to be stacked.

    Raises:
      InputError: The layers have different blocks, so that they cannot be stacked.

    >>> config = TransformerConfig(layers=2)
    >>> params = {"layer_0": {"w": jnp.ones(3)}, "layer_1": {"w": jnp.ones(3)}}
    >>> config, params = with_scan(config, params, True)
    >>> config.scan, params["layers"]["w"].shape
    (True, (2, 3))
    """
    if config.scan == scan:
        return config, params
    convert = stack_layers if scan else unstack_layers
    return dataclasses.replace(config, scan=scan), convert(params)


def _layer_index(name: str) -> int:
    return int(name.removeprefix("layer_"))
