"""The coupled chain: its equation, and the certificate that it has one solution.

    h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b)

The states solve one coupled system: a loop over the positions cannot compute them. A
loop from left to right reads `h[t + 1]` before it is computed. If it reads the value of
the previous sweep, at first zeros, it makes half a Gauss-Seidel sweep, in which no
state receives input from the right. If it reads all neighbours from the previous
sweep, it computes `Unrolled(1)`:

    h_t = f(U x_t + b),   from zeros, for every t

in which no state receives input from either neighbour. `solve_chain` solves the system;
`contraction` certifies that it has one solution, and bounds the rate of convergence.
Kernels multiply a row of states from the right: `left` is Wᵀ of the formula and `right`
is Vᵀ.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.feedback import fixed_point
from ffnlab.feedback.iteration import HALF, Solution, Solver, System, shift, widen
from ffnlab.feedback.solvers import Name
from ffnlab.nn import activations
from ffnlab.nn.activations import Activation
from ffnlab.nn.precision import full_precision
from ffnlab.types import Array, Params

Boundary = tuple[Array, Array]
Certificate = Literal["joint", "sum"]


def chain_system(name: str) -> System:
    """Returns the coupled system of an activation, for `fixed_point.solve`.

    Args:
      name: A key of `ACTIVATIONS`.

    Returns:
      A system over the args `{"drive": [..., T, H], "kernels": [[H, H], ...]}`. The
      kernels are those of the left neighbour, of the right neighbour and, optionally,
      of the state itself. `"mask"`, bool `[..., T]`, and `"beta"` are optional.
    """
    return _system_of(activations.get(name))


@functools.cache
def _system_of(row: Activation) -> System:
    """Returns the coupled system of a row of `ACTIVATIONS`."""

    def activate(args: dict, z: Array, mask: Array | None) -> Array:
        beta = {"beta": args["beta"]} if "beta" in args else {}
        h = row.function(z, **beta)
        return h if mask is None else jnp.where(mask[..., None], h, 0.0)

    def preactivation(args: dict, h: Array) -> Array:
        inputs = [shift(h), shift(h, back=True), h][: len(args["kernels"])]
        # One product instead of two or three.
        coupled = jnp.concatenate(inputs, axis=-1) @ jnp.concatenate(args["kernels"])
        return args["drive"] + coupled  # [..., T, H]

    def step(args: dict, h: Array) -> Array:
        return activate(args, preactivation(args, h), args.get("mask"))

    def sweep(args: dict, h: Array) -> Array:
        h = _scan_positions(h, args, activate)
        return _scan_positions(h, args, activate, back=True)

    def blocks(args: dict, h: Array) -> tuple[Array, Array, Array]:
        z = preactivation(args, h)
        _, slope = jax.jvp(
            lambda z: activate(args, z, args.get("mask")), (z,), (jnp.ones_like(z),)
        )
        shape = (1,) * (h.ndim - 1)
        zero = jnp.zeros_like(args["kernels"][0])
        kernels = (*args["kernels"], zero)[:3]
        left, right, own = (
            slope[..., None] * kernel.T.reshape(shape + kernel.shape)
            for kernel in kernels
        )
        return left, own, right

    return System(step, sweep, blocks)


def _scan_positions(
    h: Array, args: dict, activate: Callable[..., Array], back: bool = False
) -> Array:
    """Updates the states one after another, from one end to the other."""
    kernels = args["kernels"]
    own, other = (kernels[1], kernels[0]) if back else (kernels[0], kernels[1])
    fixed = args["drive"] + shift(h, back=not back) @ other  # [..., T, H]
    if len(kernels) == 3:
        fixed = fixed + h @ kernels[2]
    rows = {"fixed": jnp.moveaxis(fixed, -2, 0)}
    if args.get("mask") is not None:
        rows["mask"] = jnp.moveaxis(args["mask"], -1, 0)

    def update(previous: Array, row: dict) -> tuple[Array, Array]:
        new = activate(args, row["fixed"] + previous @ own, row.get("mask"))
        return new, new

    first = jnp.zeros_like(rows["fixed"][0])
    _, new = jax.lax.scan(update, first, rows, reverse=back)
    return jnp.moveaxis(new, 0, -2)


def solve_chain(
    drive: Array,
    left: Array,
    right: Array,
    inside: Array | None = None,
    *,
    activation: str = "tanh",
    beta: Array | None = None,
    mask: Array | None = None,
    boundary: Boundary | None = None,
    solver: Solver | Name = "jacobi",
    start: Array | None = None,
    **options: Any,
) -> Solution:
    """Solves h_t = f(drive_t + h_{t−1} left + h_{t+1} right + h_t inside).

    Args:
      drive: The input U x + b, `[..., T, H]`. If it is in half precision, so are the
        states; they are computed in float32.
      left: The kernel of the left neighbour, `[H, H]`.
      right: The kernel of the right neighbour, `[H, H]`.
      inside: The kernel of the state itself, `[H, H]`, or None.
      activation: Activation f, a key of `ACTIVATIONS`.
      beta: The β of `swish`, `[]` or `[H]`.
      mask: True for positions and False for padding, bool `[..., T]`. The state of
        padding is 0, and no other state depends on it.
      boundary: The states before the first position and after the last, `[H]` each;
        zeros if None. Padding is a boundary too.
      solver: From `ffnlab.feedback.solvers`, or its name.
      start: The states before the first iteration, `[..., T, H]`; zeros if None.
      **options: Of `fixed_point.solve`: `gradient`, `adjoint_solver`, ...

    Returns:
      The solution: states `[..., T, H]`, with the residual, the iterations and the
      convergence of each sequence.

    Raises:
      InputError: There are no positions, or the shapes do not fit each other, or the
        activation needs a beta and there is none, or the other way round.

    >>> drive, half = jnp.ones((3, 1)), jnp.full((1, 1), 0.25)
    >>> solution = solve_chain(drive, half, half, activation="identity")
    >>> [round(float(h), 3) for h in solution.state[:, 0]]  # h₂ = 1 + (h₁ + h₃) / 4
    [1.429, 1.714, 1.429]
    """
    args, state = chain_arguments(
        drive, left, right, inside, beta, mask, boundary, start, activation
    )
    solution = fixed_point.solve(
        chain_system(activation), args, state, solver or "jacobi", **options
    )
    return solution._replace(state=narrow(solution.state, drive))


def narrow(state: Array, like: Array, dtype: Any = None) -> Array:
    """Returns states in half precision if an input is, or in a given dtype.

    Args:
      state: States, of any dtype.
      like: The input.
      dtype: A floating-point dtype, or None for that of the input if it is bfloat16 or
        float16, and otherwise that of the states.

    Raises:
      InputError: The dtype is none of floating-point numbers.

    >>> narrow(jnp.ones(1), jnp.ones(1, jnp.bfloat16)).dtype
    dtype(bfloat16)
    """
    if dtype is None:
        return state.astype(like.dtype) if like.dtype in HALF else state
    try:
        if jnp.issubdtype(dtype, jnp.floating):
            return state.astype(dtype)
    except TypeError:
        pass
    raise InputError(f"dtype: {dtype!r} is no floating-point type; use float32")


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
    """Returns the checked arguments of a chain, and the state to start from.

    Arrays in half precision become float32.
    """
    drive, left, right, inside, beta, boundary, start = widen(
        (drive, left, right, inside, beta, boundary, start)
    )
    if drive.ndim < 2 or 0 in drive.shape:
        shape = [*drive.shape]
        raise InputError(f"drive {shape} must be [..., T, H] with T above 0")
    width = drive.shape[-1]
    named = {"left": left, "right": right, "inside": inside}
    kernels = {name: kernel for name, kernel in named.items() if kernel is not None}
    for name, kernel in kernels.items():
        if kernel.shape != (width, width):
            shape = [*kernel.shape]
            raise InputError(f"{name} {shape} must be [{width}, {width}]")
    if mask is not None and mask.shape != drive.shape[:-1]:
        raise InputError(
            f"mask {[*mask.shape]} must be {[*drive.shape[:-1]]}, as drive"
        )
    if (beta is None) != (activations.get(activation).beta is None):
        raise InputError(f"{activation} {'needs a' if beta is None else 'has no'} beta")
    if boundary is not None:
        drive = _add_boundary(drive, kernels, boundary, mask)
    args = {"drive": drive, "kernels": [*kernels.values()]}
    args |= {"beta": beta} if beta is not None else {}
    args |= {"mask": mask} if mask is not None else {}
    return args, jnp.zeros_like(drive) if start is None else start


def _add_boundary(
    drive: Array, kernels: dict[str, Array], boundary: Boundary, mask: Array | None
) -> Array:
    """Returns the drive plus the input of the boundary states at both ends."""
    valid = jnp.ones(drive.shape[:-1], bool) if mask is None else mask
    for name, state, back in zip(
        ("left", "right"), boundary, (False, True), strict=True
    ):
        ends = valid & ~shift(valid, axis=-1, back=back)  # [..., T]
        inputs = (state @ kernels[name]).reshape((1,) * (drive.ndim - 1) + (-1,))
        drive = drive + ends[..., None] * inputs
    return drive


@full_precision  # rounded products may give less than the norm
def spectral_bound(kernel: Array, squarings: int = 10) -> Array:
    """Returns a tight, differentiable upper bound on the largest singular value.

    ‖(K Kᵀ)^(2^k)‖_F is at least λ_max^(2^k), and its root is above λ_max by at most a
    factor of H^(1 / 2^(k+1)): 0.2 per cent for H = 64 and ten squarings. A power
    iteration gives a lower bound, which certifies nothing.

    Args:
      kernel: `[H, K]`.
      squarings: Number k of squarings.

    Source: Gram iteration, Delattre et al. 2023, "Efficient Bound of Lipschitz
    Constant for Convolutional Layers by Gram Iteration".

    >>> bound = spectral_bound(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    >>> round(float(bound), 3)
    3.0
    """
    gram = kernel @ kernel.T
    logarithm, tiny = 0.0, np.finfo(kernel.dtype).tiny
    for k in range(squarings + 1):
        size = jnp.sqrt(jnp.square(gram).sum() + tiny)
        logarithm = logarithm + jnp.log(size) / 2**k
        gram = gram / size
        gram = gram @ gram
    rounding = 1.0 + 32 * float(np.finfo(kernel.dtype).eps)
    return jnp.exp(logarithm / 2) * rounding


CERTIFICATES = ("joint", "sum")


def contraction(
    params: Params, activation: str, certificate: Certificate = "sum"
) -> Array:
    """Returns an upper bound on the Lipschitz constant of a chain, its certificate.

    `sum` is Lip(f)·(‖W‖₂ + ‖V‖₂), in the norm that is the largest over positions of the
    Euclidean norm of a state. `joint` is Lip(f)·√(‖W Wᵀ + V Vᵀ‖₂ + 2 ‖W Vᵀ‖₂), in the
    Euclidean norm of all states together. It is never above `sum`, and equal to
    Lip(f)·max(‖W‖₂, ‖V‖₂) if W and V write to different states, as in a bidirectional
    network. If either is below 1, the map is a contraction: there is one solution,
    every start leads to it, and each iteration of Jacobi multiplies the error by at
    most this factor.

    Args:
      params: `left` and `right`, `[H, H]`, and optionally `inside`, whose norm is
        added; a layer's other parameters are ignored.
      activation: Activation f, a key of `ACTIVATIONS`.
      certificate: `sum` or `joint`.

    Returns:
      The bound, `[]`.

    Source: Banach 1922. For `joint`: the coupling is a block Toeplitz matrix, whose
    norm is at most that of its symbol, sup ‖W e^(−iθ) + V e^(iθ)‖₂ (Böttcher and
    Silbermann 1999, theorem 6.4), and M M* = W Wᵀ + V Vᵀ + (W Vᵀ e^(−2iθ) + its
    adjoint).

    >>> eye = jnp.eye(2)
    >>> round(float(contraction({"left": 0.5 * eye, "right": 0.25 * eye}, "tanh")), 4)
    0.75
    >>> left, right = jnp.diag(jnp.array([0.5, 0.0])), jnp.diag(jnp.array([0.0, 0.25]))
    >>> round(float(contraction({"left": left, "right": right}, "tanh", "joint")), 4)
    0.5
    """
    kernels = [params[name] for name in ("left", "right", "inside") if name in params]
    norm = functools.partial(jnp.linalg.norm, ord=2)
    bound = _coupling_bound(kernels, certificate, norm)
    return activations.get(activation).lipschitz * bound


@full_precision
def _coupling_bound(
    kernels: list[Array], certificate: Certificate, norm: Callable[[Array], Array]
) -> Array:
    """Returns a bound on the norm of the coupling, from a norm of kernels."""
    choose("certificate", certificate, CERTIFICATES)
    if certificate == "sum":
        return sum(map(norm, kernels))
    left, right, *inside = kernels
    # Kernels are the transposes of W and V.
    squares, product = left.T @ left + right.T @ right, left.T @ right
    joint = jnp.sqrt(norm(squares) + 2.0 * norm(product))
    return joint + sum(map(norm, inside))


def contract_kernels(
    kernels: list[Array],
    activation: str,
    bound: float,
    certificate: Certificate = "joint",
) -> list[Array]:
    """Returns kernels scaled down so that their certificate is at most a bound.

    Kernels within the bound are returned unchanged.

    Args:
      kernels: Left, right and optionally inside, `[H, H]` each.
      activation: Activation f, a key of `ACTIVATIONS`.
      bound: The largest certificate.
      certificate: `sum` or `joint`, see `contraction`.

    >>> kernels = [jnp.eye(2)] * 2
    >>> left, right = contract_kernels(kernels, "tanh", 0.8, "sum")
    >>> 0.399 < float(left[0, 0]) <= 0.4
    True
    """
    coupling = _coupling_bound(kernels, certificate, spectral_bound)
    current = activations.get(activation).lipschitz * coupling
    scale = jnp.minimum(1.0, bound / current)
    return [scale * kernel for kernel in kernels]
