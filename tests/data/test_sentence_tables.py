"""Tables with a record per word: sentences, cells and what is wrong with them."""

import re

import pytest

from ffnlab.data import Columns, read_labelled
from ffnlab.errors import InputError

NAME = "a.csv"  # of what `write` writes
FIRST = "Sentence #,Word,POS,Tag\n1,Ada,NNP,B-per\n,ran,VB,O\n2,He,PRP,O\n"

SAME = {
    "numbers in first rows": FIRST,
    "numbers in every row": FIRST.replace("\n,", "\n1,"),
    "names": FIRST.replace("1,", "Sentence: 1,").replace("2,", "Sentence: 2,"),
    "another order": "Tag,Word,Sentence #\nB-per,Ada,1\nO,ran,\nO,He,2\n",
    "an index": ",Sentence #,Word,Tag\n0,1,Ada,B-per\n1,,ran,O\n2,2,He,O\n",
    "simpletransformers": ("sentence_id,words,labels\n0,Ada,B-per\n0,ran,O\n1,He,O\n"),
    "semicolons": FIRST.replace(",", ";"),
    "quotes": FIRST.replace("Ada", '"Ada"').replace("Sentence #", '"Sentence #"'),
    "blanks around cells": FIRST.replace(",", " , "),
    "blank lines": FIRST.replace("\n2", "\n\n2") + "\n",
    "CRLF and a mark": "\ufeff" + FIRST.replace("\n", "\r\n"),
    "no first number": FIRST.replace("1,Ada", ",Ada"),
}


@pytest.mark.parametrize("case", SAME)
def test_sentences_are_those_of_the_numbers(write, case):
    found = read_labelled(write(SAME[case]), "tag")
    assert found.texts == [["Ada", "ran"], ["He"]]
    assert found.labels == [["B-per", "O"], ["O"]] and found.scheme == "iob2"


def test_a_number_after_none_begins_a_sentence(write):
    text = "Sentence #,Word,Tag\n1,a,O\n,b,O\n1,c,B-x\n"
    assert read_labelled(write(text), "tag").texts == [["a", "b"], ["c"]]


def test_cells_hold_separators_quotes_and_lines(write):
    text = 'Sentence #,Word,Tag\n1,",",O\n,"""",O\n,"a\nb",B-x\n2,c,O\n'
    found = read_labelled(write(text), "tag")
    assert found.texts == [[",", '"', "a\nb"], ["c"]]
    assert found.lines == [[2, 3, 4], [6]]
    tabs = 'Sentence #\tWord\tTag\n1\t"\tO\n1\ta,b\tB-x\n'
    found = read_labelled(write(tabs, "a.tsv"), "tag")
    assert found.texts == [['"', "a,b"]]
    assert found.rows[0].about.startswith("a table between tabs, sentences from Sent")
    assert "quotes are text" in found.rows[0].about


def test_columns_go_by_name_or_number(write):
    for columns in (Columns("Word", label="POS"), Columns("2", label="3")):
        found = read_labelled(write(FIRST), "tag", columns)
        assert found.labels == [["NNP", "VB"], ["PRP"]] and found.scheme is None


BAD = {
    "a cell less": (FIRST + "3,a,O\n", ":5: expected 4 cells, as the header has"),
    "an open quote": (FIRST + '3,"a,X,O\n', ":5: unexpected end of data; check"),
    "no word": (FIRST + "3,,X,O\n", ":5: column 2 is empty; expected a token or tag"),
    "no tag": (FIRST + "3,a,X,\n", ":5: column 4 is empty"),
    "no header": ("1,Ada,O\n", ":1: expected a column that numbers the sentences"),
    "header alone": ("Sentence #,Word,Tag\n", ":1: no sentence"),
    "no usual words": ("Sentence #,Wort,Tag\n1,a,O\n", "^text_column: .*: none of"),
    "no usual tags": ("Sentence #,Word,Art\n1,a,O\n", "^label_column: .*: none of"),
    "a NUL byte": (FIRST + "3,\0,X,O\n", ":5: a NUL byte"),
    "Windows-1252": (
        (FIRST + "3,Århus,X,O\n,é,X,O\n").encode("cp1252"),
        ":5: 2 lines are not UTF-8; such tables are often in Windows-1252, and `iconv "
        "-f WINDOWS-1252 -t UTF-8 a.csv > utf8.csv` converts them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line(write, case):
    text, message = BAD[case]
    message = message if message[0] == "^" else re.escape(message)
    with pytest.raises(InputError, match=message) as caught:
        read_labelled(write(text), "tag")
    assert "\n" not in str(caught.value)
