"""(IA)³: factors of the outputs or the inputs of linear layers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ffnlab.adapt.methods import IA3
from ffnlab.adapt.targets import as_row, match_targets, trained_dtype
from ffnlab.types import Array, Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScaleLayer:
    """An adapter of a linear layer f: l ⊙ f(x), or f(l ⊙ x).

    Attributes:
      output: l `[H]`, or None.
      input: l `[D]`, or None.
    """

    output: Array | None
    input: Array | None

    def __call__(
        self, call: Callable[[Array], Array], x: Array, weights: Mapping[str, Any]
    ) -> Array:
        """Returns the output `[..., H]` of the adapted layer for x `[..., D]`."""
        if self.input is not None:
            x = x * as_row(self.input, x)
        y = call(x)
        return y if self.output is None else y * as_row(self.output, y)


def init_ia3(method: IA3, encoder: Mapping[str, Array], key: Key) -> dict[str, Array]:
    """Returns the arrays of (IA)³ by path, ones; `key` is unused."""
    arrays = {}
    for name, axis, patterns in (
        ("output", -1, method.targets),
        ("input", -2, method.input_targets),
    ):
        for module in match_targets(_FIELDS[name], patterns, encoder):
            kernel = encoder[f"{module}/kernel"]
            shape = (*kernel.shape[:-2], kernel.shape[axis])
            arrays[f"{module}/ia3/{name}"] = jnp.ones(shape, trained_dtype(kernel))
    return arrays


_FIELDS = {"output": "targets", "input": "input_targets"}


def ia3_layer(method: IA3, arrays: Mapping[str, Array]) -> ScaleLayer:
    """Returns the adapter of a linear layer with the arrays of `init_ia3`."""
    return ScaleLayer(arrays.get("output"), arrays.get("input"))
