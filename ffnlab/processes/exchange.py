"""What processes of a run say to each other; each function is called by all of them.

Without other processes they cost nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ffnlab import signals
from ffnlab.errors import InputError
from ffnlab.processes import runtime


def check_equal(what: str, values: Mapping[str, str], remedy: str) -> None:
    """Raises, in all processes, if one has other values than process 0.

    Args:
      what: What the values are.
      values: Texts by name.
      remedy: What to do.

    Raises:
      InputError: The first process and the first name that differ are named.
    """
    run = runtime.current()
    if run is None:
        return
    first, *others = map(json.loads, run.all_gather(json.dumps(dict(values))))
    for index, other in enumerate(others, 1):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                here, there = (_named(name, each.get(name)) for each in (other, first))
                raise InputError(
                    f"the processes have different {what}: process {index} has {here}, "
                    f"process 0 has {there}; {remedy}"
                )


def _named(name: str, value: str | None) -> str:
    return f"no {name}" if value is None else f"{name}{value}"


def first_does(function: Callable[[], Any]) -> Any:
    """Returns what a function returns in process 0, which alone calls it.

    The others wait for it. What is returned can be written as JSON.

    Raises:
      InputError: Process 0 raised it.
    """
    run = runtime.current()
    if run is None:
        return function()
    outcome: tuple[Any, str | None] = (None, None)
    if run.index == 0:
        try:
            outcome = (function(), None)
        except InputError as error:
            run.broadcast(json.dumps((None, str(error))))
            raise
    result, wrong = json.loads(run.broadcast(json.dumps(outcome)))
    if wrong is not None:
        raise InputError(wrong)
    return result


def agree(values: Sequence[int]) -> list[list[int]]:
    """Returns the integers of each process, by way of the devices.

    Args:
      values: The integers of this process, of equal number in all of them.

    >>> agree([3, 4])
    [[3, 4]]
    """
    if not runtime.several():
        return [list(values)]
    import numpy as np
    from jax.experimental import multihost_utils

    _meet_once()
    return multihost_utils.process_allgather(np.array(values, np.int32)).tolist()


def stop_requested() -> bool:
    """Returns whether this or another process has received a signal that stops a run.

    The signal of another process counts as one of this, so that all stop together.

    >>> stop_requested()
    False
    """
    if not runtime.several():
        return signals.pending() is not None
    received = [number for (number,) in agree([signals.pending() or 0]) if number]
    if received and signals.pending() is None:
        signals.receive(received[0])
    return bool(received)


def meet() -> None:
    """Waits until all processes are here.

    Devices that exchange arrays for the first time wait half a minute for each other,
    and one process may compile or read for longer than the others.
    """
    run = runtime.current()
    if run is not None:
        run.all_gather("")


def _meet_once() -> None:
    """Waits for all processes before the first exchange between all devices."""
    if runtime.is_new():
        meet()


def place(tree: Any, shardings: Any) -> Any:
    """Returns a tree of arrays that all processes have, on devices of all.

    Args:
      tree: Arrays of NumPy, or on devices of this process; equal in all processes.
      shardings: A sharding, or one for each array; None is the default device.
    """
    import jax

    if shardings is None or not runtime.several():
        return jax.device_put(tree, shardings)
    import numpy as np

    def divide(leaf: Any, sharding: Any) -> Any:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(divide, tree, shardings)


def own_rows(sharding: Any, rows: int) -> Any:
    """Returns which rows of a batch the devices of this process hold, int `[own]`.

    Args:
      sharding: That of batches `[steps, B, ...]`; None is the default device.
      rows: The number B of rows of a batch.

    >>> own_rows(None, 4).tolist()
    [0, 1, 2, 3]
    """
    import numpy as np

    places = np.arange(rows)
    if sharding is None or not runtime.several():
        return places
    held = sharding.addressable_devices_indices_map((1, rows)).values()
    return np.unique(np.concatenate([places[part] for _, part in held]))


def place_rows(tree: Any, sharding: Any, rows: int) -> Any:
    """Returns batches of which each process has its own rows, on devices of all.

    Args:
      tree: Arrays of NumPy, `[steps, own, ...]`, of the rows of `own_rows`.
      sharding: That of batches `[steps, B, ...]`; None is the default device.
      rows: The number B of rows of a batch.
    """
    import jax

    if sharding is None or not runtime.several():
        return jax.device_put(tree, sharding)
    import numpy as np

    own = own_rows(sharding, rows)

    def divide(leaf: Any) -> Any:
        def part(index: tuple[slice, ...]) -> Any:
            start, stop, _ = index[1].indices(rows)
            return leaf[:, slice(*np.searchsorted(own, (start, stop)))]

        shape = (leaf.shape[0], rows, *leaf.shape[2:])
        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(divide, tree)


def gather(tree: Any) -> Any:
    """Returns a tree of arrays that are divided over processes, as arrays of each.

    >>> gather({"kernel": 1.0})
    {'kernel': 1.0}
    """
    if not runtime.several():
        return tree
    import jax
    from jax.experimental import multihost_utils

    _meet_once()

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)
