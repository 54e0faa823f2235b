"""The names of columns that a file has where none are given."""

import pytest

from ffnlab.data.column_names import Columns


@pytest.mark.parametrize(
    ("task", "held", "wanted"),
    [
        ("classify", ["idx", "sentence", "label"], ["sentence", "label"]),
        ("classify", ["sentence", "text", "labels"], ["text", "labels"]),
        ("classify", ["sentence1", "sentence2", "label"], ["text", "label"]),
        ("pairs", ["sentence1", "sentence2", "score"],
         ["sentence1", "sentence2", "score"]),
        ("pairs", ["question1", "question2", "label"],
         ["question1", "question2", "label"]),
        ("pairs", ["question", "sentence", "label"], ["question", "sentence", "label"]),
        ("pairs", ["text", "sentence2", "label"], ["text", "text2", "label"]),
        ("tag", ["id", "tokens", "pos_tags", "ner_tags"], ["tokens", "ner_tags"]),
        ("tag", ["words", "tags"], ["words", "tags"]),
        ("generate", ["document", "summary"], ["document", "summary"]),
        ("generate", ["dialogue", "id", "target"], ["dialogue", "target"]),
    ],
)  # fmt: skip
def test_defaults(task, held, wanted):
    assert Columns().resolve(task, held).names(task) == wanted


def test_names_that_are_given_stay():
    held = ["sentence", "title", "label", "labels"]
    given = Columns("title", label="labels")
    assert given.resolve("classify", held) == given
    assert Columns(label=None).resolve("classify", held).label is None


def test_numbers_are_names_or_defaults():
    assert Columns("2").resolve("classify", ["2", "text"]).text == "2"
    assert Columns("2").resolve("classify", ["text"]).text == "text"
    assert Columns("2").resolve("classify", ["title"]).text == "2"
