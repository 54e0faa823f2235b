"""Digests that are recorded before a file is in place, and checked when it is read."""

import os
import shutil
import subprocess

import pytest

from ffnlab import digests, io
from ffnlab.errors import InputError


@pytest.fixture
def run(tmp_path):
    """A directory with a manifest, a file, and one in a folder."""
    directory = tmp_path / "run"
    (directory / "best").mkdir(parents=True)
    digests.start(directory)
    io.write(directory / "flags", "--seed=0\n")
    io.write(directory / "best" / "a.npz", b"\x00\x01")
    return directory


def test_a_manifest_is_of_every_file_and_can_be_checked_without_this_code(run):
    assert list(digests.read(run / digests.NAME)) == ["best/a.npz", "flags"]
    program = shutil.which("sha256sum")
    if program:
        command = [program, "-c", "--strict", digests.NAME]
        done = subprocess.run(command, cwd=run, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count(": OK") == 2
    before = (run / digests.NAME).read_text()
    digests.seal(run)
    assert (run / digests.NAME).read_text() == before


def test_a_directory_without_a_manifest_is_not_checked(tmp_path):
    io.write(tmp_path / "a", "a")
    assert os.listdir(tmp_path) == ["a"]
    assert digests.check(tmp_path / "a") == tmp_path / "a"
    digests.check_all(tmp_path)


def test_a_damaged_file_is_named_with_what_to_do(run):
    (run / "best" / "a.npz").write_bytes(b"\x00\x02")
    with pytest.raises(InputError, match=r"best/a.npz: .* or is damaged.*delete it$"):
        digests.check_all(run, remedies={"best": "delete it"})
    with pytest.raises(InputError, match=r"a.npz: .*copy, or make it again in a new"):
        digests.check(run / "best" / "a.npz")
    digests.check_all(run, skipped=("best/a.npz",))
    (run / "best" / "a.npz").unlink()
    digests.check_all(run)
    with pytest.raises(InputError, match=r"a.npz: the file is missing"):
        digests.check(run / "best" / "a.npz")


def test_every_flip_of_a_manifest_is_seen(run):
    path = run / digests.NAME
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(bytes([*good[:place], good[place] ^ 4, *good[place + 1 :]]))
        with pytest.raises(InputError, match=r"manifest.sha256: .* is damaged"):
            digests.check(run / "flags")
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(InputError, match=r"manifest.sha256: .* is damaged"):
            digests.check(run / "flags")


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_kill_at_any_operation_leaves_the_old_or_the_new_file(run, monkeypatch):
    """The file beside its place counts from when its digest is recorded."""
    operations = {name: getattr(os, name) for name in ("fsync", "replace")}
    seen, number, done = set(), 0, False
    while not done:
        io.write(run / "flags", "old")
        left = [number]

        def make(name, left=left):
            def call(*arguments):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return operations[name](*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(os, name, make(name))
            patch.setattr(digests.contextlib, "suppress", _die)
            try:
                io.write(run / "flags", "new")
                done = True
            except Killed:
                pass
        read = io.read(run / "flags")
        digests.recover(run)
        assert io.read(run / "flags") == read == (run / "flags").read_text()
        assert not list(run.rglob("*.part"))
        seen.add(read)
        number += 1
    assert seen == {"old", "new"} and number > 5


def _die(*_):
    """Stands for cleaning up, which a killed process does not do."""
    raise Killed


def test_what_an_interrupted_writer_left_is_removed(run):
    (run / "best.part").mkdir()
    (run / "best.part" / "half").write_text("half")
    (run / "best.part" / f"{digests.NAME}.part").write_text("half")
    (run / "flags.part").write_text("half")
    (run / f"{digests.NAME}.part").write_text("half")
    digests.recover(run)
    assert sorted(path.name for path in run.iterdir()) == [
        "best",
        "flags",
        digests.NAME,
    ]
