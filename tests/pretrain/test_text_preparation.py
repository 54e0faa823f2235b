"""Text of any size as token shards, by its launcher, and pretraining from them."""

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import launch
from ffnlab import io
from ffnlab.data import open_shards, read_tokenizer, shard_writer
from ffnlab.errors import InputError
from ffnlab.pretrain import runner
from ffnlab.pretrain.config import Config
from ffnlab.pretrain.text_preparation import PrepareConfig, prepare_text
from ffnlab.pretrained import checkpoint
from tests.conftest import check_refused
from tests.pretrain.test_runner import BERT, GPT2, SMALL

RUN = {name: value for name, value in GPT2.items() if name != "samples"}
RUN |= {"samples": 0, "optimizer": "adam"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory, text):
    out = tmp_path_factory.mktemp("shards") / "numbers"
    prepare_text(PrepareConfig(text=(text,), out=str(out), shard_tokens=1024))
    return str(out)


@pytest.fixture(scope="module")
def done(tmp_path_factory, shards):
    """A small causal model, trained once from shards."""
    out = tmp_path_factory.mktemp("runs") / "shards"
    return runner.run(Config(shards=shards, out=str(out), **RUN))


def test_what_is_prepared_is_printed(text, tmp_path, capsys):
    given = PrepareConfig(text=(text,), out=str(tmp_path / "o"), shard_tokens=1024)
    result = prepare_text(given)
    printed = capsys.readouterr()
    size = Path(text).stat().st_size
    assert sum(part.bytes for part in result.index.parts.values()) == size
    assert "100%" in printed.err and "token shards of numbers.txt" in printed.out
    rows = {row[0]: row for row in result.table.rows}
    tokens = result.index.parts["train"].tokens
    assert rows["train"][2] == f"{tokens:,}" and rows["train"][3] == "1.00"
    assert int(rows["train"][4]) == len(result.index.parts["train"].shards) > 3


def test_fractions_cut_the_files(text, tmp_path):
    given = {"valid_fraction": 0.25, "test_fraction": 0.25}
    out = str(tmp_path / "o")
    parts = prepare_text(PrepareConfig(text=(text,), out=out, **given)).index.parts
    size = Path(text).stat().st_size
    assert parts["train"].bytes == pytest.approx(size / 2, abs=25)
    assert parts["test"].bytes == pytest.approx(size / 4, abs=25)


def test_a_run_from_shards_is_that_of_the_text_in_memory(done, text, tmp_path):
    memory = runner.run(Config(text=(text,), out=str(tmp_path / "o"), **RUN))
    assert memory.scores == done.scores
    np.testing.assert_array_equal(memory.record.loss, done.record.loss)
    names = ["best/model.safetensors", "results.jsonl"]
    for name in names:
        assert (memory.out / name).read_bytes() == (done.out / name).read_bytes()
    report = (done.out / "report.md").read_text()
    assert "numbers.txt" in report and "xz" not in report


def test_an_interrupted_run_resumes_bit_for_bit(done, shards, tmp_path, monkeypatch):
    from ffnlab.train import loop

    copy = shutil.copytree(shards, tmp_path / "shards")
    given = Config(**RUN, shards=str(copy), out=str(tmp_path / "run"))
    fit = loop.fit

    def interrupted(*args, hooks, **options):
        def stop(record):
            raise KeyboardInterrupt

        return fit(*args, hooks=hooks._replace(on_progress=stop), **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "fit", interrupted)
        runner.run(given)
    again = dataclasses.replace(given, resume=True)
    shutil.rmtree(copy)
    other = Path(tmp_path, "other.txt")
    other.write_text("".join(f"word {n}\n" for n in range(900)))
    prepare_text(PrepareConfig(text=(str(other),), out=str(copy), shard_tokens=1024))
    with pytest.raises(InputError) as error:
        runner.run(again)
    assert f"shards: {copy} changed since the checkpoint of {given.out}" in str(
        error.value
    )
    shutil.rmtree(copy)
    shutil.copytree(shards, copy)
    result = runner.run(again)
    assert result.scores == done.scores
    for name in ("best/model.safetensors", "results.jsonl"):
        assert (result.out / name).read_bytes() == (done.out / name).read_bytes()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The small BERT, with a vocabulary."""
    directory = shutil.copytree(BERT, tmp_path_factory.mktemp("bert") / "bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{n}" for n in range(20)] + ["number", "is", "##1", "##2", "##3", "w"]
    (directory / "vocab.txt").write_text("\n".join(special + words))
    return str(directory)


def test_masked_models_take_the_tokenizer_of_the_shards(bert, text, tmp_path):
    out = str(tmp_path / "shards")
    prepare_text(PrepareConfig(text=(text,), out=out, tokenizer=bert))
    shards = open_shards(out)
    assert shards.index.vocabulary == 31 and shards.index.tokenizer == "tokenizer.json"
    given = {**SMALL, "objective": "masked", "optimizer": "adam", "whole_words": True}
    result = runner.run(Config(shards=out, out=str(tmp_path / "run"), **given))
    assert checkpoint.load(result.out / "best").config.vocabulary == 31
    for start in (result.out / "best", bert):  # each can be continued from
        shards.check_tokenizer(read_tokenizer(start), str(start))


def test_other_tokenizers_than_the_checkpoints_are_refused(done, bert, text, tmp_path):
    out = str(tmp_path / "shards")
    prepare_text(PrepareConfig(text=(text,), out=out, tokenizer=bert))
    given = {"samples": 0, "out": str(tmp_path / "run"), "max_seq_length": 24}
    with pytest.raises(InputError, match="another tokenizer, of 31 tokens, than that"):
        runner.run(Config(**given, checkpoint=str(done.out / "best"), shards=out))
    assert not (tmp_path / "run").exists()


def test_windows_longer_than_a_part_are_refused(shards, tmp_path):
    given = {**RUN, "max_seq_length": 400, "out": str(tmp_path / "run")}
    with pytest.raises(InputError, match="max_seq_length: 400 is more than"):
        runner.run(Config(shards=shards, **given))


@pytest.mark.slow
def test_windows_of_a_batch_that_is_not_finite_are_written(shards, tmp_path):
    more = {"learning_rate": 1e9, "optimizer": "sgd", "clip": 0.0, "warmup_steps": 3}
    out = tmp_path / "run"
    with pytest.raises(InputError, match="was not finite; "):
        runner.run(Config(shards=shards, out=str(out), **RUN | more))
    assert "number" in (out / "diverged.json").read_text()


class Killed(BaseException):
    """Ends a preparation, as a signal does."""


@pytest.fixture
def halved(text, tmp_path, monkeypatch):
    """A preparation that was interrupted after two shards."""
    out = tmp_path / "halved"
    given = PrepareConfig(text=(text,), out=str(out), shard_tokens=1024)
    write, count = shard_writer._write_shard, iter(range(3))

    def dying(*args):
        if next(count) == 2:
            raise Killed
        write(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed) as error:
        patch.setattr(shard_writer, "_write_shard", dying)
        prepare_text(given)
    assert f"--out={out} --resume" in error.value.__notes__[0]
    return given


def test_a_preparation_is_resumed(halved, shards):
    with pytest.raises(InputError, match="is not finished; experiments.prepare_text"):
        open_shards(halved.out)
    with pytest.raises(InputError, match="out: .* already holds token shards; resume"):
        prepare_text(halved)
    again = dataclasses.replace(halved, resume=True)
    prepare_text(again)
    for path in Path(shards).iterdir():
        assert (Path(halved.out) / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="resume: .* is finished; pretrain takes it"):
        prepare_text(again)


def test_a_text_that_has_changed_is_not_gone_on_with(halved, text, tmp_path):
    before = {path.name for path in Path(halved.out).iterdir()}
    other = tmp_path / "numbers.txt"
    other.write_text(Path(text).read_text().replace("7", "8"))
    with pytest.raises(InputError, match="another preparation: sources differs"):
        prepare_text(dataclasses.replace(halved, text=(str(other),), resume=True))
    assert {path.name for path in Path(halved.out).iterdir()} == before


WRONG = [
    ([], "--text: at least one is needed"),
    (["--text=a.txt", "--text=a.txt,a.txt"], "--text: a.txt,a.txt has an entry twice"),
    (["--text=absent.txt", "--out=o"], "absent.txt: no such file"),
    (["--text=a.txt"], "--out: name a directory for the shards"),
    (["--text=a.txt", "--out=o", "--shard_tokens=10"], "--shard_tokens: 10 should be"),
    (["--text=a.txt", "--out=o", "--valid_fraction=0"], "--valid_fraction: 0.0 should"),
    (
        ["--text=a.txt", "--out=o", "--valid_fraction=0.5", "--test_fraction=0.5"],
        "--valid_fraction and --test_fraction: together they should be below 1",
    ),
    (["--text=a.txt", "--out=o", "--resume"], "--resume: o holds no run to"),
    (["--text=a.txt", "--out=a.txt"], "--out: a.txt is a file; name a directory"),
    (["--text=a.txt", "--out=full"], "--out: full holds files of something else"),
    (["--text=a.txt", "--out=o", "--tokenizer=full"], "full/vocab.txt: no such file"),
    (["--text=short.txt", "--out=o"], "short.txt: 2 lines; at least 3 are needed"),
    (["--text=empty.txt", "--out=o"], "empty.txt: the file is empty"),
    (["--text=full", "--out=o"], "full: a directory; give a file inside it"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG)
def test_wrong_input_is_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a\nb\nc\nd\n")
    Path("short.txt").write_text("a\nb\n")
    Path("empty.txt").write_text("")
    Path("full").mkdir()
    Path("full/note").write_text("a note")
    monkeypatch.setattr(sys, "argv", ["prepare_text", *flags])
    with pytest.raises(SystemExit) as end:
        launch.main(PrepareConfig, prepare_text, "")
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error, error
    assert error.count("\n") == 1 and not Path("o").exists()


def test_a_text_that_a_tokenizer_cannot_read_leaves_nothing(bert, tmp_path):
    path, out = tmp_path / "a.txt", tmp_path / "o"
    path.write_bytes(b"number\n" * 40 + b"n\xff\n" + b"number\n" * 9)
    given = PrepareConfig(text=(str(path),), out=str(out), tokenizer=bert)
    with pytest.raises(InputError, match=r"a.txt:41: not UTF-8, which a tokenizer"):
        prepare_text(given)
    path.write_bytes(b"number\n" * 40 + b"\n" * 200)
    with pytest.raises(InputError, match=r"a.txt: the (valid|test) part of the text"):
        prepare_text(given)
    assert not out.exists()


def test_pretraining_refuses_what_the_shards_determine(tmp_path):
    for name in ("text", "tokenizer"):
        with pytest.raises(InputError, match=f"^{name}: the shards determine it"):
            Config(shards="s", **{name: "x"})
    flags = ["--shards=s", "--text=a.txt"]
    check_refused("pretrain", flags, "--text: the shards determine it", tmp_path)
    flags = ["--text=a.txt", "--out="]
    check_refused("prepare_text", flags, "--out: name a directory", tmp_path)


def test_results_have_the_bits_of_the_text(done):
    lines = io.read_lines(done.out / "results.jsonl")
    assert lines[-1]["bits"] == done.scores["test"]["bits"]
