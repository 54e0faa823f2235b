"""Reports: entities found in a second way, answers and texts worked out by hand."""

import math
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data import tags
from ffnlab.data.squad import Questions
from ffnlab.errors import InputError
from ffnlab.finetune import metrics

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
    found = metrics.span_report(guess, gold)
    assert found["strict"] == pytest.approx(2 * right / total if total else 0.0)


def test_classes_of_a_small_table():
    found = metrics.classification_report(
        [0, 0, 1, 1, 2], [0, 1, 1, 1, -1], ["a", "b", "c"]
    )
    assert found["accuracy"] == 0.6
    assert found["types"]["a"] == {
        "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1.0,
    }  # fmt: skip
    assert found["types"]["b"]["recall"] == pytest.approx(2 / 3)
    assert found["macro"] == pytest.approx((2 / 3 + 0.8 + 0.0) / 3)
    assert found["weighted"] == pytest.approx((2 / 3 + 3 * 0.8) / 4)
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_words_count_o_like_any_other():
    found = metrics.word_report([["O", "B-A"], ["O"]], [["O", "O"], ["O"]], TAGS)
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
    found = metrics.question_answering_report({"0": guess}, asked(golds))
    assert found["exact"] == exact and found["f1"] == pytest.approx(f1)


def test_answers_are_told_apart_by_whether_there_is_one():
    found = metrics.question_answering_report(
        {"0": "cat", "1": "a big dog", "2": "", "3": "x", "9": ""},
        asked(["cat"], ["dog"], [], []),
    )
    assert found["exact"] == 0.5 and found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert found["types"] == {
        "answerable": {"exact": 0.5, "f1": pytest.approx(5 / 6), "support": 2.0},
        "unanswerable": {"exact": 0.5, "f1": 0.5, "support": 2.0},
    }
    assert list(
        metrics.question_answering_report({"0": "x"}, asked(["x"]))["types"]
    ) == ["answerable"]
    with pytest.raises(InputError, match="question '1' has no prediction"):
        metrics.question_answering_report({"0": "cat"}, asked(["cat"], []))


def test_scores_of_texts_by_hand():
    found = metrics.generation_report(
        ["the cat sat on a mat"], ["the cat sat on the mat"]
    )
    # Of 6, 5, 4 and 3 runs of one to four words, 5, 3, 2 and 1 are right.
    bleu = math.prod([5 / 6, 3 / 5, 2 / 4, 1 / 3]) ** 0.25
    assert found["bleu"] == pytest.approx(bleu)
    assert found["rouge1"] == found["rougeL"] == pytest.approx(5 / 6)
    assert found["rouge2"] == pytest.approx(3 / 5)
    assert found["exact"] == 0.0
    # Runs are counted through all texts: this is no mean over texts.
    both = metrics.generation_report(
        ["the cat sat on a mat", "a dog sat by the door"],
        ["the cat sat on the mat", "a dog sat by the door"],
    )
    bleu = math.prod([11 / 12, 8 / 10, 6 / 8, 4 / 6]) ** 0.25
    assert both["bleu"] == pytest.approx(bleu)
    assert both["rouge2"] == pytest.approx((3 / 5 + 1) / 2) and both["exact"] == 0.5
    # A short text is punished: exp(1 - 6 / 5).
    short = metrics.generation_report(
        ["the cat sat on the"], ["the cat sat on the mat"]
    )
    assert short["bleu"] == pytest.approx(math.exp(1 - 6 / 5))
    assert short["rouge1"] == pytest.approx(10 / 11)  # precision 1, recall 5/6
    # Of letters one and two in a row, precision 1/2 and 0/1; orders without any do
    # not count, and the mean of 1/2 and 0 is 1/4 for precision and recall alike.
    assert metrics.generation_report(["ab"], ["ac"])["chrf"] == pytest.approx(0.25)


def test_published_scores():  # the example of rouge-score; stems are words here
    quick = "The quick brown fox jumps over the lazy dog"
    found = metrics.generation_report(
        ["The quick brown dog jumps on the log."], [quick]
    )
    precision, recall = 6 / 8, 6 / 9
    assert found["rouge1"] == pytest.approx(2 / (1 / precision + 1 / recall))
    precision, recall = 5 / 8, 5 / 9
    assert found["rougeL"] == pytest.approx(2 / (1 / precision + 1 / recall))


ascii_texts = st.text(st.characters(max_codepoint=127), max_size=20)


@hypothesis.given(found=ascii_texts, true=ascii_texts)
def test_words_of_ascii_are_those_of_the_library(found, true):
    from rouge_score.rouge_scorer import RougeScorer

    plain = RougeScorer(["rouge1", "rougeL"]).score(true, found)
    ours = metrics.generation_report([found], [true])
    for kind, score in plain.items():
        assert ours[kind] == score.fmeasure


def test_scores_of_texts_are_means_and_from_0_to_1():
    gold = ["the cat sat on the mat", "Ἡ γάτα κάθισε", "naïve café"]
    same = metrics.generation_report(gold, [f" {text}\n" for text in gold])
    assert same == pytest.approx(dict.fromkeys(same, 1.0))
    assert list(same) == ["bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact"]
    half = metrics.generation_report(["Ἡ γάτα κάθισε", ""], gold[1:])
    assert half["rouge1"] == half["exact"] == 0.5
    none = metrics.generation_report(["", "x"], ["a b c d", "y"])
    assert none == dict.fromkeys(none, 0.0)


@pytest.mark.parametrize("name", ["sacrebleu", "rouge_score.rouge_scorer"])
def test_scores_of_texts_need_their_libraries(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'ffnlab\[generate\]'"):
        metrics.generation_report(["a"], ["a"])


def test_entities_of_random_tags_are_scored_as_by_seqeval():
    """Both modes, 4,000 sentences; tests/seqeval/make.py wrote what it says of them."""
    with np.load(Path(__file__).parents[1] / "seqeval" / "reference.npz") as file:
        reference = dict(file)
    names = ["O", *(f"{prefix}-{kind}" for kind in "ABC" for prefix in "BI")]
    keys = ("precision", "recall", "f1")
    for number in range(len(reference["gold"])):
        gold, guess = (
            [[names[tag] for tag in row if tag >= 0] for row in reference[part][number]]
            for part in ("gold", "guess")
        )
        found = metrics.span_report(guess, gold)
        wanted = reference["default"][number]
        got = [found[key] for key in keys]
        got += [found["macro"], found["weighted"]]
        np.testing.assert_allclose(got, [*wanted[0], *wanted[1:3, 2]], atol=1e-12)
        kept = [[tags.strict(row) for row in rows] for rows in (guess, gold)]
        strict = tags.span_f1(*kept, "iob2")
        for name, scores in (("default", found), ("strict", strict)):
            for kind, row in zip("ABC", reference[name][number][3:], strict=True):
                each = scores["types"].get(kind)
                assert (each is None) == np.isnan(row).all()
                if each:
                    np.testing.assert_allclose(
                        [each[key] for key in keys], row, atol=1e-12
                    )
        np.testing.assert_allclose(found["strict"], reference["strict"][number][0, 2])
