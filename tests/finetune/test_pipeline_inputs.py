"""What a pipeline takes, and what it refuses, in one line."""

import numpy as np
import pytest

from ffnlab.data.examples import Example
from ffnlab.errors import InputError
from ffnlab.finetune.pipeline_inputs import read_inputs
from ffnlab.finetune.usage import Usage

CLASSIFY = Usage("classify", 14)
TAG = Usage("tag", 14)
PAIRS = Usage("pairs", 14, text_column="one", pair_column="two")
QA = Usage("qa", 14, text_column="question", pair_column="context")


@pytest.mark.parametrize(
    ("usage", "given", "texts", "single"),
    [
        (CLASSIFY, "a b", ["a b"], True),
        (CLASSIFY, ["a", "b"], ["a", "b"], False),
        (CLASSIFY, ("a", {"text": "b", "id": 3}), ["a", "b"], False),
        (CLASSIFY, [], [], False),
        (TAG, "a b", ["a b"], True),
        (TAG, ["a b", ["a", "b"], ("a",)], ["a b", ["a", "b"], ["a"]], False),
        (TAG, [np.array(["a", "b"])], [["a", "b"]], False),
        (TAG, np.array([["a", "b"]]), [["a", "b"]], False),
        (TAG, {"text": ["a", "b"]}, [["a", "b"]], True),
    ],
)
def test_texts_and_words_are_taken(usage, given, texts, single):
    examples, alone = read_inputs(given, usage)
    assert [each.text for each in examples] == texts and alone == single


@pytest.mark.parametrize(
    ("usage", "record"),
    [(PAIRS, {"one": "a", "two": "b"}), (QA, {"question": "a", "context": "b"})],
)
def test_pairs_are_tuples_lists_or_records(usage, record):
    assert read_inputs(("a", "b"), usage) == ([Example("a", "b")], True)
    assert read_inputs(record, usage) == ([Example("a", "b")], True)
    given = [("a", "b"), ["c", "d"], record]
    pairs = [each[:2] for each in read_inputs(given, usage)[0]]
    assert pairs == [("a", "b"), ("c", "d"), ("a", "b")]


def test_a_data_frame_is_a_list_of_records():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2], "two": ["b", "d"], "one": ["a", "c"]})
    pairs = [each[:2] for each in read_inputs(frame, PAIRS)[0]]
    assert pairs == [("a", "b"), ("c", "d")]
    texts = [each.text for each in read_inputs(frame["one"], CLASSIFY)[0]]
    assert texts == ["a", "c"]
    with pytest.raises(InputError, match="^texts: no column 'text'; there is id, two,"):
        read_inputs(frame, CLASSIFY)


WRONG = [
    (CLASSIFY, None, "expected a text or a list of texts, got None"),
    (CLASSIFY, 3, "expected a text or a list of texts, got an int, 3"),
    (CLASSIFY, b"a", "expected a text or a list of texts, got a bytes, b'a'"),
    (CLASSIFY, {"a"}, "expected a text or a list of texts, got a set"),
    (CLASSIFY, "", "text 1 should be a text that is not blank, not a blank one"),
    (CLASSIFY, " \n", "text 1 should be a text that is not blank"),
    (CLASSIFY, ["a", 3], "text 2 should be a text that is not blank, not an int, 3"),
    (CLASSIFY, ["a", None], "text 2 should be a text that is not blank, not None"),
    (CLASSIFY, ["a", ["b"]], "text 2 should be a text that is not blank, not a list"),
    (CLASSIFY, [float("nan")], "text 1 should be a text .* not a float, nan"),
    (CLASSIFY, {"txt": "a"}, "text 1 has no 'text'; there is txt"),
    (CLASSIFY, {}, "text 1 has no 'text'; there is nothing"),
    (TAG, "", "text 1 should be a text or a list of words, none blank"),
    (TAG, [[]], "text 1 should be a text or a list of words, none blank"),
    (TAG, [["a", " "]], "text 1 should be a text or a list of words, none blank"),
    (TAG, [["a", 3]], "text 1 should be a text or a list of words, none blank"),
    (TAG, [None], "text 1 should be a text or a list of words, none blank, not None"),
    (PAIRS, "ab", "text 1 should be a pair of two texts, none blank, not a str, 'ab'"),
    (PAIRS, ["ab"], "text 1 should be a pair of two texts"),
    (PAIRS, ("a", None), "text 1 should be a pair of two texts"),
    (PAIRS, [("a",)], "text 1 should be a pair of two texts"),
    (PAIRS, [("a", "b", "c")], "text 1 should be a pair of two texts"),
    (QA, [("a", "")], "text 1 should be a pair of question and context"),
    (QA, [{"question": "a", "ctx": "b"}], "text 1 has no 'context'; there is question"),
]


@pytest.mark.parametrize(("usage", "given", "message"), WRONG)
def test_what_cannot_be_used_is_one_line(usage, given, message):
    with pytest.raises(InputError, match=f"^texts: {message}[^\n]*$"):
        read_inputs(given, usage)


def test_entity_markers_are_checked():
    usage, text = Usage("pairs", 14, marks=("a", "b")), "<a>x</a> <b>y</b>"
    assert read_inputs([text], usage)[0][0].text == text
    with pytest.raises(InputError, match="text 2: expected one <b>…</b> in it"):
        read_inputs([text, "<a>x</a>"], usage)
