"""The recorded graph as Mermaid or DOT text, and as layers for a picture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ffnlab.scratch.graph import order
from ffnlab.scratch.tensor import Tensor


class Drawing(NamedTuple):
    """A graph to be drawn.

    Attributes:
      labels: what is written in each node, inputs before results.
      depths: the column of each: 0 for what was given, else after all its inputs.
      leaves: whether each was given and not made.
      edges: pairs of nodes, from an input to what was made of it.
    """

    labels: list[str]
    depths: list[int]
    leaves: list[bool]
    edges: list[tuple[int, int]]


def drawing(y: Tensor, names: Mapping[str, Tensor] | None = None) -> Drawing:
    """Returns the graph that ends in y.

    Args:
      y: a tensor that requires a gradient, directly or through its inputs.
      names: what some tensors are called.

    Raises:
      ValueError: nothing was recorded.
    """
    if not y.requires_grad:
        raise ValueError("draw: nothing was recorded; no input requires a gradient")
    called = {id(x): name for name, x in (names or {}).items()}
    found = order(y)
    place = {id(x): i for i, x in enumerate(found)}
    labels, depths, edges = [], [], []
    for i, x in enumerate(found):
        made = x.node.op.name if x.node.op else ""
        words = [called.get(id(x), "" if made else "given"), made, str(list(x.shape))]
        labels.append(" ".join(filter(None, words)))
        inputs = [place[id(each)] for each in x.node.inputs if id(each) in place]
        depths.append(1 + max((depths[j] for j in inputs), default=-1))
        edges += [(j, i) for j in inputs]
    return Drawing(labels, depths, [x.node.op is None for x in found], edges)


def draw(
    y: Tensor, names: Mapping[str, Tensor] | None = None, form: str = "mermaid"
) -> str:
    """Returns the graph that ends in y as text for Mermaid or for Graphviz.

    Args:
      y: a tensor that requires a gradient, directly or through its inputs.
      names: what some tensors are called.
      form: `mermaid` or `dot`.

    >>> x = Tensor(2.0, requires_grad=True)
    >>> print(draw(x * x, {"x": x}))
    graph LR
      n0(["x []"])
      n1["multiply []"]
      n0 --> n1
      n0 --> n1
    """
    return _FORMS[_checked(form)](drawing(y, names))


def _checked(form: Any) -> str:
    if form not in _FORMS:
        raise ValueError(f"draw: form {form!r} should be one of {', '.join(_FORMS)}")
    return form


def _mermaid(graph: Drawing) -> str:
    ends = {True: ('(["', '"])'), False: ('["', '"]')}
    lines = ["graph LR"]
    for i, (label, leaf) in enumerate(zip(graph.labels, graph.leaves, strict=True)):
        left, right = ends[leaf]
        lines.append(f"  n{i}{left}{label}{right}")
    return "\n".join([*lines, *(f"  n{a} --> n{b}" for a, b in graph.edges)])


def _dot(graph: Drawing) -> str:
    lines = ["digraph {", "  rankdir=LR"]
    for i, (label, leaf) in enumerate(zip(graph.labels, graph.leaves, strict=True)):
        lines.append(f'  n{i} [label="{label}", shape={"ellipse" if leaf else "box"}]')
    return "\n".join([*lines, *(f"  n{a} -> n{b}" for a, b in graph.edges), "}"])


_FORMS = {"mermaid": _mermaid, "dot": _dot}
