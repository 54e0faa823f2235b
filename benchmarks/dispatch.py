"""Does a training step cost more in ffnlab than one written by hand?

Trains the digits MLP, 64 → 128 → 10 with relu, by Adam, in batches of 256 and 16. The
first row is what `ffnlab.train.fit` runs: 100 steps per call, batches gathered on the
device, a donated state, and an optimizer with its learning rate in the state. The other
rows are the same steps written by hand on a flat dict, as one scan and as one donated
call per step, and the same model trained by `nnx.jit` and `nnx.Optimizer`. All rows
start from equal parameters, use equal batches, and are checked to have equal parameters
after 20 steps.

    python -m benchmarks.dispatch
    python -m benchmarks.dispatch --rounds=1    (a smoke run)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import protocol
from benchmarks.protocol import Config, Entry, Work
from experiments import launch
from ffnlab import data, trees
from ffnlab.nn import pure
from ffnlab.train import loop, objectives, optimizers, train_step
from ffnlab.train.program import Program

BATCHES, CHECKED = (256, 16), 20
CHUNK, CALLS = 100, 5  # steps per call, and calls per run
RATE, TARGET = 1e-3, 1.1
NNX = "nnx.jit, best settings"


class Classifier(nnx.Module):
    """64 → 128 → 10 with relu."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(64, 128, rngs=rngs)
        self.down = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array, key: None = None) -> tuple[jax.Array, dict]:
        return self.down(jax.nn.relu(self.up(x))), {}


class Task(NamedTuple):
    """The data and parameters that all rows share.

    Attributes:
      arrays: The training split, on the device.
      indices: Examples of each batch of each call, `[calls, steps, B]`.
      params: The initial parameters, by name.
    """

    arrays: dict[str, jax.Array]
    indices: np.ndarray
    params: dict[str, Any]

    @property
    def batches(self) -> np.ndarray:
        """The examples of each batch of all calls, `[calls · steps, B]`."""
        return self.indices.reshape(-1, self.indices.shape[-1])


def make_task(batch: int, calls: int, steps: int) -> Task:
    """Returns the task of `calls` calls of `steps` steps each."""
    part = data.load("digits").train
    indices = data.indices([0], 0, calls * steps, batch, data.size(part))
    indices = indices.reshape(calls, steps, batch)
    model = pure.functional(lambda rngs: Classifier(rngs=rngs))
    return Task(jax.device_put(part), indices, model.init(jax.random.key(0)))


def ours(task: Task, flat: bool = False) -> Work:
    """Returns the program of `train.fit`; `flat` is that of `optimizers.make`."""
    model = pure.functional(lambda rngs: Classifier(rngs=rngs))
    optimizer = optimizers.make("adam", flat=flat)
    learner = loop.Learner(model, objectives.OBJECTIVES["classes"], optimizer)
    program = Program(
        train_step.scan_steps(train_step.make_step(learner), data.take), donate=(0,)
    )

    def start() -> train_step.TrainState:
        params = jax.tree.map(jnp.copy, task.params)
        state = train_step.init_state(learner, jax.random.key(0), 0, RATE)
        return jax.block_until_ready(state._replace(params=params))

    def run(state: train_step.TrainState) -> tuple[np.ndarray, dict]:
        values = []
        for indices in task.indices:
            state, losses = program(state, task.arrays, indices)
            values.append(np.asarray(losses))
        params = jax.block_until_ready(state.params)
        return np.concatenate(values), trees.flatten(params)

    return Work(run, start)


# One optimizer for all rows, because a new one is compiled again.
ADAM = optax.adam(RATE)


def by_hand(state: tuple, arrays: dict, index: jax.Array) -> tuple[tuple, jax.Array]:
    """Takes a step; `state` is a flat dict of parameters and the state of optax."""
    params, moments = state
    x, y = arrays["x"][index], arrays["y"][index]

    def loss(params: dict) -> jax.Array:
        hidden = jax.nn.relu(x @ params["up/kernel"] + params["up/bias"])
        logits = hidden @ params["down/kernel"] + params["down/bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, moments = ADAM.update(grads, moments)
    return (optax.apply_updates(params, updates), moments), value


step_by_hand = jax.jit(by_hand, donate_argnums=0)


@functools.partial(jax.jit, donate_argnums=0)
def scan_by_hand(state: tuple, arrays: dict, indices: jax.Array) -> tuple:
    """Takes the steps of a call by one scan."""
    return jax.lax.scan(lambda s, index: by_hand(s, arrays, index), state, indices)


def hand_start(task: Task) -> tuple:
    """Returns the initial state of the steps written by hand."""
    params = jax.tree.map(jnp.copy, trees.flatten(task.params))
    return jax.block_until_ready((params, ADAM.init(params)))


def scanned(task: Task) -> Work:
    """Returns the steps written by hand, as one scan per call."""

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        values = []
        for indices in task.indices:
            state, losses = scan_by_hand(state, task.arrays, indices)
            values.append(np.asarray(losses))
        return np.concatenate(values), jax.block_until_ready(state[0])

    return Work(run, lambda: hand_start(task))


def called(task: Task) -> Work:
    """Returns the steps written by hand, as one donated call per step."""

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        values = []
        for index in task.batches:
            state, value = step_by_hand(state, task.arrays, index)
            values.append(value)
        return np.asarray(jax.device_get(values)), jax.block_until_ready(state[0])

    return Work(run, lambda: hand_start(task))


def nnx_step(model: Any, optimizer: Any, arrays: dict, index: jax.Array) -> jax.Array:
    """Takes a step as in the examples of Flax."""
    x, y = arrays["x"][index], arrays["y"][index]

    def loss(model: Classifier) -> jax.Array:
        logits, _ = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


GRAPH = nnx.jit(nnx_step)
TREE = nnx.jit(nnx_step, graph=False, donate_argnums=(0, 1))


def nnx_called(task: Task, step: Callable[..., Any], cached: bool = False) -> Work:
    """Returns the steps of a module and `nnx.Optimizer`, one call per step."""

    def start() -> tuple:
        model = Classifier(rngs=nnx.Rngs(0))
        nnx.update(model, jax.tree.map(jnp.copy, task.params))
        return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        bind = nnx.cached_partial if cached else functools.partial
        bound = bind(step, *state)
        values = [bound(task.arrays, index) for index in task.batches]
        params = nnx.to_pure_dict(nnx.state(state[0], nnx.Param))
        values = np.asarray(jax.device_get(values))
        return values, trees.flatten(jax.block_until_ready(params))

    return Work(run, start)


def works(task: Task) -> list[tuple]:
    """Returns name, setting, work and target of each row, ffnlab first."""
    return [
        ("ffnlab", "as fit runs it", ours(task), None),
        ("ffnlab, flat=True", "as compare runs it", ours(task, flat=True), None),
        ("by hand", f"a scan of {CHUNK} steps", scanned(task), TARGET),
        ("by hand, one call per step", "donated", called(task), TARGET),
        ("nnx.jit", "as in its guides", nnx_called(task, GRAPH), None),
        (NNX, "cached_partial", nnx_called(task, GRAPH, cached=True), None),
        (NNX, "tree mode, donated", nnx_called(task, TREE), None),
    ]


def check(batch: int) -> None:
    """Checks that all rows compute the same in 20 steps."""
    (_, _, first, _), *rest = works(make_task(batch, 1, CHECKED))
    expected = first.once()
    for name, setting, work, _ in rest:
        row = f"{name}, {setting}"
        # Where a gradient is close to 0, a step of Adam is its sign times the rate.
        protocol.check_equal(row, expected, work.once(), rtol=1e-4, atol=2 * RATE)
    print(f"batch {batch}: all rows are equal after {CHECKED} steps")


def run(config: Config) -> list[Any]:
    """Prints and returns a table for each batch size."""
    protocol.use_cpu()
    protocol.describe()
    tables = []
    for batch in BATCHES:
        check(batch)
        entries = [
            Entry(name, setting, work, CALLS * CHUNK, target, "ffnlab" not in name)
            for name, setting, work, target in works(make_task(batch, CALLS, CHUNK))
        ]
        for entry in entries:
            entry.work.once()
        title = f"digits MLP, time per step at batch size {batch}"
        tables.append(protocol.compare(title, "µs", entries, config))
    return tables


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
