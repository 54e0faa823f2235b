"""Training: a state, a step, and the loop that drives many steps a call.

From a model to a trained one: `make_step` makes `step(state, batch) -> (state, loss)`;
`scan_steps` scans it over many batches in one call; `run_loop` calls that, evaluates, keeps
the best parameters and writes checkpoints. `fit` puts them together for one run, and
`ffnlab.sweep` for a population: `run_loop` serves both, since everything it records has
either no axis or a leading axis `[S]`.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.train import objectives
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.gradients import mean_gradient, mean_loss
from ffnlab.train.optimizers import with_learning_rate
from ffnlab.train.program import Program
from ffnlab.train.record import Plan, Record, blank, note
from ffnlab.types import (
    Array,
    Batch,
    Gradient,
    Key,
    Model,
    Objective,
    Params,
    Scores,
)

Take = Callable[[Any, Array], Batch]
Step = Callable[["TrainState", Batch], tuple["TrainState", Array]]
Evaluate = Callable[[Params, Any], dict[str, Array]]


class TrainState(NamedTuple):
    """Everything that a step reads and writes.

    Attributes:
      step: how many steps were taken, int32 `[]`.
      key: the raw words of the run's root key; step t draws from `fold_in(key, t)`.
      params: the model's arrays.
      optimizer: the optimizer's arrays.
    """

    step: Array
    key: Array
    params: Params
    optimizer: Any


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: Key,
    seed: Array | int,
    learning_rate: Array | float | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: the model.
      optimizer: from `optimizers.make`.
      key: the root key of the experiment.
      seed: the number of the run in it; runs of one seed start from equal parameters.
      learning_rate: the peak learning rate; None is the optimizer's own.
    """
    root = jax.random.fold_in(key, seed)
    start, steps = jax.random.split(root)
    params = model.init(start)
    state = optimizer.init(params)
    if learning_rate is not None:
        state = with_learning_rate(state, learning_rate)
    return TrainState(
        jnp.zeros((), jnp.int32), jax.random.key_data(steps), params, state
    )


def make_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    gradient: Gradient | None = None,
) -> Step:
    """Returns `step(state, batch) -> (state, loss)`, a pure function.

    Args:
      model: `apply(params, x, key)` must take the key of its dropout last.
      objective: its score named `loss` is minimised, in the mean over what counts.
      optimizer: from `optimizers.make`.
      gradient: `gradient(params, batch, key) -> (loss, gradient)`, which the optimizer
        is given; None is the gradient of that mean, see `ffnlab.train.gradients`.

    >>> from ffnlab.train import objectives, optimizers
    >>> from ffnlab.models import mlp
    >>> from ffnlab.nn.ffn import BlockConfig
    >>> model = mlp.tower(mlp.TowerConfig(4, 3, BlockConfig("mlp", 8, 8)))
    >>> optimizer = optimizers.make("sgd", 0.1)
    >>> step = make_step(model, objectives.OBJECTIVES["classes"], optimizer)
    >>> state = init_state(model, optimizer, jax.random.key(0), 0, 0.1)
    >>> batch = {"x": jnp.ones((2, 4)), "y": jnp.array([0, 2])}
    >>> state, loss = step(state, batch)
    >>> int(state.step), bool(loss > 0)
    (1, True)
    """

    if gradient is None:
        gradient = mean_gradient(mean_loss(model, objective))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        value, grads = gradient(state.params, batch, key)
        updates, optimizer_state = optimizer.update(
            grads, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, state.key, params, optimizer_state), value

    return step


def scan_steps(step: Step, take: Take) -> Callable[..., tuple[TrainState, Array]]:
    """Returns `many(state, data, indices) -> (state, losses)`: a scan of `step`.

    Args:
      step: from `make_step`.
      take: `take(data, index) -> batch`; it runs on the device, inside the scan.

    Returns:
      A pure function of the state, the data set's arrays, and int `[steps, B]`: which
      examples make the batch of each step. `losses` is `[steps]`.
    """

    def many(state: TrainState, data: Any, indices: Array) -> tuple[TrainState, Array]:
        return jax.lax.scan(lambda s, i: step(s, take(data, i)), state, indices)

    return many


def make_evaluate(
    model: Model, objective: Objective, take: Take, size: int, batch: int = 1024
) -> Evaluate:
    """Returns `evaluate(params, data) -> mean of each score` over `size` examples.

    Args:
      model: the model, applied without dropout. What it tells of each example in
        `aux["report"]`, `[B]` each, is averaged as the scores are.
      objective: what is scored.
      take: `take(data, index) -> batch`.
      size: how many examples there are; all are scored, each once.
      batch: how many are scored at a time; the last batch is filled up with examples
        of weight 0.
    """
    batch = min(batch, size)
    rows = -(-size // batch)
    index = np.arange(rows * batch).reshape(rows, batch)
    counts = (index < size).astype(np.float32)  # [rows, B]

    def evaluate(params: Params, data: Any) -> dict[str, Array]:
        def score(row: tuple[Array, Array]) -> tuple[dict[str, Array], Array]:
            examples = take(data, row[0])
            outputs, aux = model.apply(params, examples["x"], None)
            scores = objective.score(outputs, examples)
            shape = scores.weight.shape

            def spread(each: Array) -> Array:
                """From one number an example to one an entry."""
                each = each.reshape(each.shape + (1,) * (len(shape) - each.ndim))
                return jnp.broadcast_to(each, shape).astype(scores.weight.dtype)

            told = {name: spread(each) for name, each in aux.get("report", {}).items()}
            weight = scores.weight * spread(row[1])
            return objectives.totals(Scores({**scores.values, **told}, weight))

        each = (jnp.asarray(np.minimum(index, size - 1)), jnp.asarray(counts))
        sums, weight = jax.lax.map(score, each)
        return objectives.average(jax.tree.map(jnp.sum, sums), weight.sum())

    return evaluate


class Fit(NamedTuple):
    """A finished training, or a population of them.

    Attributes:
      state: the state after the last step.
      best: the parameters that scored best on the validation part.
      record: what was written down.
      seconds_per_step: the time of a step, of all members together, without compiling;
        NaN where nothing was left to run.
      compile_seconds: the time that compiling the steps took.
    """

    state: TrainState
    best: Params
    record: Record
    seconds_per_step: float
    compile_seconds: float


def _keep(better: Array, params: Params, best: Params) -> Params:
    """Takes the parameters of the runs that got better, leaf by leaf."""

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(
            better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old
        )

    return jax.tree.map(pick, params, best)


def run_loop(
    many: Program,
    evaluate: Program,
    state: TrainState,
    arrays: tuple[Any, Any],
    indices: Callable[[int, int], Any],
    plan: Plan,
    *,
    shape: tuple[int, ...] = (),
    run: dict[str, Any] | None = None,
    checkpoints: Checkpoints | None = None,
    on_evaluation: Callable[[Record], None] | None = None,
) -> Fit:
    """Trains to the end of a plan, or on from the last checkpoint to there.

    Args:
      many: `many(state, data, indices) -> (state, losses)`.
      evaluate: `evaluate(params, data) -> scores`.
      state: the state before the first step. Its memory is taken over.
      arrays: the training and the validation part, on the device.
      indices: `indices(start, stop)`: which examples make the batches of those steps.
      plan: how long to train and how often to look.
      shape: `()` for one run, `(S,)` for a population.
      run: what, beside the program, makes it this run and no other, ready for JSON.
      checkpoints: where to save and to resume from, bit for bit.
      on_evaluation: called with the record after every evaluation.

    Raises:
      InputError: the checkpoint is of another run.
    """
    keep = jax.jit(_keep, donate_argnums=2)
    best = jax.jit(lambda params: jax.tree.map(jnp.copy, params))(state.params)
    record = blank(plan, evaluate.outputs(state.params, arrays[1]), shape)

    def batches(start: int) -> Any:
        return indices(start, min(start + plan.every, plan.steps))

    if checkpoints:
        program = many.fingerprint(state, arrays[0], batches(0))
        checkpoints.claim({**(run or {}), "program": program})
        state, best, record = checkpoints.restore((state, best, record))
    seconds, resumed = 0.0, int(record.step)
    drawn = batches(resumed)
    while not record.finished(plan):
        compiled, began = many.compile_seconds, time.perf_counter()
        state, losses = many(state, arrays[0], drawn)
        drawn = batches(int(record.step) + plan.every)  # while the device is at work
        losses = np.asarray(losses)
        seconds += time.perf_counter() - began - (many.compile_seconds - compiled)
        scores = jax.tree.map(np.asarray, evaluate(state.params, arrays[1]))
        record, better = note(record, plan, losses, scores)
        if better.any():
            best = keep(jnp.asarray(better), state.params, best)
        if checkpoints:
            done = record.finished(plan)
            checkpoints.save(int(record.step), (state, best, record), final=done)
        if on_evaluation:
            on_evaluation(record)
    steps = int(record.step) - resumed
    return Fit(
        state, best, record, seconds / steps if steps else np.nan, many.compile_seconds
    )


def run_identity(dataset: Dataset, plan: Plan, key: Key, **rest: Any) -> dict[str, Any]:
    """Returns what makes a run this one and no other, ready for JSON."""
    return {
        "dataset": dataset.name,
        "sizes": [data.size(part) for part in (dataset.train, dataset.valid)],
        "key": jax.random.key_data(key).tolist(),
        **dataclasses.asdict(plan),
        **rest,
    }


def fit(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    plan: Plan,
    *,
    seed: int = 0,
    learning_rate: float | None = None,
    key: Key | None = None,
    checkpoints: Checkpoints | None = None,
    on_evaluation: Callable[[Record], None] | None = None,
    scored: int = 1024,
    evaluate: Any = None,
    gradient: Gradient | None = None,
) -> Fit:
    """Trains one model and keeps the parameters that score best on the validation part.

    Args:
      model: from `models.functional`.
      objective: what is minimised and scored.
      optimizer: from `optimizers.make`.
      dataset: from `ffnlab.data`; the test part is not touched.
      plan: how long to train and how often to look.
      seed: the number of the run: its initial parameters and the order of its data.
      learning_rate: the peak learning rate; None is the optimizer's own.
      key: the root key of the experiment; `jax.random.key(0)` if None.
      checkpoints: where to save and to resume from, bit for bit.
      on_evaluation: called with the record after every evaluation.
      scored: how many validation examples are scored at a time.
      evaluate: what scores parameters, if not the objective on the validation part: a
        `Program`, or anything with its `outputs` and `__call__`, on the host.
      gradient: what the optimizer is given, if not the mean's, see `make_step`.

    Returns:
      The last state, the best parameters, the record and the times.

    >>> from ffnlab import data
    >>> from ffnlab.train import objectives, optimizers
    >>> from ffnlab.models import mlp
    >>> from ffnlab.nn.ffn import BlockConfig
    >>> wine = data.load("wine")
    >>> block = BlockConfig("swiglu", features=16, hidden=16)
    >>> model = mlp.tower(mlp.TowerConfig(wine.features, wine.classes, block))
    >>> found = fit(model, objectives.OBJECTIVES["classes"], optimizers.make("adam"),
    ...             wine, Plan(steps=40, every=20, batch=32), learning_rate=1e-2)
    >>> bool(found.record.scores["accuracy"][-1] > 0.8)
    True
    """
    key = jax.random.key(0) if key is None else key
    step = make_step(model, objective, optimizer, gradient)
    many = Program(scan_steps(step, data.take), donate=(0,))
    size = data.size(dataset.train)
    examples = data.size(dataset.valid)
    if evaluate is None:
        evaluate = Program(make_evaluate(model, objective, data.take, examples, scored))
    arrays = jax.device_put((dataset.train, dataset.valid))

    def indices(start: int, stop: int) -> np.ndarray:
        return data.indices([seed], start, stop, plan.batch, size)[:, 0]  # [steps, B]

    # Not jitted: drawing is done once, and ops of equal shapes are compiled once.
    state = init_state(model, optimizer, key, seed, learning_rate)
    return run_loop(
        many,
        evaluate,
        state,
        arrays,
        indices,
        plan,
        run=run_identity(dataset, plan, key, seed=seed, learning_rate=learning_rate),
        checkpoints=checkpoints,
        on_evaluation=on_evaluation,
    )
