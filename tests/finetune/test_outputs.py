"""Predictions in the format of their inputs."""

import json

import numpy as np
import pytest

from ffnlab.data import Example, read_labelled
from ffnlab.data.json_files import document
from ffnlab.data.tagged_lines import TaggedLines
from ffnlab.data.targets import Targets
from ffnlab.finetune.outputs import (
    Format,
    Prediction,
    answers_json,
    is_finite,
    write_predictions,
)
from ffnlab.finetune.target_outputs import LabelSet, Score, label_set

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
        (Format("conll"), Example(["a", "b"], row=TaggedLines(
            ["-DOCSTART-\n", "a x\n", "b\ty"], [1, 2])),
         Prediction(["O", "O"], [1.0, 1.0]), "-DOCSTART-\na x O\nb\ty\tO"),
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
    line = Format("json").line(Example("a", row=["a", "b"]), LABEL)
    text = document(('{"val": [\n', "\n]}\n"), [line] * 2)
    assert json.loads(text) == {"val": [["a", "b", "x", 0.9877]] * 2}
    assert json.loads(answers_json({"q": "ä"})) == {"q": "ä"}


def test_rows_of_words_have_a_tag_each():
    example = Example(["Ada", "ran"], row=([0, "Ada", 1], [0, "ran", 0]))
    tagged = Prediction(["B-A", "O"], [0.5, 0.25])
    line = Format("json", scheme="iob1").line(example, tagged)
    assert line == '[0, "Ada", 1, "I-A", 0.5],\n[0, "ran", 0, "O", 0.25]\n'
    example = Example(["Ada"], row=[["Ada"], ["O"]])
    line = Format("json").line(example, Prediction(["O"], [0.5]))
    assert line == '[["Ada"], ["O"], ["O"], [0.5]]\n'


def test_a_label_breaks_no_line_of_text():
    label = Prediction("a\tb\r\nc", 0.5)
    assert Format("text").line(Example("t"), label) == "a b c\t0.5000\tt\n"
    assert Format("text").line(Example("t"), Prediction("a\rb")) == "a b\n"


TABLES = {  # a table, and what stands before the predictions in the written one
    "a.csv": b'\xef\xbb\xbfid,text,label\r\n 7 ,"a\r\nb",x\r\n8,  c  ,y',
    "a.tsv": b'text\tlabel\n 5" disk \tx\nb\ty\n',
    "b.tsv": b'text\tlabel\n"a ""b"""\tx\nb\ty\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_records_come_out_byte_by_byte(write, tmp_path, name):
    examples = read_labelled(write(TABLES[name], name), "classify")
    predictions = [Prediction('a "b"', 0.5), Prediction("c,d", 0.25)]
    write_predictions(tmp_path, name, "test", examples, predictions)
    written = (tmp_path / f"predictions-test{name[1:]}").read_bytes()
    end = b"\r\n" if b"\r\n" in TABLES[name] else b"\n"
    sign = b"," if name == "a.csv" else b"\t"
    quoted = b'"a ""b"""', b'"c,d"' if name == "a.csv" else b"c,d"
    labels = (b'a "b"', b"c,d") if name == "a.tsv" else quoted
    cells = [b"predicted" + sign + b"probability", labels[0] + sign + b"0.5",
             labels[1] + sign + b"0.25"]  # fmt: skip
    for cell in cells:
        assert written.count(sign + cell + end) == 1
        written = written.replace(sign + cell + end, end)
    assert written.removesuffix(end) == TABLES[name].removesuffix(end)


def test_parquet_comes_back_with_all_its_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "tokens": [["Ada"], ["ran", "off"], ["x"]],
        "ner_tags": [["O"], ["B-A", "O"], ["O"]],
    }
    table = pa.table({**columns, "n": pa.array([1, 2, None], pa.int8())})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    examples = read_labelled(path, "tag").subset([1, 2])
    predictions = [Prediction(["B-A", "O"], [0.5, 0.25]), Prediction(["O"], [1.0])]
    write_predictions(tmp_path, str(path), "dev", examples, predictions, "bioes")
    again = parquet.read_table(tmp_path / "predictions-dev.parquet")
    assert again.column_names == ["tokens", "ner_tags", "n", "predicted", "probability"]
    assert again.schema.field("n").type == pa.int8()
    assert again["predicted"].to_pylist() == [["S-A", "O"], ["O"]]
    assert again["probability"].to_pylist() == [[0.5, 0.25], [1.0]]
    assert again["n"].to_pylist() == [2, None]


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
    assert written == "Ada x I-A O\nran y O I-A\n"


SETS = [LabelSet([], []), LabelSet(["x", "ö|y"], [0.98765, 0.5])]


@pytest.mark.parametrize(
    ("kind", "separator", "lines"),
    [
        ("csv", "|", ["1,a,,\n", '2,"b, c",x|ö|y,0.9877|0.5\n']),
        ("tsv", ";", ["1\ta\t\t\n", "2\tb, c\tx;ö|y\t0.9877;0.5\n"]),
        ("tsv", None, ["1\ta\t[]\t[]\n", '2\tb, c\t["x", "ö|y"]\t[0.9877, 0.5]\n']),
    ],
)
def test_sets_of_labels_are_cells(kind, separator, lines):
    form = Format(kind, ["id", "text"], separator=separator)
    rows = [Example("a", row=["1", "a"]), Example("b, c", row=["2", "b, c"])]
    pairs = zip(rows, SETS, strict=True)
    assert [form.line(*pair) for pair in pairs] == lines


def test_numbers_and_sets_are_lines_of_text_and_rows_of_json():
    one, two = Example("a"), Example("a", "b")
    assert Format("text").line(one, Score(2.3456789)) == "2.34568\ta\n"
    assert Format("text").line(two, Score(-1e-9)) == "-1e-09\ta\tb\n"
    assert (
        Format("text", separator="|").line(two, SETS[1]) == "x|ö|y\t0.9877|0.5\ta\tb\n"
    )
    row = Example("a", row={"text": "a"})
    line = Format("jsonl", separator="|").line(row, SETS[1])
    assert json.loads(line) == {
        "text": "a", "predicted": ["x", "ö|y"], "probability": [0.9877, 0.5]
    }  # fmt: skip
    assert json.loads(Format("jsonl").line(row, Score(2.5))) == {
        "text": "a", "predicted": 2.5
    }  # fmt: skip


def test_numbers_and_sets_that_are_not_finite_are_refused():
    nan = float("nan")
    unsure = label_set(np.array([nan, 0.9]), ["x", "y"], 0.5)
    for prediction in (Score(nan), Score(float("inf")), unsure, [Score(1.0), unsure]):
        assert not is_finite(prediction)
    for prediction in (Score(0.0), *SETS):
        assert is_finite(prediction)


def test_parquet_gains_lists_of_labels_and_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    columns = {"text": ["a", "b"], "label": [["x"], []]}
    parquet.write_table(pa.table(columns), path)
    targets = Targets("multi_label_classification")
    examples = read_labelled(path, "classify", targets=targets)
    assert examples.labels == [["x"], []]
    for predictions, wanted in (
        (SETS, [[], ["x", "ö|y"]]),
        ([LabelSet([], [])] * 2, [[], []]),
        ([Score(0.5), Score(2.0)], [0.5, 2.0]),
    ):
        write_predictions(tmp_path, str(path), "dev", examples, predictions)
        again = parquet.read_table(tmp_path / "predictions-dev.parquet")
        assert again["predicted"].to_pylist() == wanted
