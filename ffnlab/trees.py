"""Trees of arrays: leaves by name, masks by pattern, counts and bytes."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ffnlab.errors import InputError


def names(tree: Any) -> Any:
    """Returns a tree of the same structure whose leaves are their own paths.

    >>> names({"up": {"kernel": 0.0, "bias": 0.0}})
    {'up': {'bias': 'up/bias', 'kernel': 'up/kernel'}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path, sorted by path.

    >>> flatten({"up": {"kernel": 1.0}, "down": {"kernel": 2.0}})
    {'down/kernel': 2.0, 'up/kernel': 1.0}
    """
    leaves, paths = jax.tree.leaves(tree), jax.tree.leaves(names(tree))
    return dict(sorted(zip(paths, leaves, strict=True)))


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns nested dicts from leaves by path: the inverse of `flatten` for those.

    >>> unflatten({"down/kernel": 2.0, "up/kernel": 1.0})
    {'down': {'kernel': 2.0}, 'up': {'kernel': 1.0}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = leaf
    return tree


def label(tree: Any, rules: Sequence[tuple[str, Any]]) -> Any:
    """Returns a tree whose leaves are the label of the first rule that matches.

    Args:
      tree: any tree.
      rules: pairs of a regular expression, which must match the whole path of a leaf,
        and the label it gives.

    Raises:
      InputError: a leaf is matched by no rule, or a rule matches no leaf, since both
        are how a misspelt pattern shows.

    >>> label({"up": {"kernel": 0.0, "bias": 0.0}}, [(".*/bias", 0), (".*", 1)])
    {'up': {'bias': 0, 'kernel': 1}}
    """
    used = set()

    def first(path: str) -> Any:
        for pattern, value in rules:
            if re.fullmatch(pattern, path):
                used.add(pattern)
                return value
        raise InputError(f"parameter {path!r} is matched by no pattern")

    labels = jax.tree.map(first, names(tree))
    unused = [pattern for pattern, _ in rules if pattern not in used]
    if unused:
        raise InputError(f"pattern {unused[0]!r} matches no parameter")
    return labels


def count(tree: Any) -> int:
    """Returns the number of entries in all arrays of a tree.

    >>> count({"kernel": np.zeros((3, 4)), "bias": np.zeros(4)})
    16
    """
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Returns the bytes that the arrays of a tree hold.

    >>> nbytes({"kernel": np.zeros((3, 4), np.float32)})
    48
    """
    return sum(
        int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )
