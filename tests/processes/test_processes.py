"""Runs of several processes over loopback, from the command line."""

import platform
import re
import signal
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from ffnlab import io
from ffnlab.pretrain.text_preparation import PrepareConfig, prepare_text
from ffnlab.pretrained.safetensors_io import read_tensors
from tests.faults import launchers
from tests.processes.run import PRETRAIN, finish, free_port, start, start_all


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    lines = [f"{i} plus {i % 7} is {i + i % 7}\n" for i in range(400)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """The directory of a run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    ((code, _, errors),) = finish(
        [start([*PRETRAIN, f"--text={text}", f"--out={out}"])]
    )
    assert code == 0, errors
    return out


def losses(out):
    return [row["loss"] for row in io.read_lines(Path(out) / "results.jsonl")]


def check_equal_runs(out, other):
    chex.assert_trees_all_close(losses(out), losses(other), rtol=0, atol=1e-5)
    arrays, others = (read_tensors(Path(each) / "best") for each in (out, other))
    chex.assert_trees_all_close(dict(arrays), dict(others), rtol=0, atol=1e-4)


def test_processes_that_slurm_starts_equal_one(text, alone, tmp_path):
    out, count = tmp_path / "run", 2
    private = tmp_path / "private"
    left = private / f"ffnlab-process-{platform.node()}-left"  # by one that was killed
    left.mkdir(parents=True)
    slurm = {
        "TMPDIR": str(private),
        "SLURM_JOB_ID": "71",
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    flags = [*PRETRAIN, f"--text={text}", f"--out={out}", "--coordinator=auto"]
    ends = finish(
        [
            start(flags, slurm | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
            for i in range(count)
        ]
    )
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "1 CPU device in each of 2 processes" in ends[0][1]
    assert ends[1][1:] == ("", "")  # process 0 alone prints
    check_equal_runs(out, alone)
    assert not (out / "checkpoints").exists()
    assert not [*private.glob("ffnlab-process-*")]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data:4", "data:2,model:2"])
def test_four_processes_equal_one(text, alone, tmp_path, mesh):
    """One in memory reads what each of four reads of token shards."""
    shards = str(tmp_path / "shards")
    prepare_text(PrepareConfig(text=(str(text),), out=shards, shard_tokens=1024))
    flags = [*PRETRAIN, f"--shards={shards}", f"--out={tmp_path / 'run'}"]
    ends = finish(start_all(4, [*flags, f"--mesh={mesh}", "--fsdp"]))
    assert [code for code, _, _ in ends] == [0] * 4, ends
    check_equal_runs(tmp_path / "run", alone)


@pytest.mark.slow
def test_other_flags_in_one_process_end_all(text, tmp_path):
    flags = [*PRETRAIN, f"--text={text}", f"--out={tmp_path / 'run'}"]
    ends = finish(start_all(2, flags, more=lambda i: [f"--seed={i}"]))
    assert [code for code, _, _ in ends] == [2, 2]
    for _, _, errors in ends:
        assert "process 1 has --seed=1, process 0 has --seed=0" in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_data_in_one_process_end_all(text, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text(text.read_text().replace("plus", "and"))
    flags = [*PRETRAIN, f"--out={tmp_path / 'run'}"]
    joined = [f"--coordinator=localhost:{free_port()}", "--processes=2", "--text=a.txt"]
    ends = finish(
        [
            start([*flags, *joined, f"--process={i}"], folder=folder)
            for i, folder in enumerate((text.parent, other))
        ]
    )
    assert [code for code, _, _ in ends] == [2, 2]
    for _, _, errors in ends:
        assert "process 1 has the data" in errors


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_one_line(text, tmp_path):
    port = free_port()
    joined = [f"--coordinator=localhost:{port}", "--processes=2", "--process=1"]
    begin = time.monotonic()
    ((code, output, errors),) = finish([start([*PRETRAIN, *joined, "--out=run"])])
    assert (code, output) == (2, "") and time.monotonic() - begin < 60
    assert errors.startswith(f"error: --coordinator: localhost:{port}: the coordinator")
    assert errors.count("\n") == 1


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    launchers.write_inputs(folder)
    return folder


def results(out):
    """The lines of a comparison, without what a machine or a clock changes."""
    return [
        {k: v for k, v in row.items() if not re.search("second|bytes|compile", k)}
        for row in io.read_lines(Path(out) / "results.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["feedback", "adapt_compare"])
def test_two_processes_of_a_comparison_equal_one(name, inputs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    more = ["--batch_size=10"] if name == "adapt_compare" else []  # 8 rows
    alone = start([*launchers.flags_of(name, inputs, one), *more], launcher=name)
    ((code, _, errors),) = finish([alone])
    assert code == 0, errors
    flags = [*launchers.flags_of(name, inputs, two), *more]
    ends = finish(start_all(2, flags, launcher=name))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert f"written to {two}: report.md" in ends[0][1]
    assert ends[1][1:] == ("", "")  # process 0 alone prints
    assert not (two / "checkpoints").exists()
    assert jax.tree.leaves(results(two)) == [
        each if isinstance(each, str) else pytest.approx(each, abs=1e-5)
        for each in jax.tree.leaves(results(one))
    ]


@pytest.mark.slow
def test_one_process_goes_on_with_a_comparison_of_methods(inputs, tmp_path):
    out, name = tmp_path / "run", "adapt_compare"
    flags = [*launchers.flags_of(name, inputs, out), "--batch_size=10"]
    processes, begin = start_all(2, flags, launcher=name), time.monotonic()
    while not io.read_lines(out / "results.jsonl"):
        assert time.monotonic() - begin < 240
        time.sleep(0.1)
    processes[1].kill()
    ends = finish(processes, 100)
    assert ends[0][0] == 3, ends
    last = ends[0][2].splitlines()[-1]
    assert last.startswith("error: process 0 stops: process 1")
    resumed = [f"--flagfile={out / 'flags'}", f"--out={out}", "--resume"]
    ((code, _, errors),) = finish([start(resumed, launcher=name)])
    assert code == 0, errors
    runs = [(row["method"], row["seed"]) for row in results(out)]
    assert runs == [("full", 0), ("full", 1), ("lora", 0), ("lora", 1)]


def run_until_saved(text, out):
    """Starts two processes of a longer run, and returns them when it has saved."""
    longer = [*PRETRAIN, "--steps=1000", "--evaluations=100", f"--text={text}"]
    processes, begin = start_all(2, [*longer, f"--out={out}"]), time.monotonic()
    manifest = out / "checkpoints" / "manifest.sha256"
    try:
        while not (manifest.exists() and "_METADATA" in manifest.read_text()):
            assert time.monotonic() - begin < 240
            time.sleep(0.1)
    except BaseException:
        finish(processes, 1)
        raise
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_others_and_one_goes_on(text, tmp_path, lost):
    out = tmp_path / "run"
    processes = run_until_saved(text, out)
    processes[lost].kill()
    begin = time.monotonic()
    ends = finish(processes, 100)
    code, _, errors = ends[1 - lost]
    assert code == 3 and time.monotonic() - begin < 100
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: process {1 - lost} stops: process {lost}")
    resumed = [f"--flagfile={out / 'flags'}", f"--out={out}", "--resume"]
    ((code, _, errors),) = finish([start(resumed)])
    assert code == 0, errors
    assert np.isfinite(losses(out)).all()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_two_go_on(text, tmp_path):
    out = tmp_path / "run"
    processes = run_until_saved(text, out)
    processes[1].send_signal(signal.SIGTERM)
    ends = finish(processes)
    assert [code for code, _, _ in ends] == [143, 143], ends
    assert "to continue: " in ends[0][2]
    resumed = [f"--flagfile={out / 'flags'}", f"--out={out}", "--resume"]
    ends = finish(start_all(2, resumed))
    assert [code for code, _, _ in ends] == [0, 0], ends
