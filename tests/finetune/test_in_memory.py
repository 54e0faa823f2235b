"""Data frames and lists as data: what becomes of them, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.finetune import in_memory
from ffnlab.finetune.config import Config

GIVEN = {"checkpoint": "tiny", "train": "t.jsonl", "dev": "d.jsonl"}
PAIRS = {"task": "pairs", "text_column": "a", "pair_column": "b", "label_column": "c"}


def read(data, **options):
    """The rows that are written for data of train."""
    lines = in_memory.json_lines("train", data, Config(**GIVEN, **options))
    return [*map(json.loads, lines.split("\n")[:-1])]


def table(**columns):
    """What has columns as a data frame has, without pandas."""
    names = columns.pop("names", [*columns])
    kind = type("Frame", (dict,), {"columns": names})
    return kind(columns)


ROWS = [{"text": "hi\u2028é", "label": "3"}, {"text": "bye", "label": "4"}]


@pytest.mark.parametrize(
    "data",
    [
        [("hi\u2028é", 3), ("bye", 4)],
        [["hi\u2028é", "3"], ["bye", "4"]],
        [{"text": "hi\u2028é", "label": 3, "id": 7}, {"text": "bye", "label": 4}],
        {"label": [3, 4], "text": ["hi\u2028é", "bye"], "id": [1, 2]},
        table(text=np.array(["hi\u2028é", "bye"]), label=np.array([3, 4])),
        np.array([("hi\u2028é", 3), ("bye", 4)], object),
        iter([("hi\u2028é", 3), ("bye", 4)]),
    ],
    ids=["tuples", "lists", "dicts", "columns", "frame", "array", "iterator"],
)
def test_texts_with_labels_come_in_many_forms(data):
    assert read(data) == ROWS


@pytest.mark.parametrize("form", [list, dict, "frame", "datasets"])
def test_columns_have_the_names_of_files(form):
    rows = [{"id": 1, "tokens": ["Ada"], "ner_tags": ["B-PER"]}]
    columns = {name: [value] for name, value in rows[0].items()}
    data = {list: rows, dict: columns, "frame": table(**columns)}.get(form)
    if form == "datasets":  # a Dataset yields dicts, and has the names of its columns
        data = type("Dataset", (), {"__iter__": lambda self: iter(rows)})()
        data.column_names = list(columns)
    assert read(data, task="tag") == [{"tokens": ["Ada"], "ner_tags": ["B-PER"]}]


def test_labels_of_any_type_become_texts():
    labels = [True, 2.5, np.int64(7), np.str_("x"), ("a", 1), "y"]
    rows = read([("t", label) for label in labels])
    assert [row["label"] for row in rows] == list(map(str, labels))


@pytest.mark.parametrize(
    ("options", "data", "rows"),
    [
        (
            {"task": "tag"},
            [(["Ada", "ran"], ["B-PER", "O"]), {"text": ("x",), "label": [1]}],
            [
                {"text": ["Ada", "ran"], "label": ["B-PER", "O"]},
                {"text": ["x"], "label": ["1"]},
            ],
        ),
        (PAIRS, [("x", "y", 1)], [{"a": "x", "b": "y", "c": "1"}]),
        (
            PAIRS | {"marks": ("e1", "e2")},
            [("<e1>x</e1>", 1)],
            [{"a": "<e1>x</e1>", "c": "1"}],
        ),
        ({"task": "generate"}, [("x", "y")], [{"text": "x", "label": "y"}]),
        (
            {"task": "qa"},
            table(
                question=["Who?"],
                context=["Ada"],
                id=[np.int64(4)],
                answers=[{"text": np.array(["Ada"]), "answer_start": np.array([0])}],
            ),
            [
                {
                    "question": "Who?",
                    "context": "Ada",
                    "id": 4,
                    "answers": {"text": ["Ada"], "answer_start": [0]},
                }
            ],
        ),
    ],
    ids=["tag", "pairs", "marks", "generate", "qa"],
)
def test_every_task_has_its_columns(options, data, rows):
    assert read(data, **options) == rows


NAN = float("nan")
WRONG = {
    "empty list": ([], "train: it is empty; give at least one example"),
    "empty frame": (table(text=[], label=[]), "train: it is empty; give at least one"),
    "tuple": (
        (["a", "b"], ["x", "y"]),
        r"train: got tuple; give .* list\(zip\(te",
    ),
    "number": (3, "train: got int; give a file, a data frame, or a list of dicts"),
    "set": ({"a"}, "train: got set; give a file"),
    "no column": (
        table(txt=["a"], label=["x"]),
        "train: no column 'text'; there is txt",
    ),
    "no key": ([{"text": "a"}], "train: row 1: no 'label'; there is text"),
    "twice": (
        table(names=["text", "text", "label"], text=["a"], label=["x"]),
        "train: two columns are named 'text'; rename one",
    ),
    "lengths": (
        {"text": ["a", "b"], "label": ["x"]},
        "train: columns of unequal lengths: text 2, label 1",
    ),
    "no list": (
        {"text": "ab", "label": ["x"]},
        "train: column 'text' should be a list",
    ),
    "short": ([("a",)], r"train: row 1: expected 2 values \(text, label\), got 1"),
    "text": (
        ["ab"],
        r"train: row 1: expected a dict or a tuple \(text, label\), got 'a",
    ),
    "nan": ([("a", "x"), ("b", NAN)], r"train: row 2: label is missing \(nan\); drop"),
    "none": ([("a", None)], r"train: row 1: label is missing \(None\); drop the row"),
    "no text": ([(NAN, "x")], r"train: row 1: text is missing \(nan\); drop the row"),
    "blank": ([(" ", "x")], "train: row 1: text should be a text that is not blank"),
    "no label": ([("a", "")], "train: row 1: label '' is blank, or has half of a"),
    "a number": ([(7, "x")], "train: row 1: text should be a text .* got 7"),
    "a list": ([("a", ["x"])], "train: row 1: label should be one label, got a list"),
    "same": ([("a", 1), ("b", "1")], "train: row 2: label '1' and 1 before it are the"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_one_line(name):
    data, message = WRONG[name]
    with pytest.raises(InputError, match=f"^{message}[^\n]*$"):
        read(data)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("Ada ran", ["O", "O"]),
            "text should be a list, one entry per word, got 'Ada",
        ),
        ((["Ada"], "O"), "label should be a list, one entry per word, got 'O'"),
        ((["Ada", "ran"], ["O"]), "2 words and 1 tags; give one tag per word"),
        (([], []), "text should be a list of words, none blank"),
        ((["Ada", 3], ["O", "O"]), "text should be a list of words, none blank"),
        ((["Ada"], [NAN]), r"label is missing \(nan\)"),
    ],
)
def test_sentences_are_lists_of_words(row, message):
    with pytest.raises(InputError, match=f"^train: row 1: {message}[^\n]*$"):
        read([row], task="tag")


def test_up_to_twenty_rows_are_named():
    with pytest.raises(InputError) as caught:
        read([("a", None)] * 25 + [("b", "x")])
    lines = str(caught.value).split("\n")
    assert len(lines) == 21 and lines[-1] == "train: and 5 more"


def test_missing_values_of_pandas_are_missing():
    pandas = pytest.importorskip("pandas")
    for missing in (pandas.NA, pandas.NaT, np.nan, None):
        frame = pandas.DataFrame({"text": ["a", "b"], "label": ["x", missing]})
        with pytest.raises(InputError, match="^train: row 2: label is missing"):
            read(frame)
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, 0]}, index=[5, 3])
    assert [row["label"] for row in read(frame)] == ["1", "0"]
    frame["label"] = frame["label"].astype("category")
    assert [row["label"] for row in read(frame)] == ["1", "0"]
    with pytest.raises(InputError, match="^train: row 1: expected a dict or a tuple"):
        read(frame["text"])
    twice = pandas.concat([frame, frame["text"]], axis=1)
    with pytest.raises(InputError, match="^train: two columns are named 'text'"):
        read(twice)
    frame.columns = [0, 1]
    assert read(frame, text_column="0", label_column="1")[0] == {"0": "a", "1": "1"}


def test_options_build_a_configuration(tmp_path):
    given = {**GIVEN, "train": [("a", "x")], "dev": tmp_path / "d.jsonl"}
    config, values = in_memory.read_options(None, {**given, "out": tmp_path})
    assert values == {"train": [("a", "x")]} and config.out == str(tmp_path)
    assert config.train == str(tmp_path / "data" / "train.jsonl")
    assert config.dev == str(tmp_path / "d.jsonl")
    assert in_memory.read_options(config, {}) == (config, {})
    chosen, _ = in_memory.read_options(None, given)
    assert chosen.out.startswith("runs/finetune-")
    assert chosen.train == f"{chosen.out}/data/train.jsonl"


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (None, {**GIVEN, "epoch": 3}, "option: unknown 'epoch'; nearest: epochs"),
        (None, {**GIVEN, "ADDED": {}}, "option: unknown 'ADDED'"),
        (None, {}, "checkpoint: is needed"),
        (None, {"checkpoint": "tiny"}, "train: is needed"),
        (None, {**GIVEN, "dev": None}, "dev: is needed, or split to take it from"),
        (None, {**GIVEN, "train": [1], "resume": True}, "resume: out=DIRECTORY must"),
        (Config(**GIVEN), {"epochs": 3}, "epochs: given beside a Config"),
        (SimpleNamespace(), {}, "config: namespace.. should be a Config"),
    ],
)
def test_options_that_do_not_fit_are_refused(config, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        in_memory.read_options(config, options)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Config(**GIVEN | {"train": "o/data/train.jsonl", "out": "o"})


def test_values_are_files_of_the_run(config):
    with in_memory.written(config, {"train": [("a", "x")]}):
        text = Path("o/data/train.jsonl").read_text()
        Path("o/flags").write_text("")
    assert text == '{"text": "a", "label": "x"}\n'


@pytest.mark.parametrize("before", [False, True])
def test_nothing_is_left_of_a_run_that_does_not_begin(config, before):
    if before:
        Path("o").mkdir()
    with (
        pytest.raises(InputError, match="^train: row 7: no, as train has it$"),
        in_memory.written(config, {"train": [("a", "x")]}),
    ):
        path = config.train
        raise InputError(f"{path}:7: no, as {path} has it")
    assert Path("o").exists() == before and not Path("o/data").exists()
    with (
        pytest.raises(InputError, match="^train: it is empty"),
        in_memory.written(config, {"train": []}),
    ):
        raise AssertionError
    assert Path("o").exists() == before


def test_a_run_is_resumed_with_the_same_values(config):
    with in_memory.written(config, {"train": [("a", "x")]}):
        Path("o/flags").write_text("")
    again = Config(**vars(config) | {"resume": True})
    with in_memory.written(again, {"train": [("a", "x")]}):
        pass
    with (
        pytest.raises(
            InputError, match="^train: differs from o/data/train.jsonl; start"
        ),
        in_memory.written(again, {"train": [("a", "y")]}),
    ):
        raise AssertionError
    assert Path("o/data/train.jsonl").read_text() == '{"text": "a", "label": "x"}\n'
