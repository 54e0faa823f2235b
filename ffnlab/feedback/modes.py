"""Errors for the derivatives that an implicit solve does not have.

JAX's own errors name neither the solve nor what to do, and come from far away: forward
mode is refused where a jitted function is lowered, and a gradient of a gradient where
its backward pass is built. The errors are therefore raised by operations that return
their argument, and of which nothing is left in a compiled program.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ffnlab.errors import InputError
from ffnlab.types import Array


def _refuse_forward(*_: Any) -> NoReturn:
    raise InputError(
        "gradient: 'implicit' has no forward mode (jax.jvp, jax.jacfwd); use 'bptt'"
    )


def _refuse_second(*_: Any) -> NoReturn:
    raise InputError(
        "gradient: 'implicit' has no gradient of its gradient in reverse mode "
        "(jax.grad of jax.grad); use 'bptt', or jax.hessian"
    )


def _identity(name: str, run: Callable[..., Any] | None = None) -> Primitive:
    """Returns an operation that returns its argument, or runs something else."""
    primitive = Primitive(name)
    primitive.def_impl(run or (lambda x: x))
    primitive.def_abstract_eval(lambda x: x)
    mlir.register_lowering(primitive, run or (lambda context, x: [x]))
    batching.primitive_batchers[primitive] = run or (
        lambda arrays, axes: (primitive.bind(*arrays), axes[0])
    )
    return primitive


# A tangent that may be transposed, as reverse mode does, but not computed.
_tangent = _identity("implicit_tangent", _refuse_forward)
ad.deflinear2(_tangent, lambda cotangent, _: [cotangent])

# A tangent that may be computed, as `jax.hessian` does, but not transposed.
_tangent_of_gradient = _identity("implicit_tangent_of_gradient")
ad.deflinear2(_tangent_of_gradient, _refuse_second)

_argument = _identity("implicit_argument")
_gradient = _identity("implicit_gradient")


def _pass(tangent: Any, primitive: Primitive) -> Any:
    return tangent if type(tangent) is ad.Zero else primitive.bind(tangent)


ad.primitive_jvps[_argument] = lambda primals, tangents: (
    primals[0],
    _pass(tangents[0], _tangent),
)
ad.primitive_jvps[_gradient] = lambda primals, tangents: (
    _gradient.bind(primals[0]),
    _pass(tangents[0], _tangent_of_gradient),
)


def refuse_forward_mode(tree: Any) -> Any:
    """Returns a tree of arrays whose derivatives exist in reverse mode only."""

    def mark(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return _argument.bind(leaf) if floating else leaf

    return jax.tree.map(mark, tree)


def refuse_second_gradient(array: Array) -> Array:
    """Returns an array whose derivatives exist in forward mode only.

    >>> array = jnp.ones(2)
    >>> jax.jvp(refuse_second_gradient, (array,), (array,))[1].tolist()
    [1.0, 1.0]
    """
    return _gradient.bind(array)
