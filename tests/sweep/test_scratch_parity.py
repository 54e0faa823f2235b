import dataclasses
import math

import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.io import read_lines
from ffnlab.report import plots
from ffnlab.sweep import scratch_training
from ffnlab.sweep.scratch_parity import check_parity
from ffnlab.sweep.scratch_parity_config import LIMIT, QUICK, ScratchParityConfig
from tests.conftest import check_refused, command


@pytest.mark.parametrize(
    ("activation", "optimizers"),
    [
        ("relu", ScratchParityConfig().optimizers),
        ("tanh", ("adam",)),
        ("sigmoid", ("sgd",)),
    ],
)
def test_engine_and_jax_agree(activation, optimizers, tmp_path):
    config = ScratchParityConfig(
        activation=activation,
        optimizers=optimizers,
        hidden=(12, 8),
        seeds=2,
        steps=40,
        out=str(tmp_path / "out"),
    )
    result = check_parity(config)
    assert result.largest < LIMIT / 1000
    assert {line["optimizer"] for line in result.runs} == set(config.optimizers)
    for line in result.runs:
        ours, theirs = line["test_accuracy"]
        assert ours == theirs
    first, last = result.runs[0]["losses"][0][0], result.runs[-1]["losses"][0][-1]
    assert last < first


def test_a_linear_model_learns_wine(tmp_path):
    config = ScratchParityConfig(
        "wine", ("adam",), (), seeds=1, batch_size=200, out=str(tmp_path / "out")
    )
    result = check_parity(config)
    assert result.largest < LIMIT and result.runs[-1]["test_accuracy"][0] > 0.9
    assert result.runs[-1]["epoch"] == 200
    (row,) = result.optimizers.rows
    assert row[:2] == ["adam", "0.003"] and row[4] == row[5]
    assert [row[0] for row in result.epochs.rows] == [str(i + 1) for i in range(200)]


@pytest.mark.slow
def test_command_line(tmp_path):
    out = tmp_path / "run"
    got = command("from_scratch", "--quick", f"--out={out}")
    assert got.returncode == 0, got.stderr
    assert "below 1e-09" in got.stdout
    names = {path.name for path in out.iterdir()}
    assert names >= {"report.md", "curves.png", "results.jsonl", "flags"}
    lines = read_lines(out / "results.jsonl")
    assert [line["steps"] for line in lines if line["optimizer"] == "sgd"][-1] == 40
    again = command("from_scratch", f"--flagfile={out / 'flags'}", f"--out={out}")
    assert again.returncode == 2 and "already holds a run" in again.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--optimizers=adma", "--optimizers: unknown 'adma'; nearest: adam"),
        ("--steps=0", "--steps: 0 should be a number at least 1"),
        ("--hidden=8,0", "--hidden: 0 should be"),
        ("--learning_rate=nan", "--learning_rate: nan should be"),
        ("--data=bytes", "--data: unknown 'bytes'"),
        ("--activation=gelu", "--activation: unknown 'gelu'"),
    ],
)
def test_wrong_flags_are_refused_before_jax(flag, message, tmp_path):
    check_refused("from_scratch", [flag], message, tmp_path)


def test_quick_is_a_config():
    with pytest.raises(InputError, match="seeds: 0"):
        ScratchParityConfig(**{**QUICK, "seeds": 0})


class Killed(BaseException):
    """What ends a run as a signal would."""


def same(line):
    """Returns a line without its times."""
    return {key: value for key, value in line.items() if key != "seconds_per_step"}


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_run_that_was_killed_resumes_bit_for_bit(seconds, tmp_path, monkeypatch):
    """In the second run of two, with a checkpoint of it or without."""
    config = ScratchParityConfig(
        "wine",
        ("adam",),
        (6,),
        seeds=2,
        steps=7,
        batch_size=32,
        out=str(tmp_path / "whole"),
    )
    whole = check_parity(config)
    config = dataclasses.replace(config, out=str(tmp_path / "killed"))
    original, calls = scratch_training._run_steps, []

    def run_steps(*args):
        calls.append(1)
        if len(calls) == 13:
            raise Killed
        return original(*args)

    monkeypatch.setattr(scratch_training, "_SECONDS", seconds)
    monkeypatch.setattr(scratch_training, "_run_steps", run_steps)
    with pytest.raises(Killed):
        check_parity(config)
    first = read_lines(tmp_path / "killed" / "results.jsonl")
    assert {line["seed"] for line in first} == {0} and len(calls) == 13
    saved = tmp_path / "killed" / "checkpoints" / "adam-1"
    assert saved.exists() == (seconds == 0)

    resumed = check_parity(dataclasses.replace(config, resume=True))
    taken = len(calls) - 13
    assert taken == (6 if seconds == 0 else 8)
    assert [*map(same, resumed.runs)] == [*map(same, whole.runs)]
    assert resumed.epochs.rows == whole.epochs.rows
    assert not (tmp_path / "killed" / "checkpoints").exists()
    with pytest.raises(InputError, match="is finished"):
        check_parity(dataclasses.replace(config, resume=True))


def test_a_run_that_was_killed_in_its_report_is_finished(tmp_path, monkeypatch):
    config = ScratchParityConfig(
        "wine", ("sgd",), (), seeds=1, steps=4, out=str(tmp_path / "run")
    )
    with monkeypatch.context() as patch:
        patch.setattr(plots, "save", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            check_parity(config)
    results = (tmp_path / "run" / "results.jsonl").read_bytes()
    check_parity(dataclasses.replace(config, resume=True))
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == results
    assert (tmp_path / "run" / "report.md").exists()


def test_a_difference_that_is_not_a_number_is_not_below_the_limit(tmp_path):
    config = ScratchParityConfig(
        "wine",
        ("sgd",),
        (4,),
        learning_rate=1e200,
        seeds=1,
        steps=12,
        out=str(tmp_path / "run"),
    )
    with np.errstate(all="ignore"):
        result = check_parity(config)
    assert math.isnan(result.largest)
    assert "nan, NOT below" in (tmp_path / "run" / "report.md").read_text()
