"""JSON in every layout: the same examples, and what cannot be read by its number."""

import json

import pytest

from ffnlab.data.examples import Columns, read_labelled
from ffnlab.data.json_files import document, read_json_rows
from ffnlab.errors import InputError

NAME = "a.json"
ROWS = [{"text": "hi", "label": "x"}, {"text": "bye", "label": "y"}]
LISTS = [["hi", "x"], ["bye", "y"]]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
LAYOUTS = {  # the text, and what is reported
    "lines": (LINES, "JSON lines"),
    "one line": (json.dumps(ROWS[0]), "JSON lines"),
    "array": (json.dumps(ROWS), "JSON: an array of objects"),
    "indented": (json.dumps(ROWS, indent=2), "JSON: an array of objects"),
    "indented objects": ("\n".join(json.dumps(row, indent=1) for row in ROWS),
                         "JSON: objects, written as lines"),
    "lists": (json.dumps(LISTS), "JSON: an array of lists"),
    "data": (json.dumps({"version": "é", "data": ROWS}),
             "JSON: data, an array of objects"),
    "data of lists": (json.dumps({"data": LISTS}), "JSON: data, an array of lists"),
    "parts": (json.dumps({"train": ROWS, "validation": ROWS[:1]}),
              "JSON: train, an array of objects"),
    "columns": (json.dumps({"text": ["hi", "bye"], "label": ["x", "y"]}),
                "JSON: columns, written as an array of objects"),
    "columns of pandas": (
        json.dumps({"text": {"0": "hi", "1": "bye"}, "label": {"0": "x", "1": "y"}}),
        "JSON: columns, written as an array of objects"),
    "split of pandas": (
        json.dumps({"columns": ["text", "label"], "index": [0, 1], "data": LISTS}),
        "JSON: columns and data, written as an array of objects"),
}  # fmt: skip


@pytest.mark.parametrize("saved", ["\n", "\r\n"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same(write, name, saved):
    text, note = LAYOUTS[name]
    read = read_labelled(write("\ufeff" + text.replace("\n", saved)), "classify")
    count = 1 if name == "one line" else 2
    assert read.texts == ["hi", "bye"][:count] and read.labels == ["x", "y"][:count]
    assert read.layout.note == note


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_is_read_again(write, name):
    file = read_json_rows(write(LAYOUTS[name][0]))
    lines = [json.dumps(row) for _, row in file.rows]
    text = document(file.around, lines) if file.kind == "json" else "\n".join(lines)
    again = read_json_rows(write(text, "b.json"))
    assert [row for _, row in again.rows] == [row for _, row in file.rows]
    if name == "data":
        assert json.loads(text)["version"] == "é"


def test_an_array_in_a_file_of_lines_is_an_array(write):
    read = read_labelled(write(LAYOUTS["indented"][0], "a.jsonl"), "classify")
    assert read.texts == ["hi", "bye"]
    assert read.layout.note == "JSON: an array of objects"
    read = read_labelled(write(LINES, "a.ndjson"), "classify")
    assert read.layout.kind == "jsonl" and read.layout.note == ""


def test_parts_have_several_names(write):
    path = write(json.dumps({"train": LISTS, "validation": LISTS[:1]}))
    assert read_labelled(path, "classify", part="dev").texts == ["hi"]
    assert read_labelled(path, "classify", part=None).layout.part == "dev"


SENTENCES = {
    "objects": [{"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]},
                {"tokens": ["Yes"], "ner_tags": ["O"]}],
    "rows of words": [[0, "Ada", "B-PER"], [0, "ran", "O"], ["1", "Yes", "O"]],
    "lists": [[["Ada", "ran"], ["B-PER", "O"]], [["Yes"], ["O"]]],
    "columns": {"tokens": [["Ada", "ran"], ["Yes"]],
                "ner_tags": [["B-PER", "O"], ["O"]]},
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences(write, name):
    read = read_labelled(write(json.dumps(SENTENCES[name])), "tag")
    assert read.texts == [["Ada", "ran"], ["Yes"]]
    assert read.labels == [["B-PER", "O"], ["O"]]
    assert read.lines[0] == ([1, 2] if name == "rows of words" else [1, 1])


def test_one_sentence_is_a_row_and_no_table(write):
    read = read_labelled(write('{"tokens": ["a", "b"], "tags": ["O", "O"]}'), "tag")
    assert read.texts == [["a", "b"]] and read.layout.kind == "jsonl"


def test_lists_of_pairs_and_labels_of_any_kind(write):
    read = read_labelled(write('[["a", "b", 0], ["c", "d", true]]'), "pairs")
    assert (read.texts, read.pairs) == (["a", "c"], ["b", "d"])
    assert read.labels == ["0", "true"]
    text = '{"text": "a", "label": false}\n{"text": "b", "label": true}\n'
    assert read_labelled(write(text), "classify").labels == ["false", "true"]


def test_tags_that_are_numbers_need_names(write):
    path = write('{"tokens": ["Ada", "ran"], "ner_tags": [1, 0]}\n')
    what = "a.json:1: 'ner_tags' has numbers; give their names .* label_names=O,B-PER"
    with pytest.raises(InputError, match=what):
        read_labelled(path, "tag")
    read = read_labelled(path, "tag", names=["O", "B-PER", "I-PER"])
    assert read.labels == [["B-PER", "O"]] and read.scheme == "iob2"
    assert read_labelled(path, "tag", Columns(label=None)).labels == []
    with pytest.raises(InputError, match="a.json:1: label 1 is not a number below 1"):
        read_labelled(path, "tag", names=["O"])


def test_labels_that_are_numbers_may_have_names(write):
    path = write("text,label\na,1\nb,no\nc,0\n", "a.csv")
    read = read_labelled(path, "classify", names=["no", "yes"])
    assert read.labels == ["yes", "no", "no"]
    with pytest.raises(InputError, match="a.csv:3: label 'no' is not a number below 2"):
        read_labelled(path, "classify", names=["A", "B"])


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("classify", '[{"text": "a"}]', "a.json:1: no 'label'; there is text"),
        (
            "classify",
            '[{"text": "a", "label": "b"}, 3]',
            "a.json:2: expected an object",
        ),
        (
            "classify",
            '[["a", "b"], {"text": "a"}]',
            "a.json:2: expected a list of JSON",
        ),
        ("classify", '{"data": [["a"]]}', "a.json: data:1: expected a pair"),
        ("classify", '{"data": [], "b": 1}', "a.json:1: no example in it"),
        ("classify", "7", "a.json: expected an array or an object of JSON"),
        ("classify", '{"a": [1], "b": [1, 2]}', "no list 'train'; there is a, b. Exp"),
        ("classify", "[\n{]", "a.json:2: not JSON"),
        ("classify", '{\n"text": "a"\n}\n{\n}\n', "a.json:4: no 'text'; there is not"),
        ("classify", '{"text": "a", "label": "b"}\n{"text"\n', "a.json:2: not JSON"),
        ("pairs", '[["a", "b"]]', r"a.json:1: expected a list \[text, text, label\]"),
        ("tag", '[[0, "a"]]', r"a.json:1: expected a list \[sentence, word, tag\]"),
        ("tag", '[[0, "a", "O"], [0, " ", "O"]]', "a.json:2: expected a list"),
        ("tag", '[[["a"], ["O", "O"]]]', "a.json:1: 1 words and 2 tags"),
        ("tag", '[[["a"], 3]]', "a.json:1: 'label' should be a list"),
        ("tag", '[{"tokens": ["a"], "tags": [true]}]', "'tags' should be a list"),
    ],
)
def test_what_cannot_be_read_is_named(write, task, text, message):
    with pytest.raises(InputError, match=message):
        read_labelled(write(text), task)
