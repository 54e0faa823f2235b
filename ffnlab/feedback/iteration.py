"""The loop of a fixed-point solve h = F(h): its system, solver, state and solution.

A state is an array `[..., T, H]`. The last two axes are one system of T coupled
positions; the axes before them hold independent systems. Each system is iterated until
its own residual is within the tolerance and then stays as it is, however long the
others take.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError
from ffnlab.types import Array

Args = Any
HALF = (jnp.bfloat16, jnp.float16)  # computed in float32


class System(NamedTuple):
    """A map F whose fixed point is sought, as pure functions of arguments and a state.

    Attributes:
      step: `step(args, h) -> F(h)`, all positions at once.
      sweep: `sweep(args, h) -> h`: one pass over the positions, each using the states
        that the pass has already updated; for `GaussSeidel`.
      blocks: `blocks(args, h) -> (left, own, right)`: ∂F_t by h_{t−1}, h_t and
        h_{t+1}, each `[..., T, H, H]`; for `Newton`.
      linear: Whether F is an affine map; for `Krylov`.
    """

    step: Callable[[Args, Array], Array]
    sweep: Callable[[Args, Array], Array] | None = None
    blocks: Callable[[Args, Array], tuple[Array, Array, Array]] | None = None
    linear: bool = False


class Solution(NamedTuple):
    """The result of a solve.

    Attributes:
      state: States h, `[..., T, H]`.
      residual: Max |F(h) − h| / max(1, max |F(h)|) of each system, `[...]`.
      iterations: How many times each system was updated, int32 `[...]`.
      converged: Whether the residual is within the tolerance, bool `[...]`.
    """

    state: Array
    residual: Array
    iterations: Array
    converged: Array


class Progress(NamedTuple):
    """The state of the loop between two iterations.

    Attributes:
      state: States h, `[..., T, H]`.
      image: F(h), `[..., T, H]`.
      residual: The residual of each system, `[...]`.
      iterations: How many times each system was updated, int32 `[...]`.
      memory: What the solver keeps from one iteration to the next.
      count: How many iterations the loop has made, int32 `[]`.
    """

    state: Array
    image: Array
    residual: Array
    iterations: Array
    memory: Any
    count: Array


class Solver(Protocol):
    """What `solve` expects of a solver; those of `ffnlab.feedback.solvers` have it.

    Attributes:
      requires: The fields of a `System` that the solver reads besides `step`.
      stops_early: Whether a system that has converged is left alone.
      tolerance: The residual at which a system has converged; None is
        `default_tolerance` of its dtype.
      max_steps: The largest number of iterations.
      adjoint_solver: The solver of the adjoint system unless another is given.
    """

    requires: ClassVar[tuple[str, ...]]
    stops_early: ClassVar[bool]

    @property
    def tolerance(self) -> float | None: ...

    @property
    def max_steps(self) -> int: ...

    @property
    def adjoint_solver(self) -> "Solver": ...

    def init(self, state: Array) -> Any:
        """Returns the memory before the first iteration."""

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the memory and the state after one more iteration."""


def widen(tree: Any) -> Any:
    """Returns a tree whose arrays in half precision are float32.

    An iteration in half precision does not come near a fixed point. Other leaves are
    returned as they are.

    >>> widen(jnp.ones(1, jnp.bfloat16)).dtype, widen(jnp.ones(1, bool)).dtype
    (dtype('float32'), dtype('bool'))
    """

    def widen_leaf(leaf: Any) -> Any:
        half = getattr(leaf, "dtype", None) in HALF
        return leaf.astype(jnp.float32) if half else leaf

    return jax.tree.map(widen_leaf, tree)


def varying_axes(tree: Any) -> frozenset[str]:
    """Returns the axes of a mesh over which arrays differ inside `jax.shard_map`.

    >>> sorted(varying_axes((jnp.ones(2), None)))
    []
    """
    kinds = [jax.typeof(leaf).manual_axis_type for leaf in jax.tree.leaves(tree)]
    return frozenset().union(*(kind.varying for kind in kinds))


def vary_alike(tree: Any) -> Any:
    """Returns a tree whose arrays all vary over the axes that any of them varies over.

    Inside `jax.shard_map` a loop refuses a carry that begins equal on all devices, such
    as zeros, and does not stay so. Outside of it the tree is returned as it is.

    >>> vary_alike((1.0, None))
    (1.0, None)
    """
    axes = varying_axes(tree)

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(axes - varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def relative_residual(h: Array, image: Array) -> Array:
    """Returns the residual of each system, `[...]`, from h and F(h), `[..., T, H]`.

    >>> relative_residual(jnp.array([[1.0, 5.0]]), jnp.array([[1.0, 4.0]])).tolist()
    0.25
    """
    # Not |h|: at a start of zeros the compiler would fold a large constant, slowly.
    size = jnp.maximum(jnp.abs(image).max(axis=(-2, -1)), 1.0)
    return jnp.abs(image - h).max(axis=(-2, -1)) / size


def default_tolerance(dtype: Any) -> float:
    """Returns the tolerance that a dtype can reach: ε to the power of 0.7.

    >>> f"{default_tolerance(jnp.float32):.1e}", f"{default_tolerance(np.float64):.1e}"
    ('1.4e-05', '1.1e-11')
    """
    return float(np.finfo(dtype).eps) ** 0.7


def check(system: System, start: Array, solver: Solver) -> None:
    """Checks that a solver can solve a system from a start.

    Raises:
      InputError: The start has no positions or is not float32 or float64, the
        tolerance is below what its dtype resolves, or the system lacks a field that
        the solver requires.
    """
    if start.ndim < 2 or 0 in start.shape:
        raise InputError(
            f"a state {[*start.shape]} has no positions; expected [..., T, H], none 0"
        )
    if start.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"a state is float32 or float64, not {start.dtype}")
    for field in solver.requires:
        if not getattr(system, field):
            name = type(solver).__name__
            raise InputError(f"{name} needs a system with `{field}`; this one has none")
    least = 4 * float(np.finfo(start.dtype).eps)
    if solver.tolerance is not None and solver.tolerance < least:
        raise InputError(
            f"tolerance {solver.tolerance:g} is below what {start.dtype} resolves; "
            f"use at least {least:.1e}, or float64"
        )


def iterate(
    system: System,
    args: Args,
    start: Array,
    solver: Solver,
    loop: Literal["while", "scan"] = "while",
    checkpoint: bool = False,
) -> Solution:
    """Iterates until every system has converged or `solver.max_steps` is reached.

    Args:
      system, args, start, solver: As in `solve`.
      loop: `while` stops early; `scan` always makes `solver.max_steps` iterations,
        which leave a converged system unchanged, and can be differentiated.
      checkpoint: Whether a scan keeps only the states between its iterations.
    """
    tolerance = solver.tolerance or default_tolerance(start.dtype)
    step = make_step(system, args, solver, tolerance)
    first = first_progress(system, args, start, solver)
    if loop == "scan":
        body = jax.checkpoint(step) if checkpoint else step
        last, _ = jax.lax.scan(
            lambda progress, _: (body(progress), None), first, length=solver.max_steps
        )
    else:

        def unfinished(progress: Progress) -> Array:
            active = _active(progress, solver, tolerance).any()
            return active & (progress.count < solver.max_steps)

        last = jax.lax.while_loop(unfinished, step, first)
    converged = last.residual <= tolerance
    return Solution(last.state, last.residual, last.iterations, converged)


def first_progress(
    system: System, args: Args, start: Array, solver: Solver
) -> Progress:
    """Returns the progress before the first iteration."""
    image = system.step(args, start)
    if image.shape != start.shape or image.dtype != start.dtype:
        raise InputError(
            f"F takes {start.dtype}{[*start.shape]} to {image.dtype}{[*image.shape]}"
        )
    iterations = jnp.zeros(start.shape[:-2], jnp.int32)
    residual, zero = relative_residual(start, image), jnp.zeros((), jnp.int32)
    memory = solver.init(start)
    return vary_alike(Progress(start, image, residual, iterations, memory, zero))


def _active(progress: Progress, solver: Solver, tolerance: float) -> Array:
    """Returns which systems go on. A residual of NaN is not, and stops at once."""
    if solver.stops_early:
        return progress.residual > tolerance
    return progress.residual >= 0


def make_step(
    system: System, args: Args, solver: Solver, tolerance: float
) -> Callable[[Progress], Progress]:
    """Returns the function that makes one iteration."""

    def step(progress: Progress) -> Progress:
        active = _active(progress, solver, tolerance)
        memory, new = solver.update(system, args, progress)
        state = jnp.where(active[..., None, None], new, progress.state)
        image = system.step(args, state)
        residual = relative_residual(state, image)
        iterations = progress.iterations + active
        return Progress(state, image, residual, iterations, memory, progress.count + 1)

    return step


def shift(array: Array, axis: int = -2, back: bool = False) -> Array:
    """Returns the left neighbour of each position: moved on by one, after a zero.

    Args:
      array: Any shape.
      axis: The axis of positions.
      back: Whether to return the right neighbour instead.

    >>> shift(jnp.array([[1.0], [2.0], [3.0]]))[:, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    length = array.shape[axis]
    edge = jnp.zeros_like(jax.lax.slice_in_dim(array, 0, 1, axis=axis))
    kept = jax.lax.slice_in_dim(array, int(back), length - 1 + back, axis=axis)
    return jnp.concatenate([kept, edge] if back else [edge, kept], axis=axis)
