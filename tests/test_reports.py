"""Reports of labels, strict entities against a second way to find them; answers."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab import reports, tags
from ffnlab.data.questions import Questions
from ffnlab.errors import InputError

TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
sentences = st.lists(st.lists(st.sampled_from(TAGS), max_size=8), max_size=5)


def entities(row):
    """Strict IOB2: what begins with B- and goes on with I- of its type."""
    found, place = set(), 0
    while place < len(row):
        end = place + 1
        if row[place].startswith("B-"):
            while end < len(row) and row[end] == "I-" + row[place][2:]:
                end += 1
            found.add((row[place][2:], place, end))
        place = end if row[place].startswith("B-") else place + 1
    return found


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(gold=sentences, seed=st.integers(0, 99))
def test_strict_entities(gold, seed):
    rng = np.random.default_rng(seed)
    guess = [[*rng.choice(TAGS, len(row))] for row in gold]
    for row in (*gold, *guess):
        assert tags.spans(tags.strict(row), "iob2") == entities(row)
    pairs = [(entities(g), entities(t)) for g, t in zip(guess, gold, strict=True)]
    right = sum(len(g & t) for g, t in pairs)
    total = sum(len(g) + len(t) for g, t in pairs)
    found = reports.spans(guess, gold)
    assert found["strict"] == pytest.approx(2 * right / total if total else 0.0)


def test_classes_of_a_small_table():
    found = reports.classes([0, 0, 1, 1, 2], [0, 1, 1, 1, -1], ["a", "b", "c"])
    assert found["accuracy"] == 0.6
    assert found["types"]["a"] == {
        "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1.0,
    }  # fmt: skip
    assert found["types"]["b"]["recall"] == pytest.approx(2 / 3)
    assert found["macro"] == pytest.approx((2 / 3 + 0.8 + 0.0) / 3)
    assert found["weighted"] == pytest.approx((2 / 3 + 3 * 0.8) / 4)
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_words_count_o_like_any_other():
    found = reports.words([["O", "B-A"], ["O"]], [["O", "O"], ["O"]], TAGS)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["types"]["O"]["recall"] == pytest.approx(2 / 3)


def asked(*golds):
    ids, some = [str(n) for n in range(len(golds))], ["?"] * len(golds)
    starts = [[0] * len(gold) for gold in golds]
    return Questions(ids, some, some, [*map(list, golds)], starts)


@pytest.mark.parametrize(
    ("guess", "golds", "exact", "f1"),
    [
        ("The Cat", ["cat"], 1, 1),
        ("the  end\n", ["END."], 1, 1),
        ("U.S.A.", ["usa"], 1, 1),
        ("well-known", ["well known"], 0, 0),  # hyphens go, and the words grow together
        ("another theory", ["other ory"], 0, 0),  # articles are whole words
        ("\u201ccat\u201d", ["cat"], 0, 0),  # quotes that are not of ASCII stay
        ("caf\u00e9", ["cafe"], 0, 0),
        ("stra\u00dfe", ["STRASSE"], 0, 0),  # small letters, not folded ones
        ("cat sat", ["the cat"], 0, 2 / 3),
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # a word counts as often as in both
        ("a b", ["c", "b d", "a b"], 1, 1),  # without the article it is `b`
        ("x y", ["x", "x z w"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("the", ["cat"], 0, 0),
        ("", [], 1, 1),
        ("!", [], 1, 1),
        ("cat", [], 0, 0),
        ("", ["the", "cat"], 0, 0),  # one of which nothing is left does not count
        ("an", ["the"], 1, 1),
    ],
)
def test_answers_one_by_one(guess, golds, exact, f1):
    found = reports.answers({"0": guess}, asked(golds))
    assert found["exact"] == exact and found["f1"] == pytest.approx(f1)


def test_answers_are_told_apart_by_whether_there_is_one():
    found = reports.answers(
        {"0": "cat", "1": "a big dog", "2": "", "3": "x", "9": ""},
        asked(["cat"], ["dog"], [], []),
    )
    assert found["exact"] == 0.5 and found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert found["types"] == {
        "answerable": {"exact": 0.5, "f1": pytest.approx(5 / 6), "support": 2.0},
        "unanswerable": {"exact": 0.5, "f1": 0.5, "support": 2.0},
    }
    assert list(reports.answers({"0": "x"}, asked(["x"]))["types"]) == ["answerable"]
    with pytest.raises(InputError, match="question '1' has no prediction"):
        reports.answers({"0": "cat"}, asked(["cat"], []))
