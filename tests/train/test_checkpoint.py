import json
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.train import checkpoint
from ffnlab.train.checkpoint import Checkpoints

TREE = {"params": {"kernel": np.arange(6.0).reshape(2, 3)}, "step": np.array(7)}


def test_nothing_saved_gives_the_tree_back(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(TREE) is TREE


def test_the_newest_is_restored_where_it_was(tmp_path):
    tree = {"kernel": jnp.arange(3.0), "count": np.array([1, 2])}
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, jax.tree.map(lambda a: a + step, tree))  # noqa: B023
    restored = checkpoints.restore(tree)
    assert restored["kernel"].tolist() == [3.0, 4.0, 5.0]
    assert restored["count"].tolist() == [4, 5]
    assert isinstance(restored["kernel"], jax.Array)
    assert restored["kernel"].sharding == tree["kernel"].sharding


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
    restored = Checkpoints(tmp_path).restore({"x": np.full(3, 5.0)})
    assert restored["x"].tolist() == [1.0, 1.0, 1.0]


def test_checkpoints_belong_to_one_run(tmp_path):
    Checkpoints(tmp_path).check_run({"seed": 0, "rates": (0.1, 0.2)})
    Checkpoints(tmp_path).check_run({"seed": 0, "rates": (0.1, 0.2)})
    for other, named in (
        ({"seed": 1, "rates": (0.1, 0.2)}, "seed was 0 and is now 1"),
        ({"seed": 0}, r"rates was \[0.1, 0.2\] and is now None"),
        ({"seed": 0, "rates": (0.1, 0.2), "x": 1}, "x was None and is now 1"),
    ):
        with pytest.raises(InputError, match=f"is of another run: {named}"):
            Checkpoints(tmp_path).check_run(other)


def test_the_program_of_runs_without_a_format_is_not_compared(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"seed": 0, "program": "of older code"}))
    Checkpoints(tmp_path).check_run({"seed": 0, "program": "of this code"})
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        Checkpoints(tmp_path).check_run({"seed": 1, "program": "of this code"})
    path.write_text(json.dumps({"program": "a", "format": checkpoint.FORMAT}))
    with pytest.raises(InputError, match="program was a and is now b"):
        Checkpoints(tmp_path).check_run({"program": "b"})
    path.write_text(json.dumps({"program": "a", "format": checkpoint.FORMAT - 1}))
    with pytest.raises(InputError, match="format was"):
        Checkpoints(tmp_path).check_run({"program": "a"})


# The moments of one trained and one frozen array, before and since the state of trained
# arrays has a name of its own.
BEFORE = {"opt/0/mu/head": 1, "opt/0/mu/embed": 2, "opt/0/count": 3, "params/embed": 4}
SINCE = {
    "opt/inner_states/train/inner_state/0/mu/head": 1,
    "opt/inner_states/train/inner_state/0/count": 3,
    "params/embed": 4,
}


def test_moments_of_frozen_arrays_are_left_out_of_older_checkpoints():
    assert checkpoint._without_frozen_moments(BEFORE, SINCE) == SINCE


@pytest.mark.parametrize("wanted", [BEFORE, SINCE])
def test_checkpoints_of_today_are_left_as_they_are(wanted):
    assert checkpoint._without_frozen_moments(wanted, wanted) == wanted


def test_other_arrays_are_not_left_out_of_older_checkpoints():
    """So that what is of another run is still refused by name."""
    held = {**BEFORE, "params/other": 5, "extra/opt/0/mu/embed": 6}
    kept = checkpoint._without_frozen_moments(held, SINCE)
    assert kept == {**SINCE, "params/other": 5, "extra/opt/0/mu/embed": 6}


def test_nothing_is_left_out_of_checkpoints_of_today():
    held = {**SINCE, "opt/0/mu/embed": 2}
    assert checkpoint._without_frozen_moments(held, SINCE) == held
