"""Predictions on new text: what comes in, what goes out, and what is refused."""

import functools
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ffnlab import finetune
from ffnlab import io as files_io
from ffnlab.data.corpus import ByteTokenizer
from ffnlab.errors import InputError
from ffnlab.finetune import finetuned_model, predict_files, predictor
from ffnlab.finetune.classification import prepare
from ffnlab.finetune.usage import Usage
from ffnlab.models.transformer import DecoderConfig, transformer_model
from tests.tuned import config


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """Reads the model of a run once for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(finetuned_model.read_finetuned)
        patch.setattr(finetuned_model, "read_finetuned", read)
        yield


def test_prediction_adds_columns_to_a_table(sorted_texts, files, tmp_path):
    out = tmp_path / "p.tsv"
    predict_files.predict(
        predict_files.PredictConfig(
            str(sorted_texts.out), str(files / "test.tsv"), str(out)
        )
    )
    wanted = (sorted_texts.out / "predictions-test.tsv").read_text().splitlines()
    for one, two in zip(out.read_text().splitlines(), wanted, strict=True):
        (*cells, one), (*same, two) = one.split("\t"), two.split("\t")
        assert cells == same and float(one) == pytest.approx(float(two), abs=1e-3)


def used_with(result, folder, **columns):
    """A copy of a run whose data had other columns."""
    shutil.copytree(result.out / "best", folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["ffnlab_use"] |= columns
    files_io.write(folder / "config.json", json.dumps(settings))
    return str(folder)


def test_prediction_keeps_the_header_of_a_table(sorted_texts, tmp_path):
    run = used_with(sorted_texts, tmp_path / "run", text_column="text")
    (tmp_path / "new.csv").write_text('id,text\n7,"w1, w2"\n8,w3\n')
    out, again = tmp_path / "p.csv", tmp_path / "q.csv"
    given = predict_files.PredictConfig(run, str(tmp_path / "new.csv"), str(out))
    assert predict_files.predict(given) == 2
    lines = out.read_text().splitlines()
    assert lines[0] == "id,text,predicted,probability"
    assert lines[1].startswith('7,"w1, w2",') and lines[2].startswith("8,w3,")
    predict_files.predict(predict_files.PredictConfig(run, str(out), str(again)))
    lines = again.read_text().splitlines()  # nothing that was there is lost
    assert lines[0] == "id,text,predicted,probability,predicted2,probability2"


def test_a_column_may_be_another_than_in_training(sorted_texts, tmp_path, capsys):
    """The texts of training were in the second column of files without a header."""
    path, outputs = tmp_path / "new.csv", []
    for head, columns in (
        ("x,w1 w2\n", {}),
        ("id,text\nx,w1 w2\n", {}),
        ("id,message\nx,w1 w2\n", {"text_column": "message"}),
        ("w1 w2,x\n", {"text_column": "1"}),
    ):
        path.write_text(head)
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), str(path), **columns)
        )
        said = capsys.readouterr()
        outputs.append(said.out.splitlines()[-1].split(",")[2:])
        assert ("no header; text in column " in said.err) == ("\n" not in head[:-1])
    assert outputs == outputs[:1] * 4
    for column in ("pair_column", "text_column"):
        given = {column: "other"}
        with pytest.raises(InputError, match=f"{column}: classify has no such|'other'"):
            predict_files.predict(
                predict_files.PredictConfig(str(sorted_texts.out), str(path), **given)
            )


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (
            "conll",
            "w1 x\nw2\n\n-DOCSTART-\nw3\ty\n",
            ["w1 x ", "w2\t", "", "-DOCSTART-", "w3\ty\t"],
        ),
        ("jsonl", '{"text": ["w1", "w2"], "id": 7}\n', None),
    ],
)
def test_prediction_reads_other_formats_as_they_come(
    tagged, monkeypatch, capsys, kind, text, wanted
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    predict_files.predict(predict_files.PredictConfig(str(tagged.out), format=kind))
    got = capsys.readouterr().out
    if wanted:
        kept = [re.sub(r"(O|B-\w+|I-\w+)$", "", line) for line in got.splitlines()]
        assert kept == wanted
    else:
        found = json.loads(got)
        assert found["id"] == 7 and len(found["predicted"]) == 2
        assert len(found["probability"]) == 2


def test_tags_have_their_probabilities_if_they_are_asked_for(
    tagged, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("w1 w2\n"))
    predict_files.predict(
        predict_files.PredictConfig(str(tagged.out), probabilities=True)
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["w1", "w2", ""]
    assert all(0 < float(line.split("\t")[1]) <= 1 for line in lines[:2])


BAD_INPUT = {
    "a.jsonl": (
        '{"2": "a"}\n{"2": ""}\nx\n[]\n',
        [2, 3, 4],
        "'2' is empty, or has half",
    ),
    "a.tsv": ("x\ta\nx\nx\t\n", [2, 3], "expected 2 fields, found 1"),
    "a.txt": (b"a\n\xff\n\0\n", [2, 3], "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_all_bad_lines_of_a_file_are_told_before_anything_is_written(
    sorted_texts, tmp_path, name
):
    content, lines, what = BAD_INPUT[name]
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), str(path), str(out))
        )
    told = str(caught.value).split("\n")
    assert [int(each.split(f"{name}:")[1].split(":")[0]) for each in told] == lines
    assert what in told[0] and not out.exists()


def test_formats_that_a_task_has_not_are_refused(tagged, sorted_texts, tmp_path):
    (tmp_path / "a.csv").write_text("a\n")
    path = str(tmp_path / "a.csv")
    for run, source, kind in (
        (tagged, path, "csv"),
        (sorted_texts, "-", "parquet"),
    ):
        with pytest.raises(InputError, match="^format: .* takes text, .*jsonl.*, not "):
            predict_files.predict(
                predict_files.PredictConfig(str(run.out), source, format=kind)
            )
    with pytest.raises(InputError, match="a.csv:1: expected a column that numbers"):
        predict_files.predict(predict_files.PredictConfig(str(tagged.out), path))
    with pytest.raises(InputError, match="^probabilities: for tag, not classify"):
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), probabilities=True)
        )


def test_what_is_no_file_is_written_into(sorted_texts, files, tmp_path):
    new = tmp_path / "in.txt"
    new.write_text("w1 w2\n")
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    predict_files.predict(
        predict_files.PredictConfig(
            str(sorted_texts.out), str(new), str(tmp_path / "link")
        )
    )
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text().endswith("w1 w2\n")
    predict_files.predict(
        predict_files.PredictConfig(str(sorted_texts.out), str(new), os.devnull)
    )
    assert not Path(os.devnull).is_file()
    for path in (tmp_path, tmp_path / "absent" / "p"):
        with pytest.raises(InputError, match="^output: .*: (Is a|No such)"):
            predict_files.predict(
                predict_files.PredictConfig(str(sorted_texts.out), str(new), str(path))
            )
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: a pipe or a device; give a file"):
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), str(pipe))
        )


def test_words_that_the_model_does_not_see_are_told(tagged, tmp_path, capsys):
    (tmp_path / "in.txt").write_text(" ".join(["w1"] * 15) + "\n")
    predict_files.predict(
        predict_files.PredictConfig(str(tagged.out), str(tmp_path / "in.txt"))
    )
    got = capsys.readouterr()
    assert got.out.count("\n") == 16
    assert got.err == "3 words or tokens cut off: the model reads 14 tokens per text\n"


def test_columns_of_conll_may_be_chosen(tagged, bert, files, tmp_path):
    """The same words and tags in other columns are the same data to a model."""
    for part in ("train", "dev", "test"):
        rows = (files / f"{part}.conll").read_text().splitlines()
        lines = [f"7 {row} X".replace("\t", " ") if row else "" for row in rows]
        (tmp_path / f"{part}.conll").write_text("\n".join(lines) + "\n")
    columns = {"text_column": "2", "label_column": "3"}
    moved = prepare(config(bert, tmp_path, "tag", tmp_path / "o", ".conll", **columns))
    usual = prepare(config(bert, files, "tag", tmp_path / "o", ".conll"))
    assert moved.usage().text_column == "2"
    for name, array in usual.rows["train"].arrays.items():
        np.testing.assert_array_equal(array, moved.rows["train"].arrays[name])
    run, out = used_with(tagged, tmp_path / "r", text_column="2"), tmp_path / "p.conll"
    test = tmp_path / "test.conll"
    predict_files.predict(predict_files.PredictConfig(run, str(test), str(out)))
    wanted = (tagged.out / "predictions-test.conll").read_text().splitlines()
    for row, line in zip(wanted, out.read_text().splitlines(), strict=True):
        word, tag, predicted = row.split("\t") if row else [""] * 3
        assert line == (f"7 {word} {tag} X {predicted}" if row else "")
    (tmp_path / "bad.conll").write_text("7 w1\nw2\n")
    with pytest.raises(InputError, match="bad.conll:2: column 2 of 1; columns count"):
        predict_files.predict(
            predict_files.PredictConfig(run, str(tmp_path / "bad.conll"))
        )


def test_json_of_lists_comes_back_as_lists(sorted_texts, tmp_path):
    path, out = tmp_path / "in.json", tmp_path / "out.json"
    path.write_text(json.dumps({"test": [["w1 w2", "even"], ["w14 w15"]], "val": []}))
    given = predict_files.PredictConfig(str(sorted_texts.out), str(path), str(out))
    assert predict_files.predict(given) == 2
    rows = json.loads(out.read_text())["test"]
    assert [row[:-2] for row in rows] == [["w1 w2", "even"], ["w14 w15"]]
    assert [row[-2] for row in rows] == ["even", "odd"]


@pytest.fixture
def damaged(sorted_texts, monkeypatch):
    """The classifier, with the parameters of one word damaged."""
    model = finetuned_model.read_finetuned(sorted_texts.out)
    number = int(model.tokenizer.texts(["w3"], None, 8).tokens[0][1])
    ((name, table),) = model.params["encoder"]["embed"]["tokens"].items()
    table = np.array(table)
    table[number] = np.nan
    embed = {**model.params["encoder"]["embed"], "tokens": {name: table}}
    encoder = {**model.params["encoder"], "embed": embed}
    model = model._replace(params={**model.params, "encoder": encoder})
    for module in (finetuned_model, predictor):
        monkeypatch.setattr(module, "read_finetuned", lambda _: model)


NOT_FINITE = ": the scores of the model are not finite here; the parameters of"


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.txt", "w1 w2\n\nw3 w4\nw3\n", "a.txt:3"),
        ("a.tsv", "x\tw1\nx\tw2 w3\n", "a.tsv:2"),
        ("-", "w1\n\nw3\n", "standard input:3"),
    ],
)
def test_a_text_whose_scores_are_not_finite_is_named_and_not_written(
    damaged, tmp_path, monkeypatch, capsys, name, content, place
):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content)
    Path("out").write_text("before")
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    with pytest.raises(InputError, match=f"^{place}{NOT_FINITE}"):
        predict_files.predict(predict_files.PredictConfig("run", name, "out"))
    assert Path("out").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_a_pipeline_names_a_text_whose_scores_are_not_finite(damaged):
    pipe = finetune.pipeline("run")
    assert len(pipe(["w1", "w2"])) == 2
    with pytest.raises(InputError, match=f"^texts: text 2{NOT_FINITE}"):
        pipe(["w1", "w2 w3", "w4"])


@pytest.mark.parametrize("beams", [None, 2])
def test_a_text_is_not_generated_from_scores_that_are_not_finite(beams):
    sizes = {"vocabulary": 257, "features": 8, "layers": 1, "heads": 2, "hidden": 8}
    shape = DecoderConfig(**sizes, length=32)
    params = jax.eval_shape(transformer_model(shape).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, "f4"), params)
    model = finetuned_model.FinetunedModel(
        SimpleNamespace(config=shape),
        None,
        {"encoder": params},
        ByteTokenizer(),
        [],
        Usage("generate", 16, max_target_length=2, num_beams=beams),
    )
    with pytest.raises(InputError, match=f"^texts: text 1{NOT_FINITE}"):
        predictor.Pipeline(model)(["ab", "c"])
