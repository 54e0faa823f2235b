"""The recorded graph: its topological order, and the reverse sweep through it.

The edges of a graph run from a result to its inputs, so the graph of a tensor is what
can be reached from it. It has no cycles, since tensors are immutable and result from
earlier ones. It is freed with the last reference to its end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Tensor, requires_gradient, tensor, wrap


def order(y: Tensor) -> list[Tensor]:
    """Returns the tensors that y results from, inputs before results, y last.

    The list is empty if y requires no gradient.
    """
    tensors, visited = [], set()
    stack = [(y, False)] if y.requires_grad else []
    while stack:  # not a recursion: a graph may be deeper than Python's stack
        x, finished = stack.pop()
        if finished:
            tensors.append(x)
        elif id(x) not in visited:
            visited.add(id(x))
            stack.append((x, True))
            stack += [(i, False) for i in x.node.inputs if requires_gradient(i)]
    return tensors


def sweep(
    graph: Sequence[Tensor], g: Tensor, targets: Sequence[Tensor], record: bool = False
) -> list[Tensor]:
    """Returns the gradients of some tensors, by one reverse sweep through a graph.

    Args:
      graph: From `order`.
      g: The gradient of its last tensor, of its shape.
      targets: Tensors of the graph. Gradients are computed only on paths to them.
      record: Whether the sweep is recorded, so that it can be differentiated.
    """
    target_ids = {id(x) for x in targets}
    on_path = set(target_ids)
    for x in graph:
        if any([id(i) in on_path for i in x.node.inputs]):
            on_path.add(id(x))
    sums = {id(x): g for x in graph[-1:]}
    for x in reversed(graph):
        needed = [id(i) in on_path for i in x.node.inputs]
        if id(x) not in sums or not any(needed):
            continue
        g = sums[id(x)] if id(x) in target_ids else sums.pop(id(x))
        gradients = _input_gradients(x, g, needed, record)
        for i, gradient, need in zip(x.node.inputs, gradients, needed, strict=True):
            if need and gradient is not None:
                gradient = _match(gradient, i)
                total = sums.get(id(i))
                sums[id(i)] = gradient if total is None else total + gradient
    return [
        sums[id(x)] if id(x) in sums else wrap(np.zeros_like(x.data)) for x in targets
    ]


def _input_gradients(
    x: Tensor, g: Tensor, needed: Sequence[bool], record: bool
) -> Sequence[Any]:
    """Returns the gradients of the inputs of x from the gradient of x."""
    inputs, y = x.node.inputs, x
    if not record:  # detached tensors are not recorded
        inputs = [i.detach() if isinstance(i, Tensor) else i for i in inputs]
        y = x.detach()
    op = x.node.op
    try:
        return op.gradients(g, y, inputs, x.node.options, needed)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}, in the gradient of {op.name}") from None


def _match(g: Any, x: Tensor) -> Tensor:
    """Returns a gradient of x in the shape and dtype of x."""
    g = ops.sum_to(tensor(g), x.shape)
    return g if g.dtype == x.dtype else ops.cast(g, dtype=x.dtype)


def backward(y: Tensor, g: Any = None) -> None:
    """Sets the `grad` of every leaf that y results from; earlier ones are replaced.

    Args:
      y: The tensor to differentiate; a scalar, unless g is given.
      g: The gradient of y, of its shape; 1 if None.

    Raises:
      ValueError: y results from no leaf that requires a gradient, or is no scalar.
    """
    graph = order(y)
    leaves = [x for x in graph if x.node.op is None]
    if not leaves:
        raise ValueError("backward: no input of the tensor requires a gradient")
    results = sweep(graph, initial_gradient(y, g), leaves)
    for leaf, gradient in zip(leaves, results, strict=True):
        leaf.grad = gradient


def gradients(y: Tensor, *targets: Tensor, g: Any = None) -> list[Tensor]:
    """Returns the recorded gradients of y, which can be differentiated again.

    >>> x = Tensor(2.0, requires_grad=True)
    >>> (first,) = gradients(x**3, x)
    >>> (second,) = gradients(first, x)
    >>> float(first), float(second)
    (12.0, 12.0)
    """
    return sweep(order(y), initial_gradient(y, g), targets, record=True)


def initial_gradient(y: Tensor, g: Any) -> Tensor:
    """Returns the gradient of y that a sweep begins with: g, or 1 if it is None.

    Raises:
      ValueError: g is None and y is no scalar, or their shapes differ.
    """
    if g is None and y.ndim:
        raise ValueError(f"a gradient needs a single number, found the shape {y.shape}")
    g = wrap(np.ones_like(y.data)) if g is None else tensor(g)
    if g.shape != y.shape:
        raise ValueError(f"a gradient of shape {g.shape} for a result of {y.shape}")
    return g


Tensor.backward = backward
