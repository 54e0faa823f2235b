"""Pretraining from configuration to run directory, and its launcher."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import launch
from ffnlab import io, options
from ffnlab.errors import InputError
from ffnlab.escape import markdown_block
from ffnlab.models.transformer import DecoderConfig, transformer_model
from ffnlab.pretrain import runner
from ffnlab.pretrain.config import Config
from ffnlab.pretrained import checkpoint
from ffnlab.report import run_directory
from tests.conftest import ROOT, check_refused, command, draw

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
FROM_CHECKPOINT = {**SMALL, "features": None, "layers": None, "heads": None}
GPT2 = {**SMALL, "block": "mlp:gelu_tanh", "positions": "learned"}
BERT = Path(__file__).parents[1] / "checkpoints" / "bert"


@pytest.fixture(scope="module")
def done(tmp_path_factory, text):
    """A small causal model, trained once."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return runner.run(Config(text=(text,), out=str(out), **GPT2))


@pytest.mark.slow
def test_half_precision_with_kept_products(done, text, tmp_path):
    changed = {"dtype": "bfloat16", "gradient_checkpointing": True}
    changed |= {"gradient_checkpointing_policy": "dots", "out": str(tmp_path / "half")}
    half = runner.run(Config(text=(text,), **GPT2, **changed))
    loss, wide = half.record.loss, done.record.loss
    assert 0 < np.abs(loss - wide).max() < 0.02 * wide.max()


def test_a_flag_file_without_newer_flags_stands_for_their_defaults(tmp_path):
    config, path = Config(), tmp_path / "flags"
    new = {"--attention", "--dtype", "--gradient_checkpointing_policy"}
    new.add("--scan_layers")
    lines = options.to_flags(config).splitlines()
    old = [line for line in lines if line.partition("=")[0] not in new]
    assert len(lines) - len(old) == len(new)
    path.write_text("\n".join(old))
    run_directory._check_same_flags(path, config)
    with pytest.raises(InputError, match="--dtype=float32, this run has --dtype=bf"):
        run_directory._check_same_flags(path, Config(dtype="bfloat16"))


def test_everything_is_written(done):
    assert {path.name for path in done.out.iterdir()} == {
        "best", "curve.png", "data.sha256", "flags", "lock", "report.md",
        "results.jsonl", "samples.txt", "versions.json",
        "manifest.sha256",
    }  # fmt: skip
    text = (done.out / "report.md").read_text()
    assert done.table.markdown() in text
    assert all(markdown_block(sample) in text for sample in done.samples)
    assert "xz packs the test part" in text and "mlp:gelu_tanh" in text
    lines = io.read_lines(done.out / "results.jsonl")
    assert [line.get("step") for line in lines] == [3, 6, None, None]
    assert lines[-1]["bits"] == done.scores["test"]["bits"]
    assert done.samples[0].startswith("def ")


def test_a_plain_decoder_is_a_gpt2(done):
    assert checkpoint.load(done.out / "best").family == "gpt2"


def test_bits_per_byte_are_of_the_loss(done):
    for scores in done.scores.values():
        assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]))
        assert scores["bits"] == pytest.approx(scores["loss"] / np.log(2), rel=0.01)


def test_the_flag_file_repeats_the_run_to_the_same_numbers(done, tmp_path):
    given = [f"--flagfile={done.out}/flags", f"--out={tmp_path / 'again'}"]
    again = runner.run(launch.parse(Config, ["pretrain", *given]))
    assert again.scores == done.scores and again.samples == done.samples


def test_a_trained_model_is_continued(done, text, tmp_path):
    """Loaded again, it scores as before; and it trains on."""
    given = FROM_CHECKPOINT | {"text": (text,), "checkpoint": str(done.out / "best")}
    same = runner.run(Config(**given | {"steps": 0}, out=str(tmp_path / "a")))
    assert same.record is None and not (same.out / "curve.png").exists()
    for part, scores in same.scores.items():
        assert scores == pytest.approx(done.scores[part], rel=1e-6)
    more = runner.run(Config(**given, out=str(tmp_path / "b"), num_beams=2))
    assert more.scores["valid"]["bits"] < done.scores["valid"]["bits"]
    given |= {"scan_layers": True, "num_beams": 2}
    stack = runner.run(Config(**given, out=str(tmp_path / "c")))
    check_same_model(stack, more)


def check_same_model(run, other):
    """Checks for the same scores, samples and files, up to rounding."""
    np.testing.assert_allclose(run.record.loss, other.record.loss, rtol=1e-5)
    for part, scores in run.scores.items():
        assert scores == pytest.approx(other.scores[part], rel=1e-4)
    assert run.samples == other.samples
    one, two = (load_file(r.out / "best" / "model.safetensors") for r in (run, other))
    chex.assert_trees_all_close(one, two, atol=1e-4, rtol=0)
    settings = [(r.out / "best" / "config.json").read_text() for r in (run, other)]
    assert settings[0] == settings[1]


@pytest.mark.slow
def test_scanned_layers_are_resumed_on_a_mesh(text, tmp_path, monkeypatch):
    """And recomputed: a run of two layers is that of layers one by one."""
    given = {**GPT2, "layers": 2, "text": (text,), "gradient_checkpointing": True}
    given["gradient_checkpointing_policy"] = "dots"
    plain = runner.run(Config(**given, out=str(tmp_path / "plain")))
    given |= {"scan_layers": True, "mesh": ("data:2",), "fsdp": True}
    whole = runner.run(Config(**given, out=str(tmp_path / "whole")))
    check_same_model(whole, plain)
    given["out"] = str(tmp_path / "stopped")
    interrupt(Config(**given), monkeypatch)
    again = runner.run(Config(**given, resume=True))
    assert again.scores == whole.scores
    name = "best/model.safetensors"
    assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_layers_of_several_blocks_are_not_scanned(text, tmp_path):
    config = DecoderConfig.tiny(block=("swiglu", "mlp:relu"), features=8, hidden=8)
    params = draw(transformer_model(config))
    start = tmp_path / "start"
    checkpoint.save(start, config, params, family="ffnlab")
    given = FROM_CHECKPOINT | {"text": (text,), "checkpoint": str(start)}
    wanted = f"scan_layers: all layers .* {start} has mlp:relu, swiglu; leave it out"
    with pytest.raises(InputError, match=wanted):
        runner.run(Config(**given, scan_layers=True, out=str(tmp_path / "o")))
    assert not (tmp_path / "o").exists()


def interrupt(config, monkeypatch):
    """Runs until the first evaluation."""
    from ffnlab.train import loop

    fit = loop.fit

    def interrupted(*args, hooks, **options):
        def stop(record):
            raise KeyboardInterrupt

        return fit(*args, hooks=hooks._replace(on_progress=stop), **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "fit", interrupted)
        runner.run(config)


def test_an_interrupted_run_resumes_bit_for_bit(done, text, tmp_path, monkeypatch):
    given = {**GPT2, "text": (text,), "out": str(tmp_path / "run")}
    interrupt(Config(**given), monkeypatch)
    again = runner.run(Config(**given, resume=True))
    assert again.scores == done.scores
    with pytest.raises(InputError, match="is finished"):
        runner.run(Config(**given, resume=True))


@pytest.fixture
def bert(tmp_path):
    """The small BERT, with a vocabulary."""
    directory = tmp_path / "bert"
    shutil.copytree(BERT, directory)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{n}" for n in range(20)] + ["number", "is", "##1", "##2", "##3", "w"]
    (directory / "vocab.txt").write_text("\n".join(special + words))
    return directory


def test_masked_from_scratch_and_from_a_checkpoint(bert, text, tmp_path):
    given = {"text": (text,), "objective": "masked", "optimizer": "adam"}
    scratch = {**SMALL, "tokenizer": str(bert), "whole_words": True}
    result = runner.run(Config(**given, **scratch, out=str(tmp_path / "one")))
    report = (result.out / "report.md").read_text()
    assert not result.samples and "xz" not in report and "swiglu" in report
    best = checkpoint.load(result.out / "best")
    assert best.family == "ffnlab" and best.config.vocabulary == 31
    assert (result.out / "best" / "tokenizer.json").exists()
    given |= FROM_CHECKPOINT | {"max_seq_length": 12, "checkpoint": str(bert)}
    result = runner.run(Config(**given, out=str(tmp_path / "two")))
    settings = json.loads((result.out / "best" / "config.json").read_text())
    assert settings["architectures"] == ["BertForMaskedLM"]
    assert (result.out / "best" / "vocab.txt").exists()


WRONG = [
    (["--objective=next"], "--objective"),
    (["--block=swiglo"], "nearest: swiglu"),
    (["--checkpoint=x", "--layers=3"], "--layers: the checkpoint determines it"),
    (["--attention=flash"], "--attention: unknown 'flash'"),
    (
        ["--gradient_checkpointing_policy=dots"],
        "--gradient_checkpointing_policy: dots needs --gradient_checkpointing=true",
    ),
    (["--whole_words"], "--whole_words: only for --objective=masked"),
    (["--top_p=1.5"], "--top_p: 1.5 should be at most 1"),
    (["--mask_rate=0"], "--mask_rate: 0.0 should be"),
    (["--prompt="], "--prompt: at least one character"),
    (["--resume"], "--resume: --out=DIRECTORY must name"),
]
# Runs the launcher with one list of flags after another, in one process.
MANY = """
import contextlib, io, json, sys
from experiments import launch
from ffnlab.pretrain.config import QUICK, Config
from ffnlab.pretrain.runner import run
results = []
for flags in json.loads(sys.argv[1]):
    sys.argv[1:], error = flags, io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            launch.main(Config, run, "", presets={"quick": QUICK})
        except SystemExit as end:
            results.append([end.code, error.getvalue()])
print(json.dumps(results))
"""


def test_wrong_flags_are_refused_before_jax(tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit('JAX was imported')")
    completed = subprocess.run(
        [sys.executable, "-c", MANY, json.dumps([flags for flags, _ in WRONG])],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        check=True,
    )
    results = json.loads(completed.stdout)
    for (code, error), (_, message) in zip(results, WRONG, strict=True):
        assert code == 2 and error.startswith("error: ") and message in error, error
        assert error.count("\n") == 1
    check_refused("pretrain", *WRONG[0], tmp_path)


def test_old_names_of_flags_are_known():
    old = ["--length=32", "--remat", "--beam=3", "--warmup=5"]
    config = launch.parse(Config, ["pretrain", *old])
    assert config.max_seq_length == 32 and config.gradient_checkpointing
    assert config.num_beams == 3 and config.warmup_steps == 5


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--text=absent.txt", "absent.txt: no such file"),
        ("--checkpoint=absent", "absent: not a directory"),
        ("--attention=cudnn", "--attention: cudnn cannot be used: JAX does not use a"),
    ],
)
def test_what_is_missing_is_named(flag, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pretrain", flag, f"--out={tmp_path / 'o'}"])
    with pytest.raises(SystemExit) as end:
        launch.main(Config, runner.run, "")
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "o").exists()


def test_the_launcher_names_a_missing_file(tmp_path):
    got = command("pretrain", "--text=absent.txt", f"--out={tmp_path / 'o'}")
    assert got.returncode == 2 and "absent.txt: no such file" in got.stderr
    assert "Traceback" not in got.stderr and not (tmp_path / "o").exists()


def test_what_does_not_fit_is_refused(done, bert, text, tmp_path):
    given = {"text": (text,), "out": str(tmp_path / "o")}
    best = str(done.out / "best")
    with pytest.raises(InputError, match="this checkpoint is of a causal language"):
        runner.run(Config(**given, checkpoint=best, objective="masked"))
    with pytest.raises(InputError, match="256 is more than the 16 positions"):
        runner.run(Config(**given, checkpoint=str(bert), objective="masked"))
    with pytest.raises(InputError, match="prompt: 30 tokens leave none"):
        runner.run(Config(**given, **SMALL, prompt="x" * 30))


@pytest.fixture(scope="module")
def stopped(text, tmp_path_factory):
    """A run whose learning rate is so high that the loss soon overflows."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    more = {"learning_rate": 1e9, "optimizer": "sgd", "clip": 0.0, "warmup_steps": 3}
    given = Config(text=(text,), out=str(out), **GPT2 | more | {"evaluations": 1})
    with pytest.raises(InputError) as error:
        runner.run(given)
    return given, str(error.value)


def test_a_run_that_is_not_finite_is_finished_and_says_where(stopped):
    given, message = stopped
    out = Path(given.out)
    (stop,) = json.loads((out / "diverged.json").read_text())
    step, best = stop["step"], stop["best_step"]
    assert 0 < best == step - 1
    sentence = (
        f"raining stopped at step {step}, since the loss was not finite; the "
        f"parameters are those of step {best}"
    )
    assert sentence in message and sentence in (out / "report.md").read_text()
    assert message.startswith("learning_rate: 1e+09: t")
    assert not (out / "checkpoints").exists() and (out / "curve.png").exists()
    lines = io.read_lines(out / "results.jsonl")
    assert [line.get("step") for line in lines] == [best, None, None]
    assert all(np.isfinite(line["bits"]) for line in lines)
    assert checkpoint.load(out / "best").family == "gpt2"
    with pytest.raises(InputError, match="is finished"):
        runner.run(dataclasses.replace(given, resume=True))


def test_the_windows_of_the_batch_are_written(stopped):
    given, _ = stopped
    (stop,) = json.loads(Path(given.out, "diverged.json").read_text())
    assert stop["learning_rate"] == 1e9 and stop["seed"] == given.seed
    before, there = stop["batches"]
    assert (before["step"], there["step"]) == (stop["best_step"], stop["step"])
    assert before["loss"] > 0 and there["loss"] is None
    whole = Path(given.text[0]).read_text()
    for window in there["windows"]:
        assert window["number"] > 0 and window["text"] in whole


def test_what_is_needed_at_the_end_is_checked_at_the_start(text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match=r"the trained model, needs safetensors: pip"):
        runner.run(Config(text=(text,), out=str(tmp_path / "o"), **SMALL))
    assert not (tmp_path / "o").exists()
