"""Functions of one member of a population, as functions of all of them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ffnlab.nn.attention_kernel import only_xla
from ffnlab.train.sharding import Layout

Batching = Literal["auto", "map", "vmap"]
MEMBERS, SHARED = PartitionSpec("members"), PartitionSpec()


def members_mesh(size: int) -> Mesh:
    """Returns the local devices of a population of some size, along `members`.

    They are all of them, but no more than there are members: the devices of a CPU share
    its cores, and one without a member of its own would repeat the work of another.
    """
    return Mesh(np.array(jax.local_devices()[:size]), ("members",))


def parts(layout: Layout | None, size: int | None = None) -> int:
    """Returns the number of parts that a population is divided into.

    Args:
      layout: How members are divided; see `spread`.
      size: The number of members; None is a population of as many as one likes.
    """
    if layout:
        return layout.sizes["replicas"]
    devices = jax.local_device_count()
    return devices if size is None else min(devices, size)


def member_sharding(layout: Layout | None, size: int) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is that of the members.

    Args:
      layout: How members are divided; see `spread`.
      size: The number of members.
    """
    if layout:
        return layout.along("replicas")
    return NamedSharding(members_mesh(size), MEMBERS)


def pad_members(members: Any, layout: Layout | None = None) -> Any:
    """Repeats the last member until all parts have equally many members."""
    size = len(jax.tree.leaves(members)[0])
    devices = parts(layout, size)
    padded = -(-size // devices) * devices
    index = np.minimum(np.arange(padded), size - 1)
    return jax.tree.map(lambda array: array[index], members)


def spread(
    function: Callable[[Any, Any], Any],
    batching: Batching = "auto",
    layout: Layout | None = None,
) -> Callable[[Any, Any], Any]:
    """Returns a function of one member as a function of a whole population.

    Args:
      function: `function(member, shared)`, pure.
      batching: `map` trains members in turn, `vmap` together; `auto` is `map` on CPU.
      layout: Members are divided along `replicas`, and the arrays of each along the
        other axes; None divides them over the local devices.

    Returns:
      The function of members with a leading axis, which must be a multiple of the
      number of parts, and of what all of them share.
    """
    if batching == "auto":
        batching = "map" if jax.default_backend() == "cpu" else "vmap"

    def local(members: Any, shared: Any) -> Any:
        if batching == "vmap":
            with only_xla("masked models are trained together", masked=True):
                return jax.vmap(function, in_axes=(0, None))(members, shared)
        return jax.lax.map(lambda member: function(member, shared), members)

    def divided(members: Any, shared: Any) -> Any:
        if layout:
            options = {"mesh": layout.mesh, "axis_names": {"replicas"}}
            axis = PartitionSpec("replicas")
        else:
            size = len(jax.tree.leaves(members)[0])
            options, axis = {"mesh": members_mesh(size)}, MEMBERS
        # Members never meet, so there is nothing for the check of varying axes to find,
        # and with jax 0.12 it refuses the polynomial inside erf.
        run = jax.shard_map(
            local, in_specs=(axis, SHARED), out_specs=axis, check_vma=False, **options
        )
        return run(members, shared)

    return divided
