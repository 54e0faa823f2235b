"""Targets that are numbers, and lists of labels, from files of every format."""

import json

import pytest

from ffnlab.data.column_names import Columns
from ffnlab.data.examples import read_labelled
from ffnlab.data.targets import Targets, check_classes
from ffnlab.errors import InputError

SCORES, SETS = Targets("regression"), Targets("multi_label_classification")
SIGNS = Columns(label="toxic,rude", indicators=("toxic", "rude"))


@pytest.fixture
def read(tmp_path):
    def read_text(text, name, targets=None, columns=None, **options):
        path = tmp_path / name
        path.write_text(text)
        return read_labelled(path, "classify", columns, targets=targets, **options)

    return read_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,label\none,2.5\ntwo, -3 \n"),
        ("a.tsv", "text\tscore\none\t2.5\ntwo\t-3e0\n"),
        ("a.jsonl", '{"text": "one", "label": 2.5}\n{"text": "two", "label": "-3"}\n'),
        ("a.json", '[["one", 2.5], ["two", -3]]'),
    ],
)
def test_scores_are_numbers(read, name, text):
    examples = read(text, name, SCORES)
    assert examples.labels == [2.5, -3.0] and examples.texts == ["one", "two"]


@pytest.mark.parametrize("bad", ["nan", "inf", "1e39", "high", "4,5", "0x1", "--1"])
@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl"])
def test_a_score_that_is_no_finite_number_is_named_with_its_line(read, name, bad):
    rows = [("one", "2.5"), ("two", bad), ("three", "1")]
    text = "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    if name == "a.jsonl":
        text = "".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows)
    line = 3 if name == "a.tsv" else 2
    match = f"{name}:{line}: column 'label' should be a finite number, got '{bad}'$"
    with pytest.raises(InputError, match=match):
        read(text, name, SCORES)


@pytest.mark.parametrize("bad", ["null", "true", "[1]", '{"a": 1}', '" "'])
def test_other_values_of_json_are_no_scores(read, bad):
    with pytest.raises(InputError, match=r"a.jsonl:1: .*should be a finite number"):
        read(f'{{"text": "one", "label": {bad}}}\n', "a.jsonl", SCORES)


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", "text,label\na,x|y\nb,\nc,y\n", None),
        ("a.csv", "text,label\na,\"['x', 'y']\"\nb,[]\nc,\"['y']\"\n", None),
        ("a.tsv", 'text\tlabel\na\t["x", "y"]\nb\t[]\nc\ty\n', None),
        ("a.csv", "1,a,x | y\n2,b,\n3,c,y\n", Columns("2", label="3")),
        (
            "a.jsonl",
            '{"text": "a", "labels": ["x", "y"]}\n{"text": "b", "labels": []}\n'
            '{"text": "c", "labels": ["y"]}\n',
            None,
        ),
        ("a.json", '[["a", ["x", "y"]], ["b", []], ["c", ["y"]]]', None),
        ("a.csv", "text,toxic,rude\na,1,1\nb,0,0.0\nc,False,True\n", SIGNS),
        (
            "a.jsonl",
            '{"text": "a", "toxic": 1, "rude": true}\n'
            '{"text": "b", "toxic": 0, "rude": 0.0}\n'
            '{"text": "c", "toxic": false, "rude": "1"}\n',
            SIGNS,
        ),
    ],
)
def test_labels_come_as_lists_cells_and_columns(read, name, text, columns):
    first, second = ("toxic", "rude") if columns is SIGNS else ("x", "y")
    examples = read(text, name, SETS, columns)
    assert examples.labels == [[first, second], [], [second]]


def test_numbers_of_labels_have_names(read):
    text = '{"text": "a", "label": [1, 0]}\n{"text": "b", "label": []}\n'
    read_with = {"names": ["x", "y"], "targets": SETS}
    assert read(text, "a.jsonl", **read_with).labels == [["y", "x"], []]
    assert read(text, "a.jsonl", SETS).labels == [["1", "0"], []]
    with pytest.raises(InputError, match=r"a.jsonl:1: label '2' is not a number below"):
        read('{"text": "a", "label": [0, 2]}\n', "a.jsonl", **read_with)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ("3.5", "should be a list of labels, or a text with '|' between them, got 3.5"),
        ("null", "should be a list of labels, .* got None"),
        ('["x", "x"]', "has 'x' twice; 0 and 1 for each need a column each"),
        ('["x", " "]', "has a label that is blank or no text"),
        ('["x", null]', "has a label that is blank or no text"),
        ('[["x"]]', "has a label that is blank or no text"),
        ('"x||y"', "has a label that is blank or no text"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(read, bad, match):
    match = match.replace("|", r"\|")
    with pytest.raises(InputError, match=f"a.jsonl:1: column 'label' {match}"):
        read(f'{{"text": "a", "label": {bad}}}\n', "a.jsonl", SETS)


def test_columns_of_signs_hold_nothing_else(read):
    for bad in ("-1", "", "2", "yes"):
        text = f"text,toxic,rude\na,1,0\nb,{bad},1\n"
        match = f"a.csv:3: column 'toxic' should be 0 or 1, got '{bad}'$"
        with pytest.raises(InputError, match=match):
            read(text, "a.csv", SETS, SIGNS)


def test_another_separator_is_not_passed_over(read):
    text = 'text,label\na,"x,y"\nb,y\nc,x\n'
    with pytest.raises(
        InputError, match="some labels have ',' in them; give label_sep"
    ):
        read(text, "a.csv", SETS)
    assert read(text, "a.csv", SETS, part="dev").labels[0] == ["x,y"]
    assert read(text, "a.csv", SETS._replace(separator=",")).labels[0] == ["x", "y"]
    assert read(text, "a.csv", SETS._replace(separator="|")).labels[0] == ["x,y"]
    once = 'text,label\na,"Health, Mind"\nb,Art\n'
    assert read(once, "a.csv", SETS).labels == [["Health, Mind"], ["Art"]]


@pytest.mark.parametrize(
    ("label", "match"),
    [
        ('["x"]', r"'label' is a list, \['x'\]; problem_type=multi_label_class"),
        ("2.5", "'label' is the number 2.5; problem_type=regression predicts numbers"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "array"])
def test_other_targets_of_json_are_refused_in_one_line(read, label, match, form):
    rows = [f'{{"text": "a", "label": {label}}}'] * 30
    text, name = ("\n".join(rows), "a.jsonl")
    if form == "array":
        text, name = "[" + ",".join([f'["a", {label}]'] * 30) + "]", "a.json"
    with pytest.raises(InputError, match=f"{name}:1: {match}") as caught:
        read(text, name)
    assert "\n" not in str(caught.value)


def test_scores_are_not_taken_for_classes():
    for labels in (["1.5", "2", "3.0"] * 9, list(map(str, range(30)))):
        with pytest.raises(InputError, match="which look like scores; give problem_ty"):
            check_classes("a.csv", labels, "score")
    with pytest.raises(InputError, match=r"has lists of labels, such as \['x'\]; give"):
        check_classes("a.csv", ["['x']", "['y']"], "label")
    for labels in (["0.5", "1.5"], ["1.0", "2.0", "3.0"], ["a", "1.5", "2.5"]):
        assert check_classes("a.csv", labels, "label") == ""
    note = check_classes("a.csv", list(map(str, range(25))) * 4, "label")
    assert note == (
        "25 different numbers from 0 to 24 as classes; if they are scores, give "
        "problem_type=regression"
    )
