"""Errors that quote names of a file: one line each, and no control of a terminal."""

import json

import pytest

from ffnlab import escape
from ffnlab.data import read_csv
from ffnlab.data.examples import Columns, read_labelled
from ffnlab.errors import InputError, choose
from tests.hostile import LABELS


def check_line(error):
    text = str(error.value)
    assert "\n" not in text and escape.terminal(text) == text


def test_names_that_are_offered_are_in_one_line():
    with pytest.raises(InputError) as error:
        choose("column", "a\nb", ["a\nc", "\x1b[2J", *LABELS])
    check_line(error)
    assert r"nearest: a\nc" in str(error.value)


def test_keys_of_a_file_are_in_one_line(tmp_path):
    path = tmp_path / "a\x1b[2J.jsonl"
    path.write_text(json.dumps({label: "x" for label in LABELS}))
    with pytest.raises(InputError) as error:
        read_labelled(str(path), "classify", Columns())
    check_line(error)
    assert all(escape.terminal(label) in str(error.value) for label in LABELS)


@pytest.mark.parametrize(
    "text",
    ['"a\n\x1b[2J","a\n\x1b[2J",y\n', 'x,y\n1,"b\nc"\n2,"b\nc"\n3,d\n4,d\n5,d\n6,d\n'],
)
def test_columns_and_classes_of_a_table_are_in_one_line(text, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_csv(path, "y", 0)
    check_line(error)
