"""Functions of one member of a population, as functions of all of them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

Batching = Literal["auto", "map", "vmap"]
MEMBERS, SHARED = PartitionSpec("members"), PartitionSpec()


def members_mesh() -> Mesh:
    """Returns all local devices along one axis, `members`."""
    return Mesh(np.array(jax.local_devices()), ("members",))


def pad_members(members: Any) -> Any:
    """Repeats the last member until all devices have equally many members."""
    devices, size = jax.local_device_count(), len(jax.tree.leaves(members)[0])
    padded = -(-size // devices) * devices
    index = np.minimum(np.arange(padded), size - 1)
    return jax.tree.map(lambda array: array[index], members)


def spread(
    function: Callable[[Any, Any], Any], batching: Batching = "auto"
) -> Callable[[Any, Any], Any]:
    """Returns a function of one member as a function of a whole population.

    Args:
      function: `function(member, shared)`, pure.
      batching: `map` trains members in turn, `vmap` together; `auto` is `map` on CPU.

    Returns:
      The function of members with a leading axis, which must be a multiple of the
      number of devices, and of what all of them share.
    """
    if batching == "auto":
        batching = "map" if jax.default_backend() == "cpu" else "vmap"

    def local(members: Any, shared: Any) -> Any:
        if batching == "vmap":
            return jax.vmap(function, in_axes=(0, None))(members, shared)
        return jax.lax.map(lambda member: function(member, shared), members)

    # Members never meet, so there is nothing for the check of varying axes to find,
    # and with jax 0.12 it refuses the polynomial inside erf.
    return jax.shard_map(
        local,
        mesh=members_mesh(),
        in_specs=(MEMBERS, SHARED),
        out_specs=MEMBERS,
        check_vma=False,
    )
