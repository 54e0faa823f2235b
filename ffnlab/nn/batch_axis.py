"""The examples of a batch that are divided over devices, inside a model."""

from collections.abc import Callable

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


def is_divided() -> bool:
    """Returns whether a mesh divides arrays over devices where the code does not say.

    It does inside `jax.set_mesh`, except for the axes of a `jax.shard_map`.

    >>> is_divided()
    False
    """
    mesh = jax.sharding.get_abstract_mesh()
    sizes = (mesh.shape[axis] for axis in {*mesh.axis_names} - {*mesh.manual_axes})
    return any(size > 1 for size in sizes)


def own_part() -> tuple[Array | int, int]:
    """Returns which part of the batch the code works on, and the number of parts.

    Inside `jax.shard_map` over `data` it is the part of one device, and elsewhere the
    whole.

    >>> own_part()
    (0, 1)
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.manual_axes:
        return 0, 1
    return jax.lax.axis_index(AXIS), mesh.shape[AXIS]


def draw_rows(
    draw: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]
) -> Array:
    """Returns what is drawn at random for the rows that the code works on.

    A device that works on a part of the batch receives its rows of what is drawn for
    the whole batch, so that results do not depend on the number of devices.

    Args:
      draw: `draw(shape)` returns random values.
      shape: The shape of the part, `[B, ...]`.

    >>> draw_rows(jax.numpy.ones, (2, 3)).shape
    (2, 3)
    """
    part, parts = own_part()
    if parts == 1 or not shape:
        return draw(shape)
    whole = draw((parts * shape[0], *shape[1:]))
    return jax.lax.dynamic_slice_in_dim(whole, part * shape[0], shape[0])
