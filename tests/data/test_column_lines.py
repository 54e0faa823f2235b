"""Columns of tagged words are told from plain texts by their lines."""

import itertools

import pytest

from ffnlab.data.column_lines import are_columns

ROW = "1\tHi\thi\tINTJ" + "\t_" * 6
LABELS = ["O", "B-PER", "I-PER"]
SHOWN = {
    "tags last": ("Ada _ B-PER\nran _ O\n", True),
    "another scheme": ("Ada S-PER\nran E-PER\n", True),
    "tags to fill in": ("Ada _ _\nran _ _\n", True),
    "tabs": ("New York\tx\nran\ty\n", True),
    "one line with tabs": ("New York\tB-PER\n", True),
    "a comment": ("# id 4 x\nAda\n", True),
    "a document start": ("-DOCSTART- X\nAda\n", True),
    "CoNLL-U": (ROW, True),
    "a table": ("Sentence #,Word\n1,Ada\n", True),
    "words and blank lines": ("Ada\nran\n\nHe\n", True),
    "words alone": ("Ada\nran\nHe\n", False),
    "sentences": ("Ada lives in Rome .\nHe ran .\n", False),
    "a sentence that ends in a tag": ("blood group O\nis common .\n", False),
    "one sentence that ends in a tag": ("blood group O\n", False),
    "as many words": ("Ada ran\nBob sat\n", False),
    "nothing": ("\n", False),
}


@pytest.mark.parametrize("case", SHOWN)
def test_columns_are_known_by_their_lines(case):
    text, wanted = SHOWN[case]
    assert are_columns(text.splitlines(True), LABELS) == wanted


def test_no_more_lines_are_taken_than_are_needed():
    endless = itertools.chain(["Ada ran .\n"], itertools.repeat(""))
    assert not are_columns(endless, LABELS)
    two = iter(["Ada O\n", "ran O\n", "now O\n"])
    assert are_columns(two, LABELS, eager=True) and next(two) == "now O\n"
    words = iter(["Ada\n", "ran\n"])
    assert not are_columns(words, LABELS, eager=True)


def test_labels_may_be_in_another_column():
    assert are_columns(["Ada NNP x", "ran VBD y"], ["NNP", "VBD"], column=1)
    assert not are_columns(["Ada NNP x", "ran VBD y"], ["NNP", "VBD"])
