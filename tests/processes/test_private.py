"""The private directory of a process is removed when the process has gone."""

import platform
import subprocess
import sys
import tempfile

import pytest

from ffnlab.processes import private

PREFIX = f"ffnlab-process-{platform.node()}"
PROCESS = """
import sys, tempfile
from pathlib import Path
from ffnlab.processes import private
tempfile.tempdir = sys.argv[1]
with private.private_directory(Path("none")) as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_has_the_files_of_a_run_to_go_on_with(folder, tmp_path):
    out = tmp_path / "run"
    (out / "checkpoints" / "4").mkdir(parents=True)
    for name in ("flags", "curve.png", "lock"):
        (out / name).write_text("")
    with private.private_directory(out) as directory:
        assert names(folder / directory) == ["checkpoints", "flags"]
        assert names(folder / directory / "checkpoints") == []
    assert names(folder) == []


def test_that_of_a_killed_process_is_removed(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        directory = folder / process.stdout.readline().strip()
        assert directory.name.startswith(PREFIX)
        private.remove_abandoned()
        assert directory.is_dir()
        process.kill()
    private.remove_abandoned()
    assert names(folder) == []


def test_what_is_not_of_a_process_of_this_machine_stays(folder):
    (folder / "kept").mkdir()
    (folder / f"{PREFIX}.other-12345678").mkdir()
    (folder / f"{PREFIX}-other-12345678").mkdir()
    (folder / f"{PREFIX}-file").write_text("")
    (folder / f"{PREFIX}-link").symlink_to(folder / "kept")
    before = names(folder)
    private.remove_abandoned()
    assert names(folder) == before


def test_one_that_is_removed_before_it_is_locked_is_made_again(folder, monkeypatch):
    make, made = tempfile.mkdtemp, []

    def interrupted(prefix):
        made.append(make(prefix=prefix))
        if len(made) == 1:
            private.remove_abandoned()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with private.private_directory(folder / "none") as directory:
        assert directory == made[1] and names(folder) == [directory.split("/")[-1]]


def test_it_is_made_where_the_disk_has_no_locks(folder, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(private.fcntl, "flock", refuse)
    with private.private_directory(folder / "none") as directory:
        private.remove_abandoned()
        assert [str(path) for path in folder.iterdir()] == [directory]
    assert names(folder) == []
