import contextlib
import gc
import json
import resource
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import digests
from ffnlab.errors import InputError
from ffnlab.train import checkpoint, earlier_checkpoints
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
    Checkpoints(tmp_path).save(1, TREE, final=True)
    with pytest.raises(InputError, match="another run: .*'params/"):
        Checkpoints(tmp_path).restore(other)


def test_an_interrupted_write_leaves_the_one_before(tmp_path):
    """A process killed while it saves; what it had saved before is restored."""
    code = f"""
import os, numpy as np
from ffnlab.train.checkpoint import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save(1, {{"x": np.ones(3)}}, final=True)
rename = os.rename
def die(*args, **kwargs):
    os._exit(9)
os.rename = os.replace = die
checkpoints.save(2, {{"x": np.zeros(3)}}, final=True)
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


def test_another_program_may_be_that_of_another_machine(tmp_path):
    """Which, unlike flags, its user may not know to have changed."""
    Checkpoints(tmp_path).check_run({"program": "a"})
    expected = "continue with the flags, the version of JAX and the kind of device that"
    with pytest.raises(InputError, match=f"program was a and is now b; {expected}"):
        Checkpoints(tmp_path).check_run({"program": "b"})


def test_the_program_of_runs_without_a_format_is_not_compared(tmp_path):
    path = tmp_path / "run.json"

    def write(run):
        path.write_text(json.dumps(run))
        (tmp_path / digests.NAME).unlink(missing_ok=True)

    write({"seed": 0, "program": "of older code"})
    Checkpoints(tmp_path).check_run({"seed": 0, "program": "of this code"})
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        Checkpoints(tmp_path).check_run({"seed": 1, "program": "of this code"})
    write({"program": "a", "format": checkpoint.FORMAT})
    with pytest.raises(InputError, match="program was a and is now b"):
        Checkpoints(tmp_path).check_run({"program": "b"})
    write({"program": "b", "format": checkpoint.FORMAT - 1})
    Checkpoints(tmp_path).check_run({"program": "a"})
    write({"program": "b", "format": 3, "devices": 2})  # of a population
    Checkpoints(tmp_path).check_run({"program": "a", "members": 8})
    write({"program": "a", "format": checkpoint.FORMAT + 1})
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
    assert earlier_checkpoints.without_frozen_moments(BEFORE, SINCE) == SINCE


@pytest.mark.parametrize("wanted", [BEFORE, SINCE])
def test_checkpoints_of_today_are_left_as_they_are(wanted):
    assert earlier_checkpoints.without_frozen_moments(wanted, wanted) == wanted


def test_other_arrays_are_not_left_out_of_older_checkpoints():
    """So that what is of another run is still refused by name."""
    held = {**BEFORE, "params/other": 5, "extra/opt/0/mu/embed": 6}
    kept = earlier_checkpoints.without_frozen_moments(held, SINCE)
    assert kept == {**SINCE, "params/other": 5, "extra/opt/0/mu/embed": 6}


def test_nothing_is_left_out_of_checkpoints_of_today():
    held = {**SINCE, "opt/0/mu/embed": 2}
    assert earlier_checkpoints.without_frozen_moments(held, SINCE) == held


def save_two(directory):
    """Saves two checkpoints; returns what they hold."""
    trees = {step: {"x": np.full(3, float(step))} for step in (10, 20)}
    checkpoints = Checkpoints(directory)
    checkpoints.check_run({"seed": 0})
    for step, tree in trees.items():
        checkpoints.save(step, tree, final=True)
    return trees


def flip(path, where=0.5):
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 4
    path.write_bytes(content)


def files(directory):
    return [each for each in sorted(directory.rglob("*")) if each.is_file()]


def test_a_damaged_checkpoint_is_left_for_the_one_before(tmp_path, capsys):
    """Whichever of its files is flipped, cut, emptied or missing."""
    save_two(tmp_path / "run")
    names = [
        each.relative_to(tmp_path / "run") for each in files(tmp_path / "run" / "20")
    ]
    damages = [flip, lambda p: p.write_bytes(p.read_bytes()[:-1]), lambda p: p.unlink()]
    damages.append(lambda path: path.write_bytes(b""))
    for number, name in enumerate(names):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "run", copy)
        if (copy / name).stat().st_size:
            damages[number % len(damages)](copy / name)
        else:
            (copy / name).unlink()
        restored = Checkpoints(copy).restore({"x": np.zeros(3)})
        assert restored["x"].tolist() == [10.0] * 3
        said = capsys.readouterr().err
        assert "the checkpoint of step 20 is damaged" in said and str(name) in said
        checkpoints = Checkpoints(copy)
        checkpoints.save(20, {"x": np.full(3, 2.0)}, final=True)
        assert checkpoints.restore({"x": np.zeros(3)})["x"].tolist() == [2.0] * 3


def test_a_strict_run_refuses_a_damaged_checkpoint(tmp_path):
    save_two(tmp_path)
    path = max(files(tmp_path / "20"), key=lambda each: each.stat().st_size)
    flip(path)
    with pytest.raises(InputError, match="20/.*damaged.*; strict_resume=false"):
        Checkpoints(tmp_path, strict=True).restore({"x": np.zeros(3)})
    assert path.exists()


def test_checkpoints_that_are_all_damaged_are_an_error(tmp_path):
    save_two(tmp_path)
    for path in (*files(tmp_path / "10"), *files(tmp_path / "20")):
        path.write_bytes(b"0")
    with pytest.raises(InputError, match="all checkpoints are damaged; delete"):
        Checkpoints(tmp_path).restore({"x": np.zeros(3)})


@pytest.mark.parametrize("name", ["run.json", digests.NAME])
def test_a_damaged_record_is_one_error_that_names_it(tmp_path, name):
    save_two(tmp_path)
    flip(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*damaged"):
        Checkpoints(tmp_path).check_run({"seed": 0})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 10**5])
def test_a_record_of_an_older_version_is_checked_too(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json.* damaged"):
        Checkpoints(tmp_path).check_run({"seed": 0})


def test_folders_of_no_complete_checkpoint_are_removed(tmp_path):
    """A stray higher step would let Orbax skip all that is saved later."""
    save_two(tmp_path)
    (tmp_path / "999").mkdir()
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "half").write_text("written")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore({"x": np.zeros(3)})["x"].tolist() == [20.0] * 3
    checkpoints.save(30, {"x": np.full(3, 30.0)}, final=True)
    assert checkpoints.restore({"x": np.zeros(3)})["x"].tolist() == [30.0] * 3
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir()) == [
        "20",
        "30",
    ]


def test_checkpoints_without_digests_are_restored(tmp_path, capsys):
    """Of a version that recorded none."""
    save_two(tmp_path)
    (tmp_path / digests.NAME).unlink()
    assert Checkpoints(tmp_path).restore({"x": np.zeros(3)})["x"].tolist() == [20.0] * 3
    (tmp_path / digests.NAME).unlink()
    for path in files(tmp_path / "20"):
        path.write_bytes(path.read_bytes()[:3])
    assert Checkpoints(tmp_path).restore({"x": np.zeros(3)})["x"].tolist() == [10.0] * 3
    assert "step 20 is damaged" in capsys.readouterr().err


def test_what_is_saved_is_like_the_blank_state(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.restore({"best": np.zeros((), np.float32), "x": np.zeros(3)})
    wrong = {"best": np.zeros(()), "x": np.zeros(3)}
    wanted = r"^best would be saved as float64\[\], but is restored as float32\[\]$"
    with pytest.raises(TypeError, match=wanted):
        checkpoints.save(1, wrong, final=True)
    with pytest.raises(TypeError, match="^x would be saved as None"):
        checkpoints.save(1, {"best": np.zeros((), np.float32)}, final=True)


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_next_call(
    tmp_path, monkeypatch
):
    trees = save_two(tmp_path)
    checkpoints = Checkpoints(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(digests, "digests_below", full)
        checkpoints.save(30, trees[20])
        with pytest.raises(InputError, match="30: .*No space left.* make room"):
            checkpoints.wait()
    assert Checkpoints(tmp_path).restore(trees[20])["x"].tolist() == [20.0] * 3
    checkpoints.save(30, trees[10], final=True)
    assert Checkpoints(tmp_path).restore(trees[20])["x"].tolist() == [10.0] * 3


@contextlib.contextmanager
def largest_file(size):
    """Lets no file become larger than some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_without_room_is_one_error_and_the_one_before_stays(
    tmp_path, capfd
):
    """Fails in the metadata, in the arrays and in the digests."""
    rng = np.random.default_rng(0)
    tree = {str(n): rng.normal(size=(32, 32)) for n in range(20)}
    later = jax.tree.map(np.negative, tree)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree, final=True)
    for size in (0, 200, 2_000, 10_000):
        with largest_file(size), pytest.raises(InputError) as caught:
            checkpoints.save(2, later, final=True)
        assert f"{tmp_path / '2'}: the checkpoint cannot be" in str(caught.value)
        assert "File too large; " in str(caught.value) and "\n" not in str(caught.value)
        gc.collect()  # what asyncio has not told yet
        restored = Checkpoints(tmp_path).restore(tree)
        chex.assert_trees_all_equal(restored, tree)
    assert capfd.readouterr() == ("", "")
    checkpoints.save(2, later, final=True)
    chex.assert_trees_all_equal(Checkpoints(tmp_path).restore(tree), later)
