import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.train.checkpoint import Checkpoints

TREE = {"params": {"kernel": np.arange(6.0).reshape(2, 3)}, "step": np.array(7)}


def test_nothing_saved_gives_the_tree_back(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(TREE) is TREE


def test_the_newest_is_restored_where_it_was(tmp_path):
    tree = {"kernel": jnp.arange(3.0), "count": np.array([1, 2])}
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, jax.tree.map(lambda a: a + step, tree))  # noqa: B023
    found = checkpoints.restore(tree)
    assert found["kernel"].tolist() == [3.0, 4.0, 5.0]
    assert found["count"].tolist() == [4, 5]
    assert isinstance(found["kernel"], jax.Array)
    assert found["kernel"].sharding == tree["kernel"].sharding


def test_saves_too_close_are_skipped_but_the_last_step(tmp_path):
    checkpoints = Checkpoints(tmp_path, seconds=1e6)
    checkpoints.save(1, TREE)
    assert checkpoints.restore(None) is None
    checkpoints.save(9, TREE, final=True)
    chex.assert_trees_all_equal(checkpoints.restore(TREE), TREE)


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"kernel": np.zeros((3, 3))}, "step": np.array(7)},
        {"params": {"kernel": np.zeros((2, 3), np.float32)}, "step": np.array(7)},
        {"params": {"weight": np.zeros((2, 3))}, "step": np.array(7)},
        {"params": {}, "step": np.array(7)},
    ],
)
def test_other_trees_are_refused_by_name(tmp_path, other):
    Checkpoints(tmp_path).save(1, TREE)
    with pytest.raises(InputError, match="another run: .*'params/"):
        Checkpoints(tmp_path).restore(other)


def test_an_interrupted_write_leaves_the_one_before(tmp_path):
    """A process killed while it saves; what it had saved before is restored."""
    code = f"""
import os, numpy as np
from ffnlab.train.checkpoint import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save(1, {{"x": np.ones(3)}})
rename = os.rename
def die(*args, **kwargs):
    os._exit(9)
os.rename = os.replace = die
checkpoints.save(2, {{"x": np.zeros(3)}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 9
    found = Checkpoints(tmp_path).restore({"x": np.full(3, 5.0)})
    assert found["x"].tolist() == [1.0, 1.0, 1.0]


def test_checkpoints_belong_to_one_run(tmp_path):
    Checkpoints(tmp_path).claim({"seed": 0, "rates": (0.1, 0.2)})
    Checkpoints(tmp_path).claim({"seed": 0, "rates": (0.1, 0.2)})
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        Checkpoints(tmp_path).claim({"seed": 1, "rates": (0.1, 0.2)})
