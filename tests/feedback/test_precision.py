"""On accelerators, products of float32 are rounded unless they ask for all bits."""

import re

import jax
import jax.numpy as jnp
import pytest

from ffnlab.feedback import fixed_point
from ffnlab.feedback.chain import (
    chain_system,
    contract_kernels,
    solve_chain,
    spectral_bound,
)
from ffnlab.feedback.fixed_point import GRADIENTS
from ffnlab.feedback.solvers import SOLVERS, Jacobi

DRIVE, KERNEL = jnp.ones((2, 5, 3)), 0.3 * jnp.eye(3)
ARGS = {"drive": DRIVE, "kernels": [KERNEL, KERNEL]}


def precisions(function, *args):
    """Returns the precisions of all matrix products of a program."""
    text = str(jax.make_jaxpr(function)(*args))
    found = re.findall(r"\bprecision=\(?(?:Precision\.)?(\w+)", text)
    assert text.count("dot_general[") == len(found) > 0
    return {*found}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("solver", sorted({*SOLVERS} - {"krylov"}))
def test_solves_and_their_gradients_use_all_bits(solver, gradient):
    def total(*args):
        options = {"adjoint_solver": "krylov"} if solver == "jacobi" else {}
        return solve_chain(
            *args, solver=solver, gradient=gradient, **options
        ).state.sum()

    args = (DRIVE, KERNEL, KERNEL)
    assert precisions(jax.grad(total, argnums=(0, 1, 2)), *args) == {"HIGHEST"}


def test_certificates_and_diagnostics_use_all_bits():
    def contracted(kernel):
        return contract_kernels([kernel, kernel], "tanh", 0.5)[0].sum()

    system = chain_system("tanh")
    assert precisions(jax.grad(contracted), KERNEL) == {"HIGHEST"}
    assert precisions(spectral_bound, KERNEL) == {"HIGHEST"}
    for function in (
        lambda h: fixed_point.history(system, ARGS, h, Jacobi()),
        lambda h: fixed_point.spectral_radius(system, ARGS, h),
        lambda h: fixed_point.adjoint(system, ARGS, h, h, "krylov"),
    ):
        assert precisions(function, DRIVE) == {"HIGHEST"}


def test_the_precision_that_a_user_sets_stays():
    def total(*args):
        return solve_chain(*args).state.sum()

    with jax.default_matmul_precision("tensorfloat32"):
        found = precisions(jax.grad(total), DRIVE, KERNEL, KERNEL)
    assert "HIGHEST" not in found
