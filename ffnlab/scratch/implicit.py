"""The solution of x = f(x, ...), and its gradient without storing the iterations.

At the solution dx = J dx + ∂f/∂a da, where J = ∂f/∂x. The gradient with respect to the
arguments a is therefore (∂f/∂a)ᵀ w, where w = g + Jᵀ w for a gradient g of x. This is a
fixed point again, and is solved in the same way.

Source: Almeida 1987, Pineda 1987.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ffnlab.scratch import trees
from ffnlab.scratch.derivatives import vjp
from ffnlab.scratch.tensor import Primitive, Tensor, array, tensor, wrap


def fixed_point(
    f: Callable[..., Tensor],
    start: Any,
    *args: Any,
    tolerance: float | None = None,
    max_steps: int = 1000,
) -> Tensor:
    """Returns x with x = f(x, *args), by iterating f; it has gradients in `args`.

    Args:
      f: `f(x, *args)`, of the shape of x. Everything to differentiate with respect to
        must be in `args`. It must be a contraction, or the iteration does not converge.
      start: The x of the first iteration; the solution has no gradient in it.
      *args: Trees of arrays.
      tolerance: The largest |f(x) − x| of an entry at the end, relative to 1 + |x|;
        None is 16 times the machine epsilon of the dtype.
      max_steps: The largest number of iterations.

    Raises:
      ArithmeticError: The iteration did not converge within `max_steps`, or has a NaN.
      ValueError: The shape of f(x) is not that of x, or f uses a tensor that requires a
        gradient and is not in `args`.

    >>> from ffnlab.scratch import grad, ops
    >>> root = lambda a: fixed_point(lambda x, a: 0.5 * (x + a / x), 1.0, a)
    >>> float(root(2.0)).__round__(6), float(grad(root)(2.0)).__round__(6)
    (1.414214, 0.353553)
    """
    leaves, rebuild = trees.flatten(args)
    return _solve(
        *map(tensor, leaves),
        f=lambda x, *leaves: f(x, *rebuild(leaves)),
        start=tensor(start).data,
        tolerance=tolerance,
        max_steps=max_steps,
    )


def _solution(*leaves, f, start, tolerance, max_steps):
    x, constants = wrap(start), [wrap(leaf) for leaf in leaves]
    for step in range(max_steps):
        new = _check_result(f(x, *constants), x)
        residual = np.abs(new.data - x.data) / (1.0 + np.abs(new.data))
        x, allowed = new, tolerance or 16 * np.finfo(new.dtype).eps
        if residual.size == 0 or residual.max() <= allowed:
            return x.data
        if np.isnan(residual).any():
            raise ArithmeticError(f"fixed_point: NaN after {step + 1} iterations")
    raise ArithmeticError(
        f"fixed_point: not solved after {max_steps} iterations: the residual is "
        f"{residual.max():.3g}, above {allowed:.3g}; f must be a contraction, or "
        "max_steps larger"
    )


def _check_result(new: Any, x: Tensor) -> Tensor:
    """Returns f(x) as a tensor, checked."""
    new = tensor(new)
    if new.shape != x.shape:
        raise ValueError(f"fixed_point: f takes the shape {x.shape} to {new.shape}")
    if new.requires_grad:
        raise ValueError(
            "fixed_point: f uses a tensor that requires a gradient; pass it in args"
        )
    return new


def _rule(g: Tensor, x: Tensor, *leaves: Tensor, f: Callable, **options: Any) -> list:
    def adjoint(w: Tensor, g: Tensor, x: Tensor, *leaves: Tensor) -> Tensor:
        _, pullback = vjp(lambda x: f(x, *leaves), x)
        return g + pullback(w)[0]

    options["start"] = np.zeros_like(array(g))
    w = _solve(g, x, *leaves, f=adjoint, **options)
    floats = [i for i, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]

    def of_floats(*values: Tensor) -> Tensor:
        args = dict(enumerate(leaves)) | dict(zip(floats, values, strict=True))
        return f(x, *args.values())

    _, pullback = vjp(of_floats, *(leaves[i] for i in floats))
    gradients = dict(zip(floats, pullback(w), strict=True))
    return [gradients.get(i) for i in range(len(leaves))]


_solve = Primitive(_solution, joint=_rule)
