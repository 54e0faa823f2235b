import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.feedback.chain import chain_system, solve_chain
from ffnlab.feedback.fixed_point import solve
from ffnlab.feedback.iteration import System
from ffnlab.feedback.solvers import (
    Anderson,
    GaussSeidel,
    Jacobi,
    Krylov,
    Newton,
    Unrolled,
    auto,
)
from ffnlab.feedback.tridiagonal import block_tridiagonal

SOLVERS = [
    Jacobi(),
    Jacobi(damping=0.3),
    GaussSeidel(),
    GaussSeidel(damping=0.2),
    Anderson(),
    Anderson(memory=1),
    Anderson(memory=3, damping=0.2),
    Newton(),
    Newton(parallel=True),
    Newton(damping=0.1),
]


def rotation(rng, width, scale):
    return scale * np.linalg.qr(rng.normal(size=(width, width)))[0]


def task(seed=0, batch=3, length=7, width=4, coupling=0.8, dtype=np.float64):
    """Returns drive, left and right of a random chain with ‖W‖ + ‖V‖ = coupling."""
    rng = np.random.default_rng(seed)
    drive = rng.normal(size=(batch, length, width))
    sides = [rotation(rng, width, coupling * share) for share in (0.45, 0.55)]
    return [np.asarray(each, dtype) for each in (drive, *sides)]


LENGTHS = [1, 2, 3, 5, 8, 13]


def block_systems():
    """Returns block-tridiagonal systems of every length, with their solutions.

    What lies outside the matrix is NaN, and must never be read.
    """
    systems, solutions = [], []
    for length in LENGTHS:
        rng = np.random.default_rng(length)
        lower, diagonal, upper = rng.normal(size=(3, 2, length, 3, 3))
        diagonal = diagonal + 5 * np.eye(3)
        right = rng.normal(size=(2, length, 3))
        dense = np.zeros((2, length, 3, length, 3))
        for t in range(length):
            dense[:, t, :, t] = diagonal[:, t]
            if t > 0:
                dense[:, t, :, t - 1] = lower[:, t]
            if t + 1 < length:
                dense[:, t, :, t + 1] = upper[:, t]
        size = 3 * length
        solution = np.linalg.solve(
            dense.reshape(2, size, size), right.reshape(2, size, 1)
        )
        lower[:, 0] = upper[:, -1] = np.nan
        systems.append((lower, diagonal, upper, right))
        solutions.append(solution.reshape(right.shape))
    return systems, solutions


@pytest.mark.parametrize("parallel", [False, True])
def test_block_tridiagonal_systems_are_solved(x64, parallel):
    """Against a dense solve, for lengths that are and are not powers of two."""
    systems, expected = block_systems()
    solve_all = jax.jit(
        lambda systems: [block_tridiagonal(*each, parallel) for each in systems]
    )
    chex.assert_trees_all_close(solve_all(systems), expected, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_all_solvers_find_the_same_states(x64, solver):
    """In a batch, under vmap and alone, which changes nothing for any system."""
    drive, left, right = task()
    drive = drive * np.array([0.01, 1.0, 3.0])[:, None, None]
    solver = dataclasses.replace(solver, max_steps=300)

    def one(drive):
        return solve_chain(drive, left, right, solver=solver)

    @jax.jit
    def run(drive):
        return one(drive), jax.vmap(one)(drive), jax.lax.map(one, drive)

    together, mapped, alone = run(drive)
    assert len(set(together.iterations.tolist())) > 1
    expected = reference(drive, left, right)
    for solution in (together, mapped, alone):
        assert solution.converged.all()
        chex.assert_trees_all_close(solution.state, expected, atol=1e-9)
        # Rounding may carry a residual over the tolerance an iteration sooner.
        assert abs(solution.iterations - alone.iterations).max() <= 1
        chex.assert_trees_all_close(solution.state, alone.state, atol=1e-10)


def reference(drive, left, right):
    """Returns tanh states that plain iteration in NumPy does not change any more."""
    h = np.zeros_like(drive)
    for _ in range(500):
        z = np.array(drive)
        z[:, 1:] += h[:, :-1] @ left
        z[:, :-1] += h[:, 1:] @ right
        h = np.tanh(z)
    return h


def test_single_precision_and_jit():
    """Every solver in one program, in float32."""
    drive, left, right = task(dtype=np.float32)
    solvers = [*SOLVERS, Unrolled(60)]
    solutions = jax.jit(
        lambda *args: [solve_chain(*args, solver=solver) for solver in solvers]
    )(drive, left, right)
    expected = reference(drive, left, right)
    for solver, solution in zip(solvers, solutions, strict=True):
        assert solution.state.dtype == jnp.float32, solver
        assert solution.converged.all(), solver
        chex.assert_trees_all_close(solution.state, expected, atol=1e-4)


def test_one_sweep_is_exact_without_the_right(x64):
    drive, left, right = task(coupling=3.0)
    solution = solve_chain(drive, left, 0 * right, solver=GaussSeidel())
    assert solution.iterations.tolist() == [1, 1, 1] and solution.converged.all()
    h, states = np.zeros((3, 4)), []
    for t in range(7):
        h = np.tanh(drive[:, t] + h @ left)
        states.append(h)
    chex.assert_trees_all_close(solution.state, np.stack(states, 1), atol=1e-12)
    # Jacobi hands a state on by one position an iteration.
    slow = solve_chain(drive, left, 0 * right, solver=Jacobi())
    assert slow.iterations.max() in (6, 7)


def test_one_unrolled_sweep_reads_no_neighbour(x64):
    """What a loop computes that reads the right neighbour's state too early."""
    drive, left, right = task()
    solution = solve_chain(drive, left, right, solver=Unrolled(1))
    chex.assert_trees_all_close(solution.state, jnp.tanh(drive), atol=1e-15)
    assert not solution.converged.any() and solution.iterations.tolist() == [1, 1, 1]
    twice = solve_chain(drive, left, right, solver=Unrolled(2))
    first = np.tanh(drive)
    inputs = np.zeros_like(drive)
    inputs[:, 1:] += first[:, :-1] @ left
    inputs[:, :-1] += first[:, 1:] @ right
    chex.assert_trees_all_close(twice.state, np.tanh(drive + inputs), atol=1e-12)


def test_newton_converges_where_iteration_swings(x64):
    """h_t = tanh(1 − 2 h_{t−1} − 2 h_{t+1}) has one even solution, far from stable."""
    drive, strong = jnp.ones((1, 6, 1)), jnp.full((1, 1), -2.0)
    plain = solve_chain(drive, strong, strong, solver=Jacobi(max_steps=200))
    newton = solve_chain(drive, strong, strong, solver=Newton(max_steps=30))
    assert not plain.converged.any() and newton.converged.all()


def test_newton_takes_the_fewest_iterations_and_jacobi_the_most(x64):
    given = task(coupling=0.95)
    newton, anderson, jacobi = (
        int(solve_chain(*given, solver=solver).iterations.max())
        for solver in (Newton(), Anderson(), Jacobi())
    )
    assert newton <= 5 < anderson < jacobi


def test_anderson_survives_equal_residuals(x64):
    """A map that moves by the same step for ever gives a Gram matrix of rank one."""
    shifted = System(step=lambda args, h: h + args)
    step = jnp.ones((2, 3))
    solution = solve(shifted, step, jnp.zeros((2, 3)), Anderson(max_steps=20))
    assert jnp.isfinite(solution.state).all() and not solution.converged
    still = System(step=lambda args, h: h)
    solution = solve(still, None, jnp.ones((2, 3)), Anderson())
    assert solution.converged and solution.iterations == 0


def test_damping_mends_an_oscillation(x64):
    """h ← 1 − 1.2 h swings ever wider; the half of it settles."""
    swing = System(step=lambda args, h: 1.0 - 1.2 * h)
    start = jnp.zeros((1, 1))
    assert not solve(swing, None, start, Jacobi()).converged
    solution = solve(swing, None, start, Jacobi(damping=0.5))
    assert solution.converged
    chex.assert_trees_all_close(solution.state, jnp.full((1, 1), 1 / 2.2), atol=1e-9)


def test_auto_picks_jacobi_where_it_is_certified():
    assert auto(True, 1e-3, 7, 0.5) == Jacobi(1e-3, 7, 0.5)
    assert auto(False, 1e-3, 7, 0.5) == GaussSeidel(1e-3, 7, 0.5)


def test_max_steps_are_kept_and_reported(x64):
    given = task(coupling=0.99)
    solution = solve_chain(*given, solver=Jacobi(max_steps=4))
    assert solution.iterations.tolist() == [4, 4, 4] and not solution.converged.any()
    before = solve_chain(*given, solver=Unrolled(4))
    chex.assert_trees_all_close(solution.state, before.state, atol=1e-15)
    chex.assert_trees_all_close(solution.residual, before.residual, atol=1e-15)
    args = {"drive": given[0], "kernels": given[1:]}
    image = chain_system("tanh").step(args, solution.state)
    expected = jnp.abs(image - solution.state).max(axis=(1, 2))
    chex.assert_trees_all_close(solution.residual, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jacobi(max_steps=0), "max_steps=0 must be at least 1"),
        (lambda: Jacobi(damping=1.0), "damping=1.0 must be in"),
        (lambda: Jacobi(damping=float("nan")), "damping=nan must be in"),
        (lambda: Jacobi(tolerance=float("nan")), "tolerance=nan must be above 0"),
        (lambda: Newton(tolerance=0.0), "tolerance=0.0 must be above 0"),
        (lambda: Anderson(memory=0), "memory=0 must be at least 1"),
        (lambda: Unrolled(0), "sweeps=0 must be at least 1"),
        (lambda: Unrolled(2, damping=-1.0), "damping=-1.0 must be in"),
        (lambda: Krylov(method="cg"), "method: unknown 'cg'"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Newton(), "Newton needs a system with `blocks`"),
        (GaussSeidel(), "GaussSeidel needs a system with `sweep`"),
        (Krylov(), "Krylov needs a system with `linear`"),
        (Jacobi(tolerance=1e-9), "tolerance 1e-09 is below what float32 resolves"),
    ],
)
def test_solvers_that_cannot_are_refused(solver, message):
    half = System(step=lambda args, h: 0.5 * h)
    with pytest.raises(InputError, match=message):
        solve(half, None, jnp.zeros((1, 1)), solver)
