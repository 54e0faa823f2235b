"""The recorded graph as Mermaid or DOT text, and as columns for a picture."""

from collections.abc import Mapping
from typing import NamedTuple

from ffnlab.scratch.graph import order
from ffnlab.scratch.tensor import Tensor


class Drawing(NamedTuple):
    """The nodes and edges of a graph to draw.

    Attributes:
      labels: The text of each node, inputs before results.
      depths: The column of each node: 0 for a leaf, otherwise after all its inputs.
      leaves: Whether each node is a leaf.
      edges: Pairs of nodes, from an input to a result.
    """

    labels: list[str]
    depths: list[int]
    leaves: list[bool]
    edges: list[tuple[int, int]]


def drawing(y: Tensor, names: Mapping[str, Tensor] | None = None) -> Drawing:
    """Returns the graph that ends in y.

    Args:
      y: A tensor that requires a gradient, directly or through its inputs.
      names: The names of some tensors, beside those that have one.

    Raises:
      ValueError: Nothing was recorded.
    """
    if not y.requires_grad:
        raise ValueError("draw: nothing was recorded; no input requires a gradient")
    names_by_id = {id(x): name for name, x in (names or {}).items()}
    graph = order(y)
    numbers = {id(x): number for number, x in enumerate(graph)}
    labels, depths, edges = [], [], []
    for number, x in enumerate(graph):
        op = x.node.op.name if x.node.op else ""
        name = names_by_id.get(id(x), x.name or ("" if op else "given"))
        labels.append(" ".join([*f"{name} {op}".split(), str(list(x.shape))]))
        inputs = [numbers[id(i)] for i in x.node.inputs if id(i) in numbers]
        depths.append(1 + max((depths[i] for i in inputs), default=-1))
        edges += [(i, number) for i in inputs]
    return Drawing(labels, depths, [x.node.op is None for x in graph], edges)


def draw(
    y: Tensor, names: Mapping[str, Tensor] | None = None, form: str = "mermaid"
) -> str:
    """Returns the graph that ends in y as text for Mermaid or for Graphviz.

    Args:
      y: A tensor that requires a gradient, directly or through its inputs.
      names: The names of some tensors.
      form: `mermaid` or `dot`.

    Raises:
      ValueError: Nothing was recorded, or the form is unknown.

    >>> x = Tensor(2.0, requires_grad=True, name="x")
    >>> print(draw(x * x))
    graph LR
      n0(["x []"])
      n1["multiply []"]
      n0 --> n1
      n0 --> n1
    """
    if form not in _FORMS:
        raise ValueError(f"draw: form {form!r} should be one of {', '.join(_FORMS)}")
    return _FORMS[form](drawing(y, names))


def _mermaid(graph: Drawing) -> str:
    brackets = {True: ('(["', '"])'), False: ('["', '"]')}
    lines = ["graph LR"]
    for i, (label, leaf) in enumerate(zip(graph.labels, graph.leaves, strict=True)):
        left, right = brackets[leaf]
        label = label.replace('"', "#quot;")
        lines.append(f"  n{i}{left}{label}{right}")
    return "\n".join([*lines, *(f"  n{a} --> n{b}" for a, b in graph.edges)])


def _dot(graph: Drawing) -> str:
    lines = ["digraph {", "  rankdir=LR"]
    for i, (label, leaf) in enumerate(zip(graph.labels, graph.leaves, strict=True)):
        label = label.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  n{i} [label="{label}", shape={"ellipse" if leaf else "box"}]')
    return "\n".join([*lines, *(f"  n{a} -> n{b}" for a, b in graph.edges), "}"])


_FORMS = {"mermaid": _mermaid, "dot": _dot}
