"""Solvers of fixed points h = F(h), each a small dataclass for `fixed_point.solve`.

All but `Unrolled` have a tolerance, a largest number of iterations and a damping. A
tolerance of None is the smallest that the dtype can reach.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.feedback.iteration import (
    Args,
    Progress,
    Solver,
    System,
    default_tolerance,
    relative_residual,
    varying_axes,
)
from ffnlab.feedback.tridiagonal import block_tridiagonal
from ffnlab.types import Array

Name = Literal["anderson", "gauss_seidel", "jacobi", "krylov", "newton", "unrolled"]


@dataclasses.dataclass(frozen=True)
class IterativeSolver(abc.ABC):
    """A solver that stops at a tolerance.

    Attributes:
      tolerance: The residual at which a system has converged; None is ε^0.7.
      max_steps: The largest number of iterations, at least 1.
      damping: The fraction of the old state that an iteration keeps, in [0, 1).
    """

    tolerance: float | None = None
    max_steps: int = 100
    damping: float = 0.0

    requires: ClassVar[tuple[str, ...]] = ()
    stops_early: ClassVar[bool] = True

    def __post_init__(self):
        if self.max_steps < 1:
            raise InputError(f"max_steps={self.max_steps} must be at least 1")
        if not 0.0 <= self.damping < 1.0:
            raise InputError(f"damping={self.damping} must be in [0, 1)")
        if self.tolerance is not None and not 0.0 < self.tolerance < math.inf:
            raise InputError(f"tolerance={self.tolerance} must be above 0 and finite")

    @property
    def adjoint_solver(self) -> Solver:
        """The solver of the adjoint system unless another is given: this one."""
        return self

    def init(self, state: Array) -> Any:
        """Returns the memory before the first iteration."""
        return ()

    @abc.abstractmethod
    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the memory and the state after one more iteration."""

    def damp(self, old: Array, new: Array) -> Array:
        """Returns the new state mixed with the fraction of the old one that is kept."""
        return new if self.damping == 0.0 else old + (1.0 - self.damping) * (new - old)


@dataclasses.dataclass(frozen=True)
class Jacobi(IterativeSolver):
    """h ← F(h), all positions at once.

    Source: Jacobi 1845; as a map, Picard's iteration (Banach 1922 for its rate).
    """

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns F(h), which the residual was computed from."""
        return (), self.damp(progress.state, progress.image)


@dataclasses.dataclass(frozen=True)
class GaussSeidel(IterativeSolver):
    """A scan forward and a scan back, each using the states it has just updated.

    Without input from the right, one sweep is exact. Its adjoint system is solved by
    Jacobi.

    Source: the symmetric sweep of Gauss and Seidel 1874.
    """

    requires = ("sweep",)

    @property
    def adjoint_solver(self) -> Solver:
        """Jacobi with the same tolerance, number of iterations and damping."""
        return Jacobi(self.tolerance, self.max_steps, self.damping)

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the state after one sweep."""
        return (), self.damp(progress.state, system.sweep(args, progress.state))


@dataclasses.dataclass(frozen=True)
class Anderson(IterativeSolver):
    """The mixture of the last few iterates with the smallest residual.

    Attributes:
      memory: How many iterates are mixed.
      ridge: Added to the diagonal of the residuals' Gram matrix, which is scaled to a
        unit diagonal, so that it is never singular; None is ε^0.7.

    Source: Anderson 1965; Walker and Ni 2011.
    """

    memory: int = 5
    ridge: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.memory < 1:
            raise InputError(f"memory={self.memory} must be at least 1")

    def init(self, state: Array) -> tuple[Array, Array, Array]:
        """Returns zeros for the last states, their residuals, and the Gram matrix.

        `[m, ..., T, H]` for the first two, and `[m, m, ...]`.
        """
        zeros = jnp.zeros((self.memory, *state.shape), state.dtype)
        gram = jnp.zeros((self.memory, self.memory, *state.shape[:-2]), state.dtype)
        return zeros, zeros, gram

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the mixture of the last iterates, or F(h) where it is not finite."""
        slot = progress.count % self.memory
        residual = progress.image - progress.state
        states = progress.memory[0].at[slot].set(progress.state)
        residuals = progress.memory[1].at[slot].set(residual)
        # Only the products with the new residual: the others are known from before.
        row = (residuals * residual[None]).sum(axis=(-2, -1))  # [m, ...]
        gram = progress.memory[2].at[slot].set(row).at[:, slot].set(row)
        weights = self._weights(gram, progress.count)  # [m, ...]
        keep = 1.0 - self.damping
        # Summed one by one, since a sum over the leading axis is slow on a CPU.
        new = jnp.zeros_like(progress.state)
        for i in range(self.memory):
            new += weights[i][..., None, None] * (states[i] + keep * residuals[i])
        finite = jnp.isfinite(new).all(axis=(-2, -1), keepdims=True)
        new = jnp.where(finite, new, self.damp(progress.state, progress.image))
        return (states, residuals, gram), new

    def _weights(self, gram: Array, count: Array) -> Array:
        """Returns the α with Σ α = 1 that minimise |Σ αᵢ rᵢ|, `[m, ...]`."""
        # Constants for `bptt`: their derivative vanishes with the residual.
        gram = jax.lax.stop_gradient(gram)
        tiny = np.finfo(gram.dtype).tiny
        slots = jnp.arange(self.memory)
        norms = jnp.sqrt(gram[slots, slots])  # [m, ...]
        filled = slots.reshape((-1,) + (1,) * (norms.ndim - 1)) <= count
        inverse = jnp.where(filled, 1.0 / jnp.maximum(norms, tiny), 0.0)
        unit = jnp.moveaxis(gram * inverse[:, None] * inverse[None], (0, 1), (-2, -1))
        ridge = self.ridge or default_tolerance(gram.dtype)
        diagonal = jnp.moveaxis(jnp.where(filled, ridge, 1.0), 0, -1)[..., None]
        unit += diagonal.astype(gram.dtype) * identity(unit)
        inverse /= jnp.maximum(inverse.max(axis=0, keepdims=True), tiny)
        right = jnp.moveaxis(inverse, 0, -1)[..., None]  # [..., m, 1]
        weights = inverse * jnp.moveaxis(jnp.linalg.solve(unit, right)[..., 0], -1, 0)
        return weights / weights.sum(axis=0, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Newton(IterativeSolver):
    """Newton's method with backtracking, on the exact solution of the linear system.

    Of 1, ½, ¼ and ⅛ of the step the one with the smallest residual is taken. A step
    factorises T dense blocks of H × H: for strong coupling or a small H.

    Attributes:
      parallel: Whether to solve by cyclic reduction, in log₂ T steps of products over
        all positions, instead of a scan forward and a scan back.

    Source: block Thomas and cyclic reduction as in Golub and Van Loan 2013, section
    4.5; backtracking as in Nocedal and Wright 2006, section 11.2.
    """

    parallel: bool = False

    requires = ("blocks",)

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the best of four states along Newton's direction."""
        state = progress.state
        left, own, right = system.blocks(args, state)
        direction = block_tridiagonal(
            -left, identity(own) - own, -right, progress.image - state, self.parallel
        )
        scales = (1.0 - self.damping) * 0.5 ** jnp.arange(4, dtype=own.dtype)
        trials = jax.vmap(lambda scale: state + scale * direction)(scales)
        images = jax.vmap(lambda trial: system.step(args, trial))(trials)
        residuals = jax.vmap(relative_residual)(trials, images)  # [4, ...]
        residuals = jnp.where(jnp.isnan(residuals), jnp.inf, residuals)
        best = jnp.argmin(residuals, axis=0)
        return (), jnp.take_along_axis(trials, best[None, ..., None, None], axis=0)[0]


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """Exactly k iterations of h ← F(h), whatever the residual.

    From zeros, `Unrolled(1)` is what a loop over the positions computes if it reads the
    state of the right neighbour before it has been computed.

    Attributes:
      sweeps: Number k of sweeps.
      damping: The fraction of the old state that an iteration keeps, in [0, 1).
    """

    sweeps: int = 1
    damping: float = 0.0

    requires: ClassVar[tuple[str, ...]] = ()
    stops_early: ClassVar[bool] = False
    tolerance: ClassVar[None] = None

    def __post_init__(self):
        if self.sweeps < 1:
            raise InputError(f"sweeps={self.sweeps} must be at least 1")
        Jacobi(damping=self.damping)  # checks the damping

    @property
    def max_steps(self) -> int:
        """k."""
        return self.sweeps

    @property
    def adjoint_solver(self) -> Solver:
        """Jacobi with its default tolerance and number of iterations."""
        return Jacobi()

    def init(self, state: Array) -> Any:
        """Returns an empty memory."""
        return ()

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns F(h), damped."""
        return Jacobi(damping=self.damping).update(system, args, progress)


@dataclasses.dataclass(frozen=True)
class Krylov(IterativeSolver):
    """GMRES or BiCGStab, for adjoint systems only, which are linear.

    All systems of a batch are solved as one.

    Attributes:
      method: `gmres` or `bicgstab`.

    Source: Saad and Schultz 1986; van der Vorst 1992; as implemented in jax.scipy.
    """

    method: Literal["gmres", "bicgstab"] = "gmres"

    requires = ("linear",)

    def __post_init__(self):
        super().__post_init__()
        choose("method", self.method, ("gmres", "bicgstab"))

    def update(
        self, system: System, args: Args, progress: Progress
    ) -> tuple[Any, Array]:
        """Returns the solution of F(u) = u for an affine F, from the current state."""
        from jax.scipy.sparse import linalg

        start = progress.state
        if varying_axes(start):
            raise InputError(
                "adjoint_solver: Krylov does not work inside jax.shard_map, which "
                "refuses the loops of jax.scipy; use another solver, such as "
                "'anderson', or shard_map(..., check_vma=False)"
            )
        constant = system.step(args, jnp.zeros_like(start))
        solve = linalg.gmres if self.method == "gmres" else linalg.bicgstab
        solution, _ = solve(
            lambda u: u - (system.step(args, u) - constant),
            constant,
            x0=start,
            tol=self.tolerance or default_tolerance(start.dtype),
            maxiter=20,
        )
        return (), solution


SOLVERS: dict[str, type[Solver]] = {
    "anderson": Anderson,
    "gauss_seidel": GaussSeidel,
    "jacobi": Jacobi,
    "krylov": Krylov,
    "newton": Newton,
    "unrolled": Unrolled,
}


def resolve(solver: Solver | Name, parameter: str = "solver") -> Solver:
    """Returns a solver unchanged, and for a name the solver with its defaults.

    Args:
      solver: A solver, or a key of `SOLVERS`.
      parameter: The parameter that it was given as, for an error.

    Raises:
      InputError: The name is unknown, or it is neither a name nor a solver.

    >>> resolve("newton").max_steps
    100
    """
    if isinstance(solver, str):
        return SOLVERS[choose(parameter, solver, SOLVERS)]()
    if isinstance(solver, type):
        raise InputError(
            f"{parameter}: {solver.__name__} is a class; call it, for instance "
            f"{solver.__name__}()"
        )
    if not hasattr(solver, "update") or not hasattr(solver, "max_steps"):
        raise InputError(
            f"{parameter}: expected a solver of ffnlab.feedback or one of "
            f"{', '.join(SOLVERS)}, found {solver!r}"
        )
    return solver


def auto(
    certified: bool,
    tolerance: float | None = None,
    max_steps: int = 100,
    damping: float = 0.0,
) -> Solver:
    """Returns Jacobi for a certified chain, and Gauss-Seidel for others.

    An iteration of Jacobi is one product over all positions, and by far the cheapest,
    but Jacobi is the first to fail where there is no certificate
    (`benchmarks/feedback.py`).

    >>> auto(certified=True).max_steps
    100
    """
    return (Jacobi if certified else GaussSeidel)(tolerance, max_steps, damping)


def identity(like: Array) -> Array:
    """Returns the identity matrix, of the rank and dtype of `[..., H, H]`.

    >>> identity(jnp.ones((3, 2, 2))).shape
    (1, 2, 2)
    """
    eye = jnp.eye(like.shape[-1], dtype=like.dtype)
    return eye.reshape((1,) * (like.ndim - 2) + eye.shape)
