"""Files and directories that are written whole or not at all."""

import os

import numpy as np
import pytest

from ffnlab import digests, io
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
        raise OSError(28, "no space left")

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
    assert synced[0] == ["a.part"] and synced[-1] == ["a", "run"]
    assert synced[-2] == ["a", "run.part"]
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
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == [
        "a",
        "manifest.sha256",
    ]


def test_lines_come_back_exactly(tmp_path):
    rows = [{"loss": float(np.float32(0.1)), "curve": [1.5, None]}, {"name": "β"}]
    io.write_lines(tmp_path / "rows.jsonl", rows)
    assert io.read_lines(tmp_path / "rows.jsonl") == rows
    assert io.read_lines(tmp_path / "none.jsonl") == []


def test_numbers_that_json_lacks_are_null():
    row = {"a": np.float32("nan"), "b": [float("inf")], "c": np.array([1, 2]), "d": ()}
    assert io.jsonable(row) == {"a": None, "b": [None], "c": [1, 2], "d": []}


@pytest.mark.parametrize(
    "line", ["", "[]", '{"a"', "\N{LATIN SMALL LETTER E}", "1", "[" * 10**5]
)
def test_a_broken_line_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(InputError, match=r"rows.jsonl:2: the line is damaged; remove"):
        io.read_lines(tmp_path / "rows.jsonl")


def test_lines_of_a_version_without_checksums_are_read(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": "\u2028"}\n', "utf-8")
    assert io.read_lines(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": "\u2028"}]
    with pytest.raises(InputError, match=r"rows.jsonl:1: b is missing; remove the"):
        io.read_lines(tmp_path / "rows.jsonl", ["a", "b"])
    (tmp_path / "rows.jsonl").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"rows.jsonl: it is damaged: not a text"):
        io.read_lines(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("recorded", [False, True])
def test_every_flip_of_a_line_is_seen_but_a_removed_line_is_not_missed(
    tmp_path, recorded
):
    """With a manifest all are seen; without, those that leave the checksum its name."""
    path = tmp_path / "rows.jsonl"
    if recorded:
        digests.start(tmp_path)
    rows = [{"a": 1, "b": [0.5, None]}, {"a": 2, "text": "é \u2028 \ud800"}]
    io.write_lines(path, rows)
    assert io.read_lines(path) == rows
    good = path.read_bytes()
    missed = 0
    for place in range(len(good)):
        path.write_bytes(bytes([*good[:place], good[place] ^ 1, *good[place + 1 :]]))
        try:
            io.read_lines(path)
            missed += 1
        except InputError as error:
            assert "damaged" in str(error)
    assert missed == 0 if recorded else missed < 2 * len(', "checksum": ""}')
    path.write_bytes(good.splitlines(keepends=True)[1])
    assert io.read_lines(path) == rows[1:]


def test_what_is_read_is_what_was_written_last(tmp_path):
    digests.start(tmp_path)
    io.write(tmp_path / "a", "one")
    assert io.read(tmp_path / "a") == "one"
    (tmp_path / "a").write_text("two")
    with pytest.raises(InputError, match=r"/a: the file was changed or is damaged"):
        io.read(tmp_path / "a")
    with pytest.raises(InputError, match=r"/b: cannot be read"):
        io.read(tmp_path / "b")
    (tmp_path / "c").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"/c: it is damaged: not a text"):
        io.read(tmp_path / "c")
