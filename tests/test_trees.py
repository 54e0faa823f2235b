from typing import NamedTuple

import numpy as np
import pytest
from flax import traverse_util

from ffnlab import trees
from ffnlab.errors import InputError

TREE = {"b": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "a": np.ones((), "int8")}


def test_names_and_flatten():
    assert trees.names(TREE)["b"]["kernel"] == "b/kernel"
    assert list(trees.flatten(TREE)) == ["a", "b/bias", "b/kernel"]


def test_flatten_keeps_the_leaves_themselves():
    flat = trees.flatten(TREE)
    assert flat["b/kernel"] is TREE["b"]["kernel"] and flat["a"].dtype == np.int8
    assert flat == dict(sorted(traverse_util.flatten_dict(TREE, sep="/").items()))
    assert trees.flatten({"a": 1, "A": 2, "a0": 3, "a/b": 4}).keys() == {
        "A", "a", "a/b", "a0",
    }  # fmt: skip


class State(NamedTuple):
    count: int
    memory: tuple


def test_lists_and_tuples_are_part_of_the_path():
    tree = {"state": State(3, ({"w": 1.0}, [])), "list": [5, {"x": None, "y": 6}]}
    flat = {"list/0": 5, "list/1/y": 6, "state/count": 3, "state/memory/0/w": 1.0}
    assert trees.flatten(tree) == flat and list(trees.flatten(tree)) == list(flat)
    assert trees.names(tree)["state"] == State(
        "state/count", ({"w": "state/memory/0/w"}, [])
    )
    assert trees.flatten((7, 8)) == {"0": 7, "1": 8} and trees.flatten({}) == {}


def test_unflatten_is_the_inverse_for_dicts():
    tree = trees.unflatten(trees.flatten(TREE))
    assert tree == TREE and tree["b"]["bias"] is TREE["b"]["bias"]
    assert trees.unflatten({"list/0": 5}) == {"list": {"0": 5}}
    assert trees.unflatten({}) == {} and trees.unflatten({"a": 1}) == {"a": 1}


def test_count():
    assert trees.count(TREE) == 10 and trees.count({}) == 0
    assert type(trees.count(TREE)) is int


def test_first_matching_rule_labels():
    labels = trees.label(TREE, [(r".*/bias", "frozen"), (r".*", "trained")])
    assert labels == {"b": {"kernel": "trained", "bias": "frozen"}, "a": "trained"}


def test_masks_must_cover_and_be_used():
    with pytest.raises(InputError, match="'a' is matched by no pattern"):
        trees.label(TREE, [(r"b/.*", True)])
    with pytest.raises(InputError, match="'c' matches no parameter"):
        trees.label(TREE, [(r"c", False), (r".*", True)])
