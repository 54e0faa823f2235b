"""Learnable parameters of a block beside its projections: shapes and initial values."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.types import Array

_LETTERS = ("D", "H")


class BlockParameter(NamedTuple):
    """The shape and the initial value of a learnable parameter.

    Attributes:
      shape: Sizes: integers, `"D"` for the model width, `"H"` for the hidden width.
      value: A number, a function `value(key, shape) -> array`, or None. None is 1, or
        for a parameter whose name ends in `kernel`, the initializer of the block.

    >>> BlockParameter(("H", 2)).size(features=4, hidden=6)
    12
    """

    shape: tuple[int | str, ...] = ()
    value: float | Callable[..., Array] | None = None

    def sizes(self, features: int, hidden: int) -> tuple[int, ...]:
        """Returns the shape in numbers, given the widths D and H."""
        widths = dict(zip(_LETTERS, (features, hidden), strict=True))
        return tuple(widths.get(size, size) for size in self.shape)

    def size(self, features: int, hidden: int) -> int:
        """Returns the number of entries, given the widths D and H."""
        return math.prod(self.sizes(features, hidden))

    def init(
        self,
        features: int,
        hidden: int,
        initializer: Callable[..., Array],
        rngs: nnx.Rngs,
    ) -> Array:
        """Returns the initial array; `initializer` is that of the kernels."""
        shape = self.sizes(features, hidden)
        if isinstance(self.value, (int, float)):
            return jnp.full(shape, float(self.value))
        return (self.value or initializer)(rngs.params(), shape)


def as_parameter(name: str, spec: Any) -> BlockParameter:
    """Returns a parameter, given its shape or its initial value.

    Args:
      name: Name of the parameter.
      spec: A number or an array, the initial value; `"H"` or `"D"`, one number for each
        unit or feature; a tuple of sizes, such as `("H", 2)`; or a `BlockParameter`.

    Raises:
      InputError: It is none of these.

    >>> as_parameter("alpha", 0.5)
    BlockParameter(shape=(), value=0.5)
    >>> as_parameter("alpha", "H")
    BlockParameter(shape=('H',), value=1.0)
    """
    if isinstance(spec, BlockParameter):
        shape, value = spec
    elif isinstance(spec, str):
        shape, value = (spec,), None
    elif isinstance(spec, (tuple, list)):
        shape, value = tuple(spec), None
    else:
        shape, value = _value(name, spec)
    wrong = [size for size in shape if not _is_size(size)]
    if wrong:
        raise InputError(
            f'parameters: {name}: {wrong[0]!r} is no size; a size is "H" (hidden '
            'width), "D" (model width), or an integer of at least 1'
        )
    if value is None:
        value = None if name.endswith("kernel") else 1.0
        if value is None and len(shape) < 2:
            raise InputError(
                f"parameters: {name}: a name that ends in kernel is that of a matrix, "
                "whose product counts as operations; give two sizes, or another name"
            )
    return BlockParameter(tuple(shape), value)


def _is_size(size: Any) -> bool:
    """Returns whether a value is a letter of a width, or a positive integer."""
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    return size in _LETTERS if isinstance(size, str) else whole and size >= 1


def _value(name: str, spec: Any) -> tuple[tuple[int, ...], Any]:
    """Returns the shape of an initial value, and the value."""
    try:
        array = np.asarray(spec, np.float32)
    except (TypeError, ValueError):
        array = np.full((), np.nan)
    if not np.isfinite(array).all():
        raise InputError(
            f"parameters: {name}: {spec!r} should be a finite number or an array of "
            'them, the initial value; "H" or "D"; a tuple of sizes; or a '
            "BlockParameter(shape, value)"
        )
    if array.ndim == 0:
        return (), float(array)
    return array.shape, lambda key, shape: jnp.asarray(array)
