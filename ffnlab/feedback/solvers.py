"""Ways to iterate towards a fixed point, each a small dataclass.

All share a tolerance, a number of iterations at most and a damping, and are given to
`fixed_point.solve`. A tolerance of None is what the dtype can be held to.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.feedback.iteration import System, measure, resolution, shift
from ffnlab.types import Array


@dataclasses.dataclass(frozen=True)
class Solver(abc.ABC):
    """What all solvers have.

    Attributes:
      tolerance: the residual at which a system has converged; None is ε^0.7.
      max_steps: the most iterations, at least 1.
      damping: the share of the old state that an iteration keeps, in [0, 1).
    """

    tolerance: float | None = None
    max_steps: int = 100
    damping: float = 0.0

    needs: ClassVar[tuple[str, ...]] = ()
    early: ClassVar[bool] = True

    def __post_init__(self):
        if self.max_steps < 1:
            raise InputError(f"max_steps={self.max_steps} must be at least 1")
        if not 0.0 <= self.damping < 1.0:
            raise InputError(f"damping={self.damping} must be in [0, 1)")
        if self.tolerance is not None and not 0.0 < self.tolerance < math.inf:
            raise InputError(f"tolerance={self.tolerance} must be above 0 and finite")

    @property
    def for_adjoint(self) -> "Solver":
        """What solves the adjoint system unless another is asked for."""
        return self

    def begin(self, state: Array) -> Any:
        """Returns what the solver remembers, before the first iteration."""
        return ()

    @abc.abstractmethod
    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Returns the memory and the state after one more iteration."""

    def damped(self, old: Array, new: Array) -> Array:
        """Returns the new state, with the share of the old one that is kept."""
        return new if self.damping == 0.0 else old + (1.0 - self.damping) * (new - old)


@dataclasses.dataclass(frozen=True)
class Jacobi(Solver):
    """h ← F(h), all positions at once.

    Source: Jacobi 1845; as a map, Picard's iteration (Banach 1922 for its rate).
    """

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Takes the image, which the residual was measured with."""
        return (), self.damped(at.state, at.image)


@dataclasses.dataclass(frozen=True)
class GaussSeidel(Solver):
    """A scan forward and one back, each using the states it has just renewed.

    Where nothing comes from the right, one sweep is exact. Its adjoint system is
    solved by Jacobi.

    Source: the symmetric sweep of Gauss and Seidel 1874.
    """

    needs = ("sweep",)

    @property
    def for_adjoint(self) -> Solver:
        """Jacobi with the same tolerance, limit and damping."""
        return Jacobi(self.tolerance, self.max_steps, self.damping)

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Sweeps once."""
        return (), self.damped(at.state, system.sweep(args, at.state))


@dataclasses.dataclass(frozen=True)
class Anderson(Solver):
    """The mixture of the last few iterates whose residual would be the least.

    Attributes:
      memory: how many iterates are mixed.
      ridge: what is added to the diagonal of the residuals' Gram matrix, scaled to a
        unit diagonal, so that it is never singular; None is ε^0.7.

    Source: Anderson 1965; Walker and Ni 2011.
    """

    memory: int = 5
    ridge: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.memory < 1:
            raise InputError(f"memory={self.memory} must be at least 1")

    def begin(self, state: Array) -> tuple[Array, Array, Array]:
        """Returns room for the last states and residuals, and their products.

        `[m, ..., T, H]` each, and `[m, m, ...]`.
        """
        room = jnp.zeros((self.memory, *state.shape), state.dtype)
        gram = jnp.zeros((self.memory, self.memory, *state.shape[:-2]), state.dtype)
        return room, room, gram

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Mixes the last iterates and, where that is no number, takes the image."""
        slot, residual = at.turn % self.memory, at.image - at.state
        states = at.memory[0].at[slot].set(at.state)
        residuals = at.memory[1].at[slot].set(residual)
        # One product with each of the others: the rest is known from before.
        row = (residuals * residual[None]).sum(axis=(-2, -1))  # [m, ...]
        gram = at.memory[2].at[slot].set(row).at[:, slot].set(row)
        shares = self._shares(gram, at.turn)  # [m, ...]
        keep = 1.0 - self.damping
        # Summed one by one, since a sum over the leading axis is slow on a CPU.
        new = jnp.zeros_like(at.state)
        for i in range(self.memory):
            new += shares[i][..., None, None] * (states[i] + keep * residuals[i])
        sound = jnp.isfinite(new).all(axis=(-2, -1), keepdims=True)
        new = jnp.where(sound, new, self.damped(at.state, at.image))
        return (states, residuals, gram), new

    def _shares(self, gram: Array, turn: Array) -> Array:
        """Returns the weights, which sum to 1, of the least |Σ αᵢ rᵢ|, `[m, ...]`."""
        # Taken as given by `bptt`: their derivative vanishes with the residual.
        gram = jax.lax.stop_gradient(gram)
        tiny = np.finfo(gram.dtype).tiny
        places = jnp.arange(self.memory)
        sizes = jnp.sqrt(gram[places, places])  # [m, ...]
        used = places.reshape((-1,) + (1,) * (sizes.ndim - 1)) <= turn
        inverse = jnp.where(used, 1.0 / jnp.maximum(sizes, tiny), 0.0)
        unit = jnp.moveaxis(gram * inverse[:, None] * inverse[None], (0, 1), (-2, -1))
        ridge = self.ridge or resolution(gram.dtype)
        added = jnp.moveaxis(jnp.where(used, ridge, 1.0), 0, -1)[..., None]
        unit += added.astype(gram.dtype) * identity(unit)
        inverse /= jnp.maximum(inverse.max(axis=0, keepdims=True), tiny)
        right = jnp.moveaxis(inverse, 0, -1)[..., None]  # [..., m, 1]
        shares = inverse * jnp.moveaxis(jnp.linalg.solve(unit, right)[..., 0], -1, 0)
        return shares / shares.sum(axis=0, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Newton(Solver):
    """Solves the linearised system exactly, and goes as far that way as helps.

    Of 1, ½, ¼ and ⅛ of the step the one with the least residual is taken. A step
    factorises T dense blocks of H × H: for strong coupling or a small H.

    Attributes:
      parallel: whether to solve by cyclic reduction, in log₂ T steps of products over
        all positions, instead of one scan forward and one back.

    Source: block Thomas and cyclic reduction as in Golub and Van Loan 2013, section
    4.5; backtracking as in Nocedal and Wright 2006, section 11.2.
    """

    parallel: bool = False

    needs = ("blocks",)

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Takes the best of four steps along Newton's direction."""
        left, here, right = system.blocks(args, at.state)
        direction = block_tridiagonal(
            -left, identity(here) - here, -right, at.image - at.state, self.parallel
        )
        scales = (1.0 - self.damping) * 0.5 ** jnp.arange(4, dtype=here.dtype)
        tried = jax.vmap(lambda scale: at.state + scale * direction)(scales)
        images = jax.vmap(lambda state: system.step(args, state))(tried)
        found = jax.vmap(measure)(tried, images)  # [4, ...]
        best = jnp.argmin(jnp.where(jnp.isnan(found), jnp.inf, found), axis=0)
        return (), jnp.take_along_axis(tried, best[None, ..., None, None], axis=0)[0]


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """Exactly k iterations of h ← F(h), whatever the residual.

    From zeros, `Unrolled(1)` is what a loop computes that reads the right neighbour's
    state before there is one.

    Attributes:
      sweeps: k.
      damping: the share of the old state that an iteration keeps, in [0, 1).
    """

    sweeps: int = 1
    damping: float = 0.0

    needs: ClassVar[tuple[str, ...]] = ()
    early: ClassVar[bool] = False
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
    def for_adjoint(self) -> Solver:
        """Jacobi with its own tolerance and limit."""
        return Jacobi()

    def begin(self, state: Array) -> Any:
        """Returns nothing: it remembers nothing."""
        return ()

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Takes the image."""
        return (), Jacobi(damping=self.damping).damped(at.state, at.image)


@dataclasses.dataclass(frozen=True)
class Krylov(Solver):
    """GMRES or BiCGStab, for adjoint systems alone, which are linear.

    All systems of a batch are solved as one.

    Attributes:
      method: `gmres` or `bicgstab`.

    Source: Saad and Schultz 1986; van der Vorst 1992; here as jax.scipy has them.
    """

    method: Literal["gmres", "bicgstab"] = "gmres"

    needs = ("linear",)

    def __post_init__(self):
        super().__post_init__()
        choose("method", self.method, ("gmres", "bicgstab"))

    def advance(self, system: System, args: Any, at: Any) -> tuple[Any, Array]:
        """Solves F(u) = u for a linear F, from where it is."""
        from jax.scipy.sparse import linalg

        zero = system.step(args, jnp.zeros_like(at.state))
        solve = linalg.gmres if self.method == "gmres" else linalg.bicgstab
        within = self.tolerance or resolution(at.state.dtype)
        found, _ = solve(
            lambda u: u - (system.step(args, u) - zero),
            zero,
            x0=at.state,
            tol=within,
            maxiter=20,
        )
        return (), found


def auto(
    certified: bool,
    tolerance: float | None = None,
    max_steps: int = 100,
    damping: float = 0.0,
) -> Solver:
    """Returns the solver for a chain: Jacobi if it is certified, else Gauss-Seidel.

    A sweep of Jacobi is one product over all positions, and the cheapest by far, but
    the first to fail where nothing is certified (`benchmarks/feedback.py`).

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


def block_tridiagonal(
    lower: Array, diagonal: Array, upper: Array, right: Array, parallel: bool = False
) -> Array:
    """Solves lower_t x_{t−1} + diagonal_t x_t + upper_t x_{t+1} = right_t.

    Args:
      lower, diagonal, upper: `[..., T, H, H]`; the first of `lower` and the last of
        `upper` are not read.
      right: `[..., T, H]`.
      parallel: cyclic reduction instead of block Thomas.

    Returns:
      x, `[..., T, H]`.

    >>> ones = jnp.ones((3, 1, 1))
    >>> x = block_tridiagonal(-ones, 4 * ones, -ones, jnp.array([[3.0], [2], [3]]))
    >>> [round(float(v), 4) for v in x[:, 0]]
    [1.0, 1.0, 1.0]
    """
    count = diagonal.shape[-3]
    place = jnp.arange(count).reshape((1,) * (diagonal.ndim - 3) + (count, 1, 1))
    lower = jnp.where(place == 0, 0.0, lower)
    upper = jnp.where(place == count - 1, 0.0, upper)
    way = _cyclic_reduction if parallel else _thomas
    return way(lower, diagonal, upper, right[..., None])[..., 0]


def _thomas(lower: Array, diagonal: Array, upper: Array, right: Array) -> Array:
    """Eliminates from the left, then substitutes from the right."""
    lower, diagonal, upper, right = (
        jnp.moveaxis(array, -3, 0) for array in (lower, diagonal, upper, right)
    )

    def eliminate(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        a, b, c, d = row
        pivot = b - a @ carry[0]
        both = jnp.linalg.solve(pivot, jnp.concatenate([c, d - a @ carry[1]], axis=-1))
        carry = both[..., :-1], both[..., -1:]
        return carry, carry

    def substitute(after: Array, row: tuple) -> tuple[Array, Array]:
        x = row[1] - row[0] @ after
        return x, x

    first = jnp.zeros_like(diagonal[0]), jnp.zeros_like(right[0])
    _, rows = jax.lax.scan(eliminate, first, (lower, diagonal, upper, right))
    _, x = jax.lax.scan(substitute, first[1], rows, reverse=True)
    return jnp.moveaxis(x, 0, -3)


def _cyclic_reduction(
    lower: Array, diagonal: Array, upper: Array, right: Array
) -> Array:
    """Eliminates every other position, all at once, until one is left."""
    count = diagonal.shape[-3]
    if count == 1:
        return jnp.linalg.solve(diagonal, right)
    if count % 2:  # an equation x = 0 that meets no other
        lower, diagonal, upper, right = (
            jnp.pad(a, [*[(0, 0)] * (a.ndim - 3), (0, 1), (0, 0), (0, 0)])
            for a in (lower, diagonal, upper, right)
        )
        diagonal = diagonal.at[..., -1, :, :].set(jnp.eye(diagonal.shape[-1]))
    (a, b, c, d), odd = (
        [array[..., start::2, :, :] for array in (lower, diagonal, upper, right)]
        for start in (0, 1)
    )
    width = b.shape[-1]
    both = jnp.concatenate([odd[0], odd[2], odd[3]], axis=-1)
    both = jnp.linalg.solve(odd[1], both)  # x = r − p x_before − q x_after
    p, q, r = both[..., :width], both[..., width : 2 * width], both[..., 2 * width :]
    p_left, q_left, r_left = (shift(array, axis=-3) for array in (p, q, r))
    even = _cyclic_reduction(
        -a @ p_left, b - a @ q_left - c @ p, -c @ q, d - a @ r_left - c @ r
    )
    after = shift(even, axis=-3, back=True)
    x = jnp.stack([even, r - p @ even - q @ after], axis=-3)
    return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])[..., :count, :, :]
