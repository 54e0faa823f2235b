"""Altered copies of labelled texts: what changes, and what may not."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.data import tags
from ffnlab.data.augment import AUGMENTATIONS, augment, movable
from ffnlab.data.examples import Examples
from ffnlab.errors import InputError

WORDWISE = AUGMENTATIONS[:3]
LONG = " ".join(f"w{n}" for n in range(30))
TEXTS = Examples([LONG, "only", "a b c d"], [], ["x", "y", "x"], [2, 3, 5])
PAIRS = Examples(["a b c d", "e"], ["p q", "r s t"], ["1", "0"], [1, 2])


def tagged(*sentences, scheme="iob2"):
    """Examples of sentences such as `Ada/B-PER sings/O`, each on lines of its own."""
    cut = [[word.split("/") for word in each.split()] for each in sentences]
    words, labels = ([[pair[k] for pair in row] for row in cut] for k in (0, 1))
    lines = [[100 * i + j for j in range(len(row))] for i, row in enumerate(words)]
    return Examples(words, [], labels, lines, scheme)


TAGGED = tagged(
    "Ada/B-PER Lee/I-PER saw/O old/O Rome/B-LOC ./O",
    "in/O Oslo/B-LOC Bo/B-PER and/O Cy/B-PER met/O New/B-LOC York/I-LOC",
    "nothing/O here/O",
)


def copies_of(examples, *args, **options):
    """The copies alone, and that the examples come first as they are."""
    found, count = augment(examples, *args, **options), len(examples.texts)
    assert found.subset(range(count)) == examples and found.scheme == examples.scheme
    return found.subset(range(count, len(found.texts)))


def moved(before, after):
    return sum(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_swap_exchanges_words_about_so_often(rate):
    found = copies_of(TEXTS, "classify", ["swap"], copies=20, rate=rate)
    long = [text.split() for text in found.texts if len(text.split()) == 30]
    assert len(long) >= 19 and "only" not in found.texts
    assert all(sorted(words) == sorted(LONG.split()) for words in long)
    most = 2 * max(round(rate * 30), 1)
    counts = [moved(LONG.split(), words) for words in long]
    assert min(counts) >= 2 and max(counts) <= most and max(counts) > 0.6 * most
    labels = dict(zip(TEXTS.lines, TEXTS.labels, strict=True))
    assert [labels[line] for line in found.lines] == found.labels


def test_delete_leaves_out_a_share_in_order_and_never_all():
    found = copies_of(TEXTS, "classify", ["delete"], copies=200, rate=0.3)
    kept = [text.split() for text in found.texts if text.startswith("w")]
    assert abs(np.mean([len(words) for words in kept]) - 21) < 1
    for words in kept:
        places = [int(word[1:]) for word in words]
        assert places == sorted(set(places))
    found = copies_of(TEXTS, "classify", ["delete"], copies=50, rate=0.95)
    assert all(found.texts) and "only" not in found.texts
    singles = Counter(text for text in found.texts if text in "abcd")
    assert set(singles) == set("abcd")  # which one stays is drawn too


def test_the_texts_of_a_pair_are_altered_each_for_itself():
    for name in ("swap", "delete"):
        found = copies_of(PAIRS, "pairs", [name], copies=30, rate=0.3)
        assert len(found.pairs) == len(found.texts) > 30
        for text, pair, line in zip(found.texts, found.pairs, found.lines, strict=True):
            assert set(text.split()) <= set(PAIRS.texts[line - 1].split())
            assert set(pair.split()) <= set(PAIRS.pairs[line - 1].split())
            assert (text, pair) != (PAIRS.texts[line - 1], PAIRS.pairs[line - 1])


def mentions(words, row):
    """The type and words of each mention, from the left."""
    spans = sorted(tags.spans(row, "iob2"), key=lambda span: span[1])
    return [(kind, *words[start:stop]) for kind, start, stop in spans]


@pytest.mark.parametrize("name", ["swap", "delete"])
def test_spans_stay_whole_and_in_order(name):
    found = copies_of(TAGGED, "tag", [name], copies=40, rate=0.4)
    assert {row[0] // 100 for row in found.lines} == {0, 1, 2}
    for words, row, lines in zip(found.texts, found.labels, found.lines, strict=True):
        origin = lines[0] // 100
        before = TAGGED.texts[origin], TAGGED.labels[origin]
        assert mentions(words, row) == mentions(*before)
        for word, tag, line in zip(words, row, lines, strict=True):
            assert (before[0][line % 100], before[1][line % 100]) == (word, tag)
        if name == "swap":
            assert [tag == "O" for tag in row] == [tag == "O" for tag in before[1]]
        assert words != before[0]


def test_without_spans_a_word_takes_its_tag_along():
    speech = tagged("a/DET dog/NOUN barks/VERB", scheme=None)
    pairs = {"a": "DET", "dog": "NOUN", "barks": "VERB"}
    for name in ("swap", "delete"):
        found = copies_of(speech, "tag", [name], copies=20, rate=0.4)
        assert len({tuple(words) for words in found.texts}) > 2
        for words, row in zip(found.texts, found.labels, strict=True):
            assert row == [pairs[word] for word in words]
    assert movable(["NOUN", "O"], None) == [0, 1]


def test_mentions_are_replaced_by_others_of_their_type():
    found = copies_of(TAGGED, "tag", ["mention_replace"], copies=300)
    known = {
        kind: {m for row in zip(TAGGED.texts, TAGGED.labels, strict=True)
               for m in mentions(*row) if m[0] == kind} for kind in ("PER", "LOC")
    }  # fmt: skip
    seen, replaced = set(), []
    for words, row, lines in zip(found.texts, found.labels, found.lines, strict=True):
        origin = lines[0] // 100
        before = TAGGED.texts[origin], TAGGED.labels[origin]
        old, new = mentions(*before), mentions(words, row)
        assert [m[0] for m in old] == [m[0] for m in new] and old != new
        assert all(m in known[m[0]] for m in new)
        assert tags.convert(row, "iob2", "iob2") == row
        out = [[w for w, t in zip(*each, strict=True) if t == "O"]
               for each in (before, (words, row))]  # fmt: skip
        assert out[0] == out[1] and sorted(lines) == lines and len(lines) == len(words)
        seen |= {*new}
        replaced += [origin] * moved(old, new)
    assert seen == known["PER"] | known["LOC"]
    # Half of 300 · (2 + 4) mentions; what comes out as it was is dropped.
    assert abs(len(replaced) / (300 * 6) - 0.5) < 0.05


def test_a_mention_alone_of_its_type_stays_and_its_copies_are_dropped():
    found = copies_of(tagged("Ada/B-PER ./O"), "tag", ["mention_replace"], copies=9)
    assert found.texts == []
    two = tagged("Ada/B-PER ./O", "Ada/B-PER Lee/I-PER B/B-LOC")
    found = copies_of(two, "tag", ["mention_replace"], copies=20)
    rows = {" ".join(words): row for words, row in zip(found[0], found[2], strict=True)}
    assert rows == {
        "Ada Lee .": ["B-PER", "I-PER", "O"],
        "Ada B": ["B-PER", "B-LOC"],
    }
    assert sorted(found.lines)[0] == [0, 0, 1]


sentences = st.lists(
    st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B"]), min_size=1, max_size=6),
    min_size=1, max_size=4,
)  # fmt: skip


@given(sentences, st.permutations(WORDWISE), st.integers(-(2**70), 2**70))
def test_copies_depend_on_the_seed_and_not_on_the_order_of_names(rows, names, seed):
    clean = [tags.convert(row, "iob2", "iob2") for row in rows]
    words = [[f"{i}{j % 3}" for j in range(len(row))] for i, row in enumerate(rows)]
    lines = [[i] * len(row) for i, row in enumerate(rows)]
    given = Examples(words, [], clean, lines, "iob2")
    found = copies_of(given, "tag", names, copies=2, rate=0.3, seed=seed)
    assert found == copies_of(given, "tag", WORDWISE, copies=2, rate=0.3, seed=seed)
    assert len(found.texts) <= 2 * 3 * len(rows)
    for name in names:  # each by itself gives the same copies
        alone = copies_of(given, "tag", [name], copies=2, rate=0.3, seed=seed)
        assert all(words in found.texts for words in alone.texts)
    for words, row, lines in zip(*found[:1], *found[2:4], strict=True):
        assert len(words) == len(row) == len(lines) > 0
        origin = lines[0]
        assert (words, row) != (given.texts[origin], given.labels[origin])
        kinds = [m[0] for m in mentions(words, row)]
        assert kinds == [m[0] for m in mentions(given.texts[origin], clean[origin])]


def test_other_seeds_and_copies_are_other_copies():
    found = [copies_of(TEXTS, "classify", ["swap"], seed=n).texts[0] for n in range(9)]
    assert len(set(found)) == 9
    long = copies_of(TEXTS, "classify", ["swap"], copies=9).texts
    assert len({text for text in long if len(text.split()) == 30}) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["swop"]}, "^augment: unknown 'swop'; nearest: swap"),
        ({"names": ["mlm_substitute"]}, "^augment: unknown 'mlm_substitute'"),
        ({"names": ["mention_replace"]}, "^augment: mention_replace needs task=tag"),
        ({"task": "sort"}, "task: unknown 'sort'"),
        ({"copies": 0}, "copies=0 must be at least 1"),
        ({"rate": 1.0}, "rate=1 must be above 0 and below 1"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(InputError, match=f"^{message}"):
        augment(TEXTS, **{"task": "classify", "names": ["swap"], **change})


def test_parts_of_speech_have_no_mentions():
    with pytest.raises(InputError, match="tags of spans, such as B-PER; leave it out"):
        augment(tagged("a/DET b/NOUN", scheme=None), "tag", ["mention_replace"])
