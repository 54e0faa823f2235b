"""Entities from tags: worked by hand, by the rules of conlleval, and there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.data.tags import (
    SCHEMES,
    are_of_spans,
    convert,
    scheme_of,
    span_f1,
    spans,
    strict,
)
from ffnlab.errors import InputError

TYPES = ("LOC", "creative-work")

WORKED = {
    "nothing": ("O O", "iob2", []),
    "no token": ("", "iob1", []),
    "one": ("O B-LOC I-LOC O", "iob2", [("LOC", 1, 3)]),
    "at both ends": ("B-LOC O I-PER", "iob2", [("LOC", 0, 1), ("PER", 2, 3)]),
    "neighbours": ("B-LOC B-LOC I-LOC", "iob2", [("LOC", 0, 1), ("LOC", 1, 3)]),
    "orphan I": ("O I-LOC I-LOC", "iob2", [("LOC", 1, 3)]),
    "another type": ("B-LOC I-PER I-PER", "iob2", [("LOC", 0, 1), ("PER", 1, 3)]),
    "back again": (
        "B-LOC I-PER I-LOC",
        "iob2",
        [("LOC", 0, 1), ("PER", 1, 2), ("LOC", 2, 3)],
    ),
    "hyphens": ("B-creative-work I-creative-work", "iob2", [("creative-work", 0, 2)]),
    "iob1": ("I-LOC I-LOC O I-LOC", "iob1", [("LOC", 0, 2), ("LOC", 3, 4)]),
    "iob1, B- separates": (
        "I-LOC I-LOC B-LOC I-LOC",
        "iob1",
        [("LOC", 0, 2), ("LOC", 2, 4)],
    ),
    "iob1, types separate": ("I-LOC I-PER", "iob1", [("LOC", 0, 1), ("PER", 1, 2)]),
    "io": ("I-LOC I-LOC O I-PER", "io", [("LOC", 0, 2), ("PER", 3, 4)]),
    "io, neighbours": ("I-LOC I-PER I-PER", "io", [("LOC", 0, 1), ("PER", 1, 3)]),
    "bioes": ("S-LOC B-LOC I-LOC E-LOC", "bioes", [("LOC", 0, 1), ("LOC", 1, 4)]),
    "bilou": ("U-LOC B-LOC I-LOC L-LOC", "bioes", [("LOC", 0, 1), ("LOC", 1, 4)]),
    "orphan E": ("O E-LOC E-LOC", "bioes", [("LOC", 1, 2), ("LOC", 2, 3)]),
    "I after E": ("B-LOC E-LOC I-LOC", "bioes", [("LOC", 0, 2), ("LOC", 2, 3)]),
    "E after S": ("S-LOC E-LOC", "bioes", [("LOC", 0, 1), ("LOC", 1, 2)]),
    "E of another type": ("B-LOC E-PER", "bioes", [("LOC", 0, 1), ("PER", 1, 2)]),
    "no E": ("B-LOC I-LOC O", "bioes", [("LOC", 0, 2)]),
}


@pytest.mark.parametrize("case", WORKED)
def test_spans_worked_by_hand(case):
    tags, scheme, expected = WORKED[case]
    assert spans(tags.split(), scheme) == set(expected)


def conlleval_spans(tags):
    """The entities by the rules of conlleval's startOfChunk and endOfChunk.

    As they stand there, pair by pair of prefixes, with the pairs for S- that seqeval
    adds.
    """
    ends = {"BB", "BO", "BS", "IB", "IO", "IS"} | {"E" + t for t in "BIESO"}
    ends |= {"S" + t for t in "BIESO"}
    starts = {p + t for p in "BIESO" for t in "BS"}
    starts |= {"EE", "EI", "SE", "SI", "OE", "OI"}
    found, start, prefix, kind = set(), 0, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        next_prefix, _, next_kind = tag.partition("-")
        read_as = {"L": "E", "U": "S", "M": "I", "W": "S"}
        next_prefix = read_as.get(next_prefix, next_prefix)
        pair, changed = prefix + next_prefix, kind != next_kind
        if pair in ends or (prefix != "O" and changed):
            found.add((kind, start, i))
        if pair in starts or (next_prefix != "O" and changed):
            start = i
        prefix, kind = next_prefix, next_kind
    return found


def any_tags(scheme):
    """Sequences of a scheme's tags in any order, most of them against its rules."""
    tags = ["O", *(f"{letter}-{t}" for letter in SCHEMES[scheme] for t in TYPES)]
    return st.lists(st.sampled_from(tags), max_size=8)


schemes = st.sampled_from(sorted(SCHEMES))
exact = st.sampled_from(sorted({*SCHEMES} - {"io"}))  # can write any entities
labelled = schemes.flatmap(lambda s: st.tuples(st.just(s), any_tags(s)))


@given(labelled)
def test_spans_are_conllevals(case):
    scheme, tags = case
    assert spans(tags, scheme) == conlleval_spans(tags)


@given(labelled, exact)
def test_converting_keeps_the_spans(case, target):
    scheme, tags = case
    converted = convert(tags, scheme, target)
    assert len(converted) == len(tags)
    assert spans(converted, target) == spans(tags, scheme)


def merged(found):
    """Entities, those of one type that touch being one."""
    whole = []
    for kind, start, stop in sorted(found, key=lambda span: span[1]):
        if whole and whole[-1][::2] == (kind, start):
            start = whole.pop()[1]
        whole.append((kind, start, stop))
    return set(whole)


@given(labelled)
def test_converting_to_io_merges_what_touches_and_nothing_else(case):
    scheme, tags = case
    converted = convert(tags, scheme, "io")
    assert [tag[2:] for tag in converted] == [tag[2:] for tag in tags]
    assert not any(tag.startswith("B") for tag in converted)
    assert spans(converted, "io") == merged(spans(tags, scheme))
    assert convert(convert(converted, "io", "bioes"), "bioes", "io") == converted


@given(labelled, exact)
def test_converting_there_and_back_changes_nothing(case, target):
    scheme, tags = case
    clean = convert(tags, scheme, scheme)
    assert convert(convert(clean, scheme, target), target, scheme) == clean


@pytest.mark.parametrize(
    ("source", "tags", "target", "expected"),
    [
        ("iob1", "I-A I-A B-A O I-A I-B", "iob2", "B-A I-A B-A O B-A B-B"),
        ("iob2", "B-A I-A B-A O B-A B-B", "iob1", "I-A I-A B-A O I-A I-B"),
        ("iob2", "B-A I-A I-A B-A O", "bioes", "B-A I-A E-A S-A O"),
        ("bioes", "B-A L-A U-A O", "bioes", "B-A E-A S-A O"),
        ("bioes", "S-A S-A B-B E-B", "iob1", "I-A B-A I-B I-B"),
        ("iob2", "O I-A I-A", "iob2", "O B-A I-A"),
        ("iob2", "B-A B-A B-A B-A B-A B-B", "iob1", "I-A B-A B-A B-A B-A I-B"),
        ("io", "I-A I-A O I-A I-B", "iob2", "B-A I-A O B-A B-B"),
        ("io", "I-A I-A O I-A I-B", "iob1", "I-A I-A O I-A I-B"),
        ("io", "I-A I-A O I-A I-B", "bioes", "B-A E-A O S-A S-B"),
        ("bioes", "B-A E-A S-A S-B O", "io", "I-A I-A I-A I-B O"),
        ("iob2", "B-A B-A I-A O", "io", "I-A I-A I-A O"),
    ],
)
def test_conversions_worked_by_hand(source, tags, target, expected):
    assert convert(tags.split(), source, target) == expected.split()


@given(schemes, st.lists(any_tags("bioes"), max_size=4))
def test_a_scheme_is_told_from_what_is_written_in_it(scheme, sentences):
    written = [convert(tags, "bioes", scheme) for tags in sentences]
    prefixes = {tag[0] for tags in written for tag in tags} - {"O"}
    scheme = "io" if prefixes == {"I"} else scheme  # iob1 without a B-
    if scheme == "bmewo" and "W" not in prefixes:
        scheme = "bmes"
    if scheme == "bmes" and "M" not in prefixes:
        scheme = "bioes"
    assert scheme_of(written) == (scheme if prefixes else "iob2")


def test_a_few_slips_do_not_change_the_scheme():
    assert scheme_of([["B-A", "I-A", "O", "B-A"], ["I-A"]]) == "iob2"
    assert scheme_of([["I-A", "I-A", "O", "I-A"], ["B-A"]]) == "iob1"
    assert scheme_of([["I-A", "B-A", "B-A", "B-A"]]) == "iob1"
    assert scheme_of([["I-A"], ["B-A"]]) == "iob2"  # a tie
    assert scheme_of([]) == scheme_of([["O", "O"]]) == "iob2"
    assert scheme_of([["I-A", "I-A", "O", "I-A"], ["I-B"]]) == "io"
    assert scheme_of([["I-A", "I-A"], ["I-B", "E-B"]]) == "bioes"
    assert scheme_of([["B-A", "L-A"]]) == scheme_of([["U-A"]]) == "bioes"


def test_f1_worked_by_hand():
    gold = ["B-A I-A O B-B", "B-A B-A", "O O"]
    predicted = ["B-A I-A O B-A", "B-A I-A", "O B-C"]
    found = span_f1([p.split() for p in predicted], [g.split() for g in gold], "iob2")
    # Predicted A0:2, A3:4, A0:2, C1:2; true A0:2, B3:4, A0:1, A1:2. One is right.
    zero = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert found == {
        "precision": 1 / 4,
        "recall": 1 / 4,
        "f1": 1 / 4,
        "support": 4,
        "types": {
            "A": {"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "support": 3},
            "B": {**zero, "support": 1},
            "C": {**zero, "support": 0},
        },
    }


def test_f1_is_the_harmonic_mean_and_sentences_do_not_run_together():
    gold = [["B-A", "I-A"], ["I-A", "O", "B-A"]]
    predicted = [["B-A", "I-A"], ["O", "O", "O"]]
    found = span_f1(predicted, gold, "iob2")
    assert (found["precision"], found["recall"], found["support"]) == (1, 1 / 3, 3)
    assert found["f1"] == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))


@given(schemes.flatmap(lambda s: st.tuples(st.just(s), st.lists(any_tags(s)))))
def test_f1_of_itself_is_one(case):
    scheme, sentences = case
    found = span_f1(sentences, sentences, scheme)
    support = sum(len(spans(tags, scheme)) for tags in sentences)
    assert found["support"] == support
    assert found["f1"] == found["precision"] == found["recall"] == (support > 0)
    assert all(scores["f1"] == 1 for scores in found["types"].values())


@given(st.lists(st.tuples(any_tags("bioes"), any_tags("bioes")), max_size=4))
def test_exchanging_truth_and_prediction_exchanges_precision_and_recall(pairs):
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in pairs]
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    found, turned = span_f1(one, other, "bioes"), span_f1(other, one, "bioes")
    assert found["precision"] == turned["recall"]
    assert found["f1"] == turned["f1"]
    assert found["types"].keys() == turned["types"].keys()


@pytest.mark.parametrize("tag", ["", "B", "B-", "-LOC", "X-LOC", "LOC", "BI-LOC", "o"])
def test_what_is_no_tag_is_refused(tag):
    known = re.escape("expected O or one of B- I- and a type, found ")
    with pytest.raises(InputError, match=f"^iob2: {known}{tag!r} at index 1$"):
        spans(["O", tag], "iob2")
    with pytest.raises(InputError, match="one of B- I- E- S- L- U- and"):
        scheme_of([[tag]])


def test_prefixes_of_another_scheme_are_refused():
    with pytest.raises(InputError, match="iob1: expected .* found 'S-LOC' at index 0"):
        convert(["S-LOC"], "iob1", "iob2")
    with pytest.raises(InputError, match="^io: expected O or one of I- and a type"):
        spans(["B-LOC"], "io")
    assert spans(["S-LOC"], "bioes") == {("LOC", 0, 1)}


def test_unknown_schemes_offer_the_nearest():
    with pytest.raises(InputError, match="scheme: unknown 'iob'; nearest: io"):
        spans([], "iob")
    with pytest.raises(InputError, match="scheme: unknown 'bio'; nearest: io, bioes"):
        convert([], "iob2", "bio")


def test_sentences_that_do_not_pair_up_are_refused():
    with pytest.raises(InputError, match="predicted: expected 2 sentences, as in gold"):
        span_f1([["O"]], [["O"], ["O"]], "iob2")
    what = "predicted: sentence 1: expected 2 tags, as in gold, found 1"
    with pytest.raises(InputError, match=what):
        span_f1([["O"], ["O"]], [["O"], ["O", "O"]], "iob2")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-LOC", True),
        ("O B-LOC", True),
        ("DET B-LOC", True),
        ("O LOC-B", True),  # misspelt, for there is an O
        ("O -LRB-", True),
        ("DET -LRB-", False),
        ("DET NOUN", False),
        ("O DET", False),
        ("O", False),
        ("", False),
    ],
)
def test_tags_of_spans_are_distinguished_from_labels_of_words(tags, expected):
    assert are_of_spans(tags.split()) is expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A I-A O B-B", "B-A I-A I-A O B-B"),
        ("I-A I-A B-A", "O O B-A"),
        ("B-A I-B I-B I-A", "B-A O O O"),
        ("B-A O I-A", "B-A O O"),
        ("B-A B-AA I-A I-AA", "B-A B-AA O O"),
        ("", ""),
    ],
)
def test_strict_reading_drops_entities_without_a_beginning(tags, expected):
    assert strict(tags.split()) == expected.split()
