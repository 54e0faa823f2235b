"""Solves inside `jax.shard_map`, with its check of varying axes, as by default."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ffnlab.errors import InputError
from ffnlab.feedback import fixed_point
from ffnlab.feedback.chain import chain_system, solve_chain
from ffnlab.feedback.failures import NotConverged, checked
from ffnlab.feedback.layers import FeedbackConfig, FeedbackLayer
from ffnlab.feedback.solvers import (
    Anderson,
    GaussSeidel,
    Jacobi,
    Krylov,
    Newton,
    Unrolled,
)
from tests.feedback.test_solvers import task

MASK = np.arange(4)[None] < np.array([4, 3, 1, 4])[:, None]
SOLVERS = {
    "implicit": [
        Jacobi(damping=0.1), GaussSeidel(), Anderson(memory=3), Newton(),
        Newton(parallel=True), Unrolled(60),
    ],
    "bptt": [GaussSeidel(max_steps=40), Anderson(max_steps=40, memory=3)],
    "one_step": [Jacobi()],
}  # fmt: skip


def mesh():
    return Mesh(np.array(jax.devices()[:2]), ("data",))


SHARED = P()


def shard(function, outputs=SHARED):
    """Returns a function of arrays that differ by device and of one that does not."""
    return jax.shard_map(
        function, mesh=mesh(), in_specs=(P("data"), P()), out_specs=outputs
    )


def small_task():
    drive, left, right = task(batch=4, length=4, width=2)
    return {"drive": drive, "mask": MASK}, [left, right]


def loss(data, kernels, solver, **options):
    solution = solve_chain(
        data["drive"], *kernels, mask=data["mask"], solver=solver, **options
    )
    return jnp.sum(jnp.sin(3 * solution.state) ** 2), solution


@pytest.mark.parametrize("gradient", SOLVERS)
def test_every_solver_does_what_it_does_unsharded(x64, gradient):
    """The solution, and the gradients of states and of kernels that devices share."""
    data, kernels = small_task()

    def inside(data, kernels, solver):
        value, solution = loss(data, kernels, solver, gradient=gradient)
        return jax.lax.psum(value, "data"), solution

    def total(given, solver):
        local = shard(functools.partial(inside, solver=solver), (SHARED, P("data")))
        return local({**data, "drive": given[0]}, given[1])

    def alone(given):
        return loss({**data, "drive": given[0]}, given[1], Jacobi(), gradient=gradient)

    @jax.jit
    def run(given):
        def slope(f, *args):
            return jax.grad(f, has_aux=True)(given, *args)

        return slope(alone), [slope(total, each) for each in SOLVERS[gradient]]

    (expected, solution), results = run((data["drive"], kernels))
    for solver, (slopes, sharded) in zip(SOLVERS[gradient], results, strict=True):
        name = f"{solver}"
        chex.assert_trees_all_close(slopes, expected, atol=1e-8, custom_message=name)
        chex.assert_trees_all_close(sharded.state, solution.state, atol=1e-9)
        assert sharded.converged.all() and sharded.iterations.shape == (4,), name


def test_what_measures_a_solve_is_sharded_too(x64):
    data, (left, right) = small_task()
    system, solver = chain_system("tanh"), Jacobi(max_steps=5)

    def measure(data, kernels):
        args = {"drive": data["drive"], "kernels": kernels}
        state = jnp.tanh(data["drive"])
        rows = fixed_point.history(system, args, jnp.zeros_like(state), solver)
        return (
            jnp.moveaxis(rows.residual, 0, -1),
            fixed_point.adjoint(system, args, state, jnp.ones_like(state), solver),
            fixed_point.spectral_radius(system, args, state),
        )

    sharded, expected = jax.jit(
        lambda *given: (shard(measure, P("data"))(*given), measure(*given))
    )(data, [left, right])
    chex.assert_trees_all_close(sharded, expected, atol=1e-10)


def test_layers_and_failures():
    """A failed solve on any device is an error; a layer is what it is unsharded."""
    graph, params = nnx.split(FeedbackLayer(FeedbackConfig(2, 3), rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32)
    data = {"x": x, "mask": MASK}

    def apply(data, params, **options):
        return nnx.merge(graph, params)(data["x"], data["mask"], **options)

    sharded, expected = jax.jit(
        lambda *given: (shard(apply, P("data"))(*given), apply(*given))
    )(data, params)
    chex.assert_trees_all_close(sharded[0], expected[0], atol=1e-6)
    chex.assert_trees_all_equal(sharded[1]["converged"], expected[1]["converged"])

    def fail(data, kernels):
        options = {"solver": Jacobi(max_steps=1), "throw": True}
        return solve_chain(data["drive"], *kernels, **options).state

    given, kernels = small_task()
    with pytest.raises(NotConverged, match="2 of 2 systems did not converge"):
        checked(jax.jit(shard(fail, P("data"))))(given, kernels)


def test_krylov_is_refused(x64):
    """Its loops are those of jax.scipy, whose carries begin equal on all devices."""
    data, kernels = small_task()

    def slope(data, kernels):
        options = {"adjoint_solver": Krylov()}
        return jax.grad(lambda k: loss(data, k, Jacobi(), **options)[0])(kernels)

    with pytest.raises(InputError, match="adjoint_solver: Krylov does not work inside"):
        jax.jit(shard(slope))(data, kernels)
