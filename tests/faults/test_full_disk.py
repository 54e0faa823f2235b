"""Launchers without room: one line that names the path, and nothing is lost."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, command
from tests.faults import launchers

_LIMITED = ["sh", "-c", 'ulimit -f "$0" && exec "$@"']  # in blocks of 512 bytes
# What is compiled is read, but not written: it would be larger than the limit.
_READS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}


def classify(bert, files):
    return [
        *("--task=classify", f"--checkpoint={bert}", "--text_column=2"),
        *("--label_column=1", f"--train={files}/train.tsv", f"--dev={files}/dev.tsv"),
        *("--max_seq_length=14", "--batch_size=8", "--epochs=4"),
    ]


def results(out):
    """Returns the rows of a run without times, and the files of its best model."""
    lines = (out / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    timed = [key for key in rows[0] if "second" in key]
    for key in ("checksum", *timed):
        for row in rows:
            del row[key]
    return rows, [path.read_bytes() for path in sorted(out.glob("best/*"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "limits"), [("finetune", (1, 8, 32)), ("compare", (1, 4))]
)
def test_a_launcher_without_room_says_so_in_one_line_and_resumes(
    bert, files, tmp_path, experiment, limits
):
    flags = launchers.RUNS["compare"][1].split()
    if experiment == "finetune":
        flags = classify(bert, files)
    whole = command(experiment, *flags, f"--out={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    for limit in limits:
        out = tmp_path / str(limit)
        program = [sys.executable, "-m", f"experiments.{experiment}", *flags]
        done = subprocess.run(
            [*_LIMITED, str(limit), *program, f"--out={out}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **_READS},
        )
        lines = [
            line
            for line in done.stderr.splitlines()
            if "elapsed" not in line and not line.endswith(", compiling")
        ]
        assert done.returncode == 2 and len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ") and str(out) in lines[0]
        assert "File too large; " in lines[0]
        resume = ["--resume"] if (out / "flags").exists() else []
        again = command(experiment, *flags, f"--out={out}", *resume)
        assert again.returncode == 0, again.stderr
        assert results(out) == results(tmp_path / "whole")
