"""Fixed points h = F(h): what is solved, exact gradients, and what a solve reports.

A state is an array `[..., T, H]`: the last two axes are one system of T coupled
positions, the axes before them are systems that never meet. Each is solved until its
own residual is small, and is then left alone, whatever the others still need.

    system = System(step=lambda args, h: jnp.tanh(h @ args["w"] + args["x"]))
    solution = solve(system, {"w": w, "x": x}, jnp.zeros_like(x), Anderson())
    solution.state, solution.residual, solution.iterations, solution.converged

The ways to iterate are in `ffnlab.solvers`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.types import Array

Args = Any
Gradient = Literal["implicit", "bptt", "one_step"]
GRADIENTS = ("implicit", "bptt", "one_step")


class NotConverged(RuntimeError):
    """A solve that was asked to converge, and did not."""


class System(NamedTuple):
    """A map whose fixed point is wanted: pure functions of its arguments and a state.

    Attributes:
      step: `step(args, h) -> F(h)`, all positions at once.
      sweep: `sweep(args, h) -> h`: one pass over the positions, each using the states
        that the pass has already renewed; for `GaussSeidel`.
      blocks: `blocks(args, h) -> (left, here, right)`: ∂F_t by h_{t−1}, h_t and
        h_{t+1}, each `[..., T, H, H]`; for `Newton`.
      linear: whether F is an affine map; for `Krylov`.
    """

    step: Callable[[Args, Array], Array]
    sweep: Callable[[Args, Array], Array] | None = None
    blocks: Callable[[Args, Array], tuple[Array, Array, Array]] | None = None
    linear: bool = False


class Solution(NamedTuple):
    """What a solve found, and how well.

    Attributes:
      state: h, `[..., T, H]`.
      residual: max |F(h) − h| / max(1, max |F(h)|) of each system, `[...]`.
      iterations: how many times each system was renewed, int32 `[...]`.
      converged: whether the residual is within the tolerance, bool `[...]`.
    """

    state: Array
    residual: Array
    iterations: Array
    converged: Array


def measure(h: Array, image: Array) -> Array:
    """Returns the residual of each system, `[...]`, from h and F(h), `[..., T, H]`.

    >>> measure(jnp.array([[1.0, 5.0]]), jnp.array([[1.0, 4.0]])).tolist()
    0.25
    """
    # Not |h|: at a start of zeros the compiler would fold a large constant, slowly.
    size = jnp.maximum(jnp.abs(image).max(axis=(-2, -1)), 1.0)
    return jnp.abs(image - h).max(axis=(-2, -1)) / size


def resolution(dtype: Any) -> float:
    """Returns the tolerance that a dtype can be held to: ε to the power of 0.7.

    >>> f"{resolution(jnp.float32):.1e}", f"{resolution(np.float64):.1e}"
    ('1.4e-05', '1.1e-11')
    """
    return float(np.finfo(dtype).eps) ** 0.7


def solve(
    system: System,
    args: Args,
    start: Array,
    solver: Any,
    gradient: Gradient = "implicit",
    *,
    adjoint_solver: Any = None,
    checkpoint: bool = False,
    sensor: Array | None = None,
    on_failure: Literal["report", "raise"] = "report",
) -> Solution:
    """Solves h = F(h).

    Args:
      system: F, pure; `args` is all it may be differentiated by.
      args: a tree of arrays.
      start: where to begin, `[..., T, H]`, float32 or float64.
      solver: from `ffnlab.solvers`.
      gradient: `implicit` solves the adjoint system u = ḡ + (∂F/∂h)ᵀ u at the
        solution, in memory that does not grow with the iterations; `bptt` goes back
        through every iteration, of which there are then always `solver.limit`;
        `one_step` through one application of F to the solution.
      adjoint_solver: how the adjoint system is solved, `Krylov` included; the solver
        itself if None, or Jacobi where the solver has no adjoint of its kind.
      checkpoint: whether `bptt` keeps only the states between iterations.
      sensor: zeros `[...]`. The gradient by it is the residual of the adjoint solve,
        which no other gradient can tell.
      on_failure: `raise` makes a system that did not converge an error.

    Returns:
      The solution. Only `state` has a gradient.

    Raises:
      InputError: the start has no positions or is not of floats, the tolerance is
        below what its dtype resolves, or the solver needs what the system has not.
      NotConverged: if asked; inside `jax.jit`, as the error that JAX makes of it.

    Source: implicit gradient as in Almeida 1987, Pineda 1987; Bai et al. 2019, "Deep
    Equilibrium Models", theorem 1; one step as in Fung et al. 2022.

    >>> from ffnlab.solvers import Jacobi
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
    choose("on_failure", on_failure, ("report", "raise"))
    _check(system, start, solver)
    if sensor is None:
        sensor = jnp.zeros(start.shape[:-2], start.dtype)
    other = adjoint_solver or solver.for_adjoint
    found = _solved(system, solver, other, gradient, checkpoint, args, start, sensor)
    return _insist(found) if on_failure == "raise" else found


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
    sensor: Array,
) -> Solution:
    if gradient == "bptt":
        found = iterate(system, args, start, solver, "scan", checkpoint)
    elif gradient == "one_step":
        found = iterate(system, jax.lax.stop_gradient(args), start, solver)
        state = jax.lax.stop_gradient(found.state)
        found = found._replace(state=system.step(args, state))
    else:
        found = _implicit(system, solver, other, args, start, sensor)
    return Solution(found.state, *jax.lax.stop_gradient(tuple(found[1:])))


def _check(system: System, start: Array, solver: Any) -> None:
    if start.ndim < 2 or 0 in start.shape:
        raise InputError(
            f"a state {[*start.shape]} has no positions; expected [..., T, H], none 0"
        )
    if start.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"a state is float32 or float64, not {start.dtype}")
    for need in solver.needs:
        if not getattr(system, need):
            name = type(solver).__name__
            raise InputError(f"{name} needs a system with `{need}`; this one has none")
    least = 4 * float(np.finfo(start.dtype).eps)
    if solver.tolerance is not None and solver.tolerance < least:
        raise InputError(
            f"tolerance {solver.tolerance:g} is below what {start.dtype} resolves; "
            f"use at least {least:.1e}, or float64"
        )


class _Progress(NamedTuple):
    """Where the systems are; `memory` is the solver's own."""

    state: Array
    image: Array  # F(state)
    residual: Array
    iterations: Array
    memory: Any
    turn: Array


def iterate(
    system: System,
    args: Args,
    start: Array,
    solver: Any,
    loop: Literal["while", "scan"] = "while",
    checkpoint: bool = False,
) -> Solution:
    """Iterates until every system has converged or the solver's limit is reached.

    Args:
      system, args, start, solver: as in `solve`.
      loop: `while` stops early; `scan` always takes `solver.limit` turns, which change
        nothing in a system that has converged, and can be differentiated.
      checkpoint: whether a scan keeps only the states between its turns.
    """
    tolerance = solver.tolerance or resolution(start.dtype)
    turn = _turn(system, args, solver, tolerance)
    at = _begin(system, args, start, solver)
    if loop == "scan":
        once = jax.checkpoint(turn) if checkpoint else turn
        at, _ = jax.lax.scan(lambda at, _: (once(at), None), at, length=solver.limit)
    else:

        def going(at: _Progress) -> Array:
            return _wanting(at, solver, tolerance).any() & (at.turn < solver.limit)

        at = jax.lax.while_loop(going, turn, at)
    return Solution(at.state, at.residual, at.iterations, at.residual <= tolerance)


@functools.partial(jax.jit, static_argnames=("system", "solver"))
def history(system: System, args: Args, start: Array, solver: Any) -> Solution:
    """Iterates as `iterate` does, and keeps what was found on the way.

    Args:
      system, args, start, solver: as in `solve`.

    Returns:
      The solutions after 0, 1, … `solver.limit` iterations, with a leading axis.

    >>> from ffnlab.solvers import Jacobi
    >>> half = System(step=lambda args, h: 0.5 * h)
    >>> history(half, None, jnp.ones((1, 1)), Jacobi(limit=3)).residual.tolist()
    [0.5, 0.25, 0.125, 0.0625]
    """
    _check(system, start, solver)
    tolerance = solver.tolerance or resolution(start.dtype)
    turn = _turn(system, args, solver, tolerance)

    def step(at: _Progress, _: None) -> tuple[_Progress, tuple]:
        at = turn(at)
        return at, (at.state, at.residual, at.iterations)

    at = _begin(system, args, start, solver)
    _, rest = jax.lax.scan(step, at, length=solver.limit)
    first = (at.state, at.residual, at.iterations)
    state, residual, count = (
        jnp.concatenate([a[None], b]) for a, b in zip(first, rest, strict=True)
    )
    return Solution(state, residual, count, residual <= tolerance)


def _begin(system: System, args: Args, start: Array, solver: Any) -> _Progress:
    image = system.step(args, start)
    if image.shape != start.shape or image.dtype != start.dtype:
        raise InputError(
            f"F takes {start.dtype}{[*start.shape]} to {image.dtype}{[*image.shape]}"
        )
    counts, zero = jnp.zeros(start.shape[:-2], jnp.int32), jnp.zeros((), jnp.int32)
    residual = measure(start, image)
    return _Progress(start, image, residual, counts, solver.begin(start), zero)


def _wanting(at: _Progress, solver: Any, tolerance: float) -> Array:
    """Which systems go on; not a number is above no tolerance, and stops at once."""
    return at.residual > tolerance if solver.early else at.residual >= 0


def _turn(
    system: System, args: Args, solver: Any, tolerance: float
) -> Callable[[_Progress], _Progress]:
    def turn(at: _Progress) -> _Progress:
        wants = _wanting(at, solver, tolerance)
        memory, new = solver.advance(system, args, at)
        state = jnp.where(wants[..., None, None], new, at.state)
        image = system.step(args, state)
        count, residual = at.iterations + wants, measure(state, image)
        return _Progress(state, image, residual, count, memory, at.turn + 1)

    return turn


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _implicit(
    system: System, solver: Any, other: Any, args: Args, start: Array, sensor: Array
) -> Solution:
    return iterate(system, args, start, solver)


def _implicit_forward(
    system: System, solver: Any, other: Any, args: Args, start: Array, sensor: Array
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
      solver: from `ffnlab.solvers`, `Krylov` included. The Jacobian is not symmetric:
        conjugate gradients would be wrong.

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
    _check(linear, state, solver)
    found = iterate(linear, None, given, solver)
    return found._replace(state=found.state * size)


def shift(array: Array, axis: int = -2, back: bool = False) -> Array:
    """Moves positions on by one, zeros coming in: the left neighbour of each.

    Args:
      array: any shape.
      axis: the axis of positions.
      back: whether to move them back instead, which gives the right neighbour.

    >>> shift(jnp.array([[1.0], [2.0], [3.0]]))[:, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    length = array.shape[axis]
    edge = jnp.zeros_like(jax.lax.slice_in_dim(array, 0, 1, axis=axis))
    kept = jax.lax.slice_in_dim(array, int(back), length - 1 + back, axis=axis)
    return jnp.concatenate([kept, edge] if back else [edge, kept], axis=axis)


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
