"""Fixed points h = F(h): a solve, its exact gradients, and what it reports.

    system = System(step=lambda args, h: jnp.tanh(h @ args["w"] + args["x"]))
    solution = solve(system, {"w": w, "x": x}, jnp.zeros_like(x), Anderson())
    solution.state, solution.residual, solution.iterations, solution.converged

The ways to iterate are in `ffnlab.feedback.solvers`.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import choose
from ffnlab.feedback.iteration import Args, Solution, System, check, iterate, shift
from ffnlab.types import Array

Gradient = Literal["implicit", "bptt", "one_step"]
GRADIENTS = ("implicit", "bptt", "one_step")


class NotConverged(RuntimeError):
    """A solve that was asked to converge, and did not."""


def solve(
    system: System,
    args: Args,
    start: Array,
    solver: Any,
    gradient: Gradient = "implicit",
    *,
    adjoint_solver: Any = None,
    checkpoint: bool = False,
    callback: Array | None = None,
    throw: Literal["report", "raise"] = "report",
) -> Solution:
    """Solves h = F(h).

    Args:
      system: F, pure; `args` is all it may be differentiated by.
      args: a tree of arrays.
      start: where to begin, `[..., T, H]`, float32 or float64.
      solver: from `ffnlab.feedback.solvers`.
      gradient: `implicit` solves the adjoint system u = ḡ + (∂F/∂h)ᵀ u at the
        solution, in memory that does not grow with the iterations; `bptt` goes back
        through every iteration, of which there are then always `solver.max_steps`;
        `one_step` through one application of F to the solution.
      adjoint_solver: how the adjoint system is solved, `Krylov` included; the solver
        itself if None, or Jacobi where the solver has no adjoint of its kind.
      checkpoint: whether `bptt` keeps only the states between iterations.
      callback: zeros `[...]`. The gradient by it is the residual of the adjoint solve,
        which no other gradient can tell.
      throw: `raise` makes a system that did not converge an error.

    Returns:
      The solution. Only `state` has a gradient.

    Raises:
      InputError: the start has no positions or is not of floats, the tolerance is
        below what its dtype resolves, or the solver needs what the system has not.
      NotConverged: if asked; inside `jax.jit`, as the error that JAX makes of it.

    Source: implicit gradient as in Almeida 1987, Pineda 1987; Bai et al. 2019, "Deep
    Equilibrium Models", theorem 1; one step as in Fung et al. 2022.

    >>> from ffnlab.feedback.solvers import Jacobi
    >>> half = System(step=lambda args, h: 0.5 * h + args)
    >>> solution = solve(half, jnp.ones((1, 1)), jnp.zeros((1, 1)), Jacobi())
    >>> round(float(solution.state[0, 0]), 3), bool(solution.converged)
    (2.0, True)
    >>> def loss(args):
    ...     return solve(half, args, jnp.zeros((1, 1)), Jacobi()).state.sum()
    >>> round(float(jax.grad(loss)(jnp.ones((1, 1)))[0, 0]), 3)
    2.0
    """
    choose("gradient", gradient, GRADIENTS)
    choose("throw", throw, ("report", "raise"))
    check(system, start, solver)
    if callback is None:
        callback = jnp.zeros(start.shape[:-2], start.dtype)
    other = adjoint_solver or solver.for_adjoint
    found = _solved(system, solver, other, gradient, checkpoint, args, start, callback)
    return _insist(found) if throw == "raise" else found


# Jitted, so that a second call outside of any jit does not compile again.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _solved(
    system: System,
    solver: Any,
    other: Any,
    gradient: Gradient,
    checkpoint: bool,
    args: Args,
    start: Array,
    callback: Array,
) -> Solution:
    if gradient == "bptt":
        found = iterate(system, args, start, solver, "scan", checkpoint)
    elif gradient == "one_step":
        found = iterate(system, jax.lax.stop_gradient(args), start, solver)
        state = jax.lax.stop_gradient(found.state)
        found = found._replace(state=system.step(args, state))
    else:
        found = _implicit(system, solver, other, args, start, callback)
    return Solution(found.state, *jax.lax.stop_gradient(tuple(found[1:])))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _implicit(
    system: System, solver: Any, other: Any, args: Args, start: Array, callback: Array
) -> Solution:
    return iterate(system, args, start, solver)


def _implicit_forward(
    system: System, solver: Any, other: Any, args: Args, start: Array, callback: Array
) -> tuple[Solution, tuple]:
    found = iterate(system, args, start, solver)
    return found, (args, found.state)


def _implicit_backward(
    system: System, solver: Any, other: Any, kept: tuple, cotangents: Solution
) -> tuple:
    args, state = kept
    found = adjoint(system, args, state, cotangents.state, other)
    _, pull = jax.vjp(lambda args: system.step(args, state), args)
    return (*pull(found.state), jnp.zeros_like(state), found.residual)


_implicit.defvjp(_implicit_forward, _implicit_backward)


def adjoint(
    system: System, args: Args, state: Array, cotangent: Array, solver: Any
) -> Solution:
    """Solves u = ḡ + (∂F/∂h)ᵀ u, matrix-free but for solvers that need blocks.

    Args:
      system, args: as in `solve`.
      state: the solution h, `[..., T, H]`.
      cotangent: ḡ, the gradient by the solution, `[..., T, H]`.
      solver: from `ffnlab.feedback.solvers`, `Krylov` included. The Jacobian is not
        symmetric: conjugate gradients would be wrong.

    Returns:
      The solution u with its own residual; the gradient by `args` is uᵀ ∂F/∂args.
    """
    _, pull = jax.vjp(lambda h: system.step(args, h), state)

    # Scaled to size 1, since the tolerance is absolute where a state is small.
    size = jnp.abs(cotangent).max(axis=(-2, -1), keepdims=True)  # [..., 1, 1]
    size = jnp.where(size > 0, size, 1.0)
    given = cotangent / size

    def transposed(_: Args, u: Array) -> tuple[Array, Array, Array]:
        left, here, right = (
            jnp.swapaxes(block, -1, -2) for block in system.blocks(args, state)
        )
        return shift(right, axis=-3), here, shift(left, axis=-3, back=True)

    linear = System(
        step=lambda _, u: given + pull(u)[0],
        blocks=None if system.blocks is None else transposed,
        linear=True,
    )
    check(linear, state, solver)
    found = iterate(linear, None, given, solver)
    return found._replace(state=found.state * size)


@functools.partial(jax.jit, static_argnames=("system", "iterations"))
def spectral_radius(
    system: System, args: Args, state: Array, iterations: int = 16
) -> Array:
    """Estimates ρ(∂F/∂h) of each system at a state, by power iteration.

    Below 1 plain iteration converges near the state, and each turn divides the error
    by about 1/ρ. The Jacobian is not symmetric and its eigenvalues are complex, so the
    growth of a vector is averaged over the second half of the iterations.

    Args:
      system, args: as in `solve`.
      state: `[..., T, H]`, as a rule a solution.
      iterations: products with the Jacobian.

    Returns:
      ρ, `[...]`.

    >>> third = System(step=lambda args, h: h / 3.0)
    >>> round(float(spectral_radius(third, None, jnp.ones((4, 2)))), 4)
    0.3333
    """
    _, push = jax.linearize(lambda h: system.step(args, h), state)
    tiny = np.finfo(state.dtype).tiny

    def turn(vector: Array, _: None) -> tuple[Array, Array]:
        vector = push(vector)
        size = jnp.sqrt(jnp.square(vector).sum(axis=(-2, -1)))  # [...]
        return vector / jnp.maximum(size, tiny)[..., None, None], size

    # One direction for all systems: the compiler would fold a large constant slowly.
    shape = (1,) * (state.ndim - 2) + state.shape[-2:]
    first = jax.random.normal(jax.random.key(0), shape, state.dtype)
    first = jnp.broadcast_to(first, state.shape)
    _, sizes = jax.lax.scan(turn, first, length=iterations)  # [iterations, ...]
    late = jnp.log(jnp.maximum(sizes[iterations // 2 :], tiny))
    return jnp.exp(late.mean(axis=0))


def _complain(converged: Any, residual: Any) -> np.ndarray:
    converged, residual = np.ravel(converged), np.ravel(residual)
    if not converged.all():
        raise NotConverged(
            f"{(~converged).sum()} of {converged.size} systems did not converge; "
            f"the largest residual is {residual.max():.2g}; allow more iterations, "
            "damp, use Newton, or make the map contractive"
        )
    return np.zeros((), bool)


def _insist(found: Solution) -> Solution:
    """Returns a solution that cannot be read unless it has converged."""
    told = found.converged, found.residual
    if not any(isinstance(each, jax.core.Tracer) for each in told):
        _complain(*told)
        return found
    shape = jax.ShapeDtypeStruct((), bool)
    failed = jax.pure_callback(_complain, shape, *told, vmap_method="sequential")
    return found._replace(state=jnp.where(failed, jnp.nan, found.state))
