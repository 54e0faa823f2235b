"""The solution of x = f(x, ...), and its gradient without the way that led there.

At the solution dx = J dx + ∂f/∂a da, where J = ∂f/∂x. A gradient g of x therefore
comes back to the arguments a as (∂f/∂a)ᵀ w, where w = g + Jᵀ w: a fixed point again,
found in the same way. Nothing of the iterations is kept.

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
    limit: int = 1000,
) -> Tensor:
    """Returns x with x = f(x, *args), by repeating f; it has gradients by `args`.

    Args:
      f: `f(x, *args)`, of the shape of x. What it depends on and is differentiated by
        must be in `args`. It must contract, or nothing is found.
      start: where to begin; the solution has no gradient by it.
      *args: trees of arrays.
      tolerance: the largest |f(x) − x| of an entry at the end, relative to 1 + |x|;
        None is 16 times the precision of the type.
      limit: the most repetitions.

    Raises:
      ArithmeticError: the limit was reached, or a NaN; the residual is named.
      ValueError: f gives another shape, or uses a tensor that requires a gradient and
        is not in `args`.

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
        limit=limit,
    )


def _solution(*leaves, f, start, tolerance, limit):
    x, fixed = wrap(start), [wrap(leaf) for leaf in leaves]
    for turn in range(limit):
        new = _checked(f(x, *fixed), x)
        gap = np.abs(new.data - x.data) / (1.0 + np.abs(new.data))
        x, reached = new, tolerance or 16 * np.finfo(new.dtype).eps
        if gap.size == 0 or gap.max() <= reached:
            return x.data
        if np.isnan(gap).any():
            raise ArithmeticError(f"fixed_point: NaN after {turn + 1} repetitions")
    raise ArithmeticError(
        f"fixed_point: not solved after {limit} repetitions: the residual is "
        f"{gap.max():.3g}, above {reached:.3g}; f must contract, or be repeated longer"
    )


def _checked(new: Any, x: Tensor) -> Tensor:
    new = tensor(new)
    if new.shape != x.shape:
        raise ValueError(f"fixed_point: f makes the shape {new.shape} of {x.shape}")
    if new.requires_grad:
        raise ValueError(
            "fixed_point: f uses a tensor that requires a gradient; give it in args"
        )
    return new


def _rule(g: Tensor, x: Tensor, *leaves: Tensor, f: Callable, **options: Any) -> list:
    def adjoint(w: Tensor, g: Tensor, x: Tensor, *leaves: Tensor) -> Tensor:
        _, pull = vjp(lambda x: f(x, *leaves), x)
        return g + pull(w)[0]

    options["start"] = np.zeros_like(array(g))
    w = _solve(g, x, *leaves, f=adjoint, **options)
    smooth = [place for place, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]

    def moved(*some: Tensor) -> Tensor:
        every = dict(enumerate(leaves)) | dict(zip(smooth, some, strict=True))
        return f(x, *every.values())

    _, pull = vjp(moved, *(leaves[place] for place in smooth))
    found = dict(zip(smooth, pull(w), strict=True))
    return [found.get(place) for place in range(len(leaves))]


_solve = Primitive(_solution, joint=_rule)
