import numpy as np
import pytest

from ffnlab import trees
from ffnlab.errors import InputError

TREE = {"b": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "a": np.ones((), "int8")}


def test_names_and_flatten():
    assert trees.names(TREE)["b"]["kernel"] == "b/kernel"
    assert list(trees.flatten(TREE)) == ["a", "b/bias", "b/kernel"]


def test_count_and_bytes():
    assert trees.count(TREE) == 10
    assert trees.nbytes(TREE) == 9 * 8 + 1


def test_first_matching_rule_labels():
    labels = trees.label(TREE, [(r".*/bias", "frozen"), (r".*", "trained")])
    assert labels == {"b": {"kernel": "trained", "bias": "frozen"}, "a": "trained"}


def test_masks_must_cover_and_be_used():
    with pytest.raises(InputError, match="'a' is matched by no pattern"):
        trees.label(TREE, [(r"b/.*", True)])
    with pytest.raises(InputError, match="'c' matches no parameter"):
        trees.label(TREE, [(r"c", False), (r".*", True)])
