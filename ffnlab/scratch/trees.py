"""Trees: nested dicts, lists and tuples of leaves, for parameters of any shape.

>>> leaves, rebuild = flatten({"kernel": 1.0, "bias": [2.0, 3.0]})
>>> leaves, rebuild([leaf * 10 for leaf in leaves])
([1.0, 2.0, 3.0], {'kernel': 10.0, 'bias': [20.0, 30.0]})
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def named(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Returns every leaf with its path, in the order of the tree.

    >>> named({"up": {"kernel": 1.0}, "scales": [2.0]})
    [('up/kernel', 1.0), ('scales/0', 2.0)]
    """
    if not isinstance(tree, (dict, list, tuple)):
        return [(path, tree)]
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    inside = f"{path}/" if path else ""
    return [pair for name, part in parts for pair in named(part, f"{inside}{name}")]


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Returns the leaves, and a function that makes the tree of others."""

    def rebuild(leaves: Sequence[Any]) -> Any:
        rest = iter(leaves)
        return mapped(lambda _: next(rest), tree)

    return list(_leaves(tree)), rebuild


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (dict, list, tuple)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


def mapped(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Returns the tree of `function(leaf, ...)` over trees of one structure.

    Raises:
      ValueError: the trees differ in structure; the first difference is named.

    >>> mapped(lambda a, b: a + b, {"x": 1, "y": (2, 3)}, {"x": 10, "y": (20, 30)})
    {'x': 11, 'y': (22, 33)}
    """
    if not isinstance(tree, (dict, list, tuple)):
        return function(tree, *rest)
    for other in rest:
        if type(other) is not type(tree) or _keys(tree) != _keys(other):
            raise ValueError(f"trees differ: {_shown(tree)} and {_shown(other)}")
    parts = [
        mapped(function, tree[k], *(each[k] for each in rest)) for k in _keys(tree)
    ]
    if isinstance(tree, dict):
        return dict(zip(tree, parts, strict=True))
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def aligned(tree: Any, *rest: Any) -> list[tuple[Any, ...]]:
    """Returns each leaf with those at the same place in other trees.

    Dicts may have their keys in different orders, as those have that JAX returns.

    >>> aligned({"a": 1, "b": 2}, {"b": 20, "a": 10})
    [(1, 10), (2, 20)]
    """
    rows: list[tuple[Any, ...]] = []
    mapped(lambda *leaves: rows.append(leaves), tree, *rest)
    return rows


def _keys(tree: Any) -> Any:
    return tree.keys() if isinstance(tree, dict) else range(len(tree))


def _shown(tree: Any) -> str:
    inside = isinstance(tree, (dict, list, tuple))
    return f"{type(tree).__name__} of {list(_keys(tree))}" if inside else "a leaf"
