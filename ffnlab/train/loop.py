"""The loop of a training, which runs many steps per call.

`run_loop` calls the steps, evaluates, keeps the best parameters and saves checkpoints;
what a step does is in `train_step`. `fit` puts them together for one run and
`ffnlab.sweep` for a population: `run_loop` serves both, since everything it records has
either no leading axis or the axis `[S]`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data, processes, signals
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.divergence import are_finite, train_to_last_good
from ffnlab.train.evaluation import Evaluator, make_evaluate
from ffnlab.train.inputs import Indices, Inputs, make_inputs
from ffnlab.train.learner import Frozen, Learner, bind
from ffnlab.train.placement import init_placed, make_program, on_mesh, place_arrays
from ffnlab.train.program import Calls, Programs
from ffnlab.train.record import (
    Plan,
    Record,
    add_evaluation,
    add_losses,
    empty_record,
    mark_failed,
)
from ffnlab.train.sharding import Layout
from ffnlab.train.train_step import TrainState, take_along
from ffnlab.types import Array, Key, Params


class Hooks(NamedTuple):
    """What happens after every evaluation, and after a part of the steps before it.

    Attributes:
      checkpoints: Where to save and to resume from, bit for bit, or None.
      on_progress: A function to call with the record, or None.
    """

    checkpoints: Checkpoints | None = None
    on_progress: Callable[[Record], None] | None = None


NO_HOOKS = Hooks()


class Progress(NamedTuple):
    """What a training has reached, and a checkpoint holds.

    Attributes:
      state: The state after the last step.
      best: The parameters that scored best on the validation part.
      record: What was recorded.
    """

    state: TrainState
    best: Params
    record: Record


class Fit(NamedTuple):
    """A finished training, or a population of them.

    Attributes:
      state: The state after the last step.
      best: The parameters that scored best on the validation part.
      record: What was recorded.
      seconds_per_step: The time of a step, of all members together, without compiling;
        NaN where nothing was left to run.
      compile_seconds: The time that compiling the steps took.
    """

    state: TrainState
    best: Params
    record: Record
    seconds_per_step: float
    compile_seconds: float


@jax.jit
def _copy(params: Params) -> Params:
    """Returns a copy of parameters, compiled once for all trainings of these shapes."""
    return jax.tree.map(jnp.copy, params)


def _keep(better: Array, params: Params, best: Params) -> Params:
    """Returns the parameters of runs that got better, and the best of the others."""

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(
            better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old
        )

    return jax.tree.map(pick, params, best)


def run_loop(
    programs: Programs,
    state: TrainState,
    arrays: tuple[Any, Any],
    indices: Indices,
    plan: Plan,
    hooks: Hooks = NO_HOOKS,
    identity: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (),
    until: int | None = None,
) -> Fit:
    """Trains to the end of a plan, from the start or from the last checkpoint.

    A single run ends before the first step whose loss is not finite. Where launchers
    handle signals, one is raised when the steps at work are done and saved.

    Args:
      programs: The compiled functions.
      state: The state before the first step. Its memory is taken over.
      arrays: The training and the validation part, of `place_arrays`.
      indices: `indices(start, stop)` returns the examples of those steps' batches.
      plan: How long to train and how often to evaluate.
      hooks: What happens after every call of the steps.
      identity: What, beside the program, tells this run from others, ready for JSON.
      shape: `()` for one run, `(S,)` for a population.
      until: The step to end at, with an evaluation, above 0; it is reached in calls of
        one step, and nothing is saved. None is the end of the plan.

    Raises:
      InputError: The checkpoint is of another run.
    """
    steps, evaluator = programs
    best = _copy(state.params)
    record = empty_record(plan, evaluator.outputs(state.params, arrays[1]), shape)
    progress = Progress(state, best, record)
    calls = Calls(plan, plan.steps, plan.every)
    inputs = make_inputs(arrays[0], indices)
    if hooks.checkpoints or inputs.streamed:
        first = inputs.shapes(0, calls.end(0))
        operations = steps.operations(state, *first)
        calls = calls.within(operations * record.best.size)
    if hooks.checkpoints:
        program = steps.fingerprint(state, *inputs.shapes(0, calls.end(0)))
        hooks.checkpoints.check_run({**(identity or {}), "program": program})
        saved = Progress(*hooks.checkpoints.restore(tuple(progress)))
        if until is None or saved.record.step < until:
            progress = saved
    if until is not None:
        calls, hooks = Calls(plan, until, 1), hooks._replace(checkpoints=None)
    resumed = int(progress.record.step)
    with hooks.checkpoints or contextlib.nullcontext():
        progress, seconds = _train(programs, progress, arrays[1], inputs, calls, hooks)
    taken = int(progress.record.step) - resumed
    per_step = seconds / taken if taken else np.nan
    state, best = progress.state, processes.gather(progress.best)
    if shape:  # small models, whose members are taken apart
        state = processes.gather(state)
    return Fit(state, best, progress.record, per_step, steps.compile_seconds)


def _train(
    programs: Programs,
    progress: Progress,
    valid: Any,
    inputs: Inputs,
    calls: Calls,
    hooks: Hooks,
) -> tuple[Progress, float]:
    """Returns the progress at the end of the calls, and the seconds of the steps."""
    (steps, evaluator), (state, best, record) = programs, progress
    keep, seconds = jax.jit(_keep, donate_argnums=2), 0.0
    plan = calls.plan
    drawn = inputs(int(record.step), calls.end(int(record.step)))
    with signals.deferred():
        while not record.finished(plan) and record.step < calls.until:
            end = calls.end(int(record.step))
            compiled, started = steps.compile_seconds, time.perf_counter()
            state, losses = steps(state, *drawn)
            drawn = inputs(end, calls.end(end))  # while the device is at work
            losses = np.asarray(losses)
            seconds += time.perf_counter() - started
            seconds -= steps.compile_seconds - compiled
            record = add_losses(record, losses)
            finite = are_finite(state.params, record.best.ndim)
            finite = np.asarray(processes.gather(finite))
            record = mark_failed(record, finite)
            if calls.evaluates(end) and not record.failed:
                scores = evaluator(state.params, valid)
                record, better = add_evaluation(record, plan, scores)
                if better.any():
                    best = keep(jnp.asarray(better), state.params, best)
            progress = Progress(state, best, record)
            _report(hooks, progress, record.finished(plan))
            if processes.stop_requested():
                _save(hooks, progress, final=True)
                break
    return progress, seconds


def _report(hooks: Hooks, progress: Progress, last: bool) -> None:
    """Saves the progress of a training, and reports its record."""
    _save(hooks, progress, final=last)
    if hooks.on_progress:
        hooks.on_progress(progress.record)


def _save(hooks: Hooks, progress: Progress, final: bool) -> None:
    """Saves the progress of a training, unless it has failed; see `Checkpoints`."""
    if hooks.checkpoints and not progress.record.failed:
        step = int(progress.record.step)
        hooks.checkpoints.save(step, tuple(progress), final=final)


def run_identity(dataset: Any, plan: Plan, key: Key, **rest: Any) -> dict[str, Any]:
    """Returns what tells a run from others, ready for JSON."""
    return {
        "dataset": dataset.name,
        "sizes": [data.size(part) for part in (dataset.train, dataset.valid)],
        "key": jax.random.key_data(key).tolist(),
        **dataclasses.asdict(plan),
        **rest,
    }


def fit(
    learner: Learner | Frozen,
    dataset: Any,
    plan: Plan,
    *,
    seed: int = 0,
    learning_rate: float | None = None,
    key: Key | None = None,
    evaluator: Evaluator | None = None,
    hooks: Hooks = NO_HOOKS,
    layout: Layout | None = None,
) -> Fit:
    """Trains one model and keeps the parameters that score best on the validation part.

    A run whose loss is not finite before the first evaluation keeps those of the last
    step before.

    Args:
      learner: The model, its objective and its optimizer.
      dataset: A `Dataset` or `Parts`; a test part is not used.
      plan: How long to train and how often to evaluate.
      seed: The number of the run: its initial parameters and the order of its data.
      learning_rate: The peak learning rate; None is the optimizer's own.
      key: The root key of the experiment; `jax.random.key(0)` if None.
      evaluator: What scores parameters; None is the objective on the validation part.
      hooks: Checkpoints, and a function to call with the progress.
      layout: How the batch and the parameters are divided over devices; None is one
        device. A checkpoint of one layout can be resumed with any other.

    Returns:
      The last state, the best parameters, the record and the times.

    >>> from ffnlab.models import TowerConfig, tower
    >>> from ffnlab.nn import BlockConfig
    >>> from ffnlab.train import OBJECTIVES, optimizers
    >>> wine = data.load("wine")
    >>> block = BlockConfig("swiglu", features=16, hidden=16)
    >>> model = tower(TowerConfig(wine.features, wine.classes, block))
    >>> learner = Learner(model, OBJECTIVES["classes"], optimizers.make("adam", 1e-2))
    >>> result = fit(learner, wine, Plan(steps=40, every=20, batch=32))
    >>> bool(result.record.scores["accuracy"][-1] > 0.8)
    True
    """
    key = jax.random.key(0) if key is None else key
    size = data.size(dataset.train)
    if evaluator is None:
        scorer = _scorer(learner, data.size(dataset.valid), layout)
        evaluator = on_mesh(scorer, layout)
    steps = make_program(learner, key, layout)

    def indices(start: int, stop: int) -> np.ndarray:
        return data.indices([seed], start, stop, plan.batch, size)[:, 0]  # [steps, B]

    parts = (dataset.train, dataset.valid)
    arrays = tuple(place_arrays(learner, part, layout) for part in parts)
    identity = run_identity(dataset, plan, key, seed=seed, learning_rate=learning_rate)

    def train(until: int | None) -> Fit:
        # Not jitted: drawing is done once, and ops of equal shapes are compiled once.
        state = init_placed(learner, key, seed, learning_rate, layout)
        programs = Programs(steps, evaluator)
        return run_loop(
            programs, state, arrays, indices, plan, hooks, identity, until=until
        )

    return train_to_last_good(train)


def _scorer(
    learner: Learner | Frozen, size: int, layout: Layout | None
) -> Callable[[Params, Any], Any]:
    """Returns the function that scores parameters on a part of some size."""

    def evaluate(params: Params, arrays: Any) -> dict[str, Array]:
        (model, objective, *_), part = bind(learner, arrays)
        return make_evaluate(model, objective, take_along(layout), size)(params, part)

    return evaluate
