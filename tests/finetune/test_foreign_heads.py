"""Models from scratch, heads of other families, and our own family."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from ffnlab import DecoderConfig, EncoderConfig, io
from ffnlab.errors import InputError
from ffnlab.finetune import predict_files, runner
from ffnlab.models import transformer
from ffnlab.pretrained import checkpoint, tiny
from tests.tuned import config, with_vocabulary

READABLE = {"text_column": "words", "label_column": "digits", "max_seq_length": 24,
            "max_target_length": 8, "template": "{text} ="}  # fmt: skip


@pytest.mark.parametrize(
    "task", [pytest.param("classify", marks=pytest.mark.slow), "tag"]
)
def test_a_small_model_from_scratch(files, smaller_tiny, tmp_path, task):
    kind = {"classify": ".tsv", "tag": ".conll"}[task]
    columns = {"text_column": "2", "label_column": "1"} if task == "classify" else {}
    more = {"epochs": 15.0, "learning_rate": 3e-3, "evaluations": 3, **columns}
    found = runner.run(config("tiny", files, task, tmp_path / "o", kind, **more))
    assert found.scores["test"][0]["headline"] > 0.7
    out = tmp_path / "p"
    (tmp_path / "in.txt").write_text("w1 w2 w3\n")
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(tmp_path / "in.txt"), str(out))
    )
    assert out.read_text().count("\n") == (4 if task == "tag" else 1)
    assert "from scratch" in (found.out / "README.md").read_text()


@pytest.mark.parametrize("causal", [True, False])
def test_a_small_checkpoint_is_the_same_each_time(tmp_path, causal):
    texts = [f"the {n} cats of {n * n} streets" for n in range(10)]
    for name in ("a", "b"):
        tiny.write(tmp_path / name, texts, causal, 16, seed=3)
    names = ("tokenizer.json" if causal else "vocab.txt", "model.safetensors")
    for file in names:
        one, two = ((tmp_path / name / file).read_bytes() for name in ("a", "b"))
        assert one == two


@pytest.mark.parametrize(
    ("family", "architecture", "names"),
    [
        ("roberta", "RobertaForSequenceClassification",
         {"classifier.dense.weight", "classifier.out_proj.weight"}),
        ("distilbert", "DistilBertForSequenceClassification",
         {"pre_classifier.weight", "classifier.weight"}),
    ],
)  # fmt: skip
def test_heads_are_where_transformers_has_them(
    files, tmp_path, without_steps, family, architecture, names
):
    source = with_vocabulary(family, tmp_path / family)
    columns = {"text_column": "2", "label_column": "1", "max_seq_length": 12}
    given = config(source, files, "classify", tmp_path / "o", ".tsv", **columns)
    found = runner.run(given)
    with safe_open(found.out / "best" / "model.safetensors", "np") as file:
        held = set(file.keys())
    settings = json.loads((found.out / "best" / "config.json").read_text())
    assert names < held and settings["architectures"] == [architecture]
    assert not any("pooler" in name for name in held)
    out, lines = tmp_path / "p", tmp_path / "in.txt"
    wanted = (found.out / "predictions-test.tsv").read_text().splitlines()
    lines.write_text("".join(line.split("\t")[1] + "\n" for line in wanted))
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(lines), str(out))
    )
    chances = [float(line.split("\t")[3]) for line in wanted]
    for line, row, chance in zip(
        out.read_text().splitlines(), wanted, chances, strict=True
    ):
        label, probability, text = line.split("\t")
        assert [text, label] == row.split("\t")[1:3]
        assert float(probability) == pytest.approx(chance, abs=1e-3)
    assert np.std(chances) > 5e-3


def saved(config, folder):
    """A checkpoint of a model, without a tokenizer."""
    params = jax.jit(transformer.transformer_model(config).init)(jax.random.key(0))
    checkpoint.save(folder, config, params, family=checkpoint.family_of(config))
    return str(folder)


def test_a_decoder_of_bytes_writes_too(numbers, tmp_path, without_steps):
    config_of = DecoderConfig(vocabulary=257, features=16, layers=1, heads=2, length=64)
    made = saved(config_of, tmp_path / "bytes")
    more = {**READABLE, "max_seq_length": 64, "max_target_length": 12}
    found = runner.run(
        config(made, numbers, "generate", tmp_path / "o", ".tsv", **more)
    )
    (tmp_path / "in.txt").write_text("one two\n")
    out = tmp_path / "out.txt"
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(tmp_path / "in.txt"), str(out))
    )
    assert out.read_text().count("\n") == 1
    files = predict_files.predict(
        predict_files.PredictConfig(str(found.out), export=str(tmp_path / "m.jax"))
    )
    assert files == 0 and not (tmp_path / "m.jax.tokenizer.json").exists()


def test_our_own_family_answers_and_bytes_have_no_words(
    bert, asked, files, tmp_path, without_steps
):
    shape = EncoderConfig(
        vocabulary=31, features=12, layers=1, heads=2, length=16, block="swiglu"
    )
    made = saved(shape, tmp_path / "own")
    shutil.copyfile(Path(bert) / "vocab.txt", tmp_path / "own" / "vocab.txt")
    held = json.loads((asked / "test.json").read_text())["data"][0]["paragraphs"]
    test, records = tmp_path / "test.jsonl", []
    for each in held:
        question = {key: each["qas"][0][key] for key in ("question", "answers")}
        records.append({"mine": 7, "context": each["context"], **question})
    test.write_text("".join(json.dumps(record) + "\n" for record in records))
    more = {"max_seq_length": 16, "test": str(test)}
    found = runner.run(config(made, asked, "qa", tmp_path / "o", ".json", **more))
    out = tmp_path / "p.jsonl"
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(test), str(out))
    )
    lines = io.read_lines(found.out / "predictions-test.jsonl")
    for one, two, record in zip(io.read_lines(out), lines, records, strict=True):
        assert one.pop("probability") == pytest.approx(two.pop("probability"), abs=1e-3)
        assert one == two == {**record, "predicted": two["predicted"]}
    shape = EncoderConfig(vocabulary=257, features=12, layers=1, heads=2, length=16)
    made = saved(shape, tmp_path / "bytes")
    with pytest.raises(InputError, match=r"vocab.txt: no such file"):
        runner.prepare(config(made, files, "tag", None, ".conll"))
