import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.feedback import fixed_point
from ffnlab.feedback.chain import chain_system, solve_chain
from ffnlab.feedback.failures import NotConverged
from ffnlab.feedback.fixed_point import history, solve
from ffnlab.feedback.iteration import System
from ffnlab.feedback.solvers import (
    Anderson,
    GaussSeidel,
    Jacobi,
    Krylov,
    Newton,
    Unrolled,
)
from tests.feedback.test_solvers import task

WAYS = [
    ("implicit", Jacobi(), {}),
    ("implicit", GaussSeidel(), {}),
    ("implicit", Anderson(), {}),
    ("implicit", Newton(), {}),
    ("implicit", Newton(parallel=True), {}),
    ("implicit", Jacobi(), {"adjoint_solver": Krylov()}),
    ("implicit", Newton(), {"adjoint_solver": Krylov(method="bicgstab")}),
    ("implicit", Unrolled(80), {}),
    ("bptt", Jacobi(), {}),
    ("bptt", Jacobi(), {"checkpoint": True}),
    ("bptt", GaussSeidel(max_steps=50), {}),
    ("bptt", Anderson(max_steps=50), {}),
    ("bptt", Newton(max_steps=8), {}),
    ("bptt", Unrolled(80), {}),
]
MASK = np.arange(7)[None] < np.array([7, 5, 1])[:, None]
EXACT = Jacobi(tolerance=1e-14, max_steps=500)


def loss(args, solver=None, gradient="implicit", activation="tanh", **options):
    drive, left, right = args[:3]
    beta = args[3] if len(args) > 3 else None
    solution = solve_chain(
        drive, left, right, activation=activation, beta=beta, mask=MASK,
        solver=solver or Jacobi(), gradient=gradient, **options,
    )  # fmt: skip
    return jnp.sum(jnp.sin(3 * solution.state) ** 2)


@functools.cache
def exact_gradient():
    return jax.jit(jax.grad(lambda args: loss(args, EXACT)))(task())


@pytest.mark.parametrize(("gradient", "solver", "options"), WAYS, ids=str)
def test_gradients_agree(x64, gradient, solver, options):
    """All ways but one step give one gradient, to a millionth, with a mask."""
    slope = jax.jit(jax.grad(lambda args: loss(args, solver, gradient, **options)))
    chex.assert_trees_all_close(slope(task()), exact_gradient(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["implicit", "bptt"])
@pytest.mark.parametrize("activation", ["tanh", "swish", "swish_channel", "mish"])
def test_gradients_are_the_slope(x64, activation, gradient):
    """Against central differences along random directions."""
    args = task(coupling=0.6)
    if activation.startswith("swish"):
        args.append(np.full((4,) if activation.endswith("channel") else (), 0.8))
    solver = Jacobi(tolerance=1e-14, max_steps=200)
    rng = np.random.default_rng(1)
    along = [rng.normal(size=each.shape) for each in args]

    def value(args):
        return loss(args, solver, gradient, activation)

    def moved(which, step):
        return [a + step * along[i] if i == which else a for i, a in enumerate(args)]

    pairs = [moved(which, step) for which in range(len(args)) for step in (1e-6, -1e-6)]
    pairs = jax.tree.map(lambda *rows: np.stack(rows), *pairs)
    slopes, values = jax.jit(
        lambda args, pairs: (jax.grad(value)(args), jax.lax.map(value, pairs))
    )(args, pairs)
    for which, slope in enumerate(slopes):
        expected = (values[2 * which] - values[2 * which + 1]) / 2e-6
        assert np.sum(slope * along[which]) == pytest.approx(
            float(expected), rel=1e-6, abs=1e-7
        )


def test_one_step_is_the_gradient_of_one_step(x64):
    args = task()

    def once(args, state):
        given = {"drive": args[0], "kernels": [args[1], args[2]], "mask": MASK}
        return jnp.sum(jnp.sin(3 * chain_system("tanh").step(given, state)) ** 2)

    @jax.jit
    def run(args):
        state = solve_chain(*args, mask=MASK).state
        slope = jax.grad(lambda a: loss(a, gradient="one_step"))(args)
        return slope, jax.grad(once)(args, state)

    slope, expected = run(args)
    chex.assert_trees_all_close(slope, expected, atol=1e-9)
    assert abs(slope[1] - exact_gradient()[1]).max() > 0.1  # it is biased


def test_gradients_of_a_batch_are_those_of_each(x64):
    drive, left, right = task()

    def one(left, drive):
        return jnp.sum(solve_chain(drive, left, right).state ** 2)

    @jax.jit
    def run(left, drive):
        single = jax.vmap(jax.grad(one), in_axes=(None, 0))(left, drive)
        return single.sum(0), jax.grad(one)(left, drive)

    chex.assert_trees_all_close(*run(left, drive), atol=1e-8)


def test_the_adjoint_residual_is_reported(x64):
    """By the gradient of the probe, and by `adjoint` itself."""
    drive, left, right = task()

    def value(probe, max_steps):
        solver = Jacobi(max_steps=max_steps)
        options = {"probe": probe, "adjoint_solver": solver}
        return jnp.sum(solve_chain(drive, left, right, **options).state)

    @jax.jit
    def run(probe):
        rough, fine = (jax.grad(value)(probe, max_steps) for max_steps in (3, 100))
        args = {"drive": drive, "kernels": [left, right]}
        state = solve_chain(drive, left, right).state
        ones, solver = jnp.ones_like(state), Jacobi(max_steps=3)
        direct = fixed_point.adjoint(chain_system("tanh"), args, state, ones, solver)
        return rough, fine, direct

    rough, fine, direct = run(np.zeros(3))
    assert (rough > 1e-3).all() and (fine < 1e-10).all()
    chex.assert_trees_all_close(direct.residual, rough, rtol=1e-6)
    assert not direct.converged.any()


@pytest.mark.parametrize("solver", [Jacobi, GaussSeidel, Anderson, Newton])
def test_the_history_is_that_of_the_solve(x64, solver):
    drive, left, right = task()
    args, start = {"drive": drive, "kernels": [left, right]}, np.zeros_like(drive)
    steps = (2, 6)

    @jax.jit
    def run(drive):
        rows = history(chain_system("tanh"), args, start, solver(max_steps=6))
        solvers = [solver(max_steps=count) for count in steps]
        return rows, [solve_chain(drive, left, right, solver=each) for each in solvers]

    rows, solutions = run(drive)
    for count, solution in zip(steps, solutions, strict=True):
        row = jax.tree.map(lambda array, count=count: array[count], rows)
        chex.assert_trees_all_close(row, solution, atol=1e-12)
    assert rows.state.shape == (7, *drive.shape) and (rows.state[0] == 0).all()


def test_a_solve_compiles_once(x64):
    chex.clear_trace_counter()
    drive, left, right = task()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(drive):
        return solve_chain(drive, left, right).state

    run(drive), run(2 * drive)


def test_failure_is_an_error_if_asked(x64):
    args = task(coupling=0.99)
    short = Jacobi(max_steps=3)

    def run(*args, **options):
        return solve_chain(*args, throw=True, **options).state

    with pytest.raises(NotConverged, match="3 of 3 systems did not converge"):
        run(*args, solver=short)
    with pytest.raises(NotConverged):
        jax.grad(lambda args: run(*args, solver=short).sum())(args)
    with pytest.raises(Exception, match="did not converge"):
        jax.block_until_ready(jax.jit(lambda *a: run(*a, solver=short))(*args))
    solved = jax.jit(run)(*task())
    chex.assert_trees_all_close(solved, solve_chain(*task()).state)
    assert not solve_chain(*args, solver=short).converged.any()  # nothing is raised


def test_the_spectral_radius_is_measured(x64):
    drive, left, right = task()
    system = chain_system("tanh")

    @jax.jit
    def run(coupling):
        args = {"drive": drive[:1], "kernels": [coupling * left, coupling * right]}
        state = solve_chain(drive[:1], *args["kernels"], solver=Newton()).state
        dense = jax.jacobian(lambda h: system.step(args, h))(state)
        return dense, fixed_point.spectral_radius(system, args, state, 400)

    for coupling in (0.5, 2.5):
        dense, radius = run(coupling)
        expected = np.abs(np.linalg.eigvals(dense.reshape(28, 28))).max()
        assert float(radius[0]) == pytest.approx(expected, rel=0.03)


def test_not_a_number_stops_at_once_and_stays_alone():
    drive, left, right = task(dtype=np.float32)
    spoilt = np.array(drive)
    spoilt[1, 2, 0] = np.nan
    solvers = (Jacobi(), GaussSeidel(), Anderson(), Newton())

    @jax.jit
    def run(drive, spoilt):
        solutions = [solve_chain(spoilt, left, right, solver=each) for each in solvers]
        return solve_chain(drive, left, right), solutions

    clean, solutions = run(drive, spoilt)
    for solution in solutions:
        assert solution.converged.tolist() == [True, False, True]
        assert np.isnan(solution.residual[1]) and solution.iterations[1] == 0
        chex.assert_trees_all_close(solution.state[::2], clean.state[::2], atol=1e-4)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (jnp.zeros(3), "no positions"),
        (jnp.zeros((0, 3)), "no positions"),
        (jnp.zeros((2, 3), jnp.int32), "float32 or float64, not int32"),
    ],
)
def test_bad_states_are_refused(start, message):
    with pytest.raises(InputError, match=message):
        solve(System(step=lambda args, h: h), None, start, Jacobi())


def test_bad_maps_and_names_are_refused():
    start, same = jnp.zeros((2, 3)), System(step=lambda args, h: h)
    with pytest.raises(InputError, match="to float32.2, 1."):
        solve(System(step=lambda args, h: h[:, :1]), None, start, Jacobi())
    with pytest.raises(InputError, match="gradient: unknown 'implict'; nearest: imp"):
        solve(same, None, start, Jacobi(), "implict")
