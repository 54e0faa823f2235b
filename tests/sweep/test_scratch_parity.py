import pytest

from ffnlab.errors import InputError
from ffnlab.io import read_lines
from ffnlab.sweep.scratch_parity import LIMIT, QUICK, ScratchParityConfig, check_parity
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
