"""Files and directories that are written whole or not at all."""

import os

import numpy as np
import pytest

from ffnlab import io
from ffnlab.errors import InputError


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("content", ["größer\n", b"\xff\x00\n"])
def test_a_file_holds_the_text_or_bytes(tmp_path, content):
    path = tmp_path / "a"
    path.write_text("before")
    io.write(path, content)
    wanted = content if isinstance(content, bytes) else content.encode()
    assert path.read_bytes() == wanted and names(tmp_path) == ["a"]


def test_a_file_appears_at_the_end_of_the_block(tmp_path):
    with io.atomic(tmp_path / "a") as file:
        file.write("one")
        file.flush()
        assert names(tmp_path) == ["a.part"]
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path, error):
    (tmp_path / "a").write_text("before")
    with pytest.raises(error), io.atomic(tmp_path / "a") as file:
        file.write("after")
        raise error
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"


def test_a_disk_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def fail(number):
        raise OSError("no space left")

    (tmp_path / "a").write_text("before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        io.write(tmp_path / "a", "after")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"
    full = pytest.raises(OSError, match="no space left")
    with full, io.atomic_directory(tmp_path / "run") as directory:
        (directory / "b").write_text("b")
    assert names(tmp_path) == ["a"]


def test_what_is_written_is_on_the_disk_before_it_is_in_place(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(names(tmp_path)))
    io.write(tmp_path / "a", "a")
    with io.atomic_directory(tmp_path / "run") as directory:
        (directory / "b").write_text("b")
    assert synced == [["a.part"], ["a", "run.part"]]
    monkeypatch.setattr(os, "fsync", sync)


def test_a_missing_folder_is_the_error_that_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        io.write(tmp_path / "absent" / "a", "a")


def test_a_directory_is_in_place_with_all_its_files(tmp_path):
    path = tmp_path / "new" / "run"
    with io.atomic_directory(path) as directory:
        (directory / "inner").mkdir()
        (directory / "inner" / "a").write_text("a")
        assert names(path.parent) == ["run.part"]
    assert names(path.parent) == ["run"] and (path / "inner" / "a").read_text() == "a"


def test_a_directory_is_not_there_if_the_block_fails(tmp_path):
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "old").write_text("of a run that was killed")
    with pytest.raises(ValueError), io.atomic_directory(tmp_path / "run") as directory:
        assert names(directory) == []
        (directory / "a").write_text("a")
        raise ValueError
    assert names(tmp_path) == []
    (tmp_path / "run").mkdir()  # an empty one is replaced
    with io.atomic_directory(tmp_path / "run") as directory:
        (directory / "a").write_text("a")
    with pytest.raises(OSError), io.atomic_directory(tmp_path / "run") as directory:
        (directory / "b").write_text("b")
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["a"]


def test_lines_come_back_exactly(tmp_path):
    rows = [{"loss": float(np.float32(0.1)), "curve": [1.5, None]}, {"name": "β"}]
    io.write_lines(tmp_path / "rows.jsonl", rows)
    assert io.read_lines(tmp_path / "rows.jsonl") == rows
    assert io.read_lines(tmp_path / "none.jsonl") == []


def test_numbers_that_json_lacks_are_null():
    row = {"a": np.float32("nan"), "b": [float("inf")], "c": np.array([1, 2]), "d": ()}
    assert io.jsonable(row) == {"a": None, "b": [None], "c": [1, 2], "d": []}


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"')
    with pytest.raises(InputError, match=r"rows.jsonl:2: not a JSON object"):
        io.read_lines(tmp_path / "rows.jsonl")
