"""What training reads, predict reads: every format, with the same texts."""

import dataclasses
import datetime
import io
import json
import sys

import pytest

from ffnlab.data import Columns, formats, read_conll, read_labelled, read_questions
from ffnlab.data.examples import FORMATS
from ffnlab.data.tagged_lines import TaggedLines
from ffnlab.errors import InputError
from ffnlab.finetune import inputs
from ffnlab.finetune.usage import Usage
from tests.conftest import SHARED

CASES = SHARED.parent / "cases" / "files"
QUESTIONS = [
    {"id": f"q{n}", "question": f"Who {n}?", "context": "Ada sang.",
     "answers": {"text": ["Ada"], "answer_start": [0]}} for n in range(2)
]  # fmt: skip
SQUAD = [
    {"context": row["context"], "qas": [
        {**row, "answers": [{"text": "Ada", "answer_start": 0}]}]}
    for row in QUESTIONS
]  # fmt: skip


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CONLLU = "# text = Hi\n1-2\tHi" + "\t_" * 8 + "\n1\tNew York\tx\tX" + "\t_" * 6 + "\n\n"
FILES = {  # task, name, content, columns if they are not the usual ones
    "table with commas": ("classify", "a.csv", 'label,text\na,"hi, you"\nb,"a\n\nb"\n'),
    "table with tabs": ("classify", "a.tsv", 'text\tlabel\n"hi\tgreet\nbye\tpart\n'),
    "table by number": ("classify", "a.tsv", "a\thi\nb\tbye\n",
                        Columns("2", label="1")),
    "JSON lines": ("classify", "a.jsonl", lines({"text": "größer", "label": "a"},
                                                {"text": "b", "label": 1})),
    "numbers as text": ("classify", "a.jsonl", lines({"text": 42, "label": "a"},
                                                     {"text": -7, "label": "b"})),
    "JSON lists": ("classify", "a.json", json.dumps(
        {"train": [["no", "x"]], "val": [], "test": [["hi", "a"], ["bye", "b"]]})),
    "texts to write": ("generate", "a.csv", "text,label\nhi,hallo\nbye,ciao\n"),
    "lists to write": ("generate", "a.json", json.dumps({"train": [["hi", "hallo"]]})),
    "table of pairs": ("pairs", "a.tsv", "one\ttwo\tlabel\nhi\tyou\ta\n",
                       Columns("one", "two")),
    "commas of pairs": ("pairs", "a.csv", "text,text2,label\nhi,you,a\n"),
    "JSON lines of pairs": ("pairs", "a.jsonl", lines(
        {"text": "hi", "text2": 3, "label": "a"})),
    "marked entities": ("marks", "a.tsv", "text\tlabel\n<a>Ada</a> <b>sings</b>\tx\n"),
    "marks in JSON lines": ("marks", "a.jsonl", lines(
        {"text": "<b>Ada</b> in <a>Rome</a>", "label": "x"})),
    "CoNLL": ("tag", "a.conll", "-DOCSTART- O\n\nAda B-PER\nsings O\n\nYes O\n"),
    "CoNLL of more columns": ("tag", "a.conll", "1\tAda\tNNP\tO\n2\tran\tVB\tO\n",
                              Columns("2", label="3")),
    "CoNLL of another name": ("tag", "a.bio", "Ada B-PER\nsings O\n"),
    "CoNLL in a .tsv": ("tag", "a.tsv", "Ada\tB-PER\nsings\tO\n"),
    "CoNLL of words with blanks": ("tag", "a.conll", "Hà Nội\tB-LOC\n\n#\tO\n"),
    "CoNLL with comments": ("tag", "a.conll",
                            "# id 4 x\nAda _ _ O\n# _ _ O\n\n\n# id 5 x\n"),
    "CoNLL-U": ("tag", "a.conllu", CONLLU),
    "CoNLL-U of another name": ("tag", "a.dat", CONLLU, Columns("lemma")),
    "a table of words": ("tag", "a.csv", 'Sentence #,Word,Tag\n1,Ada,O\n,",",O\n'),
    "JSON lines of words": ("tag", "a.jsonl", lines(
        {"words": ["Ada", "sings"], "tags": ["B-PER", "O"]}),
        Columns("words", label="tags")),
    "an array": ("classify", "a.json", json.dumps(
        [{"sentence": "hi", "label": True}, {"sentence": "bye", "label": 0}])),
    "lines in a .json": ("pairs", "a.json", lines(
        {"premise": "a", "hypothesis": "b", "label": 0},
        {"premise": "c", "hypothesis": "d", "label": 1})),
    "lists of pairs": ("pairs", "a.json", '[["a", "b", 0], ["c", "d", 1]]'),
    "quoted cells": ("classify", "a.tsv", 'text\tlabel\n"a ""b"""\tx\nc\ty\n'),
    "table of tabs to write": ("generate", "a.tsv", "document\tsummary\na b\ta\n"),
    "lines to write": ("generate", "a.jsonl", lines({"article": "a", "highlights": 3})),
    "words in a .json": ("tag", "a.json", lines(
        {"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]},
        {"tokens": ["Yes"], "ner_tags": ["O"]})),
    "rows of words": ("tag", "a.json", '[[0, "Ada", "B-PER"], [0, "ran", "O"]]'),
    "flat questions": ("qa", "a.json", json.dumps({"data": QUESTIONS})),
    "an array of questions": ("qa", "a.json", json.dumps(QUESTIONS)),
    "lines of questions in a .json": ("qa", "a.json", lines(*QUESTIONS)),
    "paragraphs": ("qa", "a.json", json.dumps(SQUAD)),
    "SQuAD": ("qa", "a.json", json.dumps({"data": [{"paragraphs": SQUAD}]})),
    "JSON lines of questions": ("qa", "a.jsonl", lines(*QUESTIONS)),
}  # fmt: skip
SAVED = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a byte-order mark": lambda text: "\ufeff" + text,
    "both": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "no last line end": str.rstrip,
    "blank lines at the end": lambda text: text + "\n \n",
}


def usage_of(task, columns):
    marks = ("a", "b") if task == "marks" else ()
    task = "pairs" if task == "marks" else task
    return Usage(task, 64, "float32", columns.text, columns.pair, marks=marks)


def trained(path, task, columns):
    """Returns the texts and second texts that training reads."""
    if task == "qa":
        read = read_questions(path)
        return [*zip(read.questions, read.contexts, strict=True)]
    task = "classify" if task == "marks" else task
    read = read_labelled(path, task, columns, None)
    pairs = read.pairs or [""] * len(read.texts)
    return [*zip(read.texts, pairs, strict=True)]


def case(name):
    return (*FILES[name], Columns())[:4]


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", FILES)
def test_predict_reads_what_training_reads(write, name, saved):
    task, file, content, columns = case(name)
    path = write(SAVED[saved](content), file)
    wanted = trained(path, task, columns)
    source = inputs.open_source(str(path), usage_of(task, columns))
    assert [example[:2] for example in source.examples] == wanted and wanted


def test_every_format_that_training_reads_is_among_the_cases():
    read = {(task, file.split(".")[1]) for task, file, *_ in FILES.values()}
    for task, kinds in FORMATS.items():
        texts = [kind for kind in kinds if kind not in formats.BINARY]
        assert {(task, kind) for kind in texts} <= read
    assert {("qa", "json"), ("qa", "jsonl")} <= read


STREAMED = [n for n in FILES if case(n)[0] == "tag" or case(n)[1][2:] == "jsonl"]


@pytest.mark.parametrize("name", STREAMED)
def test_standard_input_is_read_as_a_file_is(write, monkeypatch, name):
    task, file, content, columns = case(name)
    path, usage = write(content, file), usage_of(task, columns)
    wanted = inputs.open_source(str(path), usage)
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    source = inputs.open_source("-", usage, wanted.kind)
    assert texts_and_lines(source) == texts_and_lines(wanted)


def texts_and_lines(source):
    """Returns the texts of examples, and their sources with all lines in one."""
    examples = [*source.examples]
    rows = [example.row for example in examples]
    if isinstance(rows[0], TaggedLines):
        rows = "".join(row.head * row.first + "".join(row.lines) for row in rows)
        rows += "".join(source.rest)
    return [example[:2] for example in examples], rows


@pytest.mark.parametrize("name", [n for n in FILES if case(n)[0] == "tag"])
@pytest.mark.parametrize("place", ["new.txt", "new", "-"])
def test_taggers_read_what_they_were_trained_on_without_a_telling_name(
    write, monkeypatch, name, place
):
    task, file, content, columns = case(name)
    usage = usage_of(task, columns)
    wanted = inputs.open_source(str(write(content, file)), usage)
    usage = dataclasses.replace(
        usage,
        file_format=wanted.kind,
        label_column=columns.label if columns.label.isdecimal() else None,
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    other = place if place == "-" else str(write(content, place))
    source = inputs.open_source(other, usage, labels=["O", "B-PER", "VB", "NNP"])
    assert texts_and_lines(source) == texts_and_lines(wanted)
    assert source.kind == wanted.kind


def test_sentences_are_texts_for_a_tagger_of_columns(write, monkeypatch):
    text = "Ada sings .\nHe ran\n"
    for file_format in ("conll", None):
        usage = Usage("tag", 64, file_format=file_format)
        for place in (str(write(text, "a.txt")), "-"):
            monkeypatch.setattr(sys, "stdin", io.StringIO(text))
            source = inputs.open_source(place, usage, labels=["O", "B-PER"])
            found = [example.text for example in source.examples]
            assert found == [["Ada", "sings", "."], ["He", "ran"]]
    old = Usage("tag", 64)  # of a run that did not keep the format of its files
    monkeypatch.setattr(sys, "stdin", io.StringIO("Ada O\nran O\n"))
    assert inputs.open_source("-", old, labels=["O", "B-PER"]).kind == "text"


@pytest.mark.parametrize("name", FILES)
def test_the_format_may_be_given(write, name):
    task, file, content, columns = case(name)
    path, usage = write(content, file), usage_of(task, columns)
    wanted = inputs.open_source(str(path), usage)
    other = write(content, "a.txt")
    source = inputs.open_source(str(other), usage, wanted.kind)
    assert [*source.examples] == [*wanted.examples]
    assert source[1:4] == wanted[1:4] and source.name == str(other)
    if wanted.lines:
        assert source.place(0) == wanted.place(0).replace(str(path), str(other))


SHOWN = {  # what the first line of a file without an ending shows
    "an array": "json",
    "quoted cells": "tsv",
    "table with commas": "csv",
    "table with tabs": "tsv",
    "JSON lines": "jsonl",
    "lines in a .json": "jsonl",
    "lists of pairs": "json",
    "words in a .json": "jsonl",
    "flat questions": "json",
    "an array of questions": "json",
    "JSON lines of questions": "jsonl",
    "SQuAD": "json",
}


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", SHOWN)
def test_the_first_line_shows_the_format(write, monkeypatch, name, saved):
    task, file, content, columns = case(name)
    usage, content = usage_of(task, columns), SAVED[saved](content)
    wanted = [*inputs.open_source(str(write(content, file)), usage).examples]
    source = inputs.open_source(str(write(content, "a.txt")), usage)
    assert source.kind == SHOWN[name] and [*source.examples] == wanted
    assert source.note.startswith(SHOWN[name])
    raw = io.TextIOWrapper(io.BytesIO(content.encode()))
    monkeypatch.setattr(sys, "stdin", raw)
    source = inputs.open_source("-", usage)
    assert source.note and source.name == "standard input"
    assert [*source.examples] == wanted


@pytest.mark.parametrize(
    "text",
    ["a text, as it seems\n", '{"other": 3}\n', "[laughs] hello\n", "{\n".rstrip("{\n")
     + "{a}\n", "text\n", '"text" is a word, and label none\n', "text; label\n"],
)  # fmt: skip
def test_other_first_lines_are_text(write, monkeypatch, text):
    usage = usage_of("classify", Columns())
    source = inputs.open_source(str(write(text, "a.txt")), usage)
    assert source.kind == "text" and next(source.examples).text == text.strip()
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    source = inputs.open_source("-", usage)
    assert source.kind == "text" and next(source.examples).text == text.strip()


def test_parquet_is_read_as_json_lines_are(tmp_path, write):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"tokens": ["Ada", "ran"], "day": datetime.date(2024, 1, 2), "x": 0.5},
        {"tokens": ["Yes"], "day": None, "x": float("nan")},
    ]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    for whole in (False, True):
        source = inputs.open_source(str(path), usage_of("tag", Columns()), whole=whole)
        examples = [*inputs.with_rows(source).examples]
        assert [example.text for example in examples] == [["Ada", "ran"], ["Yes"]]
        assert [example.row for example in examples] == [
            {"tokens": ["Ada", "ran"], "day": "2024-01-02", "x": 0.5},
            {"tokens": ["Yes"], "day": None, "x": None},
        ]


@pytest.mark.parametrize("column", ["text", "tokens"])  # the column of training
def test_whole_texts_of_json(write, column):
    usage = usage_of("tag", Columns(column))
    for text in (
        '[{"text": "Ada ran."}, {"text": ["Yes"]}]',
        '{"text": "Ada ran."}\n{"text": ["Yes"]}',
    ):
        source = inputs.open_source(str(write(text, "a.json")), usage, whole=True)
        assert [each.text for each in source.examples] == ["Ada ran.", ["Yes"]]


def test_a_model_of_columns_by_number_reads_json_by_the_usual_names(write):
    usage = usage_of("pairs", Columns("1", "2"))
    text = '{"text": "a", "text2": "b"}\n'
    (example,) = inputs.open_source(str(write(text, "a.jsonl")), usage).examples
    assert example[:2] == ("a", "b")


def test_labels_may_be_missing(write):
    for task, name, content in (
        ("classify", "a.csv", "text\nhi\n"),
        ("classify", "a.jsonl", '{"text": "hi"}\n'),
        ("classify", "a.json", '{"test": [["hi"]]}'),
        ("tag", "a.conll", "hi\n"),
        ("qa", "a.jsonl", '{"question": "hi", "context": "you"}\n'),
    ):
        usage = usage_of(task, Columns())
        (example,) = inputs.open_source(str(write(content, name)), usage).examples
        assert example.text in ("hi", ["hi"])


def test_examples_keep_what_they_came_in(write):
    source = inputs.open_source(
        str(write("id,text\n7,hi\n", "a.csv")), usage_of("classify", Columns())
    )
    assert source.header == ["id", "text"] and source.kind == "csv"
    assert [example.row for example in source.examples] == [["7", "hi"]]
    lists = write('{"val": [["hi", "a"]], "train": []}', "a.json")
    source = inputs.open_source(str(lists), usage_of("classify", Columns()))
    assert source.part == "dev"
    assert [example.row for example in source.examples] == [["hi", "a"]]
    squad = write(json.dumps({"data": [{"paragraphs": SQUAD}]}), "b.json")
    source = inputs.open_source(str(squad), usage_of("qa", Columns()))
    assert [example.row for example in source.examples] == ["q0", "q1"]


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        ("classify", "a.jsonl", '{"text": true}\n{"text": " "}\n[]\n',
         ["1: 'text' should be a text or a whole number", "2: 'text' is empty",
          "3: expected an object of JSON"]),
        ("pairs", "a.txt", "a\tb\na\na\t\n",
         ["2: expected two texts and one tab", "3: "]),
        ("marks", "a.txt", "<a>x</a> <b>y</b>\n\n<a>x</a>\n", ["3: expected one <b>"]),
        ("marks", "a.jsonl", '{"text": "x"}\n', ["1: expected one <a>…</a> in it"]),
        ("tag", "a.conll", "a\tb\n\nc\rd\n", ["3: a carriage return inside"]),
        ("tag", "a.jsonl", '{"text": ["a", 3]}\n', ["1: 'text' should be a list"]),
        ("qa", "a.jsonl", '{"question": "a"}\n', ["1: context should be a text"]),
        ("qa", "a.txt", "a b\n", ["1: expected question, context and one tab"]),
        ("classify", "a.json", '{"other": []}', [" no list train, val, test"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_by_line(write, task, name, content, message):
    path = write(content, name)
    with pytest.raises(InputError) as caught:
        inputs.open_source(str(path), usage_of(task, Columns()))
    found = str(caught.value).split("\n")
    assert len(found) == len(message)
    for line, wanted in zip(found, message, strict=True):
        assert line.startswith(f"{path}:{wanted}")


def test_a_tagger_of_json_lines_reads_columns(write):
    usage = usage_of("tag", Columns("words"))
    (example,) = inputs.open_source(str(write("a b\n", "a.conll")), usage).examples
    assert example.text == ["a"]


def test_files_that_people_have_are_read_as_in_training():
    if not CASES.exists():
        pytest.skip("the shared cases are not here")
    columns = {"sts.tsv": Columns("sentence1", "sentence2", "score")}
    for task, names in {
        "classify": ["cells.csv", "add.csv", "cr.csv"],
        "pairs": ["sts.tsv"],
    }.items():
        for name in names:
            where = columns.get(name, Columns())
            wanted = trained(CASES / name, task, where)
            source = inputs.open_source(str(CASES / name), usage_of(task, where))
            assert [example[:2] for example in source.examples] == wanted
    usage = Usage("tag", 64, file_format="conll")
    for name, first in {
        "cols.conll": ["Ada", "sings", "New York", "."],
        "vi.conll": ["Học sinh", "học", "ở", "Hà Nội", "."],
        "mc_test.conll": ["Dmitri", "lives", "in", "Oslo", "."],
        "kaggle.csv": ["Ada", "lives", "in", "Oslo"],
        "plain_test.txt": ["Dmitri", "lives", "in", "Oslo", "."],
    }.items():
        labels = ["O", "B-PER", "B-LOC"]
        source = inputs.open_source(str(CASES / name), usage, labels=labels)
        examples = [*source.examples]
        assert examples[0].text == first
        raw = "".join(e.row.head * e.row.first + "".join(e.row.lines) for e in examples)
        assert raw.encode() == (CASES / name).read_bytes()
        wanted = read_conll(CASES / name, plain=True).tokens
        assert [example.text for example in examples] == wanted
