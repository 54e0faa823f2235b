"""Linear layers: their equation, and the module that adapters can be attached to."""

import functools
from typing import Any

from flax import nnx

from ffnlab.nn import bfloat16_linear
from ffnlab.nn.adapters import attached, fold_name
from ffnlab.nn.batch_axis import is_divided
from ffnlab.nn.default_platform import default_platform
from ffnlab.types import Array, Key

Weights = dict[str, Any]


def product(x: Array, kernel: Array, transposed: bool = False) -> Array:
    """Returns `x @ kernel`, as a product of two matrices; see `as_rows`.

    Args:
      x: `[..., D]`.
      kernel: `[D, H]`.
      transposed: Whether the kernel is `[H, D]`, as that of tied embeddings.

    Returns:
      `[..., H]`.

    >>> from jax import numpy as jnp
    >>> product(jnp.ones((4, 5, 2)), jnp.ones((2, 3))).shape
    (4, 5, 3)
    """
    return _affine(x, kernel, None, transposed)


def _affine(
    x: Array, kernel: Array, bias: Array | None, transposed: bool = False
) -> Array:
    """Returns `x @ kernel`, and with a bias `x @ kernel + bias`, `[..., H]`."""
    right = kernel.T if transposed else kernel
    rows = as_rows(x)
    if bfloat16_linear.takes(rows, right):
        return from_rows(bfloat16_linear.linear(rows, kernel, bias, transposed), x)
    y = from_rows(rows @ right, x)
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def as_rows(x: Array) -> Array:
    """Returns `[..., D]` as a matrix `[N, D]` on a CPU, where layers then are faster.

    With more axes, the gradient of a kernel sums over several of them, for which XLA on
    a CPU transposes both of its operands. On a GPU the axes stay as they are: there the
    sum for a bias over the rows of all positions is slow after attention, which stores
    positions last. They also stay where a mesh divides arrays, since it may divide any
    of them. An input of several layers is made a matrix once, so that they keep one
    array for the backward pass.

    >>> from jax import numpy as jnp
    >>> as_rows(jnp.ones((4, 5, 2))).shape, as_rows(jnp.ones(2)).shape
    ((20, 2), (2,))
    """
    if x.ndim < 3 or is_divided() or default_platform() != "cpu":
        return x
    return x.reshape(-1, x.shape[-1])


def from_rows(y: Array, x: Array) -> Array:
    """Returns `[..., H]`, where y is what a layer made of `as_rows(x)`."""
    return y.reshape(*x.shape[:-1], y.shape[-1])


def dense(x: Array, weights: Weights) -> Array:
    """Returns `x @ kernel + bias`, changed by adapters if there are any.

    Args:
      x: `[..., D]`.
      weights: `kernel` `[D, H]`, and `bias` `[H]` if the layer has one; of a layer with
        adapters also `adapters` and `key`, as `weights` returns them.

    Returns:
      `[..., H]`.

    >>> from jax import numpy as jnp
    >>> kernel = jnp.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
    >>> weights = {"kernel": kernel, "bias": jnp.array([0.0, 1])}
    >>> dense(jnp.array([1.0, 2, 3]), weights)
    Array([14., 33.], dtype=float32)
    """

    def call(x: Array) -> Array:
        return _affine(x, weights["kernel"], weights.get("bias"))

    for adapter in weights.get("adapters", ()):
        call = functools.partial(adapter, call, weights=weights)
    return call(x)


def weights(linear: nnx.Linear, key: Key | None = None, name: str = "") -> Weights:
    """Returns the arrays of a linear layer in the form that equations take.

    Args:
      linear: The layer.
      key: Dropout key of its adapters; None in evaluation.
      name: Name of the layer, so that layers with the same key draw independently.

    >>> sorted(weights(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    ['bias', 'kernel']
    """
    arrays: Weights = {"kernel": linear.kernel[...]}
    if linear.bias is not None:
        arrays["bias"] = linear.bias[...]
    if adapters := attached(linear):
        arrays |= {"adapters": adapters, "key": fold_name(key, name)}
    return arrays


class Linear(nnx.Linear):
    """A linear layer that adapters can be attached to.

    >>> from jax import numpy as jnp
    >>> y = Linear(2, 3, rngs=nnx.Rngs(0))(jnp.ones((5, 2)))
    >>> y.shape
    (5, 3)
    """

    def __call__(self, x: Array, key: Key | None = None, name: str = "") -> Array:
        """Returns `[..., H]` of `[..., D]`; key and name are those of `weights`."""
        if attached(self):
            return dense(x, weights(self, key, name))
        rows = as_rows(x)
        if bfloat16_linear.takes(rows, self.kernel[...]):
            return dense(x, weights(self, key, name))
        return from_rows(super().__call__(rows), x)
