"""The state of a training, and the step that changes it.

`make_step` makes `step(state, batch) -> (state, loss)`; `scan_steps` scans it over many
batches in one call, and `make_steps` does both for a learner.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ffnlab import data
from ffnlab.nn.statistics import join_stats, split_stats
from ffnlab.train import divided_gradient
from ffnlab.train.batch_statistics import gradient_and_stats
from ffnlab.train.evaluation import Take
from ffnlab.train.learner import Frozen, Learner, bind
from ffnlab.train.objectives import mean_loss
from ffnlab.train.optimizers import with_learning_rate
from ffnlab.train.sharding import Layout, constrain
from ffnlab.types import Array, Batch, Key, Params

Step = Callable[["TrainState", Batch], tuple["TrainState", Array]]


class TrainState(NamedTuple):
    """Everything that a step reads and writes.

    Attributes:
      step: The number of steps taken, int32 `[]`.
      key: The raw words of the run's root key; step t draws from `fold_in(key, t)`.
      params: The model's arrays, with its running statistics if it has any.
      optimizer: The optimizer's arrays.
    """

    step: Array
    key: Array
    params: Params
    optimizer: Any


def init_state(
    learner: Learner | Frozen,
    key: Key,
    seed: Array | int,
    learning_rate: Array | float | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      learner: The model and its optimizer.
      key: The root key of the experiment.
      seed: The number of the run; runs of one seed start from equal parameters.
      learning_rate: The peak learning rate; None is the optimizer's own.
    """
    learner = learner.learner if isinstance(learner, Frozen) else learner
    root = jax.random.fold_in(key, seed)
    start, steps = jax.random.split(root)
    params = learner.model.init(start)
    state = learner.optimizer.init(split_stats(params)[0])
    if learning_rate is not None:
        state = with_learning_rate(state, learning_rate)
    return TrainState(
        jnp.zeros((), jnp.int32), jax.random.key_data(steps), params, state
    )


def make_step(learner: Learner) -> Step:
    """Returns `step(state, batch) -> (state, loss)`, a pure function.

    Running statistics, the entry `stats` of the parameters, become those that the model
    returns for the batch; everything else is trained.

    >>> from ffnlab.models import TowerConfig, tower
    >>> from ffnlab.nn import BlockConfig
    >>> from ffnlab.train import OBJECTIVES, optimizers
    >>> model = tower(TowerConfig(4, 3, BlockConfig("mlp", 8, 8)))
    >>> learner = Learner(model, OBJECTIVES["classes"], optimizers.make("sgd", 0.1))
    >>> state = init_state(learner, jax.random.key(0), 0)
    >>> batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 2])}
    >>> state, loss = make_step(learner)(state, batch)
    >>> int(state.step), bool(loss > 0)
    (1, True)
    """
    model, objective, optimizer, gradient, _ = learner
    gradient = gradient or jax.value_and_grad(mean_loss(model, objective))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        trained, stats = split_stats(state.params)
        if stats is None:
            loss, grads = gradient(state.params, batch, key)
        else:
            loss, grads, stats = gradient_and_stats(learner, state.params, batch, key)
        updates, moments = optimizer.update(grads, state.optimizer, trained)
        params = join_stats(optax.apply_updates(trained, updates), stats)
        return TrainState(state.step + 1, state.key, params, moments), loss

    return step


def make_steps(
    learner: Learner | Frozen, layout: Layout | None = None
) -> Callable[..., tuple[TrainState, Array]]:
    """Returns `steps(state, arrays, indices) -> (state, losses)`; see `scan_steps`."""

    def steps(state: TrainState, arrays: Any, indices: Array):
        bound, arrays = bind(learner, arrays)
        if divided_gradient.applies(bound, layout):
            gradient = divided_gradient.divided_gradient(bound, layout)
            bound = bound._replace(gradient=gradient)
        return scan_steps(make_step(bound), take_along(layout))(state, arrays, indices)

    return steps


def take_along(layout: Layout | None) -> Take:
    """Returns `data.take`, whose batches are divided over the devices of a layout."""
    if layout is None:
        return data.take
    return lambda arrays, index: constrain(layout, data.take(arrays, index))


def scan_steps(step: Step, take: Take) -> Callable[..., tuple[TrainState, Array]]:
    """Returns `steps(state, data, indices) -> (state, losses)`: a scan of `step`.

    Args:
      step: From `make_step`.
      take: `take(data, index) -> batch`; it runs on the device, inside the scan.

    Returns:
      A pure function of the state, the arrays of the data set, and int `[steps, B]`:
      the examples of each step's batch. Of arrays `[batches, B, ...]` it is int
      `[steps]`, the batch of each step. `losses` is `[steps]`.
    """

    def steps(state: TrainState, data: Any, indices: Array) -> tuple[TrainState, Array]:
        return jax.lax.scan(lambda s, i: step(s, take(data, i)), state, indices)

    return steps
