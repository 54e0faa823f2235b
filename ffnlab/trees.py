"""Trees of arrays: leaves by path, labels by pattern, and counts."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from ffnlab.errors import InputError


def names(tree: Any) -> Any:
    """Returns a tree of the same structure whose leaves are their paths.

    >>> names({"up": {"kernel": 0.0, "bias": 0.0}})
    {'up': {'bias': 'up/bias', 'kernel': 'up/kernel'}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path, sorted by path.

    Lists, tuples and named tuples are part of the path; for dicts of dicts alone this
    is `flax.traverse_util.flatten_dict`.

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
    return traverse_util.unflatten_dict(leaves, sep="/")


def label(tree: Any, rules: Sequence[tuple[str, Any]]) -> Any:
    """Returns a tree whose leaves are the labels of the first rules that match them.

    Args:
      tree: Any tree.
      rules: Pairs of a regular expression, which must match the whole path of a leaf,
        and its label.

    Raises:
      InputError: A leaf is matched by no rule, or a rule is used by no leaf; either is
        probably a misspelt pattern.

    >>> label({"up": {"kernel": 0.0, "bias": 0.0}}, [(".*/bias", 0), (".*", 1)])
    {'up': {'bias': 0, 'kernel': 1}}
    """
    used = set()

    def find_label(path: str) -> Any:
        for pattern, value in rules:
            if re.fullmatch(pattern, path):
                used.add(pattern)
                return value
        raise InputError(f"parameter {path!r} is matched by no pattern")

    labels = jax.tree.map(find_label, names(tree))
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
