"""Merges adapters into the kernels that they adapt, and takes them out again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from ffnlab import trees
from ffnlab.adapt.low_rank import LowRankLayer
from ffnlab.adapt.methods import Config, Method, Prefix, as_methods
from ffnlab.adapt.scaling import ScaleLayer
from ffnlab.adapt.surgery import SURGERY, overlay, partition
from ffnlab.adapt.targets import trained_dtype
from ffnlab.adapt.virtual import keys_and_values
from ffnlab.errors import InputError
from ffnlab.types import Array, Params

Weights = dict[str, Array]


def merge(
    trainable: Params, frozen: Params, config: Config, *, dtype: Any = None
) -> Params:
    """Returns parameters of the plain model that compute what the adapted one does.

    Args:
      trainable: The trained part.
      frozen: The frozen part; it stays as it is.
      config: The methods: LoRA, DoRA, AdaLoRA, (IA)³, and those without new arrays.
      dtype: Data type of the trained arrays of the model; None means their own. Kernels
        keep their data types.

    Raises:
      InputError: A method cannot be merged.

    >>> import jax
    >>> from ffnlab import EncoderConfig, adapt
    >>> from ffnlab.models import transformer_model
    >>> model = transformer_model(EncoderConfig.tiny(layers=1))
    >>> params = model.init(jax.random.key(0))
    >>> trainable, frozen, _ = adapt.apply(params, adapt.LoRA(), model)
    >>> merged = merge(trainable, frozen, adapt.LoRA())
    >>> sorted(merged) == sorted(params)
    True
    """
    own, _ = partition(trainable)
    dtypes = dict.fromkeys(own, dtype) if dtype else {}
    leaves = overlay(trees.flatten(frozen), own, dtypes)
    return _each_module(trainable, leaves, config, "merged", _merge_layer)


def unmerge(merged: Params, trainable: Params, config: Config) -> Params:
    """Returns the parameters before `merge`, up to rounding.

    Arrays of the model that trained themselves, such as biases and the head, stay as
    they are in `merged`.

    Args:
      merged: Parameters that `merge` returned.
      trainable: The trained part that was merged.
      config: The methods: LoRA, AdaLoRA and (IA)³.

    Raises:
      InputError: A method cannot be taken out: DoRA replaces norms of the kernel, and a
        factor of 0 its columns. Keep the frozen part instead.
    """
    return _each_module(
        trainable, trees.flatten(merged), config, "taken out", _unmerge_layer
    )


def _each_module(
    trainable: Params,
    leaves: dict[str, Array],
    config: Config,
    verb: str,
    change: Callable[[Any, Weights, str], Weights],
) -> Params:
    """Returns parameters after a change of the weights of every adapted layer."""
    methods = {method.name: method for method in as_methods(config)}
    modules = [*partition(trainable)[1].items()]
    for (module, name), arrays in modules if verb == "merged" else modules[::-1]:
        layer = SURGERY[name].layer(methods[name], arrays)
        if not isinstance(layer, (LowRankLayer, ScaleLayer)):
            raise InputError(
                f"{name}: cannot be {verb}, since it does not change a kernel alone; "
                "it stays an adapter"
            )
        for part, array in change(layer, _weights(module, leaves), module).items():
            path = f"{module}/{part}"
            leaves[path] = array.astype(leaves[path].dtype)
    return trees.unflatten(leaves)


def _weights(module: str, leaves: Mapping[str, Array]) -> Weights:
    """Returns the kernel and the bias of a layer, at least in float32."""
    paths = {part: f"{module}/{part}" for part in ("kernel", "bias")}
    return {
        part: leaves[path].astype(trained_dtype(leaves[path]))
        for part, path in paths.items()
        if path in leaves
    }


def _merge_layer(layer: Any, weights: Weights, module: str) -> Weights:
    """Returns the weights of a layer with its adapter merged."""
    kernel = weights["kernel"]
    if isinstance(layer, ScaleLayer):
        return _scale(layer, weights, jnp.multiply)
    kernel = kernel + layer.delta()
    if layer.magnitude is not None:
        norm = jnp.sqrt(jnp.square(kernel).sum(axis=-2))
        kernel = kernel * (layer.magnitude / norm)[..., None, :]
    return {"kernel": kernel}


def _unmerge_layer(layer: Any, weights: Weights, module: str) -> Weights:
    """Returns the weights of a layer with its adapter taken out."""
    if isinstance(layer, ScaleLayer):
        for factors in (layer.output, layer.input):
            if factors is not None and not bool((factors != 0).all()):
                raise InputError(
                    f"ia3: cannot be taken out of {module}, where a factor is 0; keep "
                    "the frozen part"
                )
        return _scale(layer, weights, jnp.divide)
    if layer.magnitude is not None:
        raise InputError(
            "lora: DoRA cannot be taken out, since it replaces the norms of the "
            "kernel's columns; keep the frozen part"
        )
    return {"kernel": weights["kernel"] - layer.delta()}


def _scale(
    layer: ScaleLayer, weights: Weights, operation: Callable[[Array, Array], Array]
) -> Weights:
    """Returns weights whose outputs and inputs are multiplied or divided."""
    scaled = dict(weights)
    if layer.output is not None:
        scaled["kernel"] = operation(scaled["kernel"], layer.output[..., None, :])
        if "bias" in scaled:
            scaled["bias"] = operation(scaled["bias"], layer.output)
    if layer.input is not None:
        scaled["kernel"] = operation(scaled["kernel"], layer.input[..., :, None])
    return scaled


def fold(trainable: Params, config: Config) -> tuple[Params, tuple[Method, ...]]:
    """Returns an adapter whose prefixes need no MLP, and its configuration.

    Args:
      trainable: The trained part.
      config: The methods, `Prefix` with a projection among them.

    Raises:
      InputError: There is no projection.

    Source: Li & Liang 2021, section 4.3.
    """
    methods, leaves = as_methods(config), trees.flatten(trainable)
    projected = {m.name for m in methods if isinstance(m, Prefix) and m.projection}
    if not projected:
        raise InputError("config: there is no prefix with a projection to fold")
    for (module, name), arrays in partition(trainable)[1].items():
        if name in projected:
            root = f"{module}/{name}" if module else name
            for part in arrays:
                del leaves[f"{root}/{part}"]
            folded = keys_and_values(arrays)
            leaves |= {f"{root}/{part}": leaf for part, leaf in folded.items()}
    methods = tuple(
        dataclasses.replace(m, projection=0) if m.name in projected else m
        for m in methods
    )
    return trees.unflatten(leaves), methods
