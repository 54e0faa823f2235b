"""How much slower than JAX is the engine written from scratch?

Takes steps of Adam on the digits MLP, 64 → 128 → 10 with relu, by `ffnlab.scratch` on
NumPy and by JAX with optax, in float64 and float32, at batch sizes 128 and 256. JAX
runs as one donated call per step and, fastest, as a scan of 100 steps per call. All
rows are checked to have equal parameters after 20 steps.

    python -m benchmarks.from_scratch
    python -m benchmarks.from_scratch --rounds=1    (a smoke run)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import protocol
from benchmarks.protocol import Config, Entry, Work
from experiments import launch
from ffnlab import data
from ffnlab.scratch import losses, models, optimizers, trees, value_and_grad
from ffnlab.sweep.scratch_programs import loss_by_jax

SETTINGS = [(np.float64, 128), (np.float64, 256), (np.float32, 128), (np.float32, 256)]
STEPS, CHECKED, RATE, TARGET = 100, 20, 1e-3, 3.0
MODEL = models.perceptron([64, 128, 10])
ADAM = optax.adam(RATE)


class Task:
    """The parameters and batches that all rows share."""

    def __init__(self, dtype: type, batch: int, steps: int):
        part = data.load("digits").train
        self.x, self.y = part["x"].astype(dtype), part["y"].astype(np.int32)
        size = data.size(part)
        self.batches = data.indices([0], 0, steps, batch, size)[:, 0]  # [steps, B]
        self.params = trees.map_leaves(lambda p: p.astype(dtype), MODEL.init(0))


def ours(task: Task) -> Work:
    """Returns the steps by the engine, one after another."""
    adam = optimizers.adam(RATE)
    slope = value_and_grad(
        lambda params, x, y: losses.cross_entropy(MODEL.apply(params, x)[0], y)
    )

    def run(params: dict) -> dict:
        state = adam.init(params)
        for rows in task.batches:
            _, grads = slope(params, task.x[rows], task.y[rows])
            updates, state = adam.update(grads, state, params)
            params = optimizers.apply_updates(params, updates)
        return params

    return Work(run, lambda: task.params)


def step(state: tuple, batch: tuple) -> tuple[tuple, jax.Array]:
    """Takes the same step by JAX and optax."""
    params, memory = state
    value, grads = jax.value_and_grad(loss_by_jax)(params, *batch, "relu")
    updates, memory = ADAM.update(grads, memory)
    return (optax.apply_updates(params, updates), memory), value


CALLED = jax.jit(step, donate_argnums=0)


@functools.partial(jax.jit, donate_argnums=0)
def _scanned(state: tuple, x: jax.Array, y: jax.Array, batches: jax.Array) -> tuple:
    return jax.lax.scan(lambda s, rows: step(s, (x[rows], y[rows])), state, batches)


def _start(task: Task) -> tuple:
    params = jax.tree.map(jnp.array, task.params)
    return jax.block_until_ready((params, ADAM.init(params)))


def called(task: Task) -> Work:
    """Returns the steps by JAX, one donated call per step."""

    def run(state: tuple) -> dict:
        for rows in task.batches:
            state, _ = CALLED(state, (task.x[rows], task.y[rows]))
        return jax.block_until_ready(state[0])

    return Work(run, lambda: _start(task))


def scanned(task: Task) -> Work:
    """Returns the steps by JAX, all in one call."""
    x, y = jnp.asarray(task.x), jnp.asarray(task.y)

    def run(state: tuple) -> dict:
        state, _ = _scanned(state, x, y, task.batches)
        return jax.block_until_ready(state[0])

    return Work(run, lambda: _start(task))


def works(task: Task) -> list[tuple]:
    """Returns name, setting, work and target of each row, ffnlab first."""
    return [
        ("ffnlab.scratch", "NumPy", ours(task), None),
        ("JAX, one call per step", "donated", called(task), TARGET),
        ("JAX, one scan", f"{len(task.batches)} steps per call", scanned(task), TARGET),
    ]


def compare(dtype: type, batch: int, config: Config) -> Any:
    """Checks that all rows compute the same, then prints and returns their table."""
    (_, _, first, _), *rest = works(Task(dtype, batch, CHECKED))
    tolerance = {"rtol": 1e-9} if dtype is np.float64 else {"rtol": 1e-3, "atol": RATE}
    for name, _, work, _ in rest:
        protocol.check_equal(name, first.once(), work.once(), **tolerance)
    entries = [
        Entry(name, setting, work, STEPS, target, name != "ffnlab.scratch")
        for name, setting, work, target in works(Task(dtype, batch, STEPS))
    ]
    for entry in entries:
        entry.work.once()
    title = f"digits MLP, time per step, {dtype.__name__}, batch size {batch}"
    return protocol.compare(title, "µs", entries, config)


def run(config: Config) -> list[Any]:
    """Prints and returns a table for each dtype and batch size."""
    protocol.use_cpu()
    protocol.describe()
    with jax.enable_x64(True):
        return [compare(*setting, config) for setting in SETTINGS]


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
