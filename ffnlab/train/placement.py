"""Programs and arrays of a training on one device, or on those of a layout."""

from collections.abc import Callable
from typing import Any

import jax

from ffnlab import data, processes
from ffnlab.train.inputs import on_demand
from ffnlab.train.learner import Frozen, Learner, with_frozen
from ffnlab.train.program import Program
from ffnlab.train.sharding import Layout
from ffnlab.train.train_step import TrainState, init_state, make_steps
from ffnlab.types import Key


def make_program(learner: Learner | Frozen, key: Key, layout: Layout | None) -> Program:
    """Returns the steps of a run, whose state stays where it is."""
    if layout is None:
        return Program(make_steps(learner), donate=(0,))
    shapes = jax.eval_shape(lambda: init_state(learner, key, 0))
    shardings = (layout.shardings(shapes), layout.replicated)
    # What a checkpoint is of does not depend on the layout.
    like = Program(make_steps(learner), donate=(0,))
    return Program(make_steps(learner, layout), (0,), shardings, layout.mesh, like)


def on_mesh(function: Callable[..., Any], layout: Layout | None) -> Program:
    """Returns the program of a function whose outputs all devices of a mesh hold."""
    if layout is None:
        return Program(function)
    return Program(function, shardings=layout.replicated, mesh=layout.mesh)


def place_arrays(learner: Learner | Frozen, part: Any, layout: Layout | None) -> Any:
    """Returns a part of the data, with the frozen arrays if any, on the devices.

    A `data.Streamed` stays where it is; what it reads is placed for each call.
    """
    if isinstance(part, data.Streamed):
        return on_demand(learner, part, layout)
    if layout is None:
        return jax.device_put(with_frozen(learner, part))
    part = processes.place(part, layout.replicated)
    if isinstance(learner, Frozen):
        learner = learner._replace(arrays=layout.place(learner.arrays))
    return with_frozen(learner, part)


def init_placed(
    learner: Learner | Frozen,
    key: Key,
    seed: int,
    learning_rate: float | None,
    layout: Layout | None,
) -> TrainState:
    """Returns the state before the first step, on the devices of a layout.

    With a layout it is made in the memory of the host, since one device may be too
    small to hold it.
    """
    if layout is None:
        return init_state(learner, key, seed, learning_rate)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        state = init_state(learner, key, seed, learning_rate)
    return layout.place(state)
