"""Derivatives of functions: gradients, products with the Jacobian and the Hessian.

These take functions of arrays, or of trees of arrays, and may be nested in any way.
Results are plain arrays, except inside an outer derivative: there they are tensors that
are part of its graph.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops, trees
from ffnlab.scratch.graph import initial_gradient, order, sweep
from ffnlab.scratch.tensor import Node, Tensor, array, tensor

_OPEN = "open"  # option of a leaf: whether the function it was made for still runs


def vjp(f: Callable[..., Any], *inputs: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """Returns `f(*inputs)` and its pullback, the vector-Jacobian product.

    Args:
      f: Takes trees of tensors, returns a tensor, or `(tensor, aux)`.
      *inputs: Trees of floating-point arrays.
      has_aux: Whether f returns auxiliary data that are not differentiated.

    Returns:
      y and `pullback(g)`, from a gradient of y's shape to a gradient of each input;
      with `has_aux` also the aux.

    >>> y, pullback = vjp(lambda a, b: a @ b, np.eye(2), np.array([1.0, 2.0]))
    >>> y, pullback(np.array([1.0, 0.0]))[1]
    (array([1., 2.]), array([1., 0.]))
    """
    arrays, rebuild = trees.flatten(inputs)
    leaves = [_leaf(x, inputs, number) for number, x in enumerate(arrays)]
    result = f(*rebuild(leaves))
    for leaf in leaves:
        if leaf.node.op is None:
            leaf.node.options[_OPEN] = False
    y, aux = (tensor(result[0]), result[1]) if has_aux else (tensor(result), None)
    graph = order(y)
    nested = _has_outer_leaf(graph)

    def pullback(g: Any) -> tuple[Any, ...]:
        g = initial_gradient(y, g)
        record = nested or g.requires_grad
        gradients = sweep(graph, g, leaves, record)
        return rebuild([x if record else x.data for x in gradients])

    value = y if nested else y.data
    if has_aux:
        return value, pullback, trees.map_leaves(_as_result, aux)
    return value, pullback


def _leaf(x: Any, inputs: Any, number: int) -> Tensor:
    """Returns a new tensor of the graph for one input of a function."""
    if isinstance(x, Tensor) and x.requires_grad:
        return ops.identity(x)
    try:
        leaf = Tensor(x, requires_grad=True)
    except TypeError as error:
        name, _ = trees.named_leaves(inputs)[number]
        raise TypeError(f"input {name}: {error}") from None
    leaf.node = Node(options={_OPEN: True})
    return leaf


def _has_outer_leaf(graph: Sequence[Tensor]) -> bool:
    """Returns whether derivatives with respect to another leaf may still be computed.

    Such a leaf is a tensor of the user's, or belongs to an outer derivative whose
    function is still running. A derivative whose function has returned has its graph.
    """
    leaves = (x.node for x in graph if x.node.op is None)
    return any(leaf.options.get(_OPEN, True) for leaf in leaves)


def _as_result(x: Any) -> Any:
    """Returns the array of a tensor, or the tensor inside an outer derivative."""
    return x if isinstance(x, Tensor) and _has_outer_leaf(order(x)) else array(x)


def value_and_grad(f: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Returns a function that computes f and its gradient in the first argument.

    Args:
      f: Its first argument is a tree of floating-point arrays; it returns a number, or
        `(number, aux)`.
      has_aux: Whether f returns auxiliary data beside the number.

    Returns:
      A function of the same arguments, to `(value, gradient)` or
      `((value, aux), gradient)`.

    >>> value_and_grad(lambda p: (p["w"] ** 2).sum())({"w": np.array([1.0, 3.0])})
    (array(10.), {'w': array([2., 6.])})
    """

    def compute(first: Any, *rest: Any, **options: Any) -> Any:
        value, pullback, *aux = vjp(
            lambda x: f(x, *rest, **options), first, has_aux=has_aux
        )
        (gradient,) = pullback(None)
        return ((value, *aux) if has_aux else value), gradient

    return compute


def grad(f: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Returns a function that computes the gradient of f in its first argument.

    >>> grad(grad(lambda x: x**3))(2.0)
    array(12.)
    """

    def compute(*args: Any, **options: Any) -> Any:
        value, gradient = value_and_grad(f, has_aux)(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return compute


def jvp(f: Callable[..., Any], inputs: Sequence[Any], tangents: Sequence[Any]) -> tuple:
    """Returns f and its Jacobian-vector product, by two reverse sweeps.

    The pullback of f is linear in its argument u. The pullback of that linear map,
    applied to the tangents, is the derivative along them.

    >>> jvp(lambda x: x**2, (3.0,), (1.0,))
    (array(9.), array(6.))
    """
    y, pullback = vjp(f, *inputs)

    def product(u: Any) -> Any:
        pairs = trees.zip_leaves(pullback(u), tuple(tangents))
        return functools.reduce(operator.add, [ops.sum(g * v) for g, v in pairs])

    return y, grad(product)(np.zeros_like(array(y)))


def hessian_vector(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """Returns the product of the Hessian of f at x with v, without the matrix.

    >>> hessian_vector(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.ones(2))
    array([ 6., 12.])
    """
    return jvp(grad(f), (x,), (v,))[1]
