"""The loop of a fixed point h = F(h): the system, its solution, and the turns.

A state is an array `[..., T, H]`: the last two axes are one system of T coupled
positions, the axes before them are systems that never meet. Each is iterated until its
own residual is small, and is then left alone, whatever the others still need.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError
from ffnlab.types import Array

Args = Any


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


def check(system: System, start: Array, solver: Any) -> None:
    """Checks that a solver can solve a system from a start.

    Raises:
      InputError: the start has no positions or is not of floats, the tolerance is
        below what its dtype resolves, or the solver needs what the system has not.
    """
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
      loop: `while` stops early; `scan` always takes `solver.max_steps` turns, which change
        nothing in a system that has converged, and can be differentiated.
      checkpoint: whether a scan keeps only the states between its turns.
    """
    tolerance = solver.tolerance or resolution(start.dtype)
    turn = _turn(system, args, solver, tolerance)
    at = _begin(system, args, start, solver)
    if loop == "scan":
        once = jax.checkpoint(turn) if checkpoint else turn
        at, _ = jax.lax.scan(
            lambda at, _: (once(at), None), at, length=solver.max_steps
        )
    else:

        def going(at: _Progress) -> Array:
            return _wanting(at, solver, tolerance).any() & (at.turn < solver.max_steps)

        at = jax.lax.while_loop(going, turn, at)
    return Solution(at.state, at.residual, at.iterations, at.residual <= tolerance)


@functools.partial(jax.jit, static_argnames=("system", "solver"))
def history(system: System, args: Args, start: Array, solver: Any) -> Solution:
    """Iterates as `iterate` does, and keeps what was found on the way.

    Args:
      system, args, start, solver: as in `solve`.

    Returns:
      The solutions after 0, 1, … `solver.max_steps` iterations, with a leading axis.

    >>> from ffnlab.feedback.solvers import Jacobi
    >>> half = System(step=lambda args, h: 0.5 * h)
    >>> history(half, None, jnp.ones((1, 1)), Jacobi(max_steps=3)).residual.tolist()
    [0.5, 0.25, 0.125, 0.0625]
    """
    check(system, start, solver)
    tolerance = solver.tolerance or resolution(start.dtype)
    turn = _turn(system, args, solver, tolerance)

    def step(at: _Progress, _: None) -> tuple[_Progress, tuple]:
        at = turn(at)
        return at, (at.state, at.residual, at.iterations)

    at = _begin(system, args, start, solver)
    _, rest = jax.lax.scan(step, at, length=solver.max_steps)
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
