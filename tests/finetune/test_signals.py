"""A training that a signal stops says how to continue it, and nothing is lost."""

import json
import shlex
import shutil
import signal

import pytest

from tests.conftest import command
from tests.test_signals import end, start


@pytest.fixture(scope="module")
def flags(bert, files):
    """A short training of many steps, with an evaluation every 6, the best late."""
    return [
        *("--task=classify", f"--checkpoint={bert}", "--text_column=2"),
        *("--label_column=1", f"--train={files}/train.tsv", f"--dev={files}/dev.tsv"),
        *("--max_seq_length=14", "--batch_size=8", "--steps=600"),
        *("--learning_rate=1.5e-4", "--warmup_ratio=0.9"),
    ]


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The same training in one go."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = command("finetune", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    return out


def results(out):
    """Returns what a run has written of its training, without times."""
    row = json.loads((out / "results.jsonl").read_text())
    del row["seconds_per_step"], row["checksum"]
    files = ("best/model.safetensors", "predictions-dev.tsv")
    return row, *((out / name).read_bytes() for name in files)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("timeout"), reason="needs timeout")
@pytest.mark.parametrize(
    ("number", "code", "wrapper"),
    [
        (signal.SIGTERM, 143, []),
        (signal.SIGHUP, 129, ["timeout", "-s", "HUP", "600"]),
    ],
)
def test_a_training_that_is_stopped_continues_bit_for_bit(
    flags, whole, tmp_path, number, code, wrapper
):
    out = tmp_path / "o o"
    process = start(["-m", "experiments.finetune", *flags, f"--out={out}"], wrapper)
    while "elapsed" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)  # `timeout` sends it twice, as when the time is over
    got, error = end(process)
    assert got == code, error
    line = error.splitlines()[-1]
    stopped, how = line.split("; to continue: ")
    assert stopped == f"interrupted by {number.name}" and "Traceback" not in error
    assert not (out / "report.md").exists()
    folders = (out / "checkpoints" / "0").iterdir()
    stopped_at = max(int(each.name) for each in folders if each.name.isdecimal())
    done = command("finetune", *shlex.split(how))
    assert done.returncode == 0, done.stderr
    (row, *rest), expected = results(out), results(whole)
    assert (row, *rest) == expected
    assert row["best_step"] > stopped_at
