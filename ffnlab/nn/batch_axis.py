"""Keeps the examples of a batch divided over devices inside a model."""

import jax
from jax.sharding import AxisType, PartitionSpec

from ffnlab.types import Array

AXIS = "data"  # of the mesh


def divide_batch(x: Array, dimension: int = 0) -> Array:
    """Returns an array whose first dimension is divided along `data`.

    Without it XLA may gather the batch where parameters are divided along `data` too.
    It does nothing outside `jax.set_mesh`, with a mesh that has no such axis, or where
    the devices along it do not divide the batch.

    Args:
      x: `[B, ...]`.
      dimension: The dimension to divide instead, such as that of positions.

    >>> divide_batch(jax.numpy.ones((4, 2))).shape
    (4, 2)
    """
    mesh = jax.sharding.get_abstract_mesh()
    size = mesh.shape.get(AXIS, 1)
    if size == 1 or x.ndim <= dimension or x.shape[dimension] % size:
        return x
    if mesh.axis_types[mesh.axis_names.index(AXIS)] != AxisType.Auto:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * dimension, AXIS))
