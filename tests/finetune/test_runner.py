"""Fine-tuning and prediction, from files to files, as their users meet them."""

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import launch
from experiments.run_scripts import ALIASES
from ffnlab import io
from ffnlab.data import read_conll
from ffnlab.data.column_names import Columns
from ffnlab.data.examples import Examples
from ffnlab.data.formats import Layout
from ffnlab.data.json_files import PART_KEYS
from ffnlab.data.tag_layouts import TagLayout
from ffnlab.data.tagged_lines import TaggedLines
from ffnlab.data.tags import convert
from ffnlab.errors import InputError
from ffnlab.finetune import (
    classification,
    metrics,
    predict_files,
    predictor,
    runner,
)
from ffnlab.finetune.config import Config
from ffnlab.finetune.task import digest
from ffnlab.pretrained import checkpoint
from tests.conftest import command
from tests.tuned import config


def test_everything_is_written(tagged, sorted_texts):
    both = {"README.md", "best", "data.sha256", "errors.md", "flags", "lock",
            "report.md", "results.jsonl", "types.png", "versions.json",
            "manifest.sha256"}  # fmt: skip
    found = {path.name for path in tagged.out.iterdir()}
    assert found == both | {"predictions-dev.conll", "predictions-test.conll"}
    found = {path.name for path in sorted_texts.out.iterdir()}
    assert found == both | {
        "confusion.png", "predictions-dev.tsv", "predictions-test.tsv",
    }  # fmt: skip
    text = (tagged.out / "report.md").read_text()
    assert tagged.table.markdown() in text and "| CITY |" in text
    assert len(io.read_lines(tagged.out / "results.jsonl")) == 1


def test_they_learn(tagged, sorted_texts):
    assert min(each["f1"] for each in tagged.scores["test"]) > 0.9
    assert tagged.scores["test"][0]["words"]["types"]["O"]["f1"] > 0.9
    assert sorted_texts.scores["test"][0]["accuracy"] > 0.8


def test_predictions_are_in_the_format_of_the_file(tagged, sorted_texts, files):
    """The file's lines come back as they are, with what was predicted behind them."""
    for run, kind, added in ((tagged, "conll", 1), (sorted_texts, "tsv", 2)):
        given = (files / f"test.{kind}").read_text().splitlines()
        found = (run.out / f"predictions-test.{kind}").read_text().splitlines()
        cut = [line.split("\t") for line in found]
        kept = ["\t".join(cells[:-added]) for cells in cut]
        assert kept[: len(given)] == given and not any(kept[len(given) :])
    gold, guess = (
        read_conll(path).tags
        for path in (files / "test.conll", tagged.out / "predictions-test.conll")
    )
    assert tagged.scores["test"][0]["f1"] == metrics.span_report(guess, gold)["f1"]


def test_columns_between_and_documents_come_back(bert, files, tmp_path, without_steps):
    """In bfloat16, in which prediction computes what evaluation did."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for part in ("train", "dev", "test"):
        lines = (files / f"{part}.conll").read_text().splitlines()
        wide = [line.replace("\t", " POS _ ") for line in lines]
        text = "-DOCSTART- -X- _ O\n\n" + "\n".join(wide) + "\n\n"
        (folder / f"{part}.conll").write_text(text)
    given = config(bert, folder, "tag", tmp_path / "o", ".conll", dtype="bfloat16")
    found = runner.run(given).out / "predictions-test.conll"
    kept = [
        line.rpartition(" ")[0] if line.startswith("w") else line
        for line in found.read_text().split("\n")
    ]
    assert "\n".join(kept) == (folder / "test.conll").read_text()
    out = tmp_path / "p.conll"
    predict_files.predict(
        predict_files.PredictConfig(
            str(tmp_path / "o"), str(folder / "test.conll"), str(out)
        )
    )
    assert out.read_text() == found.read_text()


def test_predictions_of_lists_are_lists(bert, files, tmp_path):
    parts = {}
    for part, (key, *_) in PART_KEYS.items():
        lines = (files / f"{part}.tsv").read_text().splitlines()
        parts[key] = [line.split("\t")[::-1] for line in lines]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(parts))
    alone = {"train": str(path), "dev": None, "test": None}
    thrice = {part: str(path) for part in PART_KEYS}
    task, same = (runner.prepare(config(bert, files, "classify", None, "", **given))
                  for given in (alone, thrice))  # fmt: skip
    assert digest(task) == digest(same)
    assert task.sizes == same.sizes == {"train": 48, "dev": 16, "test": 16}
    labels, probabilities = np.arange(16) % 2, np.linspace(0.5, 1.0, 16)
    for part, key in (("dev", "val"), ("test", "test")):
        task.write(part, (labels, probabilities), tmp_path)
        held = json.loads((tmp_path / f"predictions-{part}.json").read_text())
        assert list(held) == [key]
        wanted = zip(parts[key], labels, probabilities, strict=True)
        assert held[key] == [
            [*row, task.label_names[k], round(p, 4)] for row, k, p in wanted
        ]


def test_predictions_in_io_are_i_alone_where_the_training_is(tmp_path):
    names, labels = ["O", "B-A", "I-A"], np.array([1, 2, 1, 0])
    words = ["a", "b", "c", "d"]
    layout = TagLayout(separator="\t")
    row = TaggedLines(["a\n", "b\n", "c\n", "d\n", "\n"], [0, 1, 2, 3], layout)
    part = Examples([words], [], [["B-A", "I-A", "I-A", "O"]], [], "io", rows=[row])
    part = part._replace(layout=Layout("conll", Columns()))
    given = Config(task="tag", checkpoint="a", train="a.conll", dev="b.conll")
    for scheme, third in (("io", "I-A"), ("iob1", "B-A")):
        examples = {"train": part._replace(scheme=scheme), "dev": part}
        task = SimpleNamespace(config=given, label_names=names, examples=examples)
        classification.ClassificationTask.write(task, "dev", (labels, labels), tmp_path)
        text = (tmp_path / "predictions-dev.conll").read_text()
        assert text == f"a\tI-A\nb\tI-A\nc\t{third}\nd\tO\n\n"


def test_best_is_a_directory_of_transformers(tagged, sorted_texts):
    settings = json.loads((tagged.out / "best" / "config.json").read_text())
    assert settings["architectures"] == ["BertForTokenClassification"]
    assert settings["id2label"]["0"] == "O"
    from safetensors import safe_open

    with safe_open(tagged.out / "best" / "model.safetensors", "np") as file:
        names = set(file.keys())
    assert {"classifier.weight", "classifier.bias"} < names
    assert all(n.startswith(("bert.", "classifier.")) for n in names)
    assert not any("pooler" in name for name in names)
    settings = json.loads((sorted_texts.out / "best" / "config.json").read_text())
    assert settings["architectures"] == ["BertForSequenceClassification"]


def test_embeddings_of_tokens_that_no_text_holds_stay(tagged, bert):
    before, after = (
        checkpoint.load(directory, head=False, pooler=False).params
        for directory in (bert, tagged.out / "best")
    )
    one, two = (
        np.asarray(params["embed"]["tokens"]["embedding"]) for params in (before, after)
    )
    same = (one == two).all(axis=1)
    assert same[31:].all() and not same[2] and not same[5:31].any()


def test_prediction_is_what_evaluation_gave(tagged, sorted_texts, files, tmp_path):
    out = tmp_path / "p.conll"
    predict_files.predict(
        predict_files.PredictConfig(
            str(tagged.out), str(files / "test.conll"), str(out)
        )
    )
    assert out.read_text() == (tagged.out / "predictions-test.conll").read_text()
    lines = (sorted_texts.out / "predictions-test.tsv").read_text().splitlines()
    (tmp_path / "in.txt").write_text("".join(x.split("\t")[1] + "\n" for x in lines))
    out = tmp_path / "p.tsv"
    given = predict_files.PredictConfig(
        str(sorted_texts.out), str(tmp_path / "in.txt"), str(out)
    )
    assert predict_files.predict(given) == 16
    for line, wanted in zip(out.read_text().splitlines(), lines, strict=True):
        label, probability, text = line.split("\t")
        assert [text, label] == wanted.split("\t")[1:3]
        assert float(probability) == pytest.approx(
            float(wanted.split("\t")[3]), abs=1e-3
        )


def test_prediction_reads_line_by_line(tagged, monkeypatch, capsys):
    seen = []

    def lines():
        for line in ("w1 w2\n", "\n", "w3\n"):
            seen.append(capsys.readouterr().out)
            yield line

    monkeypatch.setattr(sys, "stdin", lines())
    assert predict_files.predict(predict_files.PredictConfig(str(tagged.out))) == 2
    assert seen[1].startswith("w1\tB-CITY\nw2\t")  # before the next line was read


STANDALONE = """
import json, sys
sys.modules["ffnlab"] = None  # importing it is an error
import numpy as np
import tokenizers
from jax import export

path, words = sys.argv[1], sys.argv[2].split()
model = export.deserialize(open(path, "rb").read())
tokenizer = tokenizers.Tokenizer.from_file(path + ".tokenizer.json")
labels = json.load(open(path + ".labels.json"))["labels"]
tokens = np.array([tokenizer.encode(words, is_pretokenized=True).ids], np.int32)
at = np.arange(1, len(words) + 1, dtype=np.int32)[None]  # here a word is a token
types = np.zeros_like(tokens)
chances = np.asarray(model.call(tokens, tokens >= 0, types, at))[0]
print(json.dumps([[labels[row.argmax()] for row in chances], chances.max(1).tolist()]))
"""


def test_an_exported_model_runs_without_ours(tagged, tmp_path, capsys):
    path = tmp_path / "model.jax"
    given = predict_files.PredictConfig(str(tagged.out), export=str(path))
    assert predict_files.predict(given) == 0
    assert capsys.readouterr().out.count("model.jax") == 3
    held = json.loads((tmp_path / "model.jax.labels.json").read_text())
    assert list(held["inputs"]) == ["tokens", "mask", "types", "at"]
    words = "w1 w2 w3 w25 w7"
    got = subprocess.run(
        [sys.executable, "-c", STANDALONE, str(path), words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert got.returncode == 0, got.stderr
    (predicted,) = predictor.pipeline(tagged.out).tags([words])
    labels, probabilities = json.loads(got.stdout)
    assert labels == predicted.text
    np.testing.assert_allclose(probabilities, predicted.probability, rtol=1e-5)
    with pytest.raises(InputError, match="exists already"):
        predict_files.predict(given)
    long = tmp_path / ("m" * 245)  # beside which no .labels.json can be
    with pytest.raises(InputError, match="^export: .*File name too long"):
        predict_files.predict(dataclasses.replace(given, export=str(long)))
    assert not list(tmp_path.glob("mm*"))


def test_pairs_and_json_lines(bert, files, tmp_path, without_steps):
    columns = {"text_column": "one", "pair_column": "two", "max_seq_length": 16}
    given = config(bert, files, "pairs", tmp_path / "o", ".jsonl", **columns)
    found = runner.run(given)
    assert "accuracy" in found.scores["dev"][0]
    out = tmp_path / "p.jsonl"
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(files / "test.jsonl"), str(out))
    )
    wanted = io.read_lines(found.out / "predictions-test.jsonl")
    assert np.std([row["probability"] for row in wanted]) > 5e-3
    for one, two in zip(io.read_lines(out), wanted, strict=True):
        assert one.pop("probability") == pytest.approx(two.pop("probability"), abs=1e-3)
        assert one == two and set(one) == {"one", "two", "label", "predicted"}


def test_other_heads_and_options(two_layers, files, tmp_path):
    more = {"head": "feedback", "head_hidden": 8, "label_smoothing": 0.1}
    more |= {"freeze": ("embeddings", "layers.0"), "layer_decay": 0.9, "patience": 3}
    more |= {"class_weights": "balanced", "split": (0.6, 0.2, 0.2), "epochs": 2.0}
    given = config(two_layers, files, "tag", tmp_path / "o", ".conll", dev=None,
                   test=None, **more)  # fmt: skip
    found = runner.run(given)
    before = checkpoint.load(two_layers, head=False, pooler=False).params
    after = checkpoint.load(found.out / "best", head=False, pooler=False).params
    for part, same in (("embed", True), ("layer_0", True), ("layer_1", False)):
        one, two = (np.asarray(p[part]["norm" if part == "embed" else "ffn_norm"][
            "scale"]) for p in (before, after))  # fmt: skip
        assert (one == two).all() == same
    check_predictions(found, files, tmp_path)


def test_a_block_as_a_head_predicts(bert, files, tmp_path, without_steps):
    more = {"head": "swiglu", "head_hidden": 8}
    found = runner.run(config(bert, files, "tag", tmp_path / "o", ".conll", **more))
    check_predictions(found, files, tmp_path)
    wanted = (found.out / "predictions-test.conll").read_text()
    assert (tmp_path / "p.conll").read_text() == wanted


def check_predictions(found, files, folder):
    out = folder / "p.conll"
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(files / "test.conll"), str(out))
    )
    assert out.read_text().count("\n\n") == 15


def test_the_flag_file_and_aliases_repeat_the_run(sorted_texts, tmp_path):
    argv = ["finetune", f"--flagfile={sorted_texts.out}/flags"]
    argv += [f"--output_dir={tmp_path / 'again'}"]
    given = launch.parse(Config, argv, aliases=ALIASES)
    assert runner.run(given).scores == sorted_texts.scores


SMALL_RUN = {"max_seq_length": 14, "steps": 2, "batch_size": 8}


def test_lists_are_data_and_the_result_is_of_use(
    bert, tmp_path, monkeypatch, without_steps
):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sentences = [[f"w{n}" for n in rng.integers(0, 26, 4)] for _ in range(30)]
    kinds = ("O", "B-A", "B-B")
    rows = [(row, [kinds[int(w[1:]) % 3] for w in row]) for row in sentences]
    data = {"train": rows[:20], "dev": rows[20:25], "test": rows[25:]}
    result = runner.run(checkpoint=bert, task="tag", **data, **SMALL_RUN)
    assert result.out.parts[0] == "runs" and result.out.name.startswith("finetune-")
    written = (result.out / "data" / "dev.jsonl").read_text().splitlines()
    held = [json.loads(line) for line in written]
    assert [(row["text"], row["label"]) for row in held] == data["dev"]

    errors = result.error_rows
    assert {row["part"] for row in errors} == {"dev", "test"}
    first = errors[0]
    words, _ = data[first["part"]][first["example"] - 1]
    assert first["context"].replace("[", "").replace("]", "") == " ".join(words)
    assert len(result.errors()) == len(errors)
    text = (result.out / "errors.md").read_text()
    assert "## dev" in text and f"| {first['kind']} |" in text

    (tagged,) = result.pipeline().tags([words])
    predicted = io.read_lines(result.out / f"predictions-{first['part']}.jsonl")
    fitting = convert(tagged.text, "iob2", "iob2")
    assert fitting == predicted[first["example"] - 1]["predicted"]

    flags = f"--flagfile={result.out / 'flags'}"
    again = runner.run(launch.parse(Config, ["finetune", flags, "--out=again"]))
    assert again.scores == result.scores
    with pytest.raises(InputError, match="^resume: .* is finished"):
        runner.run(checkpoint=bert, task="tag", out=result.out, resume=True, **data)


@pytest.mark.slow
def test_steps_and_evaluations_may_be_given(bert, files, tmp_path):
    given = config(bert, files, "tag", tmp_path / "o", ".conll", steps=5, evaluations=2)
    line = io.read_lines(runner.run(given).out / "results.jsonl")[0]
    assert len(line["dev_curve"]) == 2 and line["best_step"] in (3, 5)


def test_predict_says_what_is_wrong(sorted_texts, tagged, bert, tmp_path):
    got = command("predict", f"--run={sorted_texts.out}", "--input=absent.txt")
    assert got.returncode == 2 and "absent.txt: no such file" in got.stderr
    with pytest.raises(InputError, match="not a run of experiments.finetune"):
        predict_files.predict(predict_files.PredictConfig(bert, "absent.txt"))
    for name, content, message in (
        ("bad.jsonl", b'{"txt": "a"}\n', "bad.jsonl:1: no '2'; there is txt"),
        ("bad.txt", b"a\n\xff\n", "bad.txt:"),
    ):
        (tmp_path / name).write_bytes(content)
        given = predict_files.PredictConfig(str(sorted_texts.out), str(tmp_path / name))
        with pytest.raises(InputError, match=message):
            predict_files.predict(given)
    with pytest.raises(InputError, match="run: needed"):
        predict_files.PredictConfig()
    with pytest.raises(InputError, match="run: .*/absent: not a run of"):
        predict_files.predict(predict_files.PredictConfig(str(tmp_path / "absent")))
    with pytest.raises(InputError, match="output: a.txt is the input"):
        predict_files.PredictConfig(str(tagged.out), "a.txt", "a.txt")
