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
from ffnlab.data import read_conll
from ffnlab.data.corpus import ByteTokenizer
from ffnlab.data.tags import spans
from ffnlab.errors import InputError
from ffnlab.finetune import finetuned_model, predict_files, predictor
from ffnlab.finetune.classification import prepare
from ffnlab.finetune.metrics import span_report
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


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (
            "conll",
            "w1 x\nw2\n\n-DOCSTART-\nw3\ty\n",
            ["w1 x ", "w2\t", "", "-DOCSTART-", "", "w3\ty\t", ""],
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
        (tagged, path, "auto"),
        (sorted_texts, "-", "tsv"),
    ):
        with pytest.raises(InputError, match="^format: .* takes text, .*jsonl.*, not "):
            predict_files.predict(
                predict_files.PredictConfig(str(run.out), source, format=kind)
            )
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


@pytest.fixture(scope="module")
def classifier(sorted_texts):
    return finetune.pipeline(sorted_texts.out, batch_size=3)


@pytest.fixture(scope="module")
def tagger(tagged):
    return finetune.pipeline(str(tagged.out / "best"))


def test_a_pipeline_predicts_as_the_run_did(classifier, sorted_texts, files):
    rows = (files / "test.tsv").read_text().splitlines()
    texts = [row.split("\t")[1] for row in rows]
    written = (sorted_texts.out / "predictions-test.tsv").read_text().splitlines()
    for row, prediction in zip(written, classifier(texts), strict=True):
        *_, label, probability = row.split("\t")
        assert prediction.text == label
        assert prediction.probability == pytest.approx(float(probability), abs=1e-3)


def test_one_input_gives_one_result_and_a_list_a_list(classifier):
    one = classifier("w1 w2")
    assert one.text == "even" and 0.5 < one.probability <= 1
    assert classifier(("w1 w2",)) == classifier(["w1 w2"]) == [one]
    assert classifier(np.array(["w1 w2"])) == classifier(iter(["w1 w2"])) == [one]
    assert classifier({"text": "w1 w2"}) == one  # training had numbers of columns
    assert classifier([]) == classifier(np.array([])) == []
    many = [f"w{n % 26}" for n in range(40)]  # more than a batch
    for one, two in zip(classifier(many)[26:], classifier(many[26:]), strict=True):
        assert one.text == two.text
        assert one.probability == pytest.approx(two.probability, abs=1e-5)


def test_all_labels_have_their_probabilities(classifier):
    best = classifier("w1 w2")
    ranked = classifier("w1 w2", top_k=5)
    assert [each.text for each in ranked] == ["even", "odd"] != classifier.labels[::-1]
    assert ranked[0] == pytest.approx(best)
    assert sum(each.probability for each in ranked) == pytest.approx(1)
    assert classifier(["w1 w2"], top_k=1) == [ranked[:1]]


def test_entities_are_found_by_character_and_by_word(tagger):
    text = " w1 w3\tw2   w4\nw3 "
    found = tagger(text)
    assert [text[each.start : each.end] for each in found] == ["w1", "w2", "w4"]
    assert [each.text for each in found] == ["w1", "w2", "w4"]
    assert [each.type for each in found] == ["CITY", "NAME", "CITY"]
    words = text.split()
    by_word, again = tagger([words, text])  # a text is its words
    assert again == found
    assert [each[1:3] for each in by_word] == [(0, 1), (2, 3), (3, 4)]
    for one, two in zip(by_word, found, strict=True):
        assert (one.type, one.score, one.text) == (two.type, two.score, two.text)
    tagged = tagger.tags([words])[0]
    assert tagged.text == ["B-CITY", "O", "B-NAME", "B-CITY", "O"]
    assert [each.score for each in found] == [tagged.probability[n] for n in (0, 2, 3)]
    assert tagger.tags(text) == tagged
    assert tagger("\x07") == [] and tagger(["\x07", "w1"])[1][0].end == 2
    assert tagger([]) == tagger.tags([]) == []


def test_entities_score_as_the_evaluation_does(tagger, tagged, files):
    sentences = read_conll(files / "test.conll")
    guess = tagger.tags(sentences.tokens)
    report = span_report([each.text for each in guess], sentences.tags)
    assert report["f1"] == tagged.scores["test"][0]["f1"]
    right = {
        (number, *span)
        for number, tags in enumerate(sentences.tags)
        for span in spans(tags, "iob2")
    }
    found = {
        (number, *entity[:3])
        for number, entities in enumerate(tagger(sentences.tokens))
        for entity in entities
    }
    assert len(found & right) / len(right) == pytest.approx(report["recall"])
    assert len(found & right) / len(found) == pytest.approx(report["precision"])


def test_words_that_are_cut_off_are_a_warning(tagger):
    with pytest.warns(UserWarning, match="^3 words or tokens cut off: the model reads"):
        tagged = tagger.tags("w1 " * 15)
    assert tagged.probability[12:] == [0, 0, 0] and min(tagged.probability[:12]) > 0
    with pytest.warns(UserWarning, match="3 words or tokens cut off"):
        assert max(entity.end for entity in tagger("w1 " * 15)) <= 36


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classifier", {"topk": 2}, "option: unknown 'topk'; nearest: top_k"),
        ("classifier", {"top_k": 0}, "top_k: 0 should be a number at least 1"),
        ("classifier", {"top_k": "all"}, "top_k: 'all' should be an integer"),
        ("classifier", {"top_k": 1.5}, "top_k: 1.5 should be an integer"),
        ("classifier", {"temperature": 1}, "temperature: for generate, not classify"),
        ("classifier", {"context": "w1"}, "question and context: for qa, not classify"),
        ("tagger", {"top_k": 2}, "top_k: for classify, pairs, qa, generate, not tag"),
    ],
)
def test_options_are_checked(request, kind, options, message):
    with pytest.raises(InputError, match=f"^{message}[^\n]*$"):
        request.getfixturevalue(kind)("w1", **options)


def test_only_a_tagger_has_tags(classifier):
    with pytest.raises(InputError, match="^tags: for a model of tag, not classify"):
        classifier.tags("w1")


def predicted(run, source, output, **options):
    """The lines that a prediction writes."""
    given = {"run": str(run.out), "input": str(source), "output": str(output)}
    predict_files.predict(predict_files.PredictConfig(**given, **options))
    return output.read_text().splitlines()


def test_entities_are_written_as_lines_of_json(tagger, tagged, tmp_path, monkeypatch):
    def rounded(text):
        return [{**e._asdict(), "score": round(e.score, 4)} for e in tagger([text])[0]]

    text, out = "w1 w3,w2.", tmp_path / "out"
    (tmp_path / "a.txt").write_text(f"{text}\n\n{text}\n")
    lines = predicted(tagged, tmp_path / "a.txt", out, task_output="entities")
    record = {"text": text, "entities": rounded(text)}
    assert [*map(json.loads, lines)] == [record, record]
    rows = [{"id": 7, "text": text, "entities": 0}, {"text": ["w1", "w2"]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = predicted(tagged, tmp_path / "a.jsonl", out, task_output="entities")
    assert json.loads(lines[0]) == {**rows[0], "entities2": rounded(text)}
    assert json.loads(lines[1]) == {**rows[1], "entities": rounded(["w1", "w2"])}
    (tmp_path / "a.conll").write_text("w1\nw2\n\n")
    (line,) = predicted(tagged, tmp_path / "a.conll", out, task_output="entities")
    assert json.loads(line) == {"text": ["w1", "w2"], "entities": rounded(["w1", "w2"])}
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "w1"}\n'))
    assert len(predicted(tagged, "-", out, task_output="entities", format="jsonl")) == 1
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n{"txt": "w1"}\n{"text": "w1"}\n')
    with pytest.raises(InputError, match="b.jsonl:1: .*\n.*b.jsonl:2: no 'text'"):
        predicted(tagged, tmp_path / "b.jsonl", out, task_output="entities")


def test_labels_are_written_as_lines_of_json(classifier, sorted_texts, tmp_path):
    (tmp_path / "a.txt").write_text("w1 w2\n")
    source, out = tmp_path / "a.txt", tmp_path / "out"
    (line,) = predicted(sorted_texts, source, out, task_output="labels")
    labels = [
        {"label": each.text, "probability": round(each.probability, 4)}
        for each in classifier("w1 w2", top_k=2)
    ]
    assert json.loads(line) == {"text": "w1 w2", "labels": labels}
    (line,) = predicted(sorted_texts, source, out, task_output="labels", top_k=1)
    assert json.loads(line)["labels"] == labels[:1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_output": "entities"}, "task_output: entities is for tag, not classify"),
        ({"top_k": 2}, "top_k: needs task_output=labels"),
        ({"temperature": 0.5}, "temperature: for generate, not classify"),
    ],
)
def test_outputs_that_a_task_has_not_are_refused(
    sorted_texts, tmp_path, options, message
):
    with pytest.raises(InputError, match=f"^{message}"):
        predicted(sorted_texts, "-", tmp_path / "out", **options)


def test_a_tagger_writes_probabilities_in_columns_alone(tagged, tmp_path):
    options = {"task_output": "entities", "probabilities": True}
    with pytest.raises(InputError, match="^probabilities: for task_output=rows"):
        predicted(tagged, "-", tmp_path / "out", **options)


def test_a_pipeline_checks_what_it_is_given(sorted_texts, tmp_path):
    with pytest.raises(InputError, match="^batch_size: 0 should be at least 1"):
        finetune.pipeline(sorted_texts.out, batch_size=0)
    with pytest.raises(InputError, match="^num_beams: for generate, not classify"):
        finetune.pipeline(sorted_texts.out, num_beams=2)
    with pytest.raises(InputError, match="^run: .*: not a run of experiments.finetune"):
        finetune.pipeline(tmp_path)
    with pytest.raises(InputError, match="^directory: None should be the directory"):
        finetune.pipeline(None)


def test_a_pipeline_exports_its_model(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr("ffnlab.finetune.export._program", lambda model: b"program")
    files = classifier.export(tmp_path / "m.jax")
    assert [path.name for path in files] == [
        "m.jax", "m.jax.tokenizer.json", "m.jax.labels.json"
    ]  # fmt: skip
    labels = json.loads(files[2].read_text())
    assert labels["labels"] == ["even", "odd"] and labels["task"] == "classify"


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
