"""Predictions in the format of their inputs."""

import json

import pytest

from ffnlab.data import Example, read_labelled
from ffnlab.finetune.outputs import (
    Format,
    Prediction,
    answers_json,
    lists_json,
    write_predictions,
)

LABEL = Prediction("x", 0.98765)


@pytest.mark.parametrize(
    ("form", "example", "prediction", "wanted"),
    [
        (Format("text"), Example("a b"), LABEL, "x\t0.9877\ta b\n"),
        (Format("text"), Example("a", "b"), LABEL, "x\t0.9877\ta\tb\n"),
        (Format("text"), Example("a"), Prediction("two\nlines"), "two lines\n"),
        (Format("tsv"), Example("a", row=["7", "a\tb"]), LABEL, "7\ta b\tx\t0.9877\n"),
        (Format("csv"), Example("a", row=['"a"', ""]), LABEL, '"""a""",,x,0.9877\n'),
        (Format("text"), Example(["a", "b"]), Prediction(["O", "B-x"], [1.0, 0.5]),
         "a\tO\nb\tB-x\n\n"),
        (Format("text", probabilities=True), Example(["a"]), Prediction(["O"], [0.5]),
         "a\t0.5000\tO\n\n"),
        (Format("conll"), Example(["a", "b"], row=["-DOCSTART-", "a x", "b\ty"]),
         Prediction(["O", "O"], [1.0, 1.0]), "-DOCSTART-\n\na x O\nb\ty\tO\n\n"),
    ],
)  # fmt: skip
def test_lines(form, example, prediction, wanted):
    assert form.line(example, prediction) == wanted


def test_nothing_that_was_there_is_lost():
    row = {"text": "ä", "predicted": "old"}
    line = Format("jsonl").line(Example("ä", row=row), LABEL)
    assert "ä" in line
    assert json.loads(line) == {**row, "predicted2": "x", "probability2": 0.9877}
    assert Format("csv", ["text", "probability"]).head(True) == (
        "text,probability,predicted2,probability2\n"
    )
    assert Format("csv", ["text"]).head(False) == "text,predicted\n"
    assert Format("tsv").head(True) == ""


def test_json_of_lists_and_of_answers():
    pairs = [(Example("a", row=["a", "b"]), LABEL)] * 2
    assert json.loads(lists_json("dev", pairs)) == {
        "val": [["a", "b", "x", 0.9877]] * 2
    }
    assert json.loads(answers_json({"q": "ä"})) == {"q": "ä"}


FILES = {
    "a.csv": 'id,text,label\n7,"a, b",x\n8,c,y\n',
    "a.tsv": "text\tlabel\na\tx\nb\ty\n",
    "a.jsonl": '{"text": 42, "label": "x"}\n{"text": "ö", "label": "y"}\n',
    "a.json": '{"test": [["a", "x"], ["b", "y"]]}',
}


@pytest.mark.parametrize("name", FILES)
def test_what_was_read_is_written_with_predictions(write, tmp_path, name):
    path = write(FILES[name], name)
    examples = read_labelled(path, "classify", part="test")
    predictions = [Prediction("x", 0.5), Prediction("y", 0.25)]
    write_predictions(tmp_path, str(path), "test", examples, predictions)
    path = tmp_path / f"predictions-test{path.suffix}"
    if name == "a.json":
        rows = json.loads(path.read_text())["test"]
        assert rows == [["a", "x", "x", 0.5], ["b", "y", "y", 0.25]]
        return
    again = read_labelled(path, "classify")
    assert again.texts == examples.texts and again.labels == examples.labels
    for row, before, (label, p) in zip(
        again.rows, examples.rows, predictions, strict=True
    ):
        if name == "a.jsonl":
            assert row == {**before, "predicted": label, "probability": p}
        else:
            assert row == [*before, label, str(p)]


def test_tags_are_written_in_a_column_of_their_scheme(write, tmp_path):
    path = write("Ada x I-A\nran y O\n", "a.bio")
    examples = read_labelled(path, "tag")
    predictions = [Prediction(["O", "B-A"], [1.0, 0.5])]
    write_predictions(tmp_path, str(path), "dev", examples, predictions, "iob1")
    written = (tmp_path / "predictions-dev.conll").read_text()
    assert written == "Ada x I-A O\nran y O I-A\n\n"
