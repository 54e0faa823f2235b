"""What was wrong, as rows and as Markdown."""

import pytest

from ffnlab.data.examples import Examples
from ffnlab.data.squad import Questions
from ffnlab.finetune import error_rows
from tests.finetune.fake import make_task
from tests.hostile import LABELS, inlines


def test_texts_with_wrong_labels_are_sorted_by_how_sure_they_are():
    examples = Examples(["a", "b", "c"], ["x", "y", "z"], ["p", "q", "p"], [4, 5, 9])
    rows = error_rows.of_texts(examples, ["q", "q", "q"], [0.5, 0.9, 0.75])
    assert rows == [
        {"example": 3, "line": 9, "label": "p", "predicted": "q",
         "probability": 0.75, "context": "c | z"},
        {"example": 1, "line": 4, "label": "p", "predicted": "q",
         "probability": 0.5, "context": "a | x"},
    ]  # fmt: skip


SENTENCE = ["Ada", "Lovelace", "left", "Bath", "for", "New", "York", "today"]
GOLD = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-LOC", "I-LOC", "O"]


@pytest.mark.parametrize(
    ("changed", "kind", "label", "predicted", "context"),
    [
        (
            {1: "O"},
            "boundary",
            "PER Ada Lovelace",
            "PER Ada",
            "[Ada Lovelace] left Bath",
        ),
        ({3: "B-PER"}, "type", "LOC Bath", "PER Bath", "left [Bath] for"),
        ({3: "O"}, "missed", "LOC Bath", None, "left [Bath] for"),
        ({7: "B-LOC"}, "spurious", None, "LOC today", "York [today]"),
        (
            {4: "B-PER", 5: "I-PER", 6: "O"},
            "both",
            "LOC New York",
            "PER for New",
            "Bath [for New York] today",
        ),
    ],
)
def test_spans_are_wrong_in_five_ways(changed, kind, label, predicted, context):
    guess = [changed.get(n, tag) for n, tag in enumerate(GOLD)]
    lines = [*range(11, 19)]
    examples = Examples([SENTENCE], [], [GOLD], [lines])
    (row,) = error_rows.of_words(examples, [guess], [[0.5] * 8], True)
    assert (row["kind"], row["example"], row["probability"]) == (kind, 1, 0.5)
    for name, wanted in (("label", label), ("predicted", predicted)):
        parts = wanted.split(" ", 1) if wanted else [None, None]
        assert [row[name], row[f"{name}_text"]] == parts
    assert context in row["context"]
    assert SENTENCE[row["line"] - 11] in row["context"].split("[")[1].split("]")[0]


def test_every_wrong_span_is_in_one_row():
    guess = ["B-PER", "B-PER", "O", "O", "O", "B-LOC", "B-LOC", "O"]
    pairs = error_rows._span_pairs(GOLD, guess)
    assert pairs == [
        (("PER", 0, 2), ("PER", 0, 1)),
        (("PER", 0, 2), ("PER", 1, 2)),
        (("LOC", 3, 4), None),
        (("LOC", 5, 7), ("LOC", 5, 6)),
        (("LOC", 5, 7), ("LOC", 6, 7)),
    ]


def test_words_with_wrong_labels():
    examples = Examples([["a", "b"], ["c"]], [], [["X", "Y"], ["X"]], [[1, 2], [4]])
    (row,) = error_rows.of_words(
        examples, [["X", "X"], ["X"]], [[1.0, 0.5], [1.0]], False
    )
    assert row == {
        "example": 1, "line": 2, "label": "Y", "predicted": "X", "probability": 0.5,
        "label_text": "b", "predicted_text": "b", "context": "a [b]",
    }  # fmt: skip


def test_answers_that_are_no_exact_match():
    context = "x " * 200 + "the old cat " + "y " * 200
    asked = Questions(
        ["p", "q", "r"],
        ["Who?", "What?", "Why?"],
        [context] * 3,
        [["old cat"], ["old cat", "cat"], []],
        [[404], [404, 408], []],
    )
    texts = {"p": "The old cat!", "q": "", "r": "x"}
    rows = error_rows.of_answers(asked, texts, {"p": 1.0, "q": 0.25, "r": 0.5})
    assert [row["example"] for row in rows] == ["r", "q"]
    assert rows[1]["label"] == "old cat | cat" and rows[1]["f1"] == 0
    assert "the old cat y" in rows[1]["context"] and len(rows[1]["context"]) == 200
    assert rows[0]["label"] == "" and rows[0]["predicted"] == "x"


def test_generated_texts_that_differ_from_their_targets():
    examples = Examples(["a", "b"], [], ["A", "B"], [2, 3])
    (row,) = error_rows.of_generated(examples, ["A", "b"])
    assert row == {
        "example": 2, "line": 3, "label": "B", "predicted": "b", "probability": None,
        "context": "b",
    }  # fmt: skip


def test_markdown_shows_what_came_from_data_as_it_is():
    rows = [
        {"part": "dev", "example": n, "label": label, "predicted": "a|b",
         "probability": 0.987, "context": label * 99}
        for n, label in enumerate(LABELS)
    ]  # fmt: skip
    text = error_rows.as_markdown(rows, {"dev": 40, "test": 30})
    cells = {*inlines(text)}
    assert {"a|b", "0.99"} < cells and "0 of 30 examples have an error." in text
    assert f"{len(LABELS)} of 40 examples have an error." in text
    assert len(text.splitlines()) == len(LABELS) + 12
    assert not set(text) & set("\x1b\u202e")


def test_long_parts_and_contexts_are_cut():
    context = f"{'a ' * 200}[here] {'b ' * 200}"
    row = {"part": "dev", "example": 1, "predicted": None, "context": context}
    text = error_rows.as_markdown([row] * 101, {"dev": 2})
    assert "1 of 2 examples have an error; 101 errors, of which the first 100" in text
    assert text.count(r"a \[here\] b") == 100 and text.count("…") == 200
    assert "predicted" not in text


def test_a_frame_has_a_row_for_each_error():
    pandas = pytest.importorskip("pandas")
    rows = error_rows.collect(make_task(), {"dev": 0.5, "test": 0.5})
    assert [row["part"] for row in rows] == ["dev", "test"]
    frame = error_rows.as_frame(rows)
    assert isinstance(frame, pandas.DataFrame) and frame.to_dict("records") == rows
