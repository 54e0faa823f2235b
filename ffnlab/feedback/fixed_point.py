"""Solves fixed points h = F(h), with exact gradients and a report of convergence.

    system = System(step=lambda args, h: jnp.tanh(h @ args["w"] + args["x"]))
    solution = solve(system, {"w": w, "x": x}, jnp.zeros_like(x), Anderson())
    solution.state, solution.residual, solution.iterations, solution.converged

The solvers are in `ffnlab.feedback.solvers`.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import choose
from ffnlab.feedback.failures import require_convergence, warn_unless_converged
from ffnlab.feedback.iteration import (
    Args,
    Progress,
    Solution,
    Solver,
    System,
    check,
    default_tolerance,
    first_progress,
    iterate,
    make_step,
    shift,
    vary_alike,
    widen,
)
from ffnlab.feedback.modes import refuse_forward_mode, refuse_second_gradient
from ffnlab.feedback.solvers import Name, resolve
from ffnlab.nn.precision import full_precision
from ffnlab.types import Array

Gradient = Literal["implicit", "bptt", "one_step"]
GRADIENTS = ("implicit", "bptt", "one_step")


def solve(
    system: System,
    args: Args,
    start: Array,
    solver: Solver | Name,
    gradient: Gradient = "implicit",
    *,
    adjoint_solver: Solver | Name | None = None,
    checkpoint: bool = False,
    probe: Array | None = None,
    throw: bool = False,
    warn: bool = True,
) -> Solution:
    """Solves h = F(h).

    Args:
      system: F, pure. Gradients are with respect to `args` only.
      args: A tree of arrays.
      start: The state before the first iteration, `[..., T, H]`. In half precision it
        is solved in float32, with the args, and returned in half precision. Matrix
        products use all bits, on accelerators too; see `full_precision`.
      solver: From `ffnlab.feedback.solvers`, or its name, such as `anderson`.
      gradient: `implicit` solves the adjoint system u = ḡ + (∂F/∂h)ᵀ u at the
        solution, in memory that does not grow with the iterations; `bptt`
        differentiates every iteration, of which there are then always
        `solver.max_steps`; `one_step` differentiates one application of F at the
        solution. `implicit` is for reverse mode: `jax.jvp` and gradients of gradients
        need `bptt`; `jax.hessian` does not.
      adjoint_solver: The solver of the adjoint system, which may be `Krylov`; the
        solver itself if None, or Jacobi for solvers that cannot solve it.
      checkpoint: Whether `bptt` keeps only the states between iterations.
      probe: Zeros `[...]`. The gradient with respect to it is the residual of the
        adjoint solve, which a backward pass cannot return otherwise.
      throw: Whether a system that does not converge is an error.
      warn: Whether an implicit gradient at a state that has not converged gives a
        `NotConvergedWarning`, once in a process. A program that may warn calls back to
        Python, so that JAX does not store it in its cache on disk.

    Returns:
      The solution. Only `state` has a gradient.

    Raises:
      InputError: The start has no positions or no floating-point numbers, the
        tolerance is below what its dtype resolves, the system lacks a field that the
        solver requires, Krylov is used inside `jax.shard_map`, or forward mode or a
        gradient of a gradient in reverse mode is taken of `implicit`.
      NotConverged: With `throw`. Inside `jax.jit` it is the JaxRuntimeError that JAX
        makes of it, unless the jitted function is called through `checked`.

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
    solver = resolve(solver)
    adjoint_solver = resolve(adjoint_solver or solver.adjoint_solver, "adjoint_solver")
    dtype, (args, start) = start.dtype, widen((args, start))
    check(system, start, solver)
    if probe is None:
        probe = jnp.zeros(start.shape[:-2], start.dtype)
    args, start, probe = vary_alike((args, start, probe))
    static = (
        system,
        (solver, adjoint_solver),
        gradient,
        checkpoint,
        warn and not throw,
    )
    solution = _solve(*static, args, start, probe)
    solution = require_convergence(solution) if throw else solution
    return solution._replace(state=solution.state.astype(dtype))


# Jitted, so that a second call outside of any jit does not compile again.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
@full_precision
def _solve(
    system: System,
    solvers: tuple[Solver, Solver],
    gradient: Gradient,
    checkpoint: bool,
    warn: bool,
    args: Args,
    start: Array,
    probe: Array,
) -> Solution:
    """Solves h = F(h) by the first solver; only `state` has a gradient."""
    if gradient == "bptt":
        solution = iterate(system, args, start, solvers[0], "scan", checkpoint)
    elif gradient == "one_step":
        solution = iterate(system, jax.lax.stop_gradient(args), start, solvers[0])
        state = jax.lax.stop_gradient(solution.state)
        solution = solution._replace(state=system.step(args, state))
    else:
        given = refuse_forward_mode((args, start, probe))
        solution = _implicit(system, solvers, warn, *given)
    return Solution(solution.state, *jax.lax.stop_gradient(tuple(solution[1:])))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _implicit(
    system: System,
    solvers: tuple[Solver, Solver],
    warn: bool,
    args: Args,
    start: Array,
    probe: Array,
) -> Solution:
    return iterate(system, args, start, solvers[0])


@full_precision  # traced after `_solve`, as the next one
def _implicit_forward(
    system: System,
    solvers: tuple[Solver, Solver],
    warn: bool,
    args: Args,
    start: Array,
    probe: Array,
) -> tuple[Solution, tuple]:
    solution = iterate(system, args, start, solvers[0])
    solution = warn_unless_converged(solution) if warn else solution
    state = refuse_second_gradient(solution.state)
    return solution._replace(state=state), (args, state)


@full_precision
def _implicit_backward(
    system: System,
    solvers: tuple[Solver, Solver],
    warn: bool,
    residuals: tuple,
    cotangents: Solution,
) -> tuple:
    args, state = residuals
    solution = adjoint(system, args, state, cotangents.state, solvers[1])
    _, pullback = jax.vjp(lambda args: system.step(args, state), args)
    u = refuse_second_gradient(solution.state)
    return (*pullback(u), jnp.zeros_like(state), solution.residual)


_implicit.defvjp(_implicit_forward, _implicit_backward)


@full_precision
def adjoint(
    system: System, args: Args, state: Array, cotangent: Array, solver: Solver | Name
) -> Solution:
    """Solves u = ḡ + (∂F/∂h)ᵀ u, matrix-free except for solvers that require blocks.

    Args:
      system, args: As in `solve`.
      state: The solution h, `[..., T, H]`.
      cotangent: ḡ, the gradient with respect to the solution, `[..., T, H]`.
      solver: From `ffnlab.feedback.solvers`, `Krylov` included, or its name. The
        Jacobian is not symmetric, so conjugate gradients would be wrong.

    Returns:
      The solution u with its own residual; the gradient with respect to `args` is
      uᵀ ∂F/∂args.
    """
    solver = resolve(solver)
    args, state, cotangent = vary_alike((args, state, cotangent))
    _, pullback = jax.vjp(lambda h: system.step(args, h), state)

    # Scaled to size 1, since the tolerance is absolute where a state is small.
    size = jnp.abs(cotangent).max(axis=(-2, -1), keepdims=True)  # [..., 1, 1]
    size = jnp.where(size > 0, size, 1.0)
    scaled = cotangent / size

    def transposed_blocks(_: Args, u: Array) -> tuple[Array, Array, Array]:
        left, own, right = (
            jnp.swapaxes(block, -1, -2) for block in system.blocks(args, state)
        )
        return shift(right, axis=-3), own, shift(left, axis=-3, back=True)

    linear = System(
        step=lambda _, u: scaled + pullback(u)[0],
        blocks=None if system.blocks is None else transposed_blocks,
        linear=True,
    )
    check(linear, state, solver)
    solution = iterate(linear, None, scaled, solver)
    return solution._replace(state=solution.state * size)


@functools.partial(jax.jit, static_argnames=("system", "solver"))
@full_precision
def history(
    system: System, args: Args, start: Array, solver: Solver | Name
) -> Solution:
    """Iterates as `iterate` does, and returns the solution after every iteration.

    Args:
      system, args, start, solver: As in `solve`.

    Returns:
      The solutions after 0, 1, … `solver.max_steps` iterations, with a leading axis.

    >>> from ffnlab.feedback.solvers import Jacobi
    >>> half = System(step=lambda args, h: 0.5 * h)
    >>> history(half, None, jnp.ones((1, 1)), Jacobi(max_steps=3)).residual.tolist()
    [0.5, 0.25, 0.125, 0.0625]
    """
    solver = resolve(solver)
    check(system, start, solver)
    args, start = vary_alike((args, start))
    tolerance = solver.tolerance or default_tolerance(start.dtype)
    step = make_step(system, args, solver, tolerance)

    def record(progress: Progress, _: None) -> tuple[Progress, tuple]:
        progress = step(progress)
        return progress, (progress.state, progress.residual, progress.iterations)

    first = first_progress(system, args, start, solver)
    _, rest = jax.lax.scan(record, first, length=solver.max_steps)
    state, residual, iterations = (
        jnp.concatenate([a[None], b])
        for a, b in zip(
            (first.state, first.residual, first.iterations), rest, strict=True
        )
    )
    return Solution(state, residual, iterations, residual <= tolerance)


@functools.partial(jax.jit, static_argnames=("system", "iterations"))
@full_precision
def spectral_radius(
    system: System, args: Args, state: Array, iterations: int = 16
) -> Array:
    """Estimates ρ(∂F/∂h) of each system at a state, by power iteration.

    If ρ is below 1, plain iteration converges near the state, and each iteration
    multiplies the error by about ρ. The Jacobian is not symmetric and its eigenvalues
    are complex, so the growth of a vector is averaged over the second half of the
    iterations.

    Args:
      system, args: As in `solve`.
      state: `[..., T, H]`, usually a solution.
      iterations: The number of products with the Jacobian.

    Returns:
      ρ, `[...]`.

    >>> third = System(step=lambda args, h: h / 3.0)
    >>> round(float(spectral_radius(third, None, jnp.ones((4, 2)))), 4)
    0.3333
    """
    args, state = vary_alike((args, state))
    _, product = jax.linearize(lambda h: system.step(args, h), state)
    tiny = np.finfo(state.dtype).tiny

    def multiply(vector: Array, _: None) -> tuple[Array, Array]:
        vector = product(vector)
        size = jnp.sqrt(jnp.square(vector).sum(axis=(-2, -1)))  # [...]
        return vector / jnp.maximum(size, tiny)[..., None, None], size

    # One direction for all systems: the compiler would fold a large constant slowly.
    shape = (1,) * (state.ndim - 2) + state.shape[-2:]
    first = jax.random.normal(jax.random.key(0), shape, state.dtype)
    first, _ = vary_alike((jnp.broadcast_to(first, state.shape), state))
    _, sizes = jax.lax.scan(multiply, first, length=iterations)  # [iterations, ...]
    late = jnp.log(jnp.maximum(sizes[iterations // 2 :], tiny))
    return jnp.exp(late.mean(axis=0))
