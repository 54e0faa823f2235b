"""Checkpoints of earlier versions, as if today's version had written them."""

from typing import Any

import numpy as np

# Counted up when programs or the names of what is saved change. Runs saved before may
# have another program, and those of format 1 moments of frozen arrays. Populations
# recorded the number of devices up to format 3, and the number of members since.
FORMAT = 4
_TRAINED = "inner_states/train/inner_state/"  # of optax.selective_transform


def with_todays_names(held: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint recorded of its run, in today's format.

    What older formats had not, or compiled from older code, is that of the run.

    Args:
      held: What was recorded.
      run: What would be recorded today.

    >>> with_todays_names({"devices": 2}, {"format": FORMAT, "members": 8})
    {'format': 4, 'members': 8}
    """
    if held.get("format", 1) not in range(1, FORMAT):
        return held
    today = {name: run[name] for name in ("program", "members") if name in run}
    kept = {name: value for name, value in held.items() if name != "devices"}
    return {**kept, "format": FORMAT, **today}


def without_frozen_moments(
    leaves: dict[str, np.ndarray], wanted: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Returns a checkpoint under today's names of the optimizer's state.

    Optimizers had moments for frozen arrays too, until `optax.selective_transform` gave
    the state of trained arrays a name of its own; the former are dropped.
    """
    today = {name.replace(_TRAINED, ""): name for name in wanted if _TRAINED in name}
    if not today or today.values() & leaves.keys():
        return leaves
    inside = {name.partition(_TRAINED)[0] for name in today.values()}
    kept = {today.get(name, name): array for name, array in leaves.items()}
    return {
        name: array
        for name, array in kept.items()
        if name in wanted or not any(name.startswith(prefix) for prefix in inside)
    }
