"""Shards of a comparison, joined to the report of a run of all replicates."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffnlab import digests, io, options
from ffnlab.errors import InputError
from ffnlab.nn import BlockConfig
from ffnlab.sweep import JudgeConfig, compare, comparison, judge
from ffnlab.sweep.comparison_config import CompareConfig
from tests.conftest import ROOT, check_refusal, refusals

SMALL = {
    "data": "wine",
    "blocks": ("mlp", "bilinear"),
    "activations": ("relu",),
    "seeds": 4,
    "learning_rates": (1e-3, 1e-2),
    "steps": 8,
    "evaluations": 2,
    "batch_size": 16,
    "features": 4,
    "hidden": 4,
    "layers": 1,
    "extend_rates": 1,
}
TIMES = ("microseconds_per_step", "compile_seconds")


def run(path, **options):
    """Runs a small comparison, and returns its directory."""
    config = CompareConfig(**{**SMALL, **options}, out=str(path))
    comparison.compare(config, quiet=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of all replicates, its three shards, and a run of another seed."""
    path = tmp_path_factory.mktemp("grid")
    run(path / "whole")
    for number in (1, 2, 3):
        run(path / "shards" / str(number), shard=(number, 3))
    run(path / "other", seed=1)
    return path


def join(*runs, out=None):
    return judge(JudgeConfig(runs=tuple(map(str, runs)), out=out and str(out)))


def lines(path):
    """Returns the lines of a run without their times."""
    rows = io.read_lines(path / "results.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def report(path):
    """Returns a report without the column of times."""
    text = (path / "report.md").read_text()
    cells = (line.split(" | ") for line in text.splitlines())
    return ["|".join([*row[:-2], row[-1]]) if len(row) > 9 else row for row in cells]


def copy(folder, tmp_path):
    return shutil.copytree(folder / "shards", tmp_path / "shards")


def check_same_run(joined, whole):
    """Checks that a directory is that of a run of all replicates."""
    assert lines(joined) == lines(whole)
    assert report(joined) == report(whole)
    same = ["flags", "data.sha256", "report.json", "versions.json"]
    same += [p.name for p in whole.glob("*.png") if "rates" not in p.name]
    for name in same:
        assert (joined / name).read_bytes() == (whole / name).read_bytes(), name
    for kind in ("best", "examples"):
        for path in (whole / kind).glob("*.npz"):
            one, other = np.load(path), np.load(joined / kind / path.name)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_joined_shards_are_a_run_of_all_replicates(folder, tmp_path, capsys):
    result = join(folder / "shards" / "*", out=tmp_path / "joined")
    check_same_run(tmp_path / "joined", folder / "whole")
    printed = capsys.readouterr().out
    assert result.verdict in " ".join(printed.split("\n"))
    assert "shard 2/3, replicate 1; Linux" in printed
    assert result.out == tmp_path / "joined" and len(result.runs) == len(
        lines(folder / "whole")
    )
    rows = io.read_lines(tmp_path / "joined" / "joined.jsonl")
    assert [row["shard"] for row in rows] == ["1/3", "2/3", "3/3"]


def test_a_joined_run_can_be_resumed_and_joined_again(folder, tmp_path, capsys):
    out = tmp_path / "joined"
    join(folder / "shards" / "*", out=out)
    before = (out / "report.md").read_bytes()
    config = CompareConfig(**SMALL, out=str(out), resume=True)
    comparison.compare(config, quiet=True)
    assert (out / "report.md").read_bytes() == before
    again = join(out, folder / "shards" / "1", folder / "whole")
    assert again.out is None and len(again.runs) == len(lines(folder / "whole"))


def test_the_report_of_a_shard_says_what_it_is(folder):
    text = (folder / "shards" / "2" / "report.md").read_text()
    assert text.startswith("# Shard 2 of 3: Which feed-forward block? wine")
    assert "replicate 1 of 0 to 3" in text and "experiments.judge --runs=" in text
    shard = lines(folder / "shards" / "2")
    assert {row["seed"] for row in shard} == {1}
    flags = (folder / "shards" / "2" / "flags").read_text()
    assert "--shard=2/3\n" in flags
    with np.load(folder / "shards" / "2" / "best" / "bilinear.npz") as file:
        assert file["head/kernel"].shape == (1, 4, 3)


def test_a_shard_has_no_verdict_and_is_resumed(folder, tmp_path):
    out, before = copy(folder, tmp_path) / "1", lines(folder / "shards" / "1")
    (out / "best" / "bilinear.npz").unlink()  # it is computed again
    config = CompareConfig(**SMALL, shard="1/3", out=str(out), resume=True)
    result = comparison.compare(config, quiet=True)
    assert lines(out) == before
    assert result.verdict.startswith("This is shard 1 of 3: replicate 0 of 0 to 3.")
    assert result.comparisons == [] and len(result.runs) == len(before)
    with pytest.raises(InputError, match="a shard has no ranking"):
        result.plot()
    with pytest.raises(InputError, match="has --shard=1/3, this run has --shard=2/3"):
        comparison.compare(dataclasses.replace(config, shard="2/3"), quiet=True)


def test_runs_of_several_seeds_are_joined(folder, tmp_path, capsys):
    out = tmp_path / "joined"
    result = join(folder / "other", folder / "shards" / "*", out=out)
    expected = {0: lines(folder / "whole"), 4: lines(folder / "other")}
    for first, rows in expected.items():
        for row in rows:
            assert {**row, "seed": row["seed"] + first} in lines(out)
    assert len(result.runs) == sum(map(len, expected.values()))
    assert result.comparisons[0].replicates == 8
    text = " ".join((out / "report.md").read_text().split())
    assert "over 8 replicates" in text and "of the seeds 0, 1" in text
    assert "- replicates: 8 " in text
    assert "--runs=" in (out / "flags").read_text()
    with np.load(out / "best" / "bilinear.npz") as file:
        assert len(file["head/kernel"]) == 8


def test_missing_replicates_are_named_with_what_runs_them(folder):
    with pytest.raises(InputError) as error:
        join(folder / "shards" / "1")
    assert str(error.value) == (
        "runs: replicates 1, 2, 3 of seed 0 are missing; to run them: python -m "
        f"experiments.compare --flagfile={folder}/shards/1/flags --shard=2/3 "
        "--out=DIRECTORY (also 3/3)"
    )


def edit_line(path, change):
    """Changes the first line of a run, with its digest."""
    rows = io.read_lines(path / "results.jsonl")
    change(rows[0])
    io.write_lines(path / "results.jsonl", rows)


def edit(path, name, old, new):
    """Changes a file of a run, with its digest."""
    text = (path / name).read_text()
    assert re.search(old, text)
    io.write(path / name, re.sub(old, new, text))


def test_equal_replicates_are_taken_once_and_others_refused(folder, tmp_path):
    shards = copy(folder, tmp_path)
    edit_line(shards / "2", lambda row: row.update(microseconds_per_step=1.0))
    join(shards / "*", folder / "whole")
    edit_line(shards / "2", lambda row: row["valid"].update(accuracy=0.125))
    message = "have different results of mlp:relu, replicate 1 of seed 0"
    with pytest.raises(InputError, match=message):
        join(shards / "*", folder / "whole")


def test_other_machines_are_named(folder, tmp_path, capsys):
    shards, out = copy(folder, tmp_path), tmp_path / "joined"
    edit(shards / "3", "versions.json", '"Linux [^"]*"', '"Plan9 mips"')
    join(shards / "*", out=out)
    text = (out / "report.md").read_text()
    assert "## Where the runs were made" in text and "- 3: Plan9 mips, 2 × cpu" in text
    assert not capsys.readouterr().err
    edit(shards / "3", "versions.json", '"jax": "[^"]*"', '"jax": "0.1"')
    join(shards / "*")
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and "3 has jax 0.1, not " in error


def unfinished(shards):
    (shards / "2" / "report.md").unlink()


def cut_off(shards):
    path = shards / "2" / "results.jsonl"
    path.write_text(path.read_text()[:-30])


def without_a_line(shards):
    path = shards / "2" / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def without_parameters(shards):
    (shards / "2" / "best" / "bilinear.npz").unlink()


def of_other_data(shards):
    edit(shards / "2", "data.sha256", "^.", "x")


def of_another_width(shards):
    edit(shards / "2", "flags", "--hidden=4", "--hidden=8")


def of_an_earlier_version(shards):
    (shards / "2" / "report.json").unlink()
    digests.start(shards / "2")


def of_another_format(shards):
    io.write(shards / "2" / "report.json", json.dumps({"title": "x", "sources": {}}))


def empty(shards):
    shutil.rmtree(shards / "2")
    (shards / "2").mkdir()


def a_file(shards):
    shutil.rmtree(shards / "2")
    (shards / "2").write_text("")


def of_another_launcher(shards):
    edit(shards / "2", "flags", "--blocks=.*\n", "")


def decided(shards):
    edit(shards / "2", "flags", "--until=seeds", "--until=decided")


WRONG = {
    unfinished: "2 is not finished; to continue it: python -m experiments.compare",
    cut_off: "the line is damaged; remove it, and resume the run",
    without_a_line: "replicate 1, are missing; resume the run",
    without_parameters: "bilinear.npz: the file is missing, by its digest",
    of_other_data: "the data of .*1 and of .*2 differ, by data.sha256",
    of_another_width: "1 has hidden=4 and .*2 has hidden=8; runs that are joined",
    of_an_earlier_version: "2 is of an earlier version, without report.json",
    of_another_format: "report.json: it is not what a comparison of this version",
    empty: "2 holds no run; name directories of experiments.compare",
    a_file: "2 is a file; name run directories",
    of_another_launcher: "2 holds a run of another launcher",
    decided: "2 has until=decided, whose claims depend",
}


@pytest.mark.parametrize("damage", WRONG, ids=lambda each: each.__name__)
def test_directories_that_cannot_be_joined(damage, folder, tmp_path):
    shards, out = copy(folder, tmp_path), tmp_path / "joined"
    damage(shards)
    with pytest.raises(InputError, match=WRONG[damage]) as error:
        join(*(shards / str(n) for n in (1, 2, 3)), out=out)
    assert "\n" not in str(error.value) and not out.exists()


REFUSED = [
    (["--runs=nowhere"], "--runs: nowhere does not exist"),
    (["--runs=nowhere/*"], "--runs: no directory matches 'nowhere/*'"),
    (["--runs=setup.cfg"], "--runs: setup.cfg is a file"),
    (["--runs=tests"], "--runs: tests holds no run"),
    (["--runs="], "give a CSV file; or run directories, --runs=DIRECTORIES"),
    (["--runs=tests", "--score=acc"], "--score: it is for a table of runs"),
    (["--runs=tests", "--margin=1"], "--margin: it is for a table of runs"),
    (["--runs=tests,tests"], "--runs: tests,tests has an entry twice"),
    (["--runs=tests", "--out=tests"], "--out: tests holds files of something else"),
]


def test_bad_directories_are_refused_before_jax_is_imported(tmp_path):
    results = refusals("judge", [flags for flags, _ in REFUSED], tmp_path)
    for result, (_, message) in zip(results, REFUSED, strict=True):
        check_refusal(result, message)


OPTIONS = {
    "two data sets": {"data": "wine,diabetes"},
    "a shared test part": {"data": None, "npz": "own.npz"},
    "initial values by the data": {"initializer": "matched"},
    "runs that diverge": {
        "optimizer": "sgd",
        "clip": 0.0,
        "learning_rates": (3.0, 1e3, 1e25),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_shards_of_any_comparison_are_a_run_of_all(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, arrays = np.random.default_rng(0), {}
    for part, size in (("", 60), ("_valid", 30), ("_test", 40)):
        x = rng.normal(size=(size, 2)).astype("f4")
        arrays |= {f"x{part}": x, f"y{part}": (x[:, 0] > 0).astype(int)}
    np.savez("own.npz", **arrays)
    run(tmp_path / "whole", **options)
    for number in (1, 2, 3):
        run(tmp_path / "shards" / str(number), shard=(number, 3), **options)
    join("shards/*", out="joined")
    check_same_run(tmp_path / "joined", tmp_path / "whole")


def test_models_from_python_are_joined_too(tmp_path):
    given = {"replicates": 4, "learning_rates": [0.01], "quiet": True}
    given |= {k: SMALL[k] for k in ("steps", "evaluations", "batch_size", "layers")}
    given |= {"features": 4, "hidden": 4, "extend_rates": 0}
    models = {"plain": "mlp:relu", "wide": BlockConfig("mlp:relu", 4, 6)}
    whole = compare(models, "wine", **given, out=tmp_path / "whole")
    for number in (1, 2):
        compare(models, "wine", **given, shard=(number, 2), out=tmp_path / str(number))
    result = join(tmp_path / "1", tmp_path / "2", out=tmp_path / "joined")
    check_same_run(tmp_path / "joined", tmp_path / "whole")
    assert result.verdict == whole.verdict
    again = compare(models, "wine", **given, out=tmp_path / "joined", resume=True)
    assert again.verdict == whole.verdict
    with pytest.raises(InputError, match="the same call of compare with shard=2/2"):
        join(tmp_path / "1")


@pytest.mark.slow
def test_the_array_of_the_documentation_runs(tmp_path):
    """Its first and its last task, which is submitted again when it is finished."""
    text = (ROOT / "docs" / "scale.md").read_text()
    scripts = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    (script,) = (each for each in scripts if "#SBATCH --array" in each)
    assert "shards=8 " in script and "--array=1-8\n" in script
    (tmp_path / "compare.sh").write_text(script.replace("shards=8 ", "shards=2 "))
    flags = options.to_flags(CompareConfig(**SMALL), options.RUN).split("\n")
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    for task in ("1", "2", "2"):
        done = subprocess.run(
            ["bash", "compare.sh", *filter(None, flags)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": os.pathsep.join(paths),
                "PYTHONPATH": str(ROOT),
                "SLURM_ARRAY_TASK_ID": task,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert f"This is shard {task} of 2" in done.stdout
    result = join(tmp_path / "grid" / "*", out=tmp_path / "joined")
    assert result.comparisons[0].replicates == 4
