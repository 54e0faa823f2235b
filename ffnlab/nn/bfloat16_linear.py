"""Linear layers in bfloat16 on a CPU that multiplies matrices of bfloat16.

Such a CPU (Intel's AMX) makes several times as many products of bfloat16 as of float32,
but XLA uses them for some products alone: for those that sum over the second axis of
their left operand, which the gradient of a kernel does not, and before JAX 0.11 only if
the result is float32. This module writes the products in these forms. Sums are in
float32; the result, with its bias, is rounded once.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from ffnlab.nn.batch_axis import is_divided
from ffnlab.nn.default_platform import default_platform
from ffnlab.types import Array

SMALLEST = 64  # rows, inputs and outputs, from which the products are faster
_CPUINFO = Path("/proc/cpuinfo")


def takes(x: Array, kernel: Array) -> bool:
    """Returns whether `linear` is the faster way to compute `x @ kernel` and a bias.

    >>> takes(jnp.ones((64, 64)), jnp.ones((64, 64)))
    False
    """
    matrices = x.ndim == kernel.ndim == 2
    return matrices and can_take(x, kernel) and min(*x.shape, *kernel.shape) >= SMALLEST


def can_take(left: Array, right: Array) -> bool:
    """Returns whether there are matrix units for products of two arrays.

    >>> can_take(jnp.ones((64, 64)), jnp.ones((64, 64)))
    False
    """
    # Sizes that an exported program leaves open cannot be compared with a number.
    known = all(isinstance(size, int) for size in (*left.shape, *right.shape))
    # Gradients of what a `jax.shard_map` does not divide are summed by JAX alone.
    return (
        left.dtype == right.dtype == jnp.bfloat16
        and known
        and default_platform() == "cpu"
        and has_matrix_units()
        and not is_divided()
        and _varies_over(left) == _varies_over(right)
    )


def _varies_over(array: Array) -> Any:
    return getattr(jax.typeof(array), "manual_axis_type", None)


@functools.cache
def has_matrix_units() -> bool:
    """Returns whether the CPU has instructions for products of bfloat16 matrices.

    They are those of AMX. Other instructions for bfloat16 have not been measured.

    >>> has_matrix_units() in (True, False)
    True
    """
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""
    return "amx_bf16" in text.split()


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
    x: Array, kernel: Array, bias: Array | None = None, transposed: bool = False
) -> Array:
    """Returns `x @ kernel + bias`, rounded once; it has no forward mode.

    Args:
      x: bfloat16 `[N, D]`.
      kernel: bfloat16 `[D, H]`.
      bias: bfloat16 `[H]`, or None.
      transposed: Whether the kernel is `[H, D]`, as that of tied embeddings.

    Returns:
      bfloat16 `[N, H]`.

    >>> linear(jnp.ones((2, 64), "bfloat16"), jnp.ones((64, 3), "bfloat16"))
    Array([[64, 64, 64],
           [64, 64, 64]], dtype=bfloat16)
    """
    return _forward(x, kernel, bias, transposed)[0]


def _forward(
    x: Array, kernel: Array, bias: Array | None, transposed: bool
) -> tuple[Array, tuple]:
    y = product(x, kernel, transposed)
    if bias is not None:
        y = y + bias.astype(y.dtype)[None]
    return y.astype(x.dtype), (x, kernel, bias is not None)


def _backward(
    transposed: bool, kept: tuple, slope: Array
) -> tuple[Array, Array, Array | None]:
    x, kernel, has_bias = kept
    x_slope = product(slope, kernel, not transposed)
    kernel_slope = product(slope.T, x) if transposed else product(x.T, slope)
    bias_slope = _sum_rows(slope) if has_bias else None
    return x_slope.astype(x.dtype), kernel_slope.astype(kernel.dtype), bias_slope


linear.defvjp(_forward, _backward)


def product(left: Array, right: Array, transposed: bool = False) -> Array:
    """Returns products in float32, with all of their arrays stored by rows.

    XLA would otherwise choose other layouts for some of them, even after it has chosen
    how to multiply, and then fails when the program runs.

    Args:
      left: `[..., N, D]`.
      right: `[..., D, H]`, or `[..., H, D]` if transposed, with the same first axes.
      transposed: Whether the last axis of `right` is summed over.

    Returns:
      `[..., N, H]`.

    >>> product(jnp.ones((3, 2, 4)), jnp.ones((3, 5, 4)), transposed=True).shape
    (3, 2, 5)
    """
    axes = tuple(range(left.ndim))
    by_rows = Layout(major_to_minor=axes)
    left, right = (with_layout_constraint(each, by_rows) for each in (left, right))
    summed = (axes[-1:], axes[-1:] if transposed else axes[-2:-1])
    batch = (axes[:-2], axes[:-2])
    y = jax.lax.dot_general(
        left, right, (summed, batch), preferred_element_type=jnp.float32
    )
    return with_layout_constraint(y, by_rows)


def _sum_rows(slope: Array) -> Array:
    """Returns the sum `[H]` of the rows of `[N, H]`, as a product, which is faster."""
    ones = jnp.ones((SMALLEST // 4, slope.shape[0]), slope.dtype)
    return product(ones, slope)[0].astype(slope.dtype)
