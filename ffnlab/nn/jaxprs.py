"""What traced functions depend on, and the operations of their products."""

import math
from collections.abc import Iterator, Sequence
from typing import Any


def used_inputs(jaxpr: Any, outputs: Sequence[int]) -> list[bool]:
    """Returns which inputs of a jaxpr some of its outputs depend on.

    Args:
      jaxpr: The `jaxpr` of what `jax.make_jaxpr` returns.
      outputs: The numbers of the outputs.

    >>> import jax
    >>> traced = jax.make_jaxpr(jax.jit(lambda x, y: (x + 1, x * y)))(1.0, 2.0)
    >>> used_inputs(traced.jaxpr, [0]), used_inputs(traced.jaxpr, [1])
    ([True, False], [True, True])
    """
    needed = {_id(jaxpr.outvars[number]) for number in outputs}
    for equation in reversed(jaxpr.eqns):
        hit = [n for n, var in enumerate(equation.outvars) if _id(var) in needed]
        if not hit:
            continue
        used = [True] * len(equation.invars)
        inner = _called(equation)
        if inner is not None:
            used = used_inputs(inner, hit)
        needed |= {
            _id(var) for var, use in zip(equation.invars, used, strict=True) if use
        }
    return [_id(var) in needed for var in jaxpr.invars]


def product_flops(jaxpr: Any) -> int:
    """Returns the operations of all matrix products of a jaxpr.

    A multiplication and an addition count as two. Products in a loop count once for
    each iteration of a `scan`, and once in a `while_loop`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> traced = jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 5)))
    >>> product_flops(traced.jaxpr)
    60
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            sums = math.prod(shape[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * sums
        times = equation.params.get("length", 1)
        total += times * sum(map(product_flops, _jaxprs(equation)))
    return total


def _id(var: Any) -> int | None:
    """Returns the identity of a variable; None for a constant."""
    return None if hasattr(var, "val") else id(var)


def _jaxprs(equation: Any) -> Iterator[Any]:
    """Yields the jaxprs that an equation holds."""
    for value in equation.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(each, "jaxpr", each)  # of a closed one
            if hasattr(inner, "eqns"):
                yield inner


def _called(equation: Any) -> Any | None:
    """Returns the jaxpr that an equation calls with its inputs, if it is one call."""
    inner = [*_jaxprs(equation)]
    if len(inner) != 1 or equation.primitive.name in ("scan", "while"):
        return None
    same = len(inner[0].invars) == len(equation.invars)
    return inner[0] if same and len(inner[0].outvars) == len(equation.outvars) else None
