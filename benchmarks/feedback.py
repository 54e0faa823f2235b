"""What does a two-sided fixed point cost, solver by solver, beside a one-way loop?

A coupled chain of T positions and H states, as many sequences as make 4096 positions,
tanh, to a residual of 1e-4, forward and with its gradient. Its kernels are certified
(the joint certificate at 0.9, half of the states hearing each side), or strong: random
ones with ‖W‖ + ‖V‖ = 1.4, which nothing certifies. Beside the solvers run
a plain `lax.scan`, which is the Elman network that hears the left alone, and a
bidirectional GRU, both with H states. All solvers are checked to find equal states.

A second table has the trained networks of `experiments.feedback`, a third the temporary
memory of the gradients against the number of iterations, and of what `solvers.auto`
picks.

    python -m benchmarks.feedback
    python -m benchmarks.feedback --rounds=1 --lengths=64 --widths=16    (a smoke run)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import data
from ffnlab.feedback.chain import contract_kernels, feedback
from ffnlab.feedback.solvers import Anderson, GaussSeidel, Jacobi, Newton, Unrolled
from ffnlab.models import recurrent, sequence
from ffnlab.nn import activations
from ffnlab.nn.pure import bind
from ffnlab.options import option
from ffnlab.report.table import Table
from ffnlab.train import loop, objectives, optimizers
from ffnlab.train.record import Plan

POSITIONS = 4096
TOLERANCE, LIMIT = 1e-4, 60
SOLVERS = {
    "jacobi": Jacobi(TOLERANCE, LIMIT),
    "gauss-seidel": GaussSeidel(TOLERANCE, LIMIT),
    "anderson": Anderson(TOLERANCE, LIMIT),
    "newton": Newton(TOLERANCE, LIMIT),
    "newton, cyclic": Newton(TOLERANCE, LIMIT, parallel=True),
}
WIDEST_NEWTON = 32  # above, its blocks cost hundreds of sweeps


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """How often to look, and at what; each field is a flag."""

    lengths: tuple[int, ...] = option((64, 512, 4096), "positions T", least=2)
    widths: tuple[int, ...] = option((16, 64, 256), "states H", least=2)


class Task(NamedTuple):
    """A chain to solve.

    Attributes:
      drive: `[B, T, H]`.
      left, right: `[H, H]`.
      inside: its name in a table.
    """

    drive: jax.Array
    left: jax.Array
    right: jax.Array
    name: str


def make_task(kind: str, length: int, width: int) -> Task:
    """Returns a chain with certified or strong kernels."""
    rng = np.random.default_rng(0)
    batch = max(1, POSITIONS // length)
    drive = rng.normal(size=(batch, length, width))
    shapes = [(width, width)] * 2
    kernels = [0.7 * np.linalg.qr(rng.normal(size=shape))[0] for shape in shapes]
    if kind == "certified":
        half = np.arange(width) < width // 2
        kernels = [2.0 * kernels[0] * half, 2.0 * kernels[1] * ~half]
    left, right, drive = (jnp.asarray(a, jnp.float32) for a in (*kernels, drive))
    if kind == "certified":
        left, right = contract_kernels([left, right], activations.get("tanh"), 0.9)
    return Task(drive, left, right, kind)


def solving(task: Task, gradient: str | None, **options: Any) -> Callable[..., Any]:
    """Returns the solve, or the gradient of a loss by drive and kernels."""

    def states(drive: jax.Array, left: jax.Array, right: jax.Array) -> Any:
        given = {"gradient": gradient} if gradient else {}
        return feedback(drive, left, right, **given, **options)

    if gradient is None:
        return jax.jit(states)
    return jax.jit(
        jax.grad(lambda *args: jnp.mean(states(*args).state ** 2), argnums=(0, 1, 2))
    )


def looping(task: Task, kind: str, with_gradient: bool) -> Callable[..., Any]:
    """Returns what a recurrent layer of as many states computes from the same drive."""
    width = task.drive.shape[-1]
    if kind == "elman":

        def states(drive: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
            def cell(h: jax.Array, row: jax.Array) -> jax.Array:
                return jnp.tanh(row + h @ left)

            return recurrent.scan_states(cell, drive, width, None, False)

    else:
        layer = recurrent.Bidirectional(recurrent.GRU, width, width, rngs=nnx.Rngs(0))

        def states(drive: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
            return layer(drive @ (left + right))[0]

    if not with_gradient:
        return jax.jit(states)
    return jax.jit(
        jax.grad(lambda *args: jnp.mean(states(*args) ** 2), argnums=(0, 1, 2))
    )


def entries(task: Task, with_gradient: bool) -> list[Entry]:
    """Returns the rows of a table; the first is Jacobi's."""
    args = tuple(task[:3])
    gradient = "implicit" if with_gradient else None
    rows, states = [], None
    for name, solver in SOLVERS.items():
        if name.startswith("newton") and task.left.shape[0] > WIDEST_NEWTON:
            continue
        found = solving(task, None, solver=solver)(*args)
        turns = int(found.iterations.max())
        if not bool(found.converged.all()):
            print(f"{name} does not converge in {LIMIT} iterations; left out")
            continue
        states = found.state if states is None else states
        protocol.check_equal(name, states, found.state, atol=20 * TOLERANCE)
        run = solving(task, gradient, solver=solver)
        rows.append((name, f"{turns} iterations", run))
    if with_gradient and rows and rows[0][0] == "jacobi":
        turns = rows[0][1].partition(" ")[0]
        unrolled = {"solver": Unrolled(int(turns))}
        rows.append(("jacobi, bptt", rows[0][1], solving(task, "bptt", **unrolled)))
        rows.append(
            (
                "jacobi, one step",
                rows[0][1],
                solving(task, "one_step", solver=SOLVERS["jacobi"]),
            )
        )
    rows += [
        ("elman, a scan", "hears the left", looping(task, "elman", with_gradient)),
        ("GRU both ways", "two scans", looping(task, "gru", with_gradient)),
    ]
    made = []
    for name, setting, run in rows:
        work = Work(functools.partial(_finish, run, args))
        work.once()
        made.append(Entry(name, setting, work, peer=False))
    return made


def _finish(run: Callable[..., Any], args: tuple, _: None) -> Any:
    return jax.block_until_ready(run(*args))


def measure_memory(length: int = 512, width: int = 64) -> Table:
    """Prints and returns the temporary memory of gradients, in arrays `[B, T, H]`."""
    task = make_task("certified", length, width)
    rows = []
    for name, gradient, options in (
        ("implicit", "implicit", {}),
        ("bptt", "bptt", {}),
        ("bptt, checkpointed", "bptt", {"checkpoint": True}),
        ("one step", "one_step", {}),
    ):
        cells = []
        for turns in (5, 20, 80):
            solver = Unrolled(turns) if gradient == "bptt" else Jacobi(max_steps=turns)
            run = solving(task, gradient, solver=solver, **options)
            found = run.lower(*task[:3]).compile().memory_analysis()
            cells.append(f"{found.temp_size_in_bytes / task.drive.nbytes:.1f}")
        rows.append([name, *cells])
    columns = ["gradient", "5 iterations", "20", "80"]
    table = Table(columns, rows)
    print()
    table.show(f"temporary memory in arrays of states, T = {length}, H = {width}")
    return table


def trained(bound: float | None) -> Task:
    """Returns what a network trained on `noisy_smoothing` solves on its test part."""
    dataset = data.SEQUENCES["noisy_smoothing"]()
    config = sequence.SequenceConfig(
        dataset.classes, hidden=32, activation="relu", contractive=bound,
        solver=Jacobi(1e-3, 40),
    )  # fmt: skip
    found = loop.fit(
        sequence.sequence_model(config),
        objectives.OBJECTIVES["classes"],
        optimizers.make("adamw", clip=1.0),
        dataset,
        Plan(200, 200, 32, monitor="accuracy", higher_is_better=True),
        learning_rate=5e-3,
    )
    score = found.record.best
    print(f"trained, {'certified' if bound else 'free'}: accuracy {score:.3f}")
    model = bind(lambda r: sequence.SequenceModel(config, rngs=r), found.best)
    x = data.take(jax.device_put(dataset.test), jnp.arange(POSITIONS // 32))["x"]
    _, args, _ = model.body.problem(*model.read(x))
    return Task(args["drive"], *args["kernels"], "certified" if bound else "free")


def solve_trained(config: Config) -> list[Table]:
    """Prints and returns how the solvers do on trained kernels."""
    tables = []
    for bound in (0.9, None):
        task = trained(bound)
        rows = []
        for name, solver in SOLVERS.items():
            run = solving(task, None, solver=solver, activation="relu")
            found = run(*task[:3])
            share, turns = float(found.converged.mean()), float(found.iterations.mean())
            work = Work(functools.partial(_finish, run, tuple(task[:3])))
            rows.append(
                Entry(
                    name,
                    f"{turns:.0f} iterations, {share:.0%} converged",
                    work,
                    peer=False,
                )
            )
        title = f"trained kernels, {task.name}, T = 32, H = 32"
        tables.append(protocol.contest(title, "ms", rows, config))
    return tables


def run(config: Config) -> list[Table]:
    """Prints the tables and returns them."""
    protocol.describe()
    tables = []
    for kind in ("certified", "strong"):
        for length in config.lengths:
            for width in config.widths:
                task = make_task(kind, length, width)
                for with_gradient in (False, True):
                    what = "gradient" if with_gradient else "forward"
                    title = f"{kind}, T = {length}, H = {width}, {what}"
                    rows = entries(task, with_gradient)
                    tables.append(protocol.contest(title, "ms", rows, config))
    return [*tables, measure_memory(), *solve_trained(config)]


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
