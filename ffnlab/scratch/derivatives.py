"""Derivatives of functions: gradients, products with the Jacobian and the Hessian.

These take functions of arrays, or of trees of arrays, and may be nested in any way.
Results are plain arrays, unless something outside still watches them, such as an outer
derivative: then they are tensors, with their history.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops, trees
from ffnlab.scratch.graph import order, start, sweep
from ffnlab.scratch.tensor import Node, Tensor, array, tensor

_OPEN = "open"  # of a leaf: whether the function that it was made for is running


def vjp(f: Callable[..., Any], *inputs: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """Returns `f(*inputs)`, and the function that pulls a gradient back through it.

    Args:
      f: takes trees of tensors, returns a tensor, or `(tensor, aux)`.
      *inputs: trees of floating-point arrays.
      has_aux: whether f returns something beside what is differentiated.

    Returns:
      y, and `pull(g)`: a gradient of y's shape to a gradient of each input; with
      `has_aux` also the aux.

    >>> y, pull = vjp(lambda a, b: a @ b, np.eye(2), np.array([1.0, 2.0]))
    >>> y, pull(np.array([1.0, 0.0]))[1]
    (array([1., 2.]), array([1., 0.]))
    """
    given, rebuild = trees.flatten(inputs)
    leaves = [_leaf(x, inputs, place) for place, x in enumerate(given)]
    found = f(*rebuild(leaves))
    for leaf in leaves:
        if leaf.node.op is None:
            leaf.node.options[_OPEN] = False
    y, aux = (tensor(found[0]), found[1]) if has_aux else (tensor(found), None)
    graph = order(y)
    watched = _watched(graph)

    def pull(g: Any) -> tuple[Any, ...]:
        g = start(y, g)
        record = watched or g.requires_grad
        found = sweep(graph, g, leaves, record)
        return rebuild([x if record else x.data for x in found])

    value = y if watched else y.data
    return (value, pull, trees.mapped(_released, aux)) if has_aux else (value, pull)


def _leaf(x: Any, inputs: Any, place: int) -> Tensor:
    """Returns a place in the graph for an input of a function, and for it alone."""
    if isinstance(x, Tensor) and x.requires_grad:
        return ops.identity(x)
    try:
        leaf = Tensor(x, requires_grad=True)
    except TypeError as error:
        name, _ = trees.named(inputs)[place]
        raise TypeError(f"input {name}: {error}") from None
    leaf.node = Node(options={_OPEN: True})
    return leaf


def _watched(graph: Sequence[Tensor]) -> bool:
    """Returns whether a graph has a leaf of somebody else, who may yet ask for it.

    That is a tensor of the user's, or the leaf of an outer derivative whose function is
    still running; one that has run has its graph, and asks for no more.
    """
    leaves = (x.node for x in graph if x.node.op is None)
    return any(leaf.options.get(_OPEN, True) for leaf in leaves)


def _released(x: Any) -> Any:
    """Returns an array for a tensor, unless somebody else watches it."""
    return x if isinstance(x, Tensor) and _watched(order(x)) else array(x)


def value_and_grad(f: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Returns a function that gives f's value and its gradient by the first argument.

    Args:
      f: its first argument is a tree of floating-point arrays; it returns a number, or
        `(number, aux)`.
      has_aux: whether it returns something beside the number.

    Returns:
      A function of the same arguments, to `(value, gradient)` or
      `((value, aux), gradient)`.

    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": np.array([1.0, 3.0])})
    (array(10.), {'w': array([2., 6.])})
    """

    def both(first: Any, *rest: Any, **options: Any) -> Any:
        value, pull, *aux = vjp(
            lambda x: f(x, *rest, **options), first, has_aux=has_aux
        )
        (gradient,) = pull(None)
        return ((value, *aux) if has_aux else value), gradient

    return both


def grad(f: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Returns a function that gives the gradient of f by its first argument.

    >>> grad(grad(lambda x: x**3))(2.0)
    array(12.)
    """

    def only(*args: Any, **options: Any) -> Any:
        value, gradient = value_and_grad(f, has_aux)(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return only


def jvp(f: Callable[..., Any], inputs: Sequence[Any], tangents: Sequence[Any]) -> tuple:
    """Returns f and its derivative along a direction, by two sweeps back.

    The pullback of f is linear in the gradient u that it is given; pulling the
    direction back through that gives the derivative forward.

    >>> jvp(lambda x: x**2, (3.0,), (1.0,))
    (array(9.), array(6.))
    """
    y, pull = vjp(f, *inputs)

    def dotted(u: Any) -> Any:
        pairs = trees.aligned(pull(u), tuple(tangents))
        return functools.reduce(operator.add, [ops.sum(g * v) for g, v in pairs])

    return y, grad(dotted)(np.zeros_like(array(y)))


def hessian_vector(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """Returns the second derivative of f at x times a direction, without the matrix.

    >>> hessian_vector(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.ones(2))
    array([ 6., 12.])
    """
    return jvp(grad(f), (x,), (v,))[1]
