"""Pipelines: results of one input and of many, and the same as lines of JSON."""

import functools
import io
import json
import sys

import numpy as np
import pytest

from ffnlab import finetune
from ffnlab.data import read_conll
from ffnlab.data.tags import spans
from ffnlab.errors import InputError
from ffnlab.finetune import finetuned_model, predict_files
from ffnlab.finetune.metrics import span_report


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """Reads the model of a run once for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(finetuned_model.read_finetuned)
        patch.setattr(finetuned_model, "read_finetuned", read)
        yield


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


def without_scores(entities):
    """Returns entities without their scores, which batches of other sizes round."""
    return [each._replace(score=0.0) for each in entities]


def check_scores(one, two):
    pairs = [(a.score, b.score) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-5)


def test_entities_are_found_by_character_and_by_word(tagger):
    text = " w1 w3\tw2   w4\nw3 "
    found = tagger(text)
    assert [text[each.start : each.end] for each in found] == ["w1", "w2", "w4"]
    assert [each.text for each in found] == ["w1", "w2", "w4"]
    assert [each.type for each in found] == ["CITY", "NAME", "CITY"]
    words = text.split()
    by_word, again = tagger([words, text])  # a text is its words
    assert without_scores(again) == without_scores(found)
    check_scores(again, found)
    assert [each[1:3] for each in by_word] == [(0, 1), (2, 3), (3, 4)]
    kinds = [[(each.type, each.text) for each in one] for one in (by_word, found)]
    assert kinds[0] == kinds[1]
    check_scores(by_word, found)
    tagged = tagger.tags([words])[0]
    assert tagged.text == ["B-CITY", "O", "B-NAME", "B-CITY", "O"]
    scores = [tagged.probability[n] for n in (0, 2, 3)]
    np.testing.assert_allclose([each.score for each in found], scores, rtol=1e-5)
    assert tagger.tags(text).text == tagged.text
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
