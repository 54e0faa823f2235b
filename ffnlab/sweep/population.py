"""Populations: many runs of one model trained by one compiled program.

The members differ in their seed and learning rate and nothing else, so their states
are stacked along a leading axis `[S]`, which is sharded over all local devices. On an
accelerator the members of a device are batched by `jax.vmap`. On a CPU they are trained
one after the other by `jax.lax.map`: the arrays of a member then stay in the cache for
the whole call, and the product of two matrices is not a batched product, which is slow
there (`benchmarks/sweep.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ffnlab import data
from ffnlab.data import Arrays
from ffnlab.train.evaluation import Evaluator, make_evaluate
from ffnlab.train.loop import (
    NO_HOOKS,
    Fit,
    Hooks,
    Learner,
    Program,
    Programs,
    TrainState,
    init_state,
    make_step,
    run_identity,
    run_loop,
    scan_steps,
)
from ffnlab.train.record import Plan
from ffnlab.types import Array, Key, Model, Objective, Params

Batching = Literal["auto", "map", "vmap"]
_MEMBERS, _SHARED = PartitionSpec("members"), PartitionSpec()


class Population(NamedTuple):
    """A trained population.

    Attributes:
      seeds: The seed of each member, int `[S]`.
      learning_rates: The peak learning rate of each member, float `[S]`.
      fit: States, best parameters and record, all with the leading axis `[S]`.
    """

    seeds: np.ndarray
    learning_rates: np.ndarray
    fit: Fit


def _mesh() -> Mesh:
    """Returns all local devices along one axis, `members`."""
    return Mesh(np.array(jax.local_devices()), ("members",))


def _pad_members(members: Any) -> Any:
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
        mesh=_mesh(),
        in_specs=(_MEMBERS, _SHARED),
        out_specs=_MEMBERS,
        check_vma=False,
    )


def fit_population(
    learner: Learner,
    dataset: Any,
    plan: Plan,
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    key: Key | None = None,
    evaluator: Evaluator | None = None,
    hooks: Hooks = NO_HOOKS,
    batching: Batching = "auto",
) -> Population:
    """Trains seeds × learning rates together, each as `train.fit` would alone.

    Only a plan with patience shows a difference: a member that has stopped keeps its
    best parameters, and its state and curve go on until all have stopped.

    Args:
      learner: The model, its objective and its optimizer, whose learning rate is
        replaced.
      dataset: A `Dataset` or `train.Parts`; a test part is not used.
      plan: How long to train and how often to evaluate.
      seeds: The initial parameters and the order of the data. Runs of one seed share
        both whatever their learning rate, and the order whatever their model.
      learning_rates: The peak learning rates.
      key: The root key of the experiment; `jax.random.key(0)` if None.
      evaluator: What scores all members, `[S]` each; None is the objective on the
        validation part.
      hooks: Checkpoints, and a function to call after every evaluation.
      batching: See `spread`.

    Returns:
      The population, members ordered by learning rate, then by seed.

    >>> from ffnlab.models import TowerConfig, tower
    >>> from ffnlab.nn import BlockConfig
    >>> from ffnlab.train import OBJECTIVES, optimizers
    >>> wine = data.load("wine")
    >>> block = BlockConfig("mlp:gelu", features=16, hidden=16)
    >>> model = tower(TowerConfig(wine.features, wine.classes, block))
    >>> learner = Learner(model, OBJECTIVES["classes"], optimizers.make("adam"))
    >>> population = fit_population(learner, wine, Plan(steps=20, every=20, batch=32),
    ...                             seeds=[0, 1], learning_rates=[0.001, 0.01])
    >>> population.fit.record.loss.shape, population.seeds.tolist()
    ((4, 20), [0, 1, 0, 1])
    """
    key = jax.random.key(0) if key is None else key
    rates, runs = np.meshgrid(
        np.asarray(learning_rates, np.float32), np.asarray(seeds), indexing="ij"
    )
    members = _pad_members((runs.ravel(), rates.ravel()))
    mesh = _mesh()
    sharded, replicated = NamedSharding(mesh, _MEMBERS), NamedSharding(mesh, _SHARED)
    identity = run_identity(
        dataset,
        plan,
        key,
        seeds=[*map(int, seeds)],
        learning_rates=[*map(float, learning_rates)],
        devices=mesh.size,
    )
    result = run_loop(
        _programs(learner, dataset, evaluator, batching),
        jax.device_put(_init_members(learner, key, members), sharded),
        jax.device_put((dataset.train, dataset.valid), replicated),
        _batches(members[0], plan, data.size(dataset.train), sharded),
        plan,
        hooks,
        identity,
        shape=members[0].shape,
    )
    return Population(runs.ravel(), rates.ravel(), _without_fillers(result, runs.size))


def _init_members(learner: Learner, key: Key, members: tuple[Any, Any]) -> TrainState:
    """Returns the states of all members before the first step, `[S]`.

    It is not jitted: drawing is done once, and blocks of equal shapes share compiled
    operations.
    """
    return jax.vmap(lambda seed, rate: init_state(learner, key, seed, rate))(*members)


def _programs(
    learner: Learner, dataset: Any, evaluator: Evaluator | None, batching: Batching
) -> Programs:
    """Returns the compiled functions that train and evaluate all members."""
    scan = scan_steps(make_step(learner), data.take)

    def steps(state: Any, arrays: Any, indices: Array) -> Any:
        one = spread(lambda member, data: scan(member[0], data, member[1]), batching)
        return one((state, indices), arrays)

    if evaluator is None:
        examples = data.size(dataset.valid)
        score = make_evaluate(learner.model, learner.objective, data.take, examples)
        evaluator = Program(spread(score, batching))
    return Programs(Program(steps, donate=(0,)), evaluator)


def _batches(
    seeds: np.ndarray, plan: Plan, size: int, sharding: NamedSharding
) -> Callable[[int, int], Array]:
    """Returns a function that returns the examples of some steps, `[S, steps, B]`."""

    def indices(start: int, stop: int) -> Array:
        steps = data.indices(seeds, start, stop, plan.batch, size)  # [steps, S, B]
        return jax.device_put(steps.swapaxes(0, 1), sharding)

    return indices


def _without_fillers(result: Fit, size: int) -> Fit:
    """Returns a result without the members that `_pad_members` added."""
    if result.record.best.size == size:
        return result
    step = result.record.step
    state, best, rest = jax.tree.map(
        lambda array: array[:size],
        (result.state, result.best, result.record._replace(step=np.zeros(size))),
    )
    return result._replace(state=state, best=best, record=rest._replace(step=step))


def evaluate_members(
    model: Model,
    objective: Objective,
    part: Arrays,
    params: Params,
    batching: Batching = "auto",
) -> dict[str, np.ndarray]:
    """Scores each member of a population on a part of the data.

    Args:
      model: The model of all members.
      objective: What is scored.
      part: A part of a data set, for instance `dataset.test`.
      params: The parameters of the members, with a leading axis `[S]`.
      batching: See `spread`.

    Returns:
      The mean of each score, `[S]`.
    """
    size = jax.tree.leaves(params)[0].shape[0]
    score = make_evaluate(model, objective, data.take, data.size(part))
    scores = jax.jit(spread(score, batching))(_pad_members(params), part)
    return {name: np.asarray(value)[:size] for name, value in scores.items()}
