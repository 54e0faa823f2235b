"""Does a population train as fast here as in the fastest way that torch offers?

32 runs (or a few more, to divide by the cores) of a digits classifier, 64 → 128 → 10
with relu, batches of 256, Adam; each run has its own parameters and its own order of
the data. Ours is what `fit_population` runs: 100 steps a call, members
spread over one CPU device a core. The peers are `torch.compile` of a vmapped functional
step and a loop over modules with `torch.optim.Adam`, each with one thread, with a
thread a core, and with a process a core. All start from equal parameters, meet equal
batches, and are checked to be equal after 20 steps.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --rounds=1    (a smoke run)
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import protocol
from benchmarks.protocol import Config, Entry, Work
from experiments import launch
from ffnlab import data, trees
from ffnlab.nn import pure
from ffnlab.sweep import population
from ffnlab.train import loop, objectives, optimizers

MEMBERS = -(-32 // protocol.cores()) * protocol.cores()  # as many on each device
BATCH, CHUNK, CHECKED = 256, 100, 20
RATE = 1e-3
COMPILED, LOOPED = "torch.compile(vmap(grad))", "torch modules, one by one"
LIMIT = "the limit: its products alone"
TARGETS = {COMPILED: 0.75, LOOPED: 0.35}


class Classifier(nnx.Module):
    """64 → 128 → 10, as plain as the peers'."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(64, 128, rngs=rngs)
        self.down = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array, key: None = None) -> tuple[jax.Array, dict]:
        return self.down(jax.nn.relu(self.up(x))), {}


def place(tree: Any, *axes: str) -> Any:
    """Puts arrays on all devices, split by their first axis or whole."""
    mesh = Mesh(np.array(jax.local_devices()), ("members",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


class Ours:
    """The population as `fit_population` has it.

    Args:
      batching: see `sweep.spread`.
      steps: how many a call.
    """

    def __init__(self, batching: population.Batching, steps: int = CHUNK):
        self._steps = steps
        self.arrays = place(data.load("digits").train)
        self.indices = self._draw()
        self._model = pure.functional(lambda rngs: Classifier(rngs=rngs))
        self._optimizer = optimizers.make("adam")
        step = loop.make_step(
            self._model, objectives.OBJECTIVES["classes"], self._optimizer
        )
        many = loop.scan_steps(step, data.take)

        def chunk(state: Any, arrays: Any, indices: jax.Array) -> Any:
            one = population.spread(
                lambda own, all_: many(own[0], all_, own[1]), batching
            )
            return one((state, indices), arrays)

        self._program = loop.Program(chunk, donate=(0,))
        self._begin = jax.jit(jax.vmap(self._member))

    def _member(self, seed: jax.Array) -> loop.TrainState:
        return loop.init_state(
            self._model, self._optimizer, jax.random.key(0), seed, RATE
        )

    def _draw(self) -> jax.Array:
        """Returns which examples make the batches of a call, `[S, steps, B]`."""
        size = data.size(self.arrays)
        drawn = data.indices(range(MEMBERS), 0, self._steps, BATCH, size)
        return place(drawn.swapaxes(0, 1), "members")

    def start(self) -> loop.TrainState:
        """Returns the state before the first step."""
        state = place(self._begin(jnp.arange(MEMBERS)), "members")
        return jax.block_until_ready(state)

    def run(self, state: loop.TrainState) -> tuple[np.ndarray, dict]:
        """Returns the losses `[steps, S]` and the parameters after the steps."""
        state, values = self._program(state, self.arrays, self.indices)
        params = jax.block_until_ready(state.params)
        return np.asarray(values).T, trees.flatten(params)

    def run_and_draw(self, state: loop.TrainState) -> jax.Array:
        """The same, with what `fit_population` does on the host during each call."""
        state, _ = self._program(state, self.arrays, self.indices)
        self.indices = self._draw()
        return jax.block_until_ready(state.step)


def products() -> Work:
    """Returns the matrix products of a call and nothing else, spread as ours are.

    The kernels of a step are products of the step before, so that none can be left
    out or computed once. All are zeros, which take as long and stay finite.
    """

    def multiply(kernels: tuple, x: jax.Array) -> tuple:
        up, down = kernels
        hidden = x @ up  # [B, H]
        logits = hidden @ down  # [B, K]
        hidden_grad = logits @ down.T  # [B, H]
        return x.T @ hidden_grad, hidden.T @ logits

    def many(kernels: tuple, x: jax.Array) -> tuple:
        return jax.lax.fori_loop(0, CHUNK, lambda _, k: multiply(k, x), kernels)

    several = jax.jit(population.spread(many, "map"))
    shapes = (MEMBERS, 64, 128), (MEMBERS, 128, 10)
    kernels = place(tuple(map(jnp.zeros, shapes)), "members")
    x = place(jnp.zeros((BATCH, 64)))
    return Work(lambda _: jax.block_until_ready(several(kernels, x)))


def our_entries() -> list[Entry]:
    """Returns our rows; the first is what runs on a CPU."""
    ours, together = Ours("map"), Ours("vmap")
    rows = [
        ("ours", "map, a device a core", Work(ours.run, ours.start)),
        ("ours, vmapped", "vmap, a device a core", Work(together.run, together.start)),
        (
            "ours, and drawing the data's order",
            "map, a device a core",
            Work(ours.run_and_draw, ours.start),
        ),
        (LIMIT, "XLA, map", products()),
    ]
    return [
        Entry(name, setting, work, MEMBERS * CHUNK, peer=False)
        for name, setting, work in rows
    ]


def ways(peers: Any, cores: int) -> list[tuple]:
    """Returns name, mode, maker, its option and the threads of each way of torch."""
    return [
        (COMPILED, "by default", peers.vmapped, False, (1, cores)),
        (COMPILED, "autotuned", peers.vmapped, True, (cores,)),
        (LOOPED, "Adam not fused", peers.looped, False, (1,)),
        (LOOPED, "Adam fused", peers.looped, True, (1, cores)),
    ]


@contextlib.contextmanager
def torch_entries() -> Iterator[list[Entry]]:
    """Yields the rows of torch, checked to compute what ours do."""
    from benchmarks import peers

    ours = Ours("map", CHECKED)
    task = peers.Population(
        params=jax.tree.map(np.asarray, trees.flatten(ours.start().params)),
        x=np.asarray(ours.arrays["x"]),
        y=np.asarray(ours.arrays["y"]),
        indices=np.asarray(ours.indices).swapaxes(0, 1),
        rate=RATE,
    )
    wanted, cores = ours.run(ours.start()), protocol.cores()
    shares = [task.schedule(part, cores) for part in range(cores)]
    together = Ours("vmap", CHECKED)
    check("ours, vmapped", wanted, together.run(together.start()))
    rows = []
    with contextlib.ExitStack() as stack:
        for name, mode, make, option, counts in ways(peers, cores):
            for threads in counts:
                work = peers.threaded(threads, make, task, option)
                rows.append((name, f"threads: {threads}, {mode}", work))
                check(f"{name}, {mode}", wanted, work.once())
            if mode != "Adam not fused":
                workers = stack.enter_context(peers.Workers(make, shares, option))
                workers.work.once()
                check(f"{name}, {mode}, processes", wanted, workers.results())
                rows.append((name, f"processes: {cores}, {mode}", workers.work))
        print(f"all rows are equal after {CHECKED} steps")
        bmm = peers.threaded(cores, peers.multiplied, task)
        rows.append((LIMIT, f"torch.bmm, threads: {cores}", bmm))
        yield [
            Entry(
                name, setting, work, MEMBERS * CHECKED, TARGETS.get(name), name != LIMIT
            )
            for name, setting, work in rows
        ]


def check(name: str, wanted: tuple, found: tuple) -> None:
    """Checks losses and parameters after 20 steps."""
    protocol.check_equal(f"{name}: losses", wanted[0], found[0], rtol=1e-4)
    # Where a gradient is next to nothing, a step of Adam is its sign times the rate.
    protocol.check_equal(f"{name}: parameters", wanted[1], found[1], atol=2 * RATE)


def run(config: Config) -> Any:
    """Prints the table and returns it."""
    protocol.use_cpu(protocol.cores())
    protocol.describe()
    with contextlib.ExitStack() as stack:
        entries = our_entries()
        for one in entries:
            one.work.once()
        if protocol.has_torch():
            entries += stack.enter_context(torch_entries())
        title = f"{MEMBERS} digits MLPs, a step of one of them"
        return protocol.contest(title, "µs", entries, config)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
