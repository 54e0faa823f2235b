import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffnlab.errors import InputError
from ffnlab.feedback.chain import (
    chain_system,
    contract_kernels,
    contraction,
    solve_chain,
    spectral_bound,
)
from ffnlab.feedback.solvers import Anderson, GaussSeidel, Jacobi, Newton
from tests import oracles
from tests.feedback.test_solvers import task

TIGHT = Jacobi(tolerance=1e-14, max_steps=1000)
MASK = np.array([[1] * 9, [1] * 6 + [0] * 3, [0, 1, 1, 0, 1, 0, 1, 1, 0]], bool)


@pytest.mark.parametrize(
    "activation", ["identity", "tanh", "relu", "sigmoid", "mish", "swish", "gelu"]
)
def test_the_states_are_the_oracles(x64, activation):
    """With holes in the mask, states outside and a kernel of the state itself."""
    drive, left, right = task(length=9, coupling=0.5)
    rng = np.random.default_rng(5)
    inside, ends = 0.2 * np.eye(4), rng.normal(size=(2, 4))
    beta = np.ones(()) if activation == "swish" else None
    solvers = [TIGHT, GaussSeidel(), Anderson(), Newton()]

    @jax.jit
    def run(drive, left, right, inside, ends):
        return [
            solve_chain(
                drive, left, right, inside, activation=activation, beta=beta,
                mask=MASK, boundary=tuple(ends), solver=solver,
            )
            for solver in solvers
        ]  # fmt: skip

    solutions = run(drive, left, right, inside, ends)
    for i in range(3):
        expected = oracles.feedback(
            drive[i], left, right, inside, activation, MASK[i], ends
        )
        for solution in solutions:
            assert solution.converged.all()
            chex.assert_trees_all_close(solution.state[i], expected, atol=1e-9)


def test_padding_touches_nobody(x64):
    drive, left, right = task(length=9)
    spoilt = np.array(drive)
    spoilt[:, 5:] = np.nan
    mask = np.broadcast_to(np.arange(9)[None] < 5, (3, 9))

    @jax.jit
    def run(drives):
        short = solve_chain(drive[:, :5], left, right, solver=TIGHT)
        return short, jax.lax.map(
            lambda each: solve_chain(each, left, right, mask=mask, solver=TIGHT), drives
        )

    short, padded = run(np.stack([drive, spoilt]))
    for state in padded.state:
        chex.assert_trees_all_close(state[:, :5], short.state, atol=1e-13)
        assert (state[:, 5:] == 0).all()


def test_the_right_is_the_left_read_backwards(x64):
    drive, left, right = task()
    run = jax.jit(lambda *args: solve_chain(*args, solver=TIGHT).state)
    forward, backward = run(drive, left, right), run(drive[:, ::-1], right, left)
    chex.assert_trees_all_close(forward, backward[:, ::-1], atol=1e-12)


def test_a_single_sequence_needs_no_batch():
    drive, left, right = task(dtype=np.float32)
    batch, single = (solve_chain(each, left, right) for each in (drive, drive[0]))
    chex.assert_trees_all_close(single.state, batch.state[0], atol=1e-5)
    assert single.residual.shape == ()


def test_a_single_sequence_may_have_a_mask():
    drive, left, right = task(dtype=np.float32)
    run = functools.partial(solve_chain, left=left, right=right, solver=GaussSeidel())
    mask = np.arange(drive.shape[1]) < 4
    batch = run(drive[:1], mask=mask[None])
    chex.assert_trees_all_close(run(drive[0], mask=mask).state, batch.state[0])


def test_a_mask_of_nothing_gives_nothing():
    drive, left, right = task(dtype=np.float32)
    solution = solve_chain(drive, left, right, mask=np.zeros((3, 7), bool))
    assert solution.converged.all() and (solution.state == 0).all()
    assert (solution.iterations == 0).all()


@pytest.mark.parametrize("shape", [(5, 5), (1, 1), (6, 3), (64, 64)])
def test_the_spectral_bound_is_above_and_near(shape):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=shape).astype(np.float32)
    extremes = [kernel[:, :1] @ kernel[:1], np.eye(*shape, dtype=np.float32)]
    for each in (kernel, 1e-8 * kernel, 1e8 * kernel, *extremes):
        true = np.linalg.norm(each.astype(np.float64), 2)
        bound = float(spectral_bound(jnp.asarray(each)))
        assert true <= bound <= 1.0015 * true


def test_the_slope_of_the_spectral_bound_is_that_of_the_norm(x64):
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(6, 6)))
    left, _, right = jnp.linalg.svd(kernel)
    expected = jnp.outer(left[:, 0], right[0])
    slope = jax.grad(lambda k: spectral_bound(k, squarings=16))(kernel)
    chex.assert_trees_all_close(slope, expected, atol=1e-3)


def test_contraction_sums_the_norms():
    kernels = {"left": 0.25 * jnp.eye(3), "right": jnp.diag(jnp.array([0.5, 0.0, 0.1]))}
    assert float(contraction(kernels, "tanh")) == pytest.approx(0.75)
    assert float(contraction(kernels, "sigmoid")) == pytest.approx(0.75 / 4)
    kernels["inside"] = jnp.eye(3)
    assert float(contraction(kernels, "hard_swish")) == pytest.approx(1.5 * 1.75)
    assert contraction(kernels, "relu2") == jnp.inf
    two_sided = {name: kernels[name] for name in ("left", "right")}
    joint = float(contraction(two_sided, "tanh", "joint"))
    assert float(contraction(kernels, "tanh", "joint")) == pytest.approx(joint + 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**30), length=st.integers(1, 8), width=st.integers(1, 4))
def test_the_joint_certificate_is_above_the_norm_and_below_the_sum(seed, length, width):
    """Against the dense matrix that takes all states to what they hear."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        left, right = rng.normal(size=(2, width, width))
        dense = np.zeros((length, width, length, width))
        for t in range(length):
            if t > 0:
                dense[t, :, t - 1] = left.T
            if t + 1 < length:
                dense[t, :, t + 1] = right.T
        norm = np.linalg.norm(dense.reshape(length * width, -1), 2)
        kernels = {"left": jnp.asarray(left), "right": jnp.asarray(right)}
        joint = float(contraction(kernels, "tanh", "joint"))
        total = float(contraction(kernels, "tanh", "sum"))
        assert norm <= joint * (1 + 1e-9) and joint <= total * (1 + 1e-9)


def _largest(h):
    return np.linalg.norm(h, axis=-1).max()


def _together(h):
    return np.linalg.norm(h)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**30),
    bound=st.floats(0.05, 0.95),
    activation=st.sampled_from(["tanh", "relu", "mish", "sigmoid", "hard_swish"]),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    rule=st.sampled_from([("sum", _largest), ("joint", _together)]),
)
def test_the_certificate_keeps_its_promise(seed, bound, activation, scale, rule):
    """One solution, from any start, by any solver, and Jacobi at the promised rate."""
    certificate, norm = rule
    with jax.enable_x64(True):
        drive, left, right = task(seed, batch=1, length=6, width=3, coupling=5.0)
        left, right = contract_kernels([left, right], activation, bound, certificate)
        kernels = {"left": left, "right": right}
        promised = float(contraction(kernels, activation, certificate))
        assert promised <= bound
        options = {"activation": activation}
        expected = solve_chain(drive, left, right, solver=TIGHT, **options).state
        start = scale * jnp.asarray(np.random.default_rng(seed).normal(size=(1, 6, 3)))
        for solver in (
            GaussSeidel(max_steps=500),
            Anderson(max_steps=500),
            Newton(max_steps=500),
        ):
            solution = solve_chain(
                drive, left, right, solver=solver, start=start, **options
            )
            assert solution.converged.all()
            chex.assert_trees_all_close(solution.state, expected, atol=1e-8)
        step = chain_system(activation).step
        args, state = {"drive": drive, "kernels": [left, right]}, start
        for _ in range(10):
            before = norm(state - expected)
            state = step(args, state)
            assert norm(state - expected) <= promised * before + 1e-12


def test_without_the_certificate_it_may_fail():
    """Two solutions, each reached from its own start."""
    drive, strong = jnp.zeros((1, 4, 1)), jnp.ones((1, 1))
    ends = [
        solve_chain(drive, strong, strong, start=jnp.full((1, 4, 1), sign)).state
        for sign in (1.0, -1.0)
    ]
    assert (ends[0] > 0.5).all() and (ends[1] < -0.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drive": jnp.zeros((3, 0, 4))}, r"drive \[3, 0, 4\] must be \[..., T, H\]"),
        ({"drive": jnp.zeros(4)}, r"drive \[4\] must be"),
        ({"left": jnp.zeros((4, 5))}, r"left \[4, 5\] must be \[4, 4\]"),
        ({"right": jnp.zeros((3, 3))}, r"right \[3, 3\] must be \[4, 4\]"),
        ({"mask": jnp.zeros((3, 6), bool)}, r"mask \[3, 6\] must be \[3, 7\]"),
        ({"activation": "swish"}, "swish needs a beta"),
        ({"beta": jnp.ones(())}, "tanh has no beta"),
        ({"activation": "tahn"}, "unknown 'tahn'; nearest: tanh"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    drive, left, right = task(dtype=np.float32)
    given = {"drive": drive, "left": left, "right": right, **change}
    with pytest.raises(InputError, match=message):
        solve_chain(**given)
