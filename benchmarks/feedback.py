"""How long does each solver take for a feedback layer, compared with recurrent layers?

Solves chains of T positions and H states with tanh, as many as make 4096 positions, to
a residual of 1e-4, forward and with the gradient. The kernels are certified (joint
certificate 0.9, each half of the states receives input from one side) or strong:
random with ‖W‖ + ‖V‖ = 1.4, which no certificate covers. Two recurrent layers with H
states run beside the solvers: an Elman network, which is a `lax.scan` from left to
right, and a bidirectional GRU. All solvers are checked to reach equal states.

Where optimistix is installed, two more tables for each certified chain give the time of
Jacobi beside that of its fixed-point iteration with the same stopping rule, and of the
implicit gradient beside that of its adjoint by GMRES. Both are checked to evaluate F
equally often, and to reach equal states and gradients.

Then a table gives the temporary memory of the gradients by number of iterations, and
the last ones the solvers on the kernels of networks trained as by
`experiments.feedback`.

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
from ffnlab.feedback.chain import contract_kernels, solve_chain
from ffnlab.feedback.solvers import Anderson, GaussSeidel, Jacobi, Newton, Unrolled
from ffnlab.models import recurrent, sequence
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
# Beside optimistix: the tolerance at which gradients are equal, how equal they are, and
# the largest ratios of the times.
GRADIENT_TOLERANCE, EQUAL = 1e-5, 1e-4
FORWARD_TARGET, GRADIENT_TARGET = 1.1, 0.3
WIDEST_NEWTON = 32  # wider dense blocks cost as much as hundreds of sweeps


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """How many rounds to measure, and at which sizes; each field is a flag."""

    lengths: tuple[int, ...] = option((64, 512, 4096), "Sequence lengths T.", least=2)
    widths: tuple[int, ...] = option((16, 64, 256), "State widths H.", least=2)


class Task(NamedTuple):
    """A chain to solve.

    Attributes:
      drive: U x + b, `[B, T, H]`.
      left, right: The kernels W and V, `[H, H]`.
      name: Its name in a table.
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
        left, right = contract_kernels([left, right], "tanh", 0.9)
    return Task(drive, left, right, kind)


def solving(task: Task, gradient: str | None, **options: Any) -> Callable[..., Any]:
    """Returns the solve, or the gradient of a loss by drive and kernels."""

    def states(drive: jax.Array, left: jax.Array, right: jax.Array) -> Any:
        given = {"gradient": gradient} if gradient else {}
        return solve_chain(drive, left, right, **given, **options)

    if gradient is None:
        return jax.jit(states)
    return jax.jit(
        jax.grad(lambda *args: jnp.mean(states(*args).state ** 2), argnums=(0, 1, 2))
    )


def looping(task: Task, kind: str, with_gradient: bool) -> Callable[..., Any]:
    """Returns the states of a recurrent layer with H states, or their gradient."""
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


def make_entries(task: Task, with_gradient: bool) -> list[Entry]:
    """Returns the rows of a table; the first is that of Jacobi."""
    args = tuple(task[:3])
    gradient = "implicit" if with_gradient else None
    rows, states = [], None
    for name, solver in SOLVERS.items():
        if name.startswith("newton") and task.left.shape[0] > WIDEST_NEWTON:
            continue
        solution = solving(task, None, solver=solver)(*args)
        iterations = int(solution.iterations.max())
        if not bool(solution.converged.all()):
            print(f"{name} does not converge in {LIMIT} iterations; left out")
            continue
        states = solution.state if states is None else states
        protocol.check_equal(name, states, solution.state, atol=20 * TOLERANCE)
        run = solving(task, gradient, solver=solver)
        rows.append((name, f"{iterations} iterations", run))
    if with_gradient and rows and rows[0][0] == "jacobi":
        iterations = rows[0][1].partition(" ")[0]
        unrolled = {"solver": Unrolled(int(iterations))}
        rows.append(("jacobi, bptt", rows[0][1], solving(task, "bptt", **unrolled)))
        rows.append(
            (
                "jacobi, one step",
                rows[0][1],
                solving(task, "one_step", solver=SOLVERS["jacobi"]),
            )
        )
    rows += [
        ("elman", "one scan", looping(task, "elman", with_gradient)),
        ("bidirectional GRU", "two scans", looping(task, "gru", with_gradient)),
    ]
    entries = []
    for name, setting, run in rows:
        work = Work(functools.partial(_finish, run, args))
        work.once()
        entries.append(Entry(name, setting, work, peer=False))
    return entries


def beside_optimistix(task: Task, config: Config) -> list[Table]:
    """Prints and returns the tables of a solve and of its gradient beside optimistix.

    Raises:
      AssertionError: F is not evaluated equally often, or the states or gradients are
        not equal, so that the times do not compare.
    """
    size = f"T = {task.drive.shape[-2]}, H = {task.drive.shape[-1]}"
    tables = []
    for part, make in (("forward", _forward_rows), ("gradient", _gradient_rows)):
        title = f"{task.name}, {size}, {part}, beside optimistix"
        tables.append(protocol.compare(title, "ms", make(task), config))
    return tables


def _forward_rows(task: Task) -> list[Entry]:
    """Returns Jacobi and the iteration of optimistix, checked to have equal states."""
    from benchmarks import feedback_peers

    ours = solving(task, None, solver=Jacobi(TOLERANCE, LIMIT))
    theirs = jax.jit(feedback_peers.solving(TOLERANCE, LIMIT))
    setting, solution = _check_evaluations(task, TOLERANCE, ours, theirs)
    protocol.check_equal("optimistix", *solution, atol=20 * TOLERANCE)
    name = "optimistix, FixedPointIteration"
    rows = [("ffnlab", setting, ours, None), (name, setting, theirs, FORWARD_TARGET)]
    return _run_once(task, rows)


def _gradient_rows(task: Task) -> list[Entry]:
    """Returns implicit gradients, ours and optimistix's, checked to be equal."""
    from benchmarks import feedback_peers

    options = (GRADIENT_TOLERANCE, LIMIT)
    ours = solving(task, None, solver=Jacobi(*options))
    theirs = jax.jit(feedback_peers.solving(*options))
    setting, _ = _check_evaluations(task, GRADIENT_TOLERANCE, ours, theirs)
    run = _gradient_of(lambda *args: ours(*args).state)
    rows, expected = [("ffnlab", setting, run, None)], run(*task[:3])
    sizes = [jnp.abs(array).max() for array in expected]
    for restart in feedback_peers.RESTARTS:
        states = feedback_peers.solving(*options, restart)
        run = _gradient_of(lambda *args, states=states: states(*args)[0])
        for one, other, size in zip(expected, run(*task[:3]), sizes, strict=True):
            protocol.check_equal("optimistix", one / size, other / size, atol=EQUAL)
        name = "optimistix, ImplicitAdjoint(GMRES)"
        rows.append((name, f"{setting}, restart={restart}", run, GRADIENT_TARGET))
    return _run_once(task, rows)


def _check_evaluations(
    task: Task, tolerance: float, ours: Callable[..., Any], theirs: Callable[..., Any]
) -> tuple[str, tuple[Any, Any]]:
    """Returns how often both solves evaluate F, in words, and both states."""
    solution, (state, count) = ours(*task[:3]), theirs(*task[:3])
    mine = int(solution.iterations.max()) + 1  # and one before the first iteration
    print(f"evaluations of F, to {tolerance:g}: ffnlab {mine}, optimistix {int(count)}")
    assert mine == int(count), "the solves do not stop by the same rule"
    return f"{mine} evaluations", (solution.state, state)


def _gradient_of(states: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Returns the gradient of ½ Σ h² by drive and kernels.

    The cotangent is h, of a size near 1: for it, tolerances relative to the largest
    entry, as ours, and absolute ones are the same.
    """
    return jax.jit(
        jax.grad(lambda *args: 0.5 * jnp.sum(states(*args) ** 2), argnums=(0, 1, 2))
    )


def _run_once(task: Task, rows: list[tuple]) -> list[Entry]:
    """Returns the entries of rows of name, setting, function and target, compiled."""
    entries = []
    for name, setting, run, target in rows:
        work = Work(functools.partial(_finish, run, tuple(task[:3])))
        work.once()
        entries.append(Entry(name, setting, work, target=target))
    return entries


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
        for steps in (5, 20, 80):
            solver = Unrolled(steps) if gradient == "bptt" else Jacobi(max_steps=steps)
            run = solving(task, gradient, solver=solver, **options)
            memory = run.lower(*task[:3]).compile().memory_analysis()
            cells.append(f"{memory.temp_size_in_bytes / task.drive.nbytes:.1f}")
        rows.append([name, *cells])
    columns = ["gradient", "5 iterations", "20", "80"]
    table = Table(columns, rows)
    print()
    table.show(f"temporary memory in arrays [B, T, H], T = {length}, H = {width}")
    return table


def trained(bound: float | None) -> Task:
    """Returns the chain that a network trained on `noisy_smoothing` solves."""
    dataset = data.SEQUENCES["noisy_smoothing"]()
    config = sequence.SequenceConfig(
        dataset.classes, hidden=32, activation="relu", contractive=bound,
        solver=Jacobi(1e-3, 40),
    )  # fmt: skip
    learner = loop.Learner(
        sequence.sequence_model(config),
        objectives.OBJECTIVES["classes"],
        optimizers.make("adamw", clip=1.0),
    )
    result = loop.fit(
        learner,
        dataset,
        Plan(200, 200, 32, monitor="accuracy", higher_is_better=True),
        learning_rate=5e-3,
    )
    kind = "certified" if bound else "free"
    print(f"trained, {kind}: accuracy {result.record.best:.3f}")
    model = bind(lambda r: sequence.SequenceModel(config, rngs=r), result.best)
    x = data.take(jax.device_put(dataset.test), jnp.arange(POSITIONS // 32))["x"]
    _, args, _ = model.body.problem(*model.read(x))
    return Task(args["drive"], *args["kernels"], kind)


def solve_trained(config: Config) -> list[Table]:
    """Prints and returns the tables of the solvers on trained kernels."""
    tables = []
    for bound in (0.9, None):
        task = trained(bound)
        rows = []
        for name, solver in SOLVERS.items():
            run = solving(task, None, solver=solver, activation="relu")
            solution = run(*task[:3])
            converged = float(solution.converged.mean())
            iterations = float(solution.iterations.mean())
            work = Work(functools.partial(_finish, run, tuple(task[:3])))
            rows.append(
                Entry(
                    name,
                    f"{iterations:.0f} iterations, {converged:.0%} converged",
                    work,
                    peer=False,
                )
            )
        title = f"trained kernels, {task.name}, T = 32, H = 32"
        tables.append(protocol.compare(title, "ms", rows, config))
    return tables


def run(config: Config) -> list[Table]:
    """Prints the tables and returns them."""
    protocol.describe()
    peer = protocol.has("optimistix")
    tables = []
    for kind in ("certified", "strong"):
        for length in config.lengths:
            for width in config.widths:
                task = make_task(kind, length, width)
                for with_gradient in (False, True):
                    part = "gradient" if with_gradient else "forward"
                    title = f"{kind}, T = {length}, H = {width}, {part}"
                    rows = make_entries(task, with_gradient)
                    tables.append(protocol.compare(title, "ms", rows, config))
                if peer and kind == "certified":
                    tables += beside_optimistix(task, config)
    return [*tables, measure_memory(), *solve_trained(config)]


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
