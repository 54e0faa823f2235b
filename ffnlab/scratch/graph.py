"""The recorded graph: its order, and the sweep back through it.

The edges of a graph run from a result to its inputs, so the graph of a tensor is what
can be reached from it. It has no cycles, since tensors cannot be changed and are made
of those that were there before; it is freed with the last reference to its end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Tensor, followed, tensor, wrap


def order(y: Tensor) -> list[Tensor]:
    """Returns the tensors that y was made from, inputs before results, y last.

    None, if no gradient flows to y.
    """
    found, seen = [], set()
    stack = [(y, False)] if y.requires_grad else []
    while stack:  # and not a recursion: a graph may be deeper than Python's stack
        x, done = stack.pop()
        if done:
            found.append(x)
        elif id(x) not in seen:
            seen.add(id(x))
            stack.append((x, True))
            stack += [(each, False) for each in x.node.inputs if followed(each)]
    return found


def sweep(
    graph: Sequence[Tensor], g: Tensor, wanted: Sequence[Tensor], record: bool = False
) -> list[Tensor]:
    """Returns the gradients of some tensors, by one sweep back through a graph.

    Args:
      graph: from `order`.
      g: the gradient of its last tensor, of its shape.
      wanted: tensors of the graph; no gradient is computed off the way to them.
      record: whether the sweep is recorded, so that it can be differentiated.
    """
    ends = {id(x) for x in wanted}
    on_the_way = set(ends)
    for x in graph:
        if any([id(each) in on_the_way for each in x.node.inputs]):
            on_the_way.add(id(x))
    sums = {id(x): g for x in graph[-1:]}
    for x in reversed(graph):
        asked = [id(each) in on_the_way for each in x.node.inputs]
        if id(x) not in sums or not any(asked):
            continue
        g = sums[id(x)] if id(x) in ends else sums.pop(id(x))
        found = _back(x, g, asked, record)
        for each, grown, wish in zip(x.node.inputs, found, asked, strict=True):
            if wish and grown is not None:
                grown = _fitted(grown, each)
                known = sums.get(id(each))
                sums[id(each)] = grown if known is None else known + grown
    return [
        sums[id(x)] if id(x) in sums else wrap(np.zeros_like(x.data)) for x in wanted
    ]


def _back(x: Tensor, g: Tensor, asked: Sequence[bool], record: bool) -> Sequence[Any]:
    """Returns the gradients of the inputs of x, given its own."""
    inputs, y = x.node.inputs, x
    if not record:  # what is not recorded is computed from what has no history
        inputs = [i.detach() if isinstance(i, Tensor) else i for i in inputs]
        y = x.detach()
    op = x.node.op
    try:
        return op.gradients(g, y, inputs, x.node.options, asked)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}, in the gradient of {op.name}") from None


def _fitted(g: Any, x: Tensor) -> Tensor:
    """Returns a gradient in the shape and type of what it is the gradient of."""
    g = ops.summed_to(tensor(g), x.shape)
    return g if g.dtype == x.dtype else ops.cast(g, dtype=x.dtype)


def backward(y: Tensor, g: Any = None) -> None:
    """Sets the `grad` of every leaf that y was made from, in place of an older one.

    Args:
      y: what to differentiate; a number, unless g is given.
      g: the gradient of y, of its shape; 1 if None.
    """
    graph = order(y)
    leaves = [x for x in graph if x.node.op is None]
    if not leaves:
        raise ValueError("backward: nothing that it was made from requires a gradient")
    for leaf, found in zip(leaves, sweep(graph, start(y, g), leaves), strict=True):
        leaf.grad = found


def gradients(y: Tensor, *wanted: Tensor, g: Any = None) -> list[Tensor]:
    """Returns the gradients of y, recorded, so that they have gradients in turn.

    >>> x = Tensor(2.0, requires_grad=True)
    >>> (first,) = gradients(x**3, x)
    >>> (second,) = gradients(first, x)
    >>> float(first), float(second)
    (12.0, 12.0)
    """
    return sweep(order(y), start(y, g), wanted, record=True)


def start(y: Tensor, g: Any) -> Tensor:
    """Returns the gradient that a sweep from y begins with: 1, or g if it fits."""
    if g is None and y.ndim:
        raise ValueError(f"a gradient needs a single number, found the shape {y.shape}")
    g = wrap(np.ones_like(y.data)) if g is None else tensor(g)
    if g.shape != y.shape:
        raise ValueError(f"a gradient of shape {g.shape} for a result of {y.shape}")
    return g


Tensor.backward = backward
