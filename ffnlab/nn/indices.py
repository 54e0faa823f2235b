"""Bounds of indices: a look-up out of a table's range gives NaN, without an error."""

from typing import Any

import jax
import numpy as np

from ffnlab.errors import InputError


def check_indices(name: str, indices: Any, count: int, what: str = "rows") -> None:
    """Checks that all indices are in the range of a table.

    Inside of a transformation, such as `jax.jit`, values are unknown and not checked.

    Args:
      name: What the indices are, for the error.
      indices: Int array of any shape.
      count: The number of rows of the table.
      what: What the table has, for the error.

    Raises:
      InputError: An index is negative, or not below `count`.

    >>> check_indices("tokens", np.array([[0, 31]]), 31, "embeddings")
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: tokens: 31 is not one of the 31 embeddings, 0 to 30
    """
    if isinstance(indices, jax.core.Tracer):
        return
    values = np.asarray(indices)
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size:
        raise InputError(
            f"{name}: {wrong.flat[0]} is not one of the {count} {what}, 0 to "
            f"{count - 1}"
        )
