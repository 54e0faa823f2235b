"""The solves of `benchmarks.feedback` by optimistix; needs it and lineax.

`FixedPointIteration` with `rtol=0` stops as `Jacobi` does where no state exceeds 1, as
with tanh: when the largest entry of |F(h) − h| is within the tolerance. It returns
F(h), and counts the evaluations of F.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax
import optimistix

from ffnlab.feedback.chain import chain_system

RESTARTS = (20, 10)  # the default, and fewer products where fewer are enough


def solving(tolerance: float, limit: int, restart: int = 20) -> Callable[..., Any]:
    """Returns a solve of a chain with tanh, `(drive, left, right) -> (state, count)`.

    Its gradient is that of `ImplicitAdjoint` with GMRES, whose residual is within the
    same tolerance.

    Args:
      tolerance: The largest entry of a residual.
      limit: The largest number of evaluations of F.
      restart: The number of products between two restarts of GMRES.
    """
    step = chain_system("tanh").step
    gmres = lineax.GMRES(rtol=0.0, atol=tolerance, restart=restart)
    solver = optimistix.FixedPointIteration(rtol=0.0, atol=tolerance)

    def solve(drive: jax.Array, left: jax.Array, right: jax.Array) -> Any:
        solution = optimistix.fixed_point(
            lambda h, args: step(args, h),
            solver,
            jnp.zeros_like(drive),
            {"drive": drive, "kernels": [left, right]},
            max_steps=limit,
            adjoint=optimistix.ImplicitAdjoint(gmres),
            throw=False,
        )
        return solution.value, solution.stats["num_steps"]

    return solve
