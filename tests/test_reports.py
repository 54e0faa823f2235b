"""Reports of labels, and strict entities against a second way to find them."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab import reports, tags

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
