"""Labelled texts from every format, clean and not."""

import json

import pytest

from ffnlab.data.labelled import Columns, label_ids, label_names, read_labelled
from ffnlab.errors import InputError

NAME = "a.tsv"
CLEAN = "text\tlabel\nhello you\tgreeting\nbye\tparting\n"


@pytest.mark.parametrize(
    "text",
    [
        CLEAN,
        CLEAN.replace("\n", "\r\n"),
        "\ufeff" + CLEAN,
        CLEAN.replace("\n", "  \n"),
        CLEAN.replace("\nbye", "\n\t\nbye"),
        CLEAN + "\n\n",
    ],
)
def test_a_table_is_the_same_however_it_was_saved(write, text):
    found = read_labelled(write(text), "classify")
    assert found.texts == ["hello you", "bye"]
    assert found.labels == ["greeting", "parting"]


def test_every_format_gives_the_same(write):
    rows = [("hello, you", "a"), ('say "bye"', "b")]
    csv = write('label,text\na,"hello, you"\nb,"say ""bye"""\n', "a.csv")
    lines = [json.dumps({"text": t, "label": k, "more": 1}) for t, k in rows]
    jsonl = write("\n".join(lines), "a.jsonl")
    bare = write("".join(f"{k}\t{t}\n" for t, k in rows), "bare.tsv")
    lists = write(json.dumps({"train": rows, "val": [rows[0]], "oos": []}), "a.json")
    for found in (
        read_labelled(csv, "classify"),
        read_labelled(jsonl, "classify"),
        read_labelled(bare, "classify", Columns(text="2", label="1")),
        read_labelled(lists, "classify"),
    ):
        assert list(zip(found.texts, found.labels, strict=True)) == rows
    assert read_labelled(lists, "classify", part="dev").texts == ["hello, you"]


def test_pairs(write):
    found = read_labelled(
        write("a\tb\tsame\nx\ty\t1\n"), "pairs", Columns("a", "b", "same")
    )
    assert (found.texts, found.pairs, found.labels) == (["x"], ["y"], ["1"])


CONLL = "Ada I-PER\nLee I-PER\nsings O\n\nRome I-LOC\nRome B-LOC\n"


@pytest.mark.parametrize(
    "text",
    [
        CONLL,
        CONLL.replace("\n\n", "\n\t\n"),
        CONLL.replace(" ", "\t").replace("\n", "\r\n"),
        "-DOCSTART- -X- O O\n\n" + CONLL.replace(" ", " NN NP "),
    ],
)
def test_tags_are_converted_to_iob2(write, text):
    found = read_labelled(write(text, "a.conll"), "tag")
    assert found.labels == [["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC"]]
    assert found.scheme == "iob1"
    assert label_names(found, "tag") == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_tags_of_json_lines_and_without_spans(write):
    record = {"words": ["a", "b"], "tags": ["DET", "NOUN"]}
    found = read_labelled(
        write(json.dumps(record), "a.jsonl"), "tag", Columns("words", label="tags")
    )
    assert found.scheme is None and label_names(found, "tag") == ["DET", "NOUN"]
    assert label_ids("a", found, ["NOUN", "DET"]) == [[1, 0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "text\tlabel\na\n", "a.tsv:2: expected 2 fields, found 1"),
        ("a.tsv", "text\tlabel\n\tx\n", "a.tsv:2: column text is empty"),
        ("a.tsv", "txt\tlabel\na\tb\n", "unknown 'text'; nearest: txt"),
        ("a.tsv", "text\tlabel\n", "a.tsv:1: no example in it"),
        ("a.csv", 'text,label\n"a,b\n', "check the quotes"),
        ("a.jsonl", '{"text": "a"\n', "a.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": "a"}\n', "a.jsonl:1: no 'label'; there is text"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected an object"),
        ("a.jsonl", '{"text": 1.5, "label": "a"}\n', "'text' should be a text"),
        ("a.json", '{"val": []}', "no list 'train'; there is val"),
        ("a.json", '{"train": [["a"]]}', "train:1: expected a pair"),
        ("a.txt", "a", "expected .csv, .tsv, .jsonl or .json"),
        ("a.tsv", b"text\tlabel\n\xff\tx\n", "a.tsv:2: not UTF-8"),
    ],
)
def test_bad_files_are_refused(write, name, text, message):
    with pytest.raises(InputError) as caught:
        read_labelled(write(text, name), "classify")
    assert message in str(caught.value)


def test_every_bad_line_is_told_up_to_twenty(write):
    text = "text\tlabel\n" + "a\n" * 25
    with pytest.raises(InputError) as caught:
        read_labelled(write(text), "classify")
    assert str(caught.value).count("\n") == 20 and "and 5 more" in str(caught.value)


def test_labels_that_training_has_not_shown(write):
    train = read_labelled(write(CLEAN), "classify")
    names = label_names(train, "classify")
    other = train._replace(labels=["greeting", "question"])
    with pytest.raises(InputError, match=r"dev.tsv: .* 'question' \(1\)"):
        label_ids("dev.tsv", other, names)
    assert label_ids("dev.tsv", other, names, ignore=True) == [0, -1]
    with pytest.raises(InputError, match="nothing to tell apart"):
        label_names(train._replace(labels=["a", "a"]), "classify")
