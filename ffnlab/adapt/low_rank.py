"""LoRA, DoRA and AdaLoRA: their layers, initial arrays and updates of kernels."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ffnlab.adapt.methods import AdaLoRA, LoRA
from ffnlab.adapt.targets import as_row, match_targets, trained_dtype
from ffnlab.errors import InputError
from ffnlab.nn.adapters import fold_name
from ffnlab.nn.dropout import dropout
from ffnlab.nn.linear import product
from ffnlab.nn.precision import full_precision
from ffnlab.types import Array, Key

_STATIC: Any = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRankLayer:
    """An adapter of a linear layer: y + s · dropout(x) A diag(λ) B.

    Attributes:
      a: `[D, r]`.
      b: `[r, H]`.
      values: λ `[r]`, the singular values of AdaLoRA; None for ones.
      magnitude: `[H]`, the norms of the columns in DoRA; None for those of the sum.
      scale: The factor s.
      rate: Dropout rate of x.
    """

    a: Array
    b: Array
    values: Array | None
    magnitude: Array | None
    scale: float = dataclasses.field(metadata=_STATIC)
    rate: float = dataclasses.field(metadata=_STATIC)

    def __call__(
        self, call: Callable[[Array], Array], x: Array, weights: Mapping[str, Any]
    ) -> Array:
        """Returns the output `[..., H]` of the adapted layer for x `[..., D]`."""
        y = call(x)
        name = "lora" if self.values is None else "adalora"
        inside = dropout(x, fold_name(weights["key"], name), self.rate)
        inside = product(inside, self.a.astype(x.dtype)) * self.scale  # [..., r]
        if self.values is not None:
            inside = inside * as_row(self.values, inside)
        update = product(inside, self.b.astype(x.dtype))
        if self.magnitude is None:
            return y + update
        norm = column_norms(weights["kernel"], self.scale * self.a, self.b)
        gain = as_row(self.magnitude / jax.lax.stop_gradient(norm), y)
        bias = as_row(weights["bias"], y) if "bias" in weights else 0.0
        return gain * (y - bias + update) + bias

    @full_precision
    def delta(self) -> Array:
        """Returns the product that is added to the kernel, `[..., D, H]`."""
        a = self.scale * self.a
        if self.values is not None:
            a = a * self.values[..., None, :]
        return a @ self.b


def column_norms(kernel: Array, a: Array, b: Array) -> Array:
    """Returns the Euclidean norms of the columns of W + A B, without computing the sum.

    Args:
      kernel: W `[D, H]`.
      a: A `[D, r]`.
      b: B `[r, H]`.

    Returns:
      `[H]`, at least in float32.

    >>> column_norms(jnp.eye(2), jnp.array([[3.0], [3.0]]), jnp.array([[1.0, 0.0]]))
    Array([5., 1.], dtype=float32)
    """
    wide = trained_dtype(kernel)
    a, b = a.astype(wide), b.astype(wide)
    squares = jnp.square(kernel.astype(wide)).sum(axis=0)
    cross = jnp.einsum("dh,dr->rh", kernel, a, preferred_element_type=wide)
    squares = squares + (2.0 * cross * b).sum(axis=0) + ((a.T @ a @ b) * b).sum(axis=0)
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def init_lora(method: LoRA, encoder: Mapping[str, Array], key: Key) -> dict[str, Array]:
    """Returns the arrays of LoRA by path: A uniform in ±1/√D, and B = 0.

    Args:
      method: The configuration.
      encoder: Arrays of the encoder by path; shapes are enough but for DoRA.
      key: Random key.
    """
    arrays = {}
    for module in match_targets("targets", method.targets, encoder):
        kernel = encoder[f"{module}/kernel"]
        *stack, width, outputs = _check_rank(method.rank, module, kernel)
        dtype = trained_dtype(kernel)
        shape, part = (*stack, width, method.rank), fold_name(key, f"{module}/lora")
        a = jax.random.uniform(part, shape, dtype, -1.0, 1.0) * width**-0.5
        arrays[f"{module}/lora/a"] = a
        arrays[f"{module}/lora/b"] = jnp.zeros((*stack, method.rank, outputs), dtype)
        if method.dora:
            norm = jnp.sqrt(jnp.square(kernel.astype(dtype)).sum(axis=-2))
            arrays[f"{module}/lora/magnitude"] = norm
    return arrays


def init_adalora(
    method: AdaLoRA, encoder: Mapping[str, Array], key: Key
) -> dict[str, Array]:
    """Returns the arrays of AdaLoRA by path: P and Q normal (0.02), and Λ = 0."""
    arrays = {}
    for module in match_targets("targets", method.targets, encoder):
        kernel = encoder[f"{module}/kernel"]
        *stack, width, outputs = _check_rank(method.rank, module, kernel)
        shapes = {"p": (width, method.rank), "q": (method.rank, outputs)}
        dtype = trained_dtype(kernel)
        for name, shape in shapes.items():
            path = f"{module}/adalora/{name}"
            draw = jax.random.normal(fold_name(key, path), (*stack, *shape), dtype)
            arrays[path] = 0.02 * draw
        arrays[f"{module}/adalora/lambda"] = jnp.zeros((*stack, method.rank), dtype)
    return arrays


def _check_rank(rank: int, module: str, kernel: Array) -> tuple[int, ...]:
    """Returns the shape of a kernel after checking that it has at least this rank."""
    width = min(kernel.shape[-2:])
    if rank > width:
        raise InputError(f"rank: {rank} must be at most {width}, the width of {module}")
    return kernel.shape


def lora_layer(method: LoRA, arrays: Mapping[str, Array]) -> LowRankLayer:
    """Returns the adapter of a linear layer with the arrays of `init_lora`."""
    return LowRankLayer(
        arrays["a"],
        arrays["b"],
        None,
        arrays.get("magnitude"),
        method.scale,
        method.dropout,
    )


def adalora_layer(method: AdaLoRA, arrays: Mapping[str, Array]) -> LowRankLayer:
    """Returns the adapter of a linear layer with the arrays of `init_adalora`."""
    return LowRankLayer(
        arrays["p"], arrays["q"], arrays["lambda"], None, method.scale, method.dropout
    )
