"""The launcher of language models, as its users meet it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import launch
from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.pretrain import runner
from ffnlab.pretrain.config import Config
from ffnlab.pretrained import checkpoint
from tests.conftest import check_refused, command

SMALL = {
    "features": 16,
    "layers": 1,
    "heads": 2,
    "max_seq_length": 24,
    "steps": 6,
    "evaluations": 2,
    "batch_size": 4,
    "scored": 8,
    "samples": 1,
    "sample_length": 9,
}
BERT = Path(__file__).parents[1] / "checkpoints" / "bert"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text("".join(f"number {n} is w{n % 26}\n" for n in range(300)))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory, text):
    """A small causal model, trained once."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return runner.run(Config(text=(text,), out=str(out), **SMALL))


def test_everything_is_written(done):
    assert {path.name for path in done.out.iterdir()} == {
        "best", "curve.png", "data.sha256", "flags", "lock", "report.md",
        "results.jsonl", "samples.txt", "versions.json",
    }  # fmt: skip
    text = (done.out / "report.md").read_text()
    assert done.table.markdown() in text and done.samples[0] in text
    assert "xz packs the test part" in text and "swiglu" in text
    lines = io.read_lines(done.out / "results.jsonl")
    assert [line.get("step") for line in lines] == [3, 6, None, None]
    assert lines[-1]["bits"] == done.scores["test"]["bits"]
    assert done.samples[0].startswith("def ")


def test_bits_per_byte_are_of_the_loss(done):
    for found in done.scores.values():
        assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
        assert found["bits"] == pytest.approx(found["loss"] / np.log(2), rel=0.01)


def test_the_flag_file_repeats_the_run_to_the_same_numbers(done, tmp_path):
    given = [f"--flagfile={done.out}/flags", f"--out={tmp_path / 'again'}"]
    again = runner.run(launch.parse(Config, ["pretrain", *given]))
    assert again.scores == done.scores and again.samples == done.samples


def test_what_was_trained_goes_on(done, text, tmp_path):
    """Read back, it scores as it did; and it trains on."""
    given = {**SMALL, "features": None, "layers": None, "heads": None}
    given |= {"text": (text,), "checkpoint": str(done.out / "best")}
    same = runner.run(Config(**given | {"steps": 0}, out=str(tmp_path / "a")))
    assert same.record is None and not (same.out / "curve.png").exists()
    for part, found in same.scores.items():
        assert found == pytest.approx(done.scores[part], rel=1e-6)
    more = runner.run(Config(**given, out=str(tmp_path / "b"), num_beams=2))
    assert more.scores["valid"]["bits"] < done.scores["valid"]["bits"]


def test_an_interrupted_run_resumes_bit_for_bit(done, text, tmp_path, monkeypatch):
    from ffnlab.train import loop

    config = Config(text=(text,), out=str(tmp_path / "run"), **SMALL)
    drive = loop.run_loop

    def interrupted(*args, on_evaluation, **options):
        def stop(record):
            raise KeyboardInterrupt

        return drive(*args, on_evaluation=stop, **options)

    monkeypatch.setattr(loop, "drive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run(config)
    monkeypatch.setattr(loop, "drive", drive)
    given = {**SMALL, "text": (text,), "out": str(tmp_path / "run"), "resume": True}
    again = runner.run(Config(**given))
    assert again.scores == done.scores
    with pytest.raises(InputError, match="is finished"):
        runner.run(Config(**given))


@pytest.fixture
def bert(tmp_path):
    """The small BERT, with a vocabulary."""
    directory = tmp_path / "bert"
    shutil.copytree(BERT, directory)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{n}" for n in range(20)] + ["number", "is", "##1", "##2", "##3", "w"]
    (directory / "vocab.txt").write_text("\n".join(special + words))
    return directory


def test_masked_from_scratch_and_on_from_a_checkpoint(bert, text, tmp_path):
    given = {**SMALL, "text": (text,), "objective": "masked"}
    scratch = {"tokenizer": str(bert), "whole_words": True}
    found = runner.run(Config(**given, **scratch, out=str(tmp_path / "one")))
    assert not found.samples and "xz" not in (found.out / "report.md").read_text()
    back = checkpoint.load(found.out / "best")
    assert back.family == "ffnlab" and back.config.vocabulary == 31
    assert (found.out / "best" / "tokenizer.json").exists()
    given |= {"features": None, "layers": None, "heads": None, "max_seq_length": 12}
    found = runner.run(Config(**given, checkpoint=str(bert), out=str(tmp_path / "two")))
    settings = json.loads((found.out / "best" / "config.json").read_text())
    assert settings["architectures"] == ["BertForMaskedLM"]
    assert (found.out / "best" / "vocab.txt").exists()


def test_a_plain_decoder_is_a_gpt2(text, tmp_path):
    config = Config(
        **SMALL, text=(text,), block="mlp:gelu_tanh", positions="learned",
        out=str(tmp_path / "o"),
    )  # fmt: skip
    assert checkpoint.load(runner.run(config).out / "best").family == "gpt2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objective=next"], "--objective"),
        (["--block=swiglo"], "nearest: swiglu"),
        (["--checkpoint=x", "--layers=3"], "--layers: the checkpoint decides it"),
        (["--whole_words"], "--whole_words: only for --objective=masked"),
        (["--top_p=1.5"], "--top_p: 1.5 should be at most 1"),
        (["--mask_rate=0"], "--mask_rate: 0.0 should be"),
        (["--prompt="], "--prompt: at least one character"),
        (["--resume"], "--resume: --out must name"),
        (["--text=absent.txt"], "absent.txt: no such file"),
        (["--checkpoint=absent"], "absent: not a directory"),
    ],
)
def test_wrong_flags_are_refused(flags, message, tmp_path):
    if flags[0].startswith(("--text", "--checkpoint=absent")):
        got = command("pretrain", *flags, f"--out={tmp_path / 'o'}")
        assert got.returncode == 2 and message in got.stderr
        assert "Traceback" not in got.stderr and not (tmp_path / "o").exists()
    else:
        check_refused("pretrain", flags, message, tmp_path)


def test_what_does_not_fit_is_said(done, bert, text, tmp_path):
    given = {"text": (text,), "out": str(tmp_path / "o")}
    best = str(done.out / "best")
    with pytest.raises(InputError, match="this checkpoint is of a causal language"):
        runner.run(Config(**given, checkpoint=best, objective="masked"))
    with pytest.raises(InputError, match="256 is more than the 16 positions"):
        runner.run(Config(**given, checkpoint=str(bert), objective="masked"))
    with pytest.raises(InputError, match="--prompt: 30 tokens leave none"):
        runner.run(Config(**given, **SMALL, prompt="x" * 30))
    with pytest.raises(InputError, match="the loss was not finite at step"):
        runner.run(Config(**given, **SMALL, learning_rate=1e30, optimizer="sgd"))


def test_what_is_needed_at_the_end_is_asked_for_at_the_start(
    text, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match=r"the trained model, needs safetensors: pip"):
        runner.run(Config(text=(text,), out=str(tmp_path / "o"), **SMALL))
    assert not (tmp_path / "o").exists()
