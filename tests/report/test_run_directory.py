import json
import multiprocessing
import os

import numpy as np
import pytest

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.report import run_directory
from ffnlab.report.progress import Progress
from ffnlab.report.table import Table


def test_a_directory_is_taken_once(tmp_path):
    with run_directory.open_run(tmp_path / "run", "--seed=0\n", resume=False) as out:
        assert (out / "flags").read_text() == "--seed=0\n"
        assert json.loads((out / "versions.json").read_text())["jax"]
    with pytest.raises(InputError, match="already holds a run"):
        run_directory.check_directory(tmp_path / "run", resume=False)
    with run_directory.open_run(tmp_path / "run", "--seed=0\n", resume=True):
        pass
    with (
        pytest.raises(InputError, match="has --seed=0, this run has --seed=1"),
        run_directory.open_run(tmp_path / "run", "--seed=1\n", resume=True),
    ):
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds files of something else"):
        run_directory.check_directory(tmp_path, resume=False)
    for path in ("thesis.tex", "thesis.tex/run"):
        with pytest.raises(InputError, match="is a file"):
            run_directory.check_directory(tmp_path / path, resume=False)
    with pytest.raises(InputError, match="holds no run to go on with"):
        run_directory.check_directory(tmp_path / "nothing", resume=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_lines_come_back_exactly(tmp_path):
    rows = [{"loss": float(np.float32(0.1)), "curve": [1.5, None]}, {"name": "β"}]
    io.write_lines(tmp_path / "rows.jsonl", rows)
    assert io.read_lines(tmp_path / "rows.jsonl") == rows
    assert io.read_lines(tmp_path / "none.jsonl") == []


def test_numbers_that_json_lacks_are_null(tmp_path):
    row = {"a": np.float32("nan"), "b": [float("inf")], "c": np.array([1, 2]), "d": ()}
    assert io.jsonable(row) == {"a": None, "b": [None], "c": [1, 2], "d": []}


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"')
    with pytest.raises(InputError, match=r"rows.jsonl:2: not a JSON object"):
        io.read_lines(tmp_path / "rows.jsonl")


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    io.write(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        io.write(path, "new")
    assert path.read_text() == "old"


def test_table_prints_every_cell(capsys):
    table = Table(["block", "score"], [["glu", "97.25 [96.55, 97.74]"]])
    table.show("digits")
    printed = capsys.readouterr().out
    assert "digits" in printed and "97.25 [96.55, 97.74]" in printed
    assert table.markdown().splitlines()[-1] == "| glu | 97.25 [96.55, 97.74] |"


def test_progress_in_a_log_has_rate_and_time_left(capsys):
    with Progress(200, "steps", done=100) as progress:
        progress.begin("glu")
        progress.reach(50)
        progress.end()
    line = capsys.readouterr().err
    assert line.startswith("glu") and "75%" in line
    assert "steps/s" in line and "s left" in line


def _hold(directory, ready, release):
    with run_directory.acquire(directory):
        ready.set()
        release.wait(60)


def test_a_directory_has_one_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(InputError, match="another run is writing here"),
        run_directory.acquire(tmp_path),
    ):
        pass
    release.set()
    other.join(60)
    with run_directory.acquire(tmp_path):  # given back when the process ended
        pass


def test_a_narrow_screen_gets_what_is_essential(capsys, monkeypatch):
    columns = ["block", *(f"column number {i}" for i in range(20)), "test"]
    table = Table(columns, [["glu", *["0.123456789"] * 20, "0.97"]])
    table.show("whole")
    assert "column" in capsys.readouterr().out
    table.show("short", essential=["block", "test"])
    told = capsys.readouterr().out
    assert "0.97" in told and "column number" not in told
    assert "report.md" in told
