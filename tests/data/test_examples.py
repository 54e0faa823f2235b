"""Labelled texts from every format, clean and not."""

import json

import pytest

from ffnlab.data.examples import Columns, read_labelled
from ffnlab.data.labels import label_ids, label_names
from ffnlab.errors import InputError

NAME = "a.tsv"
CLEAN = "text\tlabel\nhello you\tgreeting\nbye\tparting\n"


RECORDS = [{"text": "hello you", "label": "a"}, {"text": "bye", "label": "b"}]
FILES = {  # the task, and a clean file
    "a.conll": ("tag", "Ada B-PER\nsings O\n\nYes O\n"),
    "a.csv": ("classify", 'text,label\n"hello, you",a\nbye,b\n'),
    "a.tsv": ("classify", CLEAN),
    "a.jsonl": ("classify", "".join(json.dumps(row) + "\n" for row in RECORDS)),
    "a.json": (
        "classify",
        json.dumps({"train": [["hello", "a"], ["b", "c"]]}, indent=1),
    ),
}
DIRT = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a mark": lambda text: "\ufeff" + text,
    "both": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "trailing blanks": lambda text: text.replace("\n", " \t \n"),
    "blanks at the end": lambda text: text + "\n \n\t\n\n",
    "no last line end": str.rstrip,
    "tabs alone": lambda text: text.replace("\n\n", "\n\t\n"),
}


@pytest.mark.parametrize("dirt", DIRT)
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_however_it_was_saved(write, name, dirt):
    task, text = FILES[name]
    clean = read_labelled(write(text, name), task)
    assert len(clean.texts) == 2 and len(clean.labels) == 2
    dirty = read_labelled(write(DIRT[dirt](text), name), task)
    assert dirty[:5] == clean[:5]  # a tab at the end begins an empty column


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_lines_of_blanks_are_skipped_and_counted(write, name):
    task, text = FILES[name]
    clean = read_labelled(write(text, name), task)
    spread = read_labelled(write("\n" + text.replace("\n", "\n\t\n \n"), name), task)
    assert spread[:3] == clean[:3]
    assert spread.lines == [3 * line - 1 for line in clean.lines]
    assert read_labelled(write(text.replace("\n", "\r"), name), task) == clean


def test_a_cell_in_quotes_keeps_its_lines(write):
    found = read_labelled(
        write('text,label\n"a\n\nb", x \n"c", y\n', "a.csv"), "classify"
    )
    assert found.texts == ["a\n\nb", "c"]


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


def test_tags_of_i_alone_are_io(write):
    found = read_labelled(write("a I-X\nb I-X\n\nc O\nd I-Y\n", "a.conll"), "tag")
    assert found.labels == [["B-X", "I-X"], ["O", "B-Y"]] and found.scheme == "io"
    assert label_names(found, "tag") == ["O", "B-X", "I-X", "B-Y", "I-Y"]


def test_columns_of_parts_of_speech_are_labels_of_words(write):
    found = read_labelled(write("a DET\n( -LRB-\n\nb NOUN\n", "a.conll"), "tag")
    assert found.labels == [["DET", "-LRB-"], ["NOUN"]] and found.scheme is None
    assert label_names(found, "tag") == ["-LRB-", "DET", "NOUN"]
    found = read_labelled(write("a O\nb PER\n", "b.conll"), "tag")
    assert found.labels == [["O", "PER"]] and found.scheme is None


def test_columns_of_conll_go_by_number(write):
    path = write("1 a DT O\n2 b NN B-X\n", "a.conll")
    found = read_labelled(path, "tag", Columns("2", label="3"))
    assert found.texts == [["a", "b"]] and found.labels == [["DT", "NN"]]
    with pytest.raises(InputError, match="^label_column: .*: 'pos': columns of CoNLL"):
        read_labelled(path, "tag", Columns(label="pos"))


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
        (
            "a.tsv",
            "hello you\ta\n",
            "label_column name it, or number it without a header): unk",
        ),
        ("a.tsv", "text\tlabel\n", "a.tsv:1: no example in it"),
        ("a.csv", "text,label\n\n", "a.csv:1: no example in it"),
        (
            "a.csv",
            "text;label\na;b\n",
            "a.csv:1: one column, with ';' in it; expected 2",
        ),
        ("a.tsv", "text,label\na,b\n", "with ',' in it; expected 2 or more, tabs"),
        ("a.csv", "text\nlabel\n", "a.csv:1: one column; expected 2 or more, commas"),
        ("a.tsv", "\ntext\tlabel\ttext\na\tb\tc\n", "a.tsv:2: column: two"),
        ("a.csv", "text,lable\n", "without a header): unknown 'label'; nearest: lable"),
        ("a.tsv", "text\tlab\0el\na\n", "a.tsv:1: a NUL byte"),
        ("a.csv", '"text,label\na,b\n', "a.csv:1: unexpected end of data; check"),
        ("a.csv", 'text,label\n"a,b\n', "check the quotes"),
        ("a.jsonl", '{"text": "a"\n', "a.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": "a"}\n', "a.jsonl:1: no 'label'; there is text"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected an object"),
        ("a.jsonl", '{"text": 1.5, "label": "a"}\n', "'text' should be a text"),
        ("a.json", '{"val": []}', "no list 'train'; there is val"),
        ("a.json", '{"train": [["a"]]}', "train:1: expected a pair"),
        ("a.json", '{"train": {"a": "b"}, "val": []}', "no list 'train'; there is val"),
        ("a.json", '{"train": [],\n"train": []}', "a.json: 'train' is there twice"),
        ("a.json", '{"train": [],\n"b"}', "a.json:2: not JSON"),
        ("a.json", '{"train": []}', "a.json:1: no example in it"),
        ("a.txt", "a", "expected .csv, .tsv, .jsonl, .json, .parquet or .arrow for"),
        ("a.tsv", b"text\tlabel\n\xff\tx\n", "a.tsv:2: not UTF-8"),
    ],
)
def test_bad_files_are_refused(write, name, text, message):
    with pytest.raises(InputError) as caught:
        read_labelled(write(text, name), "classify")
    assert message in str(caught.value)


TABLE = {b"a": "expected 2 fields, found 1", b"\xff,b": "not UTF-8", b",x": "is empty"}
OBJECT = b'{"text": "a", "label": "b"'
MALFORMED = {  # what is wrong in a line
    "a.conll": {
        b"word": "found one column",
        b"a x O": "expected 2 columns, as in line 1, found 3",
        b"a X-LOC": "expected a tag in the last column",
        b"\xff O": "not UTF-8",
        b"a\0 O": "a NUL byte",
    },
    "a.csv": {
        **TABLE,
        b"a,b,c": "expected 2 fields, found 3",
        b'"a"b,c': "check the quotes",
        b"a\0,b": "a NUL byte",
    },
    "a.tsv": {line.replace(b",", b"\t"): what for line, what in TABLE.items()},
    "a.jsonl": {
        OBJECT: "not JSON",
        OBJECT + b', "text": "c"}': "'text' is there twice",
        b'{"text": "a"}': "no 'label'; there is text",
        b'{"text": " ", "label": "b"}': "'text' is empty",
        b'{"text": "\\ud800", "label": "b"}': "half of a surrogate pair",
        b'{"text": null, "label": "b"}': "should be a text or a whole number",
        b"[" * 100_000: "goes too deep",
        b"9" * 5000: "too long a number",
        b"\xff": "not UTF-8",
    },
    "tags.jsonl": {
        b'{"text": ["a", "b"], "label": ["O"]}': "2 words and 1 tags",
        b'{"text": ["a", 1], "label": ["O", "O"]}': "should be a list of words",
        b'{"text": ["a", ""], "label": ["O", "O"]}': "none blank",
        b'{"text": "a", "label": ["O"]}': "should be a list of words",
        b'{"text": [], "label": []}': "should be a list of words",
    },
    "spans.jsonl": {
        b'{"text": ["a"], "label": ["B"]}': "found 'B' at index 0",
        b'{"text": ["a", "b"], "label": ["O", "X-PER"]}': "found 'X-PER' at index 1",
    },
    "a.json": {
        b'["a"]': "expected a pair",
        b'["a", " "]': "is empty",
        b'[" ", "a"]': "expected a pair",
        b'["a", 1.5]': "expected a pair",
        b'{"text": "a"}': "expected a list of JSON",
    },
}
GOOD = {
    "a.conll": b"a O",
    "a.csv": b"text,label",
    "a.tsv": b"text\tlabel",
    "a.jsonl": b'{"text": "a", "label": "b"}',
    "tags.jsonl": b'{"text": ["a"], "label": ["O"]}',
    "spans.jsonl": b'{"text": ["a"], "label": ["B-PER"]}',
    "a.json": b'["a", "b"]',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_bad_line_is_told_with_its_number_up_to_twenty(write, name):
    kinds = list(MALFORMED[name].items())
    bad = [kinds[i % len(kinds)] for i in range(25)]
    task = "classify" if name.startswith("a.") and name != "a.conll" else "tag"
    if name == "a.json":
        listed = b", ".join([GOOD[name], *(line for line, _ in bad)])
        text, lines = b'{"train": [' + listed + b"]}", range(2, 27)
    else:  # two good lines, and a blank one before each bad one
        text = b"\n".join([GOOD[name], GOOD[name], *(b"\n" + line for line, _ in bad)])
        lines = range(4, 54, 2)
    with pytest.raises(InputError) as caught:
        read_labelled(write(text, name), task)
    told = str(caught.value).split("\n")
    assert len(told) == 21 and told[20].endswith(": and 5 more")
    for number, said, (_, what) in zip(lines, told[:20], bad, strict=False):
        assert f"{name}: train:{number}: " in said or f"{name}:{number}: " in said
        assert what in said


def test_an_open_quote_is_told_beside_the_lines_before_it(write):
    with pytest.raises(InputError) as caught:
        read_labelled(write('text,label\na\n\n"b,c\nd,e\n', "a.csv"), "classify")
    told = str(caught.value).split("\n")
    assert "a.csv:2: expected 2 fields" in told[0] and "a.csv:4: unexpected" in told[1]
    assert len(told) == 2


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_text_file_is_refused(write, tmp_path, name):
    task, text = FILES[name]
    for content, message in (
        (text.encode("utf-16"), f"{name}:1: UTF-16 text; save the file as UTF-8"),
        (text.encode("utf-16-le"), "a NUL byte; expected UTF-8 text"),
        (b"", f"{name}: the file is empty"),
        (b"\xef\xbb\xbf", f"{name}:1: no"),
        (b"\n\t\n", f"{name}:"),
    ):
        with pytest.raises(InputError) as caught:
            read_labelled(write(content, name), task)
        assert message in str(caught.value)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    with pytest.raises(InputError, match="a directory; give a file inside it"):
        read_labelled(tmp_path / "folder" / name, task)
    with pytest.raises(InputError, match="no such file"):
        read_labelled(tmp_path / "folder" / f"no-{name}", task)


def test_columns_by_number_are_checked(write):
    for columns, number in ((Columns("1", label="3"), 3), (Columns("0", label="1"), 0)):
        with pytest.raises(InputError, match=f"a.tsv:1: column {number} of 2; columns"):
            read_labelled(write(CLEAN), "classify", columns)
    with pytest.raises(InputError, match="a.tsv:1: 'label' looks like a header; give"):
        read_labelled(write(CLEAN), "classify", Columns("1", label="2"))


@pytest.mark.parametrize(
    ("text", "column", "note"),
    [
        ("note,text\nx,hello\n", "text", "columns text"),
        ("x,hello\n", "2", "no header; text in column 2"),
    ],
)
def test_texts_without_labels_are_read_by_number_or_by_a_known_header(
    write, text, column, note
):
    read = read_labelled(write(text, "a.csv"), "classify", Columns("2", label=None))
    assert read.texts == ["hello"] and bool(read.header) == (column == "text")
    assert (read.layout.columns.text, read.layout.note) == (column, note)


@pytest.mark.parametrize("header", ["label,message", "x,Text"])
def test_a_header_of_texts_by_number_is_refused(write, header):
    path = write(f"{header}\nham,hello\n", "a.csv")
    with pytest.raises(InputError, match="a.csv:1: '.*' looks like a header; give"):
        read_labelled(path, "classify", Columns("2", label=None))
    path = write("dialogue,summary\nA: hi B: hello,greetings\n", "a.csv")
    with pytest.raises(InputError, match="a.csv:1: 'summary' looks like a header"):
        read_labelled(path, "generate", Columns("1", label="2"))
    kinds = write("a page,text\na photo,image\n", "a.csv")  # a label of that name
    assert len(read_labelled(kinds, "classify", Columns("1", label="2")).texts) == 2


def test_lists_of_texts_are_no_pairs(write):
    with pytest.raises(InputError, match=r"train:1: expected a list \[text, text, lab"):
        read_labelled(write('{"train": [["a", "b"]]}', "a.json"), "pairs")


def test_examples_are_joined(write):
    found = read_labelled(write(CLEAN), "classify")
    both = found.joined(found.subset([1]))
    assert both.texts == ["hello you", "bye", "bye"] and both.lines == [2, 3, 3]


def test_examples_keep_what_they_came_in(write):
    found = read_labelled(
        write("id,text,label\n7,hello,a\n8,bye,b\n", "a.csv"), "classify"
    )
    assert found.header == ["id", "text", "label"]
    assert found.subset([1]).rows == [["8", "bye", "b"]]
    assert found.joined(found).rows == ()
    record = {"text": "hello", "label": 1, "id": 7}
    found = read_labelled(write(json.dumps(record), "a.jsonl"), "classify")
    assert found.rows == [record] and found.header is None
    text = "-DOCSTART- O\n\na DT O\n\n-DOCSTART-\nb\tNN\tB-X\n"
    found = read_labelled(write(text, "a.conll"), "tag")
    assert [row.lines for row in found.rows] == [
        ["-DOCSTART- O\n", "\n", "a DT O\n", "\n"],
        ["-DOCSTART-\n", "b\tNN\tB-X\n"],
    ]


def test_labels_that_training_has_not_shown(write):
    train = read_labelled(write(CLEAN), "classify")
    names = label_names(train, "classify")
    other = train._replace(labels=["greeting", "question"])
    with pytest.raises(
        InputError, match=r"dev.tsv: .* 'question' \(1, first in line 3\)"
    ):
        label_ids("dev.tsv", other, names)
    assert label_ids("dev.tsv", other, names, ignore=True) == [0, -1]
    many = train._replace(labels=[*"abcdefghij", "a"], lines=[*range(5, 16)])
    match = r"show: 'a' \(2, first in line 5\), .* and 2 more; correct"
    with pytest.raises(InputError, match=match):
        label_ids("dev.tsv", many, names)
    with pytest.raises(InputError, match="nothing to tell apart"):
        label_names(train._replace(labels=["a", "a"]), "classify")


def test_names_that_are_given_keep_their_order(write):
    train = read_labelled(write(CLEAN), "classify")
    given = ["parting", "greeting", "question"]
    assert label_names(train, "classify", given=given) == given
    assert label_names(train, "classify", given=["a"]) == ["greeting", "parting"]


def test_a_file_of_another_ending_is_known_by_its_first_line(write):
    for text in (CLEAN, CLEAN.replace("\t", ","), '{"sentence": "a", "label": 1}\n'):
        found = read_labelled(write(text, "a.txt"), "classify")
        assert found.layout.note.startswith(found.layout.kind)
    found = read_labelled(write('{"words": ["a"], "tags": ["O"]}\n', "b.txt"), "tag")
    assert found.texts == [["a"]]
