"""Trees: nested dicts, lists and tuples whose leaves are parameters.

>>> leaves, rebuild = flatten({"kernel": 1.0, "bias": [2.0, 3.0]})
>>> leaves, rebuild([leaf * 10 for leaf in leaves])
([1.0, 2.0, 3.0], {'kernel': 10.0, 'bias': [20.0, 30.0]})
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def named_leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Returns every leaf with its path, in the order of the tree.

    >>> named_leaves({"up": {"kernel": 1.0}, "scales": [2.0]})
    [('up/kernel', 1.0), ('scales/0', 2.0)]
    """
    if not isinstance(tree, (dict, list, tuple)):
        return [(path, tree)]
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    prefix = f"{path}/" if path else ""
    return [
        pair for name, part in parts for pair in named_leaves(part, f"{prefix}{name}")
    ]


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Returns the leaves, and a function from other leaves to a tree like this one."""

    def rebuild(leaves: Sequence[Any]) -> Any:
        rest = iter(leaves)
        return map_leaves(lambda _: next(rest), tree)

    return list(_leaves(tree)), rebuild


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (dict, list, tuple)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


def map_leaves(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Returns the tree of `function(leaf, ...)` over trees of one structure.

    Raises:
      ValueError: The trees differ in structure; the first difference is named.

    >>> map_leaves(lambda a, b: a + b, {"x": 1, "y": (2, 3)}, {"x": 10, "y": (20, 30)})
    {'x': 11, 'y': (22, 33)}
    """
    if not isinstance(tree, (dict, list, tuple)):
        return function(tree, *rest)
    for other in rest:
        if type(other) is not type(tree) or _keys(tree) != _keys(other):
            raise ValueError(f"trees differ: {_describe(tree)} and {_describe(other)}")
    parts = [
        map_leaves(function, tree[k], *(other[k] for other in rest))
        for k in _keys(tree)
    ]
    if isinstance(tree, dict):
        return dict(zip(tree, parts, strict=True))
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def zip_leaves(tree: Any, *rest: Any) -> list[tuple[Any, ...]]:
    """Returns each leaf with the leaves at the same path of other trees.

    The keys of dicts may be in different orders; JAX, for instance, sorts them.

    >>> zip_leaves({"a": 1, "b": 2}, {"b": 20, "a": 10})
    [(1, 10), (2, 20)]
    """
    rows: list[tuple[Any, ...]] = []
    map_leaves(lambda *leaves: rows.append(leaves), tree, *rest)
    return rows


def _keys(tree: Any) -> Any:
    return tree.keys() if isinstance(tree, dict) else range(len(tree))


def _describe(tree: Any) -> str:
    if isinstance(tree, (dict, list, tuple)):
        return f"{type(tree).__name__} of {list(_keys(tree))}"
    return "a leaf"
