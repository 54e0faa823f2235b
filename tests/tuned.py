"""Small checkpoints and files that can be learned from in seconds, for fine-tuning."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ffnlab.finetune import trainer
from ffnlab.finetune.config import Config
from ffnlab.finetune.runner import run
from ffnlab.finetune.task import MONITORED
from ffnlab.pretrained import tiny
from ffnlab.train.record import empty_record

CHECKPOINTS = Path(__file__).parent / "checkpoints"
WORDS = [f"w{n}" for n in range(26)]
KIND = {0: "O", 1: "B-CITY", 2: "B-NAME"}  # of a word, by its number
SMALL = {"max_seq_length": 14, "epochs": 20.0, "learning_rate": 1e-2, "batch_size": 8}
SIZES = (("train", 48), ("dev", 16), ("test", 16))
NUMBERS = ["zero", "one", "two", "three", "four", "five"]


def with_vocabulary(family, directory):
    """Copies a small checkpoint, and writes a vocabulary beside it."""
    shutil.copytree(CHECKPOINTS / family, directory)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (directory / "vocab.txt").write_text("\n".join(special + WORDS))
    return str(directory)


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory):
    """A small BERT of two layers, with a vocabulary."""
    return with_vocabulary("bert", tmp_path_factory.mktemp("checkpoint") / "two")


@pytest.fixture(scope="session")
def bert(two_layers, tmp_path_factory):
    """Its first layer alone, which compiles sooner."""
    return first_layer(two_layers, tmp_path_factory.mktemp("checkpoint") / "bert")


def first_layer(source, directory):
    """Copies a BERT of several layers without all but the first."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, directory)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    kept = {name: a for name, a in tensors.items() if ".layer.1." not in name}
    save_file(kept, path, {"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    settings["num_hidden_layers"] = 1
    (directory / "config.json").write_text(json.dumps(settings))
    return str(directory)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Sentences whose labels can be read off their words, in all formats."""
    folder = tmp_path_factory.mktemp("files")
    write_sentences(folder)
    return folder


def write_sentences(folder):
    """Writes the parts of a data set as CoNLL columns, a table and JSON lines."""
    rng = np.random.default_rng(0)
    for part, count in SIZES:
        odd = rng.integers(0, 2, count)  # texts of two kinds, by their words
        rows = [rng.choice(WORDS[k * 13 :][:13], rng.integers(3, 9)) for k in odd]
        tagged = "\n".join(
            "".join(f"{w}\t{KIND[int(w[1:]) % 3]}\n" for w in row) for row in rows
        )
        (folder / f"{part}.conll").write_text(tagged)
        kinds = ["odd" if k else "even" for k in odd]
        texts = [" ".join(row) for row in rows]
        table = zip(kinds, texts, strict=True)
        (folder / f"{part}.tsv").write_text("".join(f"{k}\t{t}\n" for k, t in table))
        pairs = [
            {"one": t, "two": str(row[-1]), "label": k}
            for t, row, k in zip(texts, rows, kinds, strict=True)
        ]
        lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
        (folder / f"{part}.jsonl").write_text(lines)


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """Questions of SQuAD's form: the answer is the one word of five that are special.

    Contexts are longer than a window, and every third has no such word.
    """
    folder = tmp_path_factory.mktemp("asked")
    write_questions(folder)
    return folder


def write_questions(folder):
    """Writes the parts of a data set of questions."""
    rng = np.random.default_rng(1)
    for part, count in SIZES:
        paragraphs = []
        for number in range(2 * count):
            words = rng.choice(WORDS[5:], 14).tolist()
            answers = []
            if number % 3:
                place = int(rng.integers(14))
                words[place] = WORDS[rng.integers(5)]
                start = len(" ".join([*words[:place], ""]))
                answers = [{"text": words[place], "answer_start": start}]
            question = {"id": f"{part}{number}", "question": "w25 w24?",
                        "answers": answers, "is_impossible": not answers}  # fmt: skip
            paragraphs.append({"context": " ".join(words), "qas": [question]})
        held = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (folder / f"{part}.json").write_text(json.dumps(held))


@pytest.fixture(scope="session")
def numbers(tmp_path_factory):
    """Texts of numbers in words, to be written in digits."""
    folder = tmp_path_factory.mktemp("numbers")
    write_numbers(folder)
    return folder


def write_numbers(folder):
    """Writes the parts of a data set of numbers."""
    rng = np.random.default_rng(2)
    for part, count in SIZES:
        count *= 6 if part == "train" else 2
        rows = [rng.integers(0, 6, rng.integers(4, 6)) for _ in range(count)]
        lines = [
            " ".join(NUMBERS[n] for n in row) + "\t" + " ".join(map(str, row)) + "\n"
            for row in rows
        ]
        (folder / f"{part}.tsv").write_text("words\tdigits\n" + "".join(lines))


def config(checkpoint, files, task, out, kind, **more):
    """Returns what fine-tunes on the files of a folder, of one kind."""
    parts = {part: str(files / f"{part}{kind}") for part in ("train", "dev", "test")}
    given = {**SMALL, **parts, "out": str(out), **more}
    return Config(task=task, checkpoint=checkpoint, **given)


@pytest.fixture(scope="session")
def smaller_tiny():
    """Models from scratch have one layer of width 64, which trains in seconds."""
    small = {"features": 64, "hidden": 128, "layers": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DecoderConfig", "EncoderConfig"):
            kind = getattr(tiny, name)
            patch.setattr(tiny, name, lambda kind=kind, **k: kind(**{**k, **small}))
        yield


@pytest.fixture
def without_steps(monkeypatch):
    """Runs write what they always do, of parameters that no step has changed."""
    monkeypatch.setattr(trainer, "train", initial_runs)


def initial_runs(config, task, directory, adaptation=None, tracker=None, layout=None):
    """Returns the run of initial parameters, in place of `trainer.train`."""
    plan = trainer.make_plan(config, task)
    init = jax.jit(trainer.init_from_checkpoint(config, task).init)
    params = init(jax.random.key(0))
    if "head" in params:  # so wide that no two labels are a near tie
        params["head"] = jax.tree.map(lambda p: 10 * p, params["head"])
    parts = [part for part in ("dev", "test") if part in task.rows]
    predicted = {part: task.predictor(part, plan.batch)(params) for part in parts}
    task = task.settle(predicted)
    scores = {part: task.score(part, each) for part, each in predicted.items()}
    for part, each in predicted.items():
        _check_example_scores(task, part, each, scores[part][MONITORED])
    record = empty_record(plan, [MONITORED])
    return [trainer.Run(0, params, record, scores, predicted, float("nan"))]


def _check_example_scores(task, part, predicted, score):
    """Checks that the mean over examples is the monitored score."""
    scores = task.example_scores(part, predicted)
    without = task.config.task == "generate" or not task.usage().predicts_labels
    assert (scores is None) == without
    if scores is not None:
        assert scores.shape == (task.sizes[part],)
        assert scores.mean() == pytest.approx(score, abs=1e-9)


@pytest.fixture(scope="session")
def tagged(bert, files, tmp_path_factory):
    """A tagger."""
    out = tmp_path_factory.mktemp("runs") / "tag"
    return run(config(bert, files, "tag", out, ".conll"))


@pytest.fixture(scope="session")
def sorted_texts(bert, files, tmp_path_factory):
    """A classifier, from a table without a header."""
    out = tmp_path_factory.mktemp("runs") / "classify"
    columns = {"text_column": "2", "label_column": "1"}
    return run(config(bert, files, "classify", out, ".tsv", **columns))
