"""Populations: many runs of one model trained by one compiled program.

The members differ in their seed and learning rate and nothing else, so their states
are stacked along a leading axis `[S]`, which is sharded over the local devices. On an
accelerator the members of a device are batched by `jax.vmap`. On a CPU they are trained
one after the other by `jax.lax.map`: the arrays of a member then stay in the cache for
the whole call, and the product of two matrices is not a batched product, which is slow
there (`benchmarks/sweep.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, Sharding

from ffnlab import data, processes
from ffnlab.sweep.scoring import make_scorer, scored_parts
from ffnlab.sweep.spreading import (
    SHARED,
    Batching,
    member_sharding,
    members_mesh,
    pad_members,
    spread,
)
from ffnlab.train.divergence import train_to_last_good
from ffnlab.train.evaluation import Evaluator
from ffnlab.train.learner import Frozen, Learner, with_frozen
from ffnlab.train.loop import NO_HOOKS, Fit, Hooks, run_identity, run_loop
from ffnlab.train.placement import place_arrays
from ffnlab.train.program import Program, Programs
from ffnlab.train.record import Plan
from ffnlab.train.sharding import Layout
from ffnlab.train.train_step import TrainState, init_state, make_steps
from ffnlab.types import Array, Key

OWN_RATE = (np.nan,)  # the learning rates of an optimizer that has its own


class Population(NamedTuple):
    """A trained population.

    Attributes:
      seeds: The seed of each member, int `[S]`.
      learning_rates: The peak learning rate of each member, float `[S]`; NaN for the
        optimizer's own.
      fit: States, best parameters and record, all with the leading axis `[S]`.
    """

    seeds: np.ndarray
    learning_rates: np.ndarray
    fit: Fit


class Members(NamedTuple):
    """The seed, learning rate and split of each member of a population.

    Attributes:
      seeds: Their seeds, int `[S]`.
      learning_rates: Their peak learning rates, float32 `[S]`; all NaN for the
        optimizer's own.
      splits: The number of each one's replicate, int `[S]`; 0 if all share the data.
    """

    seeds: np.ndarray
    learning_rates: np.ndarray
    splits: np.ndarray


class Inputs(NamedTuple):
    """What the programs of a population train on.

    Attributes:
      state: The states of all members before the first step, `[S]`.
      arrays: The training part, and the validation part with the rows of each member.
      indices: `indices(start, stop)` returns the examples of those steps' batches,
        int `[S, steps, B]`.
    """

    state: TrainState
    arrays: tuple[Any, Any]
    indices: Callable[[int, int], Array]


def fit_population(
    learner: Learner | Frozen,
    dataset: Any,
    plan: Plan,
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float] | None = None,
    key: Key | None = None,
    evaluator: Evaluator | None = None,
    hooks: Hooks = NO_HOOKS,
    batching: Batching = "auto",
    layout: Layout | None = None,
) -> Population:
    """Trains seeds × learning rates together, each as `train.fit` would alone.

    Only a plan with patience shows a difference: a member that has stopped keeps its
    best parameters, and its state and curve go on until all have stopped.

    Args:
      learner: The model, its objective and its optimizer, whose learning rate is
        replaced where rates are given.
      dataset: A `Dataset` or `train.Parts`, or `data.Replicates` with a split for each
        seed; a test part is not used.
      plan: How long to train and how often to evaluate.
      seeds: The initial parameters and the order of the data. Runs of one seed share
        both whatever their learning rate, and the order whatever their model.
      learning_rates: The peak learning rates; None is the optimizer's own.
      key: The root key of the experiment; `jax.random.key(0)` if None.
      evaluator: What scores all members, `[S]` each; None is the objective on the
        validation part.
      hooks: Checkpoints, and a function to call after every evaluation.
      batching: See `spread`.
      layout: How members, batches and parameters are divided over devices; None divides
        the members over all local devices.

    Returns:
      The population, members ordered by learning rate, then by seed.

    Raises:
      InputError: Rates are given to an optimizer that has a rate of its own.

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
    rates = None if learning_rates is None else [*map(float, learning_rates)]
    return fit_members(
        learner,
        dataset,
        plan,
        grid(seeds, rates),
        make_programs(learner, evaluator, batching, layout),
        identity={"seeds": [*map(int, seeds)], "learning_rates": rates},
        key=key,
        hooks=hooks,
        layout=layout,
    )


def grid(seeds: Sequence[int], learning_rates: Sequence[float] | None) -> Members:
    """Returns seeds × learning rates, ordered by learning rate, then by seed.

    Without learning rates there is one for each seed, NaN, which is the optimizer's
    own.
    """
    rates, runs = np.meshgrid(
        np.asarray(OWN_RATE if learning_rates is None else learning_rates, np.float32),
        np.asarray(seeds),
        indexing="ij",
    )
    splits = np.tile(np.arange(len(seeds)), len(rates))
    return Members(runs.ravel(), rates.ravel(), splits)


def fit_members(
    learner: Learner | Frozen,
    dataset: Any,
    plan: Plan,
    members: Members,
    programs: Programs,
    *,
    identity: dict[str, Any],
    key: Key | None = None,
    hooks: Hooks = NO_HOOKS,
    layout: Layout | None = None,
) -> Population:
    """Trains any members together; see `fit_population`.

    Args:
      learner: See `fit_population`, as for what is not named here.
      dataset: See `fit_population`.
      plan: See `fit_population`.
      members: Their seeds, learning rates and splits.
      programs: From `make_programs`, for the same layout. Calls with as many members
        compile nothing again.
      identity: Facts that a checkpoint must agree with to be resumed, ready for JSON.
      key: See `fit_population`.
      hooks: See `fit_population`.
      layout: See `fit_population`.
    """
    key = jax.random.key(0) if key is None else key
    padded = len(pad_members(members.seeds, layout))
    facts = run_identity(dataset, plan, key, **identity, members=padded)

    def train(until: int | None) -> Fit:
        inputs = make_inputs(learner, dataset, plan, members, key, layout)
        shape = inputs.state.step.shape
        return run_loop(programs, *inputs, plan, hooks, facts, shape, until)

    result = train_to_last_good(train)
    fit = _without_fillers(result, len(members.seeds))
    return Population(members.seeds, members.learning_rates, fit)


def make_inputs(
    learner: Learner | Frozen,
    dataset: Any,
    plan: Plan,
    members: Members,
    key: Key,
    layout: Layout | None = None,
) -> Inputs:
    """Returns what the programs of a population train on, placed on all devices.

    Args:
      learner: See `fit_population`, as for the data set and the plan.
      dataset: See `fit_population`.
      plan: See `fit_population`.
      members: Their seeds, learning rates and splits; the last one is repeated until
        all devices have equally many.
      key: The root key of the experiment.
      layout: See `fit_population`.
    """
    rows = {part: _rows(dataset, part, members.splits) for part in ("train", "valid")}
    padded = pad_members(members, layout)
    size = len(padded.seeds)
    sharded = member_sharding(layout, size)
    valid = processes.place(pad_members(rows["valid"], layout), sharded)
    state = _init_members(learner, key, padded)
    where = layout.shardings(state, ("replicas",)) if layout else sharded
    parts = (dataset.train, scored_parts(dataset)[0])
    shared = [_place(learner, each, layout, size) for each in parts]
    return Inputs(
        processes.place(state, where),
        (shared[0], (shared[1], valid)),
        _batches(padded.seeds, rows["train"], plan, sharded),
    )


def _place(
    learner: Learner | Frozen, part: Any, layout: Layout | None, size: int
) -> Any:
    """Returns a part of the data, with the frozen arrays if any, for all members."""
    if layout:
        return place_arrays(learner, part, layout)
    replicated = NamedSharding(members_mesh(size), SHARED)
    return jax.device_put(with_frozen(learner, part), replicated)


def _init_members(learner: Learner | Frozen, key: Key, members: Members) -> TrainState:
    """Returns the states of all members before the first step, `[S]`.

    It is not jitted: drawing is done once, and blocks of equal shapes share compiled
    operations.
    """
    if np.isnan(members.learning_rates).all():
        return jax.vmap(lambda seed: init_state(learner, key, seed))(members.seeds)
    init = jax.vmap(lambda seed, rate: init_state(learner, key, seed, rate))
    return init(members.seeds, members.learning_rates)


def _rows(dataset: Any, part: str, splits: np.ndarray) -> np.ndarray:
    """Returns the rows of a part that each member has, int32 `[S, N]`."""
    if isinstance(dataset, data.Replicates):
        return dataset.rows[part][splits]
    rows = np.arange(data.size(getattr(dataset, part)), dtype=np.int32)
    return np.broadcast_to(rows, (len(splits), len(rows)))  # takes no memory


def make_programs(
    learner: Learner | Frozen,
    evaluator: Evaluator | None = None,
    batching: Batching = "auto",
    layout: Layout | None = None,
) -> Programs:
    """Returns the functions that train and evaluate all members; see `fit_population`.

    They are compiled once for each number of members.
    """
    scan, first = make_steps(learner, layout), make_steps(learner)

    def steps(state: Any, arrays: Any, indices: Array) -> Any:
        def run(member: Any, arrays: Any) -> Any:
            return scan(member[0], arrays, member[1])

        return spread(run, batching, layout)((state, indices), arrays)

    def first_member(state: Any, arrays: Any, indices: Array) -> Any:
        return first(jax.tree.map(lambda leaf: leaf[0], state), arrays, indices[0])

    # What a checkpoint is of does not depend on how the members are divided.
    like = Program(first_member)
    evaluator = evaluator or make_scorer(learner, batching, layout)
    where = (_outputs(learner, layout), layout.mesh if layout else None)
    return Programs(Program(steps, (0,), *where, like), evaluator)


def _outputs(learner: Learner | Frozen, layout: Layout | None) -> Any:
    """Returns the shardings of the states and losses of all members; None for XLA's."""
    if layout is None:
        return None
    state = jax.eval_shape(lambda: init_state(learner, jax.random.key(0), 0))
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), state
    )
    return layout.shardings(stacked, ("replicas",)), layout.replicated


def _batches(
    seeds: np.ndarray, rows: np.ndarray, plan: Plan, sharding: Sharding
) -> Callable[[int, int], Array]:
    """Returns a function that returns the examples of some steps, `[S, steps, B]`."""
    member = np.minimum(np.arange(len(seeds)), len(rows) - 1)[:, None, None]

    def indices(start: int, stop: int) -> Array:
        steps = data.indices(seeds, start, stop, plan.batch, rows.shape[1])
        return processes.place(rows[member, steps.swapaxes(0, 1)], sharding)

    return indices


def _without_fillers(result: Fit, size: int) -> Fit:
    """Returns a result without the members that `pad_members` added."""
    if result.record.best.size == size:
        return result
    step = result.record.step
    state, best, rest = jax.tree.map(
        lambda array: array[:size],
        (result.state, result.best, result.record._replace(step=np.zeros(size))),
    )
    return result._replace(state=state, best=best, record=rest._replace(step=step))
