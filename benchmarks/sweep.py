"""Does a population train as fast in ffnlab as in the fastest way in torch?

Trains 32 runs (or a few more, so that the cores divide them) of a digits classifier,
64 → 128 → 10 with relu, by Adam in batches of 256. Each run has its own parameters and
its own order of the data. The first row is what `fit_population` runs: 100 steps per
call, with the members spread over one CPU device per core. The peers are
`torch.compile` of a vmapped functional step and a loop over modules with
`torch.optim.Adam`, each with one thread, one thread per core and one process per core.
All rows start from equal parameters, use equal batches, and are checked to have equal
parameters after 20 steps.

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
from ffnlab.train import loop, objectives, optimizers, train_step
from ffnlab.train.program import Program

MEMBERS = -(-32 // protocol.cores()) * protocol.cores()  # a multiple of the devices
BATCH, CHUNK, CHECKED = 256, 100, 20
RATE = 1e-3
COMPILED, LOOPED = "torch.compile(vmap(grad))", "torch modules in a loop"
LIMIT = "limit: its matrix products alone"
TARGETS = {COMPILED: 0.75, LOOPED: 0.35}


class Classifier(nnx.Module):
    """64 → 128 → 10, the same model as the peers'."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(64, 128, rngs=rngs)
        self.down = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array, key: None = None) -> tuple[jax.Array, dict]:
        return self.down(jax.nn.relu(self.up(x))), {}


def place(tree: Any, *axes: str) -> Any:
    """Places arrays on all devices, sharded by their first axis or replicated."""
    mesh = Mesh(np.array(jax.local_devices()), ("members",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


class Ours:
    """The population as `fit_population` trains it.

    Args:
      batching: See `ffnlab.sweep.spreading.spread`.
      steps: Number of steps per call.
      members: Number of runs, a multiple of the devices.
    """

    def __init__(
        self,
        batching: population.Batching,
        steps: int = CHUNK,
        members: int = MEMBERS,
    ):
        self._steps, self._members = steps, members
        self.arrays = place(data.load("digits").train)
        self.indices = self._draw()
        model = pure.functional(lambda rngs: Classifier(rngs=rngs))
        optimizer = optimizers.make("adam")
        objective = objectives.OBJECTIVES["classes"]
        self._learner = loop.Learner(model, objective, optimizer)
        scan = train_step.scan_steps(train_step.make_step(self._learner), data.take)

        def chunk(state: Any, arrays: Any, indices: jax.Array) -> Any:
            members = population.spread(
                lambda member, shared: scan(member[0], shared, member[1]), batching
            )
            return members((state, indices), arrays)

        self._program = Program(chunk, donate=(0,))
        self._init = jax.jit(jax.vmap(self._member))

    def _member(self, seed: jax.Array) -> train_step.TrainState:
        return train_step.init_state(self._learner, jax.random.key(0), seed, RATE)

    def _draw(self) -> jax.Array:
        """Returns the examples of the batches of a call, `[S, steps, B]`."""
        size = data.size(self.arrays)
        indices = data.indices(range(self._members), 0, self._steps, BATCH, size)
        return place(indices.swapaxes(0, 1), "members")

    def start(self) -> train_step.TrainState:
        """Returns the state before the first step."""
        state = place(self._init(jnp.arange(self._members)), "members")
        return jax.block_until_ready(state)

    def run(self, state: train_step.TrainState) -> tuple[np.ndarray, dict]:
        """Returns the losses `[steps, S]` and the parameters after the steps."""
        state, losses = self._program(state, self.arrays, self.indices)
        params = jax.block_until_ready(state.params)
        return np.asarray(losses).T, trees.flatten(params)

    def run_and_draw(self, state: train_step.TrainState) -> jax.Array:
        """Also draws the next batches on the host, as `fit_population` does."""
        state, _ = self._program(state, self.arrays, self.indices)
        self.indices = self._draw()
        return jax.block_until_ready(state.step)


def products() -> Work:
    """Returns the matrix products of a call alone, spread over the devices.

    The kernels of a step are products of the previous step, so that the compiler can
    neither drop a product nor reuse it. All are zeros, which take as long and stay
    finite.
    """

    def multiply(kernels: tuple, x: jax.Array) -> tuple:
        up, down = kernels
        hidden = x @ up  # [B, H]
        logits = hidden @ down  # [B, K]
        hidden_grad = logits @ down.T  # [B, H]
        return x.T @ hidden_grad, hidden.T @ logits

    def many(kernels: tuple, x: jax.Array) -> tuple:
        return jax.lax.fori_loop(0, CHUNK, lambda _, k: multiply(k, x), kernels)

    program = jax.jit(population.spread(many, "map"))
    shapes = (MEMBERS, 64, 128), (MEMBERS, 128, 10)
    kernels = place(tuple(map(jnp.zeros, shapes)), "members")
    x = place(jnp.zeros((BATCH, 64)))
    return Work(lambda _: jax.block_until_ready(program(kernels, x)))


def our_entries() -> list[Entry]:
    """Returns the rows of ffnlab; the first is what runs on a CPU."""
    ours, together = Ours("map"), Ours("vmap")
    rows = [
        ("ffnlab", "map, one device per core", Work(ours.run, ours.start)),
        (
            "ffnlab, vmapped",
            "vmap, one device per core",
            Work(together.run, together.start),
        ),
        (
            "ffnlab, drawing the order of the data too",
            "map, one device per core",
            Work(ours.run_and_draw, ours.start),
        ),
        (LIMIT, "XLA, map", products()),
    ]
    return [
        Entry(name, setting, work, MEMBERS * CHUNK, peer=False)
        for name, setting, work in rows
    ]


def ways(peers: Any, cores: int) -> list[tuple]:
    """Returns name, mode, function, option and thread counts of each torch row."""
    return [
        (COMPILED, "default", peers.vmapped, False, (1, cores)),
        (COMPILED, "autotuned", peers.vmapped, True, (cores,)),
        (LOOPED, "Adam not fused", peers.looped, False, (1,)),
        (LOOPED, "Adam fused", peers.looped, True, (1, cores)),
    ]


@contextlib.contextmanager
def torch_entries() -> Iterator[list[Entry]]:
    """Yields the rows of torch, checked to compute the same as those of ffnlab."""
    from benchmarks import peers

    ours = Ours("map", CHECKED)
    task = peers.Population(
        params=jax.tree.map(np.asarray, trees.flatten(ours.start().params)),
        x=np.asarray(ours.arrays["x"]),
        y=np.asarray(ours.arrays["y"]),
        indices=np.asarray(ours.indices).swapaxes(0, 1),
        rate=RATE,
    )
    expected, cores = ours.run(ours.start()), protocol.cores()
    shares = [task.share(part, cores) for part in range(cores)]
    together = Ours("vmap", CHECKED)
    check("ffnlab, vmapped", expected, together.run(together.start()))
    rows = []
    with contextlib.ExitStack() as stack:
        for name, mode, make, option, counts in ways(peers, cores):
            for threads in counts:
                work = peers.threaded(threads, make, task, option)
                rows.append((name, f"threads: {threads}, {mode}", work))
                check(f"{name}, {mode}", expected, work.once())
            if mode != "Adam not fused":
                workers = stack.enter_context(peers.Workers(make, shares, option))
                workers.work.once()
                check(f"{name}, {mode}, processes", expected, workers.results())
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


def check(name: str, expected: tuple, result: tuple) -> None:
    """Checks the losses and the parameters after 20 steps."""
    protocol.check_equal(f"{name}: losses", expected[0], result[0], rtol=1e-4)
    # Where a gradient is close to 0, a step of Adam is its sign times the rate.
    protocol.check_equal(f"{name}: parameters", expected[1], result[1], atol=2 * RATE)


def run(config: Config) -> Any:
    """Prints the table and returns it."""
    protocol.use_cpu(protocol.cores())
    protocol.describe()
    with contextlib.ExitStack() as stack:
        entries = our_entries()
        for entry in entries:
            entry.work.once()
        if protocol.has("torch"):
            entries += stack.enter_context(torch_entries())
        title = f"{MEMBERS} digits MLPs, time per step of one"
        return protocol.compare(title, "µs", entries, config)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
