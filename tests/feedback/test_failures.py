"""What follows a solve that fails, also in jit; solvers by name; half precision."""

import re
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ffnlab import feedback
from ffnlab.errors import InputError
from ffnlab.feedback import (
    Anderson,
    FeedbackConfig,
    FeedbackLayer,
    FeedbackNetwork,
    Jacobi,
    NotConverged,
    NotConvergedWarning,
    System,
    checked,
    solve,
    solve_chain,
)
from ffnlab.feedback.solvers import SOLVERS, resolve

HALF = System(step=lambda args, h: 0.5 * h + args["x"])  # h = 2 x
ONES = np.ones((2, 3, 1), np.float32)
ZEROS = np.zeros_like(ONES)


def state(x, max_steps, **options):
    """The solution of h = h/2 + x, for which 30 steps are enough and 3 are not."""
    return solve(HALF, {"x": x}, ZEROS, Jacobi(max_steps=max_steps), **options).state


def slope(max_steps, **options):
    return jax.grad(lambda x: (state(x, max_steps, **options) ** 2).sum())


def caught(function, *args):
    """The warnings of a call, and its result."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = jax.block_until_ready(function(*args))
    return [each.category for each in found], result


def test_an_implicit_gradient_at_an_unconverged_state_warns_in_and_out_of_jit():
    assert caught(slope(3), ONES)[0] == [NotConvergedWarning]
    jitted = jax.jit(slope(3))
    assert caught(jitted, ONES)[0] == [NotConvergedWarning]
    assert caught(jitted, ONES)[0] == [NotConvergedWarning]  # filters decide how often
    with pytest.warns(NotConvergedWarning, match="implicit gradient .* not converged"):
        jitted(ONES)


def test_the_default_filter_shows_the_warning_once():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            jax.block_until_ready(jax.jit(slope(3))(ONES))
            jax.block_until_ready(jax.jit(slope(4))(ONES))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("max_steps", "options"),
    [(40, {}), (3, {"warn": False}), (3, {"gradient": "bptt"})],
)
def test_other_gradients_do_not_warn(max_steps, options):
    found, result = caught(jax.jit(slope(max_steps, **options)), ONES)
    assert found == []
    assert np.isfinite(result).all()


def test_the_gradient_is_the_same_with_and_without_the_warning():
    _, result = caught(jax.jit(slope(3)), ONES)
    chex.assert_trees_all_equal(result, jax.jit(slope(3, warn=False))(ONES))


def test_a_population_warns_by_one_call_where_one_member_fails():
    """In `vmap` both branches of a `cond` would run, and for each member."""
    xs = np.stack([0 * ONES, ONES, 0 * ONES])
    population = jax.jit(jax.vmap(slope(3)))
    assert caught(population, xs)[0] == [NotConvergedWarning]
    assert caught(population, 0 * xs)[0] == []
    sharding = NamedSharding(Mesh(jax.devices()[:2], "a"), PartitionSpec(None, "a"))
    sharded = jax.device_put(xs, sharding)
    assert caught(population, sharded)[0] == [NotConvergedWarning]
    assert caught(population, 0 * sharded)[0] == []


def test_a_program_calls_back_only_where_it_is_told_to():
    def text(function):
        return jax.jit(function).lower(ONES).as_text()

    assert "callback" not in text(lambda x: state(x, 3))
    assert "callback" not in text(slope(3, warn=False))
    assert "callback" in text(slope(3))
    assert text(slope(3)) == text(slope(3))  # so that a run can be resumed


MESSAGE = r"^2 of 2 systems did not converge; the largest residual is 0\.067; .*tive$"


def test_a_checked_function_raises_a_sentence():
    failing = checked(jax.jit(lambda x: state(x, 3, throw=True)))
    with pytest.raises(NotConverged, match=MESSAGE):
        failing(ONES)
    with pytest.raises(NotConverged, match=MESSAGE):
        checked(jax.jit(slope(3, throw=True)))(ONES)
    with pytest.raises(NotConverged, match="^4 of 4 systems"):
        checked(jax.vmap(jax.jit(lambda x: state(x, 3, throw=True))))(
            np.stack([ONES, ONES])
        )
    chex.assert_trees_all_close(failing(ZEROS), ZEROS)  # goes on after an error
    with pytest.raises(TypeError, match="missing 1 required"):
        failing()


def test_without_it_the_error_of_jax_holds_the_sentence():
    jitted = jax.jit(lambda x: state(x, 3, throw=True))
    with pytest.raises(jax.errors.JaxRuntimeError, match="2 of 2 systems") as caught:
        jax.block_until_ready(jitted(ONES))
    assert "ffnlab.feedback.checked" in str(caught.value)
    with pytest.raises(NotConverged, match=MESSAGE):
        state(ONES, 3, throw=True)


def test_there_is_no_forward_mode_but_by_bptt():
    def along(gradient, wrap=lambda f: f):
        f = wrap(lambda x: state(x, 40, gradient=gradient).sum())
        return jax.jvp(f, (ONES,), (ONES,))[1]

    for wrap in (lambda f: f, jax.jit):
        with pytest.raises(InputError, match="gradient: 'implicit' has no forward"):
            along("implicit", wrap)
    np.testing.assert_allclose(along("bptt"), 12, rtol=1e-4)
    np.testing.assert_allclose(along("bptt", jax.jit), 12, rtol=1e-4)


def test_second_derivatives_by_bptt(x64):
    kernel = np.array([[0.3]])

    def loss(kernel):
        options = {"solver": Jacobi(max_steps=60), "gradient": "bptt"}
        return jnp.sum(solve_chain(jnp.ones((4, 1)), kernel, kernel, **options).state)

    first = jax.jit(jax.grad(loss))
    second = jax.jit(jax.grad(lambda k: jax.grad(loss)(k).sum()))(kernel)
    expected = (first(kernel + 1e-5) - first(kernel - 1e-5)) / 2e-5
    np.testing.assert_allclose(second, expected, rtol=1e-7)


def test_forward_over_reverse_needs_no_bptt(x64):
    """A `while` loop has derivatives in forward mode."""
    kernel = np.array([[0.3]])

    def loss(kernel, gradient):
        options = {"solver": Jacobi(max_steps=60), "gradient": gradient}
        states = solve_chain(jnp.ones((4, 1)), kernel, kernel, **options).state
        return jnp.sum(states**3)

    implicit, bptt = (
        jax.jit(jax.hessian(loss), static_argnums=1)(kernel, gradient)
        for gradient in ("implicit", "bptt")
    )
    np.testing.assert_allclose(implicit, bptt, rtol=1e-7)


# Solvers by name.


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "krylov"])
def test_a_name_is_a_solver_with_its_defaults(name):
    config = FeedbackConfig(2, 3, solver=name)
    assert config.solver == SOLVERS[name]() == resolve(name) == config.chosen_solver
    assert config == FeedbackConfig(2, 3, solver=SOLVERS[name]())


def test_names_are_accepted_wherever_solvers_are():
    args, kernel = {"x": ONES}, np.full((1, 1), 0.2, np.float32)
    by_name = solve(HALF, args, ZEROS, "anderson", adjoint_solver="krylov")
    chex.assert_trees_all_equal(by_name, solve(HALF, args, ZEROS, Anderson()))
    chain = solve_chain(ONES, kernel, kernel, solver="newton")
    assert chain.converged.all()
    rows = feedback.history(HALF, args, ZEROS, "jacobi")
    chex.assert_trees_all_close(rows.state[-1], by_name.state, rtol=1e-4)
    assert FeedbackConfig(2, 3, solver="auto") == FeedbackConfig(2, 3)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("andersen", "solver: unknown 'andersen'; nearest: anderson. Known: anderson,"),
        ("", "solver: unknown ''. Known: anderson, gauss_seidel, jacobi, krylov,"),
        (Anderson, "solver: Anderson is a class; call it, for instance Anderson()"),
        (3, "solver: expected a solver of ffnlab.feedback or one of anderson, "),
    ],
)
def test_what_is_no_solver_is_refused(solver, message):
    with pytest.raises(InputError, match=re.escape(message)):
        solve(HALF, {"x": ONES}, ZEROS, solver)
    with pytest.raises(InputError, match=re.escape(message.partition(" Known")[0])):
        FeedbackConfig(2, 3, solver=solver)
    with pytest.raises(InputError, match="adjoint_" + re.escape(message[:15])):
        solve(HALF, {"x": ONES}, ZEROS, "jacobi", adjoint_solver=solver or "-")


# Half precision.


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_solved_in_float32(dtype):
    x = jnp.asarray(0.3 * ONES, dtype)
    solution = solve(HALF, {"x": x}, jnp.asarray(ZEROS, dtype), "jacobi")
    assert solution.state.dtype == dtype and solution.residual.dtype == jnp.float32
    assert solution.converged.all()
    np.testing.assert_allclose(np.float32(solution.state), 0.6, rtol=1e-2)
    gradient = jax.grad(lambda x: solve(HALF, {"x": x}, x, "jacobi").state.sum())(x)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.float32(gradient), 2, rtol=1e-2)


@pytest.mark.parametrize("cast_parameters", [False, True])
@pytest.mark.parametrize("top_down", [False, True])
def test_layers_return_the_half_precision_that_they_get(cast_parameters, top_down):
    config = FeedbackConfig(2, 4, contractive=0.7, activation="swish", boundary="zeros")
    build = FeedbackNetwork(config, 2, top_down, rngs=nnx.Rngs(0))
    graph, params = nnx.split(build)
    x = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)
    half = jnp.asarray(x, jnp.bfloat16)

    @jax.jit
    def run(params, x):
        def loss(params):
            h, aux = nnx.merge(graph, params)(x)
            return h.astype(jnp.float32).sum(), (h, aux)

        return jax.grad(loss, has_aux=True)(params)

    _, (expected, _) = run(params, x)
    if cast_parameters:
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    gradients, (h, aux) = run(params, half)
    assert h.dtype == jnp.bfloat16 and expected.dtype == jnp.float32
    assert aux["converged"].all() and aux["residual"].dtype == jnp.float32
    chex.assert_trees_all_equal_dtypes(gradients, params)
    np.testing.assert_allclose(np.float32(h), expected, atol=0.03)


def test_the_dtype_of_the_states_can_be_chosen():
    layer = FeedbackLayer(FeedbackConfig(2, 3, contractive=0.5), rngs=nnx.Rngs(0))
    x = jnp.ones((4, 2), jnp.bfloat16)
    assert layer(x, dtype=jnp.float32)[0].dtype == jnp.float32
    assert layer(x)[0].dtype == jnp.bfloat16
    assert layer(x.astype(jnp.float32), dtype="bfloat16")[0].dtype == jnp.bfloat16
    for dtype in (int, "int8", "half a float"):
        with pytest.raises(InputError, match="dtype: .* is no floating-point type"):
            layer(x, dtype=dtype)
