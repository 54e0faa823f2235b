import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.feedback import fixed_point
from ffnlab.feedback.chain import chain, feedback
from ffnlab.feedback.fixed_point import NotConverged, solve
from ffnlab.feedback.iteration import System, history
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
MASK = jnp.arange(7)[None] < jnp.array([7, 5, 1])[:, None]


def loss(args, solver=None, gradient="implicit", activation="tanh", **options):
    drive, left, right = args[:3]
    beta = args[3] if len(args) > 3 else None
    found = feedback(
        drive, left, right, activation=activation, beta=beta, mask=MASK,
        solver=solver or Jacobi(), gradient=gradient, **options,
    )  # fmt: skip
    return jnp.sum(jnp.sin(3 * found.state) ** 2)


@pytest.mark.parametrize(("gradient", "solver", "options"), WAYS, ids=str)
def test_gradients_agree(x64, gradient, solver, options):
    """All ways but one step give one gradient, to a millionth, with a mask."""
    args = task()
    wanted = jax.grad(loss)(args, Jacobi(tolerance=1e-14, max_steps=500))
    found = jax.jit(jax.grad(lambda a: loss(a, solver, gradient, **options)))(args)
    chex.assert_trees_all_close(found, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["implicit", "bptt"])
@pytest.mark.parametrize("activation", ["tanh", "swish", "swish_channel", "mish"])
def test_gradients_are_the_slope(x64, activation, gradient):
    """Against central differences along random directions."""
    args = task(coupling=0.6)
    if activation.startswith("swish"):
        args.append(jnp.full((4,) if activation.endswith("channel") else (), 0.8))
    solver = Jacobi(tolerance=1e-14, max_steps=200)

    def value(args):
        return loss(args, solver, gradient, activation)

    slope = jax.grad(value)(args)
    rng = np.random.default_rng(1)
    for which in range(len(args)):
        along = jnp.asarray(rng.normal(size=args[which].shape))
        ends = []
        for sign in (1, -1):
            moved = list(args)
            moved[which] = args[which] + sign * 1e-6 * along
            ends.append(value(moved))
        wanted = (ends[0] - ends[1]) / 2e-6
        assert float(jnp.sum(slope[which] * along)) == pytest.approx(
            float(wanted), rel=1e-6, abs=1e-7
        )


def test_one_step_is_the_gradient_of_one_step(x64):
    args = task()
    found = jax.grad(lambda a: loss(a, gradient="one_step"))(args)
    drive, left, right = args
    state = feedback(*args, mask=MASK).state

    def once(args):
        given = {"drive": args[0], "kernels": [args[1], args[2]], "mask": MASK}
        return jnp.sum(jnp.sin(3 * chain("tanh").step(given, state)) ** 2)

    chex.assert_trees_all_close(found, jax.grad(once)(args), atol=1e-9)
    exact = jax.grad(loss)(args)
    assert abs(found[1] - exact[1]).max() > 0.1  # it is biased


def test_gradients_of_a_batch_are_those_of_each(x64):
    drive, left, right = task()

    def one(left, drive):
        return jnp.sum(feedback(drive, left, right).state ** 2)

    each = jax.vmap(jax.grad(one), in_axes=(None, 0))(left, drive)
    chex.assert_trees_all_close(each.sum(0), jax.grad(one)(left, drive), atol=1e-8)


def test_the_adjoint_residual_is_told(x64):
    """By the gradient of the sensor, and by `adjoint` itself."""
    drive, left, right = task()

    def value(callback, max_steps):
        found = feedback(
            drive,
            left,
            right,
            callback=callback,
            adjoint_solver=Jacobi(max_steps=max_steps),
        )
        return jnp.sum(found.state)

    rough, fine = (jax.grad(value)(jnp.zeros(3), max_steps) for max_steps in (3, 100))
    assert (rough > 1e-3).all() and (fine < 1e-10).all()
    args = {"drive": drive, "kernels": [left, right]}
    state = feedback(drive, left, right).state
    ones = jnp.ones_like(state)
    found = fixed_point.adjoint(chain("tanh"), args, state, ones, Jacobi(max_steps=3))
    chex.assert_trees_all_close(found.residual, rough, rtol=1e-6)
    assert not found.converged.any()


@pytest.mark.parametrize("solver", [Jacobi, GaussSeidel, Anderson, Newton])
def test_the_history_is_that_of_the_solve(x64, solver):
    drive, left, right = task()
    args, start = {"drive": drive, "kernels": [left, right]}, jnp.zeros_like(drive)
    told = history(chain("tanh"), args, start, solver(max_steps=6))
    for max_steps in (1, 4, 6):
        found = feedback(drive, left, right, solver=solver(max_steps=max_steps))
        row = jax.tree.map(lambda each, i=max_steps: each[i], told)
        chex.assert_trees_all_close(row, found, atol=1e-12)
    assert told.state.shape == (7, *drive.shape) and (told.state[0] == 0).all()


def test_a_solve_compiles_once(x64):
    chex.clear_trace_counter()
    drive, left, right = task()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(drive):
        return feedback(drive, left, right).state

    run(drive), run(2 * drive)


def test_failure_is_an_error_if_asked(x64):
    given = task(coupling=0.99)
    lax = Jacobi(max_steps=3)
    with pytest.raises(NotConverged, match="3 of 3 systems did not converge"):
        feedback(*given, solver=lax, throw="raise")
    with pytest.raises(NotConverged):
        jax.grad(lambda g: feedback(*g, solver=lax, throw="raise").state.sum())(given)
    run = jax.jit(lambda *g: feedback(*g, solver=lax, throw="raise").state)
    with pytest.raises(Exception, match="did not converge"):
        jax.block_until_ready(run(*given))
    good = jax.jit(lambda *g: feedback(*g, throw="raise").state)(*task())
    chex.assert_trees_all_close(good, feedback(*task()).state)


def test_the_spectral_radius_is_measured(x64):
    drive, left, right = (each[:1] if each.ndim == 3 else each for each in task())
    for coupling in (0.5, 2.5):
        args = {"drive": drive, "kernels": [coupling * left, coupling * right]}
        state = feedback(drive, *args["kernels"], solver=Newton()).state
        dense = jax.jacobian(lambda h, args=args: chain("tanh").step(args, h))(state)
        wanted = np.abs(np.linalg.eigvals(dense.reshape(28, 28))).max()
        found = fixed_point.spectral_radius(chain("tanh"), args, state, 400)
        assert float(found[0]) == pytest.approx(wanted, rel=0.03)


def test_not_a_number_stops_at_once_and_stays_alone():
    drive, left, right = task(dtype=np.float32)
    clean = feedback(drive, left, right)
    for solver in (Jacobi(), GaussSeidel(), Anderson(), Newton()):
        found = feedback(drive.at[1, 2, 0].set(jnp.nan), left, right, solver=solver)
        assert found.converged.tolist() == [True, False, True]
        assert jnp.isnan(found.residual[1]) and int(found.iterations[1]) == 0
        chex.assert_trees_all_close(found.state[::2], clean.state[::2], atol=1e-4)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (jnp.zeros(3), "no positions"),
        (jnp.zeros((0, 3)), "no positions"),
        (jnp.zeros((2, 3), jnp.int32), "float32 or float64, not int32"),
        (jnp.zeros((2, 3), jnp.bfloat16), "float32 or float64, not bfloat16"),
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
    with pytest.raises(InputError, match="throw: unknown 'riase'"):
        solve(same, None, start, Jacobi(), throw="riase")
