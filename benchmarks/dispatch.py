"""Does a step cost more here than one written out by hand?

The digits MLP, 64 → 128 → 10 with relu, batches of 256 and of 16, Adam. Ours is what
`ffnlab.train.fit` runs: 100 steps a call, the batches gathered on the device, the state
donated, the optimizer from `ffnlab.train.optimizers.make` with its learning rate in the
state. Beside it: the same steps written out on a flat dict, as one scan and as a
donated call a step, and the same model trained by `nnx.jit` and `nnx.Optimizer`. All
start from equal parameters, meet equal batches, and are checked to be equal after 20
steps.

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
from ffnlab.train import loop, objectives, optimizers

BATCHES, CHECKED = (256, 16), 20
CHUNK, CALLS = 100, 5  # steps a call, and calls a run
RATE, TARGET = 1e-3, 1.1
NNX = "nnx.jit, at its best"


class Classifier(nnx.Module):
    """64 → 128 → 10 with relu."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(64, 128, rngs=rngs)
        self.down = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array, key: None = None) -> tuple[jax.Array, dict]:
        return self.down(jax.nn.relu(self.up(x))), {}


class Task(NamedTuple):
    """What all rows are given.

    Attributes:
      arrays: the training part, on the device.
      indices: which examples make each batch of each call, `[calls, steps, B]`.
      params: the first parameters, by name.
    """

    arrays: dict[str, jax.Array]
    indices: np.ndarray
    params: dict[str, Any]

    @property
    def batches(self) -> np.ndarray:
        """Which examples make each batch of all calls, `[calls · steps, B]`."""
        return self.indices.reshape(-1, self.indices.shape[-1])


def make_task(batch: int, calls: int, steps: int) -> Task:
    """Returns the task of so many calls of so many steps."""
    part = data.load("digits").train
    indices = data.indices([0], 0, calls * steps, batch, data.size(part))
    indices = indices.reshape(calls, steps, batch)
    model = pure.functional(lambda rngs: Classifier(rngs=rngs))
    return Task(jax.device_put(part), indices, model.init(jax.random.key(0)))


def ours(task: Task, flat: bool = False) -> Work:
    """The program of `train.fit`; `flat` as in `optimizers.make`."""
    model = pure.functional(lambda rngs: Classifier(rngs=rngs))
    optimizer = optimizers.make("adam", flat=flat)
    step = loop.make_step(model, objectives.OBJECTIVES["classes"], optimizer)
    program = loop.Program(loop.scan_steps(step, data.take), donate=(0,))

    def start() -> loop.TrainState:
        params = jax.tree.map(jnp.copy, task.params)
        state = loop.init_state(model, optimizer, jax.random.key(0), 0, RATE)
        return jax.block_until_ready(state._replace(params=params))

    def run(state: loop.TrainState) -> tuple[np.ndarray, dict]:
        values = []
        for indices in task.indices:
            state, some = program(state, task.arrays, indices)
            values.append(np.asarray(some))
        params = jax.block_until_ready(state.params)
        return np.concatenate(values), trees.flatten(params)

    return Work(run, start)


# An optimizer made anew is compiled anew.
ADAM = optax.adam(RATE)


def by_hand(state: tuple, arrays: dict, index: jax.Array) -> tuple[tuple, jax.Array]:
    """A step written out: `state` is a flat dict of parameters and optax's state."""
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
    """A call's steps written out."""
    return jax.lax.scan(lambda s, index: by_hand(s, arrays, index), state, indices)


def hand_start(task: Task) -> tuple:
    """Returns the state before the first step written out."""
    params = jax.tree.map(jnp.copy, trees.flatten(task.params))
    return jax.block_until_ready((params, ADAM.init(params)))


def scanned(task: Task) -> Work:
    """The steps written out, as one scan."""

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        values = []
        for indices in task.indices:
            state, some = scan_by_hand(state, task.arrays, indices)
            values.append(np.asarray(some))
        return np.concatenate(values), jax.block_until_ready(state[0])

    return Work(run, lambda: hand_start(task))


def called(task: Task) -> Work:
    """The steps written out, a donated call each."""

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        values = []
        for index in task.batches:
            state, value = step_by_hand(state, task.arrays, index)
            values.append(value)
        return np.asarray(jax.device_get(values)), jax.block_until_ready(state[0])

    return Work(run, lambda: hand_start(task))


def nnx_step(model: Any, optimizer: Any, arrays: dict, index: jax.Array) -> jax.Array:
    """A step in the way of Flax's own examples."""
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
    """The module itself and `nnx.Optimizer`, a call a step."""

    def start() -> tuple:
        model = Classifier(rngs=nnx.Rngs(0))
        nnx.update(model, jax.tree.map(jnp.copy, task.params))
        return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)

    def run(state: tuple) -> tuple[np.ndarray, dict]:
        bind = nnx.cached_partial if cached else functools.partial
        one = bind(step, *state)
        values = [one(task.arrays, index) for index in task.batches]
        params = nnx.to_pure_dict(nnx.state(state[0], nnx.Param))
        values = np.asarray(jax.device_get(values))
        return values, trees.flatten(jax.block_until_ready(params))

    return Work(run, start)


def works(task: Task) -> list[tuple]:
    """Returns name, setting, work and target of each row, ours first."""
    return [
        ("ours", "as fit runs it", ours(task), None),
        ("ours, flat=True", "as compare runs it", ours(task, flat=True), None),
        ("by hand", f"a scan of {CHUNK}", scanned(task), TARGET),
        ("by hand, a call a step", "donated", called(task), TARGET),
        ("nnx.jit, a call a step", "as in its guides", nnx_called(task, GRAPH), None),
        (NNX, "cached_partial", nnx_called(task, GRAPH, cached=True), None),
        (NNX, "tree mode, donated", nnx_called(task, TREE), None),
    ]


def check(batch: int) -> None:
    """Checks that all rows compute the same in a few steps."""
    (_, _, first, _), *rest = works(make_task(batch, 1, CHECKED))
    wanted = first.once()
    for name, setting, work, _ in rest:
        what = f"{name}, {setting}"
        # Where a gradient is next to nothing, a step of Adam is its sign.
        protocol.check_equal(what, wanted, work.once(), rtol=1e-4, atol=2 * RATE)
    print(f"batch {batch}: all rows are equal after {CHECKED} steps")


def run(config: Config) -> list[Any]:
    """Prints a table for each batch size and returns them."""
    protocol.use_cpu()
    protocol.describe()
    tables = []
    for batch in BATCHES:
        check(batch)
        entries = [
            Entry(name, setting, work, CALLS * CHUNK, target, "ours" not in name)
            for name, setting, work, target in works(make_task(batch, CALLS, CHUNK))
        ]
        for one in entries:
            one.work.once()
        title = f"the digits MLP, a step with a batch of {batch}"
        tables.append(protocol.contest(title, "µs", entries, config))
    return tables


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
