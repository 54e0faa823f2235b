"""The coupled chain: its equation, and the certificate that it has one solution.

    h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b)

The states are the solution of one system, not the result of a loop. A loop from left
to right would read `h[t + 1]` before there is one. If it reads a state left over from
before, zeros at first, it computes half a Gauss-Seidel sweep, in which nothing is ever
heard from the right; if all states are left over from before, it is `Unrolled(1)`:

    h_t = f(U x_t + b),   from zeros, for every t

which hears no neighbour at all. `feedback` solves the system instead; `contraction`
certifies that it has one solution and says how fast it is found. Kernels are applied
to the right of a row of states: `left` is Wᵀ of the formula and `right` is Vᵀ.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.feedback import fixed_point
from ffnlab.feedback.iteration import Solution, System, shift
from ffnlab.feedback.solvers import Jacobi, Solver, Unrolled
from ffnlab.nn import activations
from ffnlab.nn.activations import Activation
from ffnlab.types import Array, Params

Boundary = tuple[Array, Array]
Certificate = Literal["joint", "sum"]


@functools.cache
def chain(name: str) -> System:
    """Returns the coupled system of an activation, for `fixed_point.solve`.

    Args:
      name: a key of `ACTIVATIONS`.

    Returns:
      A system over args `{"drive": [..., T, H], "kernels": [[H, H], ...]}`, the
      kernels being those of the left and the right neighbour and, if there is a third,
      of the state itself; with `"mask"` bool `[..., T]` and `"beta"` if there are any.
    """
    row = activations.get(name)

    def renew(args: dict, before: Array, mask: Array | None) -> Array:
        beta = {"beta": args["beta"]} if "beta" in args else {}
        h = row.function(before, **beta)
        return h if mask is None else jnp.where(mask[..., None], h, 0.0)

    def preactivation(args: dict, h: Array) -> Array:
        heard = [shift(h), shift(h, back=True), h][: len(args["kernels"])]
        # One product instead of two or three.
        both = jnp.concatenate(heard, axis=-1) @ jnp.concatenate(args["kernels"])
        return args["drive"] + both  # [..., T, H]

    def step(args: dict, h: Array) -> Array:
        return renew(args, preactivation(args, h), args.get("mask"))

    def sweep(args: dict, h: Array) -> Array:
        return _pass(_pass(h, args, renew), args, renew, back=True)

    def blocks(args: dict, h: Array) -> tuple[Array, Array, Array]:
        before = preactivation(args, h)
        _, slope = jax.jvp(
            lambda z: renew(args, z, args.get("mask")),
            (before,),
            (jnp.ones_like(before),),
        )
        shape = (1,) * (h.ndim - 1)
        zero = jnp.zeros_like(args["kernels"][0])
        kernels = (*args["kernels"], zero)[:3]
        left, right, here = (
            slope[..., None] * kernel.T.reshape(shape + kernel.shape)
            for kernel in kernels
        )
        return left, here, right

    return System(step, sweep, blocks)


def _pass(h: Array, args: dict, renew: Any, back: bool = False) -> Array:
    """Renews the states one after another, from one end to the other."""
    kernels = args["kernels"]
    own, other = (kernels[1], kernels[0]) if back else (kernels[0], kernels[1])
    fixed = args["drive"] + shift(h, back=not back) @ other  # [..., T, H]
    if len(kernels) == 3:
        fixed = fixed + h @ kernels[2]
    rows = {"fixed": jnp.moveaxis(fixed, -2, 0)}
    if args.get("mask") is not None:
        rows["mask"] = jnp.moveaxis(args["mask"], -1, 0)

    def turn(last: Array, row: dict) -> tuple[Array, Array]:
        new = renew(args, row["fixed"] + last @ own, row.get("mask"))
        return new, new

    _, new = jax.lax.scan(turn, jnp.zeros_like(rows["fixed"][0]), rows, reverse=back)
    return jnp.moveaxis(new, 0, -2)


def feedback(
    drive: Array,
    left: Array,
    right: Array,
    inside: Array | None = None,
    *,
    activation: str = "tanh",
    beta: Array | None = None,
    mask: Array | None = None,
    boundary: Boundary | None = None,
    solver: Solver | Unrolled | None = None,
    start: Array | None = None,
    **options: Any,
) -> Solution:
    """Solves h_t = f(drive_t + h_{t−1} left + h_{t+1} right + h_t inside).

    Args:
      drive: what comes from outside, U x + b, `[..., T, H]`.
      left: the kernel of the left neighbour, `[H, H]`.
      right: that of the right neighbour, `[H, H]`.
      inside: that of the state itself, `[H, H]`, if it hears itself.
      activation: f, a key of `ACTIVATIONS`.
      beta: the β of `swish`, `[]` or `[H]`.
      mask: True where there is a position, bool `[..., T]`; the state of another is 0
        and nobody hears it.
      boundary: the states before the first position and after the last, `[H]` each;
        zeros if None. A masked position is a boundary too.
      solver: from `ffnlab.feedback.solvers`; `Jacobi()` if None.
      start: where to begin, `[..., T, H]`; zeros if None.
      **options: of `fixed_point.solve`: `gradient`, `adjoint_solver`, ...

    Returns:
      The solution: states `[..., T, H]`, and how well each sequence was solved.

    Raises:
      InputError: there are no positions, or the shapes do not fit each other.

    >>> drive, half = jnp.ones((3, 1)), jnp.full((1, 1), 0.25)
    >>> found = feedback(drive, half, half, activation="identity")
    >>> [round(float(h), 3) for h in found.state[:, 0]]  # h₂ = 1 + (h₁ + h₃) / 4
    [1.429, 1.714, 1.429]
    """
    args, state = chain_arguments(
        drive, left, right, inside, beta, mask, boundary, start, activation
    )
    return fixed_point.solve(
        chain(activation), args, state, solver or Jacobi(), **options
    )


def chain_arguments(
    drive: Array,
    left: Array,
    right: Array,
    inside: Array | None,
    beta: Array | None,
    mask: Array | None,
    boundary: Boundary | None,
    start: Array | None,
    activation: str,
) -> tuple[dict, Array]:
    """Returns the arguments of the chain and its first state, checked."""
    if drive.ndim < 2 or 0 in drive.shape:
        shape = [*drive.shape]
        raise InputError(f"feedback: drive {shape} must be [..., T, H] with T above 0")
    width = drive.shape[-1]
    named = {"left": left, "right": right, "inside": inside}
    kernels = {name: kernel for name, kernel in named.items() if kernel is not None}
    for name, kernel in kernels.items():
        if kernel.shape != (width, width):
            shape = [*kernel.shape]
            raise InputError(f"feedback: {name} {shape} must be [{width}, {width}]")
    if mask is not None and mask.shape != drive.shape[:-1]:
        raise InputError(
            f"feedback: mask {[*mask.shape]} must be {[*drive.shape[:-1]]}, as drive"
        )
    if (beta is None) != (activations.get(activation).beta is None):
        raise InputError(
            f"feedback: {activation} {'needs a' if beta is None else 'has no'} beta"
        )
    if boundary is not None:
        drive = _from_outside(drive, kernels, boundary, mask)
    args = {"drive": drive, "kernels": [*kernels.values()]}
    args |= {"beta": beta} if beta is not None else {}
    args |= {"mask": mask} if mask is not None else {}
    return args, jnp.zeros_like(drive) if start is None else start


def _from_outside(
    drive: Array, kernels: dict[str, Array], boundary: Boundary, mask: Array | None
) -> Array:
    """Adds what the first and the last position of each sequence hear from outside."""
    inner = jnp.ones(drive.shape[:-1], bool) if mask is None else mask
    for name, state, back in zip(
        ("left", "right"), boundary, (False, True), strict=True
    ):
        ends = inner & ~shift(inner, axis=-1, back=back)  # [..., T]
        heard = (state @ kernels[name]).reshape((1,) * (drive.ndim - 1) + (-1,))
        drive = drive + ends[..., None] * heard
    return drive


def spectral_bound(kernel: Array, squarings: int = 10) -> Array:
    """Returns an upper bound of the largest singular value, tight and differentiable.

    ‖(K Kᵀ)^(2^k)‖_F is at least λ_max^(2^k), and its root is above λ_max by at most a
    factor of H^(1 / 2^(k+1)): 0.2 per cent for H = 64 and ten squarings. A power
    iteration would come from below, and certify nothing.

    Args:
      kernel: `[H, K]`.
      squarings: k.

    Source: Gram iteration, Delattre et al. 2023, "Efficient Bound of Lipschitz
    Constant for Convolutional Layers by Gram Iteration".

    >>> bound = spectral_bound(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    >>> round(float(bound), 3)
    3.0
    """
    gram = kernel @ kernel.T
    logarithm, tiny = 0.0, np.finfo(kernel.dtype).tiny
    for turn in range(squarings + 1):
        size = jnp.sqrt(jnp.square(gram).sum() + tiny)
        logarithm = logarithm + jnp.log(size) / 2**turn
        gram = gram / size
        gram = gram @ gram
    rounding = 1.0 + 32 * float(np.finfo(kernel.dtype).eps)
    return jnp.exp(logarithm / 2) * rounding


CERTIFICATES = ("joint", "sum")


def contraction(
    params: Params, activation: str, certificate: Certificate = "sum"
) -> Array:
    """Returns a bound on the Lipschitz constant of a chain, its certificate.

    `sum` is Lip(f)·(‖W‖₂ + ‖V‖₂), in the norm that is the largest over positions of the
    Euclidean norm of a state. `joint` is Lip(f)·√(‖W Wᵀ + V Vᵀ‖₂ + 2 ‖W Vᵀ‖₂), in the
    Euclidean norm of all states together. It is never above `sum`, and equal to
    Lip(f)·max(‖W‖₂, ‖V‖₂) where W and V write to states of their own, as those of a
    bidirectional network do. Either below 1 makes the map a contraction: there is one
    solution, every start leads to it, and each iteration of Jacobi brings it nearer by
    at least this factor.

    Args:
      params: `left` and `right`, `[H, H]`, and `inside` if there is one, whose norm is
        added; the rest of a layer's parameters is not read.
      activation: f, a key of `ACTIVATIONS`.
      certificate: `sum` or `joint`.

    Source: Banach 1922. For `joint`: the coupling is a block Toeplitz matrix, whose
    norm is at most that of its symbol, sup ‖W e^(−iθ) + V e^(iθ)‖₂ (Böttcher and
    Silbermann 1999, theorem 6.4), and M M* = W Wᵀ + V Vᵀ + (W Vᵀ e^(−2iθ) + its
    adjoint).

    >>> eye = jnp.eye(2)
    >>> round(float(contraction({"left": 0.5 * eye, "right": 0.25 * eye}, "tanh")), 4)
    0.75
    >>> apart = {"left": jnp.diag(jnp.array([0.5, 0.0])), "right": 0.25 * eye}
    >>> apart["right"] = jnp.diag(jnp.array([0.0, 0.25]))
    >>> round(float(contraction(apart, "tanh", "joint")), 4)
    0.5
    """
    kernels = [params[name] for name in ("left", "right", "inside") if name in params]
    norm = functools.partial(jnp.linalg.norm, ord=2)
    return activations.get(activation).lipschitz * _coupling(kernels, certificate, norm)


def _coupling(
    kernels: list[Array], certificate: Certificate, norm: Callable[[Array], Array]
) -> Array:
    """Returns a bound on the norm of what neighbours add, by a norm or its bound."""
    choose("certificate", certificate, CERTIFICATES)
    if certificate == "sum":
        return sum(map(norm, kernels))
    left, right, *inside = kernels
    # Kernels are transposed: what W and V write to are columns.
    squares, product = left.T @ left + right.T @ right, left.T @ right
    both = jnp.sqrt(norm(squares) + 2.0 * norm(product))
    return both + sum(map(norm, inside))


def contract_kernels(
    kernels: list[Array],
    activation: Activation,
    bound: float,
    certificate: Certificate = "joint",
) -> list[Array]:
    """Returns kernels scaled so that their certificate is at most a bound.

    Those that are small enough stay as they are.

    >>> kernels = [jnp.eye(2)] * 2
    >>> left, right = contract_kernels(kernels, activations.get("tanh"), 0.8, "sum")
    >>> 0.399 < float(left[0, 0]) <= 0.4
    True
    """
    found = activation.lipschitz * _coupling(kernels, certificate, spectral_bound)
    scale = jnp.minimum(1.0, bound / found)
    return [scale * kernel for kernel in kernels]
