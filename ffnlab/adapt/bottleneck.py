"""Bottleneck adapters: small feed-forward blocks in every layer."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ffnlab import trees
from ffnlab.adapt.methods import Bottleneck
from ffnlab.adapt.targets import trained_dtype
from ffnlab.nn.adapters import fold_name
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.precision import cast
from ffnlab.nn.pure import functional
from ffnlab.types import Array, Key, Model, Params

# The parts of a layer that have an adapter.
PARTS = {
    "houlsby": ("attention", "ffn"),
    "pfeiffer": ("ffn",),
    "parallel": ("ffn",),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BottleneckLayer:
    """An adapter of a layer of a Transformer.

    Attributes:
      blocks: Parameters of a block for each part of the layer that has one.
      config: Configuration of the blocks.
      method: Configuration of the adapters.
    """

    blocks: Params
    config: BlockConfig = dataclasses.field(metadata={"static": True})
    method: Bottleneck = dataclasses.field(metadata={"static": True})

    def __call__(self, part: str, x: Array, y: Array) -> Array:
        """Returns the output of a part of the layer, changed by its adapter.

        Args:
          part: `attention` or `ffn`.
          x: Input of the part, `[B, T, D]`.
          y: Output of the part, `[B, T, D]`.
        """
        if part not in self.blocks:
            return y
        inside = x if self.method.placement == "parallel" else y
        params = cast(self.blocks[part], inside.dtype)
        return y + self.method.scale * _model(self.config).apply(params, inside)[0]


@functools.cache
def _model(config: BlockConfig) -> Model:
    """Returns a block as pure functions."""
    return functional(lambda rngs: FeedForward(config, rngs=rngs))


def _block(method: Bottleneck, width: int) -> BlockConfig:
    return BlockConfig(
        method.block,
        width,
        method.hidden,
        norm="none",
        initializer="normal",
        residual=False,
    )


def init_bottleneck(
    method: Bottleneck, encoder: Mapping[str, Array], key: Key
) -> dict[str, Array]:
    """Returns the arrays of the adapters by path; the kernels of `down` are 0."""
    arrays = {}
    for path, kernel in encoder.items():
        match = re.fullmatch(r"(layer(_\d+|s))/attention/out/kernel", path)
        for part in PARTS[method.placement] if match else ():
            root = f"{match[1]}/bottleneck/{part}"
            block = _init_block(method, kernel, fold_name(key, root))
            arrays |= {f"{root}/{name}": leaf for name, leaf in block.items()}
    return arrays


def _init_block(method: Bottleneck, like: Array, key: Key) -> dict[str, Any]:
    """Returns the arrays of a block, stacked as the kernel of a layer is."""
    init = _model(_block(method, like.shape[-1])).init
    params = jax.vmap(init)(jax.random.split(key, like.shape[:-2] or (1,)))
    if like.ndim == 2:
        params = jax.tree.map(lambda leaf: leaf[0], params)
    params["down"]["kernel"] = jnp.zeros_like(params["down"]["kernel"])
    return trees.flatten(cast(params, trained_dtype(like)))


def bottleneck_layer(
    method: Bottleneck, arrays: Mapping[str, Array]
) -> BottleneckLayer:
    """Returns the adapter of a layer with the arrays of `init_bottleneck`."""
    blocks = trees.unflatten(dict(arrays))
    width = next(iter(blocks.values()))["down"]["kernel"].shape[-1]
    return BottleneckLayer(blocks, _block(method, width), method)
