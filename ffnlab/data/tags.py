"""Tags of entities: their spans, the tagging schemes, and F1.

A tag is O, outside of every entity, or a prefix, a hyphen and the entity's type:

- io: I- at every token of an entity; adjacent entities of one type are one.
- iob1: I- inside an entity; B- only if it begins right after another of its type.
- iob2: B- at the first token of every entity, I- at the others.
- bioes: as iob2, but E- at the last of several tokens and S- at a single one. L- and U-
  are read as E- and S-, as in BILOU.
- bmes: as bioes, but M- inside; common for Chinese.
- bmewo: as bmes, but W- at a single token.

Tags that a model predicts need not follow a scheme. They are read as conlleval does,
with one rule: a token continues the entity before it if it has I- or E-, the tag before
it has B- or I-, and both have the same type; otherwise it begins an entity. An I- or E-
without a beginning therefore begins one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ffnlab.errors import InputError, choose

Span = tuple[str, int, int]

SCHEMES = {
    "io": "I",
    "iob1": "BI",
    "iob2": "BI",
    "bioes": "BIESLU",
    "bmes": "BMES",
    "bmewo": "BMEW",
}

TAG = re.compile(r"O|[BIESLUMW]-\S+")

_READ_AS = {"L": "E", "U": "S", "M": "I", "W": "S"}
_WRITTEN_AS = {"bmes": {"I": "M"}, "bmewo": {"I": "M", "S": "W"}}
# Prefixes that alone make tags those of spans; M- and W- occur in labels of words too.
_SURE = re.compile(r"[BIESLU]-\S+")


def spans(tags: Sequence[str], scheme: str) -> set[Span]:
    """Returns the entities of a sentence.

    Args:
      tags: The tags of its tokens.
      scheme: A name of `SCHEMES`, which determines the allowed prefixes; all are read
        by the rule above.

    Returns:
      For each entity its type, its first token and the one after its last.

    Raises:
      InputError: The scheme is unknown, or a tag does not belong to it.

    Source: the script conlleval of the CoNLL-2000 shared task, Tjong Kim Sang and
    Buchholz 2000; for E- and S-, the default mode of seqeval, Nakayama 2018, "seqeval:
    A Python Framework for Sequence Labeling Evaluation".

    >>> sorted(spans(["B-LOC", "I-LOC", "O", "I-PER"], "iob2"))
    [('LOC', 0, 2), ('PER', 3, 4)]
    """
    choose("scheme", scheme, SCHEMES)
    entities, start, before = set(), 0, ("O", "")
    for stop, tag in enumerate([*tags, "O"]):
        prefix, kind = _parted(tag, scheme, stop)
        if prefix in "IE" and before[0] in "BI" and before[1] == kind:
            before = prefix, kind
            continue
        if before[0] != "O":
            entities.add((before[1], start, stop))
        start, before = stop, (prefix, kind)
    return entities


def are_of_spans(tags: Iterable[str]) -> bool:
    """Returns whether tags are of spans, and not labels such as parts of speech.

    They are if one has a prefix and a type, or if one has a hyphen and another is O: a
    misspelt tag then.

    >>> are_of_spans(["O", "B-LOC"]), are_of_spans(["DET", "-LRB-"])
    (True, False)
    """
    kinds = set(tags)
    misspelt = "O" in kinds and any("-" in tag for tag in kinds)
    return misspelt or any(map(_SURE.fullmatch, kinds))


def convert(tags: Sequence[str], source: str, target: str) -> list[str]:
    """Returns the tags of a sentence in another scheme, or corrected in the same one.

    Args:
      tags: The tags of a sentence.
      source: Their scheme.
      target: The scheme of the result.

    Returns:
      As many tags, with the same `spans`; in io, adjacent spans of one type merge.

    Raises:
      InputError: A scheme is unknown, or a tag does not belong to the source.

    Source: Tjong Kim Sang and Veenstra 1999, "Representing Text Chunks" (IOB1, IOB2);
    Ratinov and Roth 2009, "Design Challenges and Misconceptions in Named Entity
    Recognition" (BILOU).

    >>> convert(["I-LOC", "I-LOC", "B-LOC", "O"], "iob1", "bioes")
    ['B-LOC', 'E-LOC', 'S-LOC', 'O']
    >>> convert(["I-LOC", "I-LOC", "B-LOC", "O"], "iob1", "io")
    ['I-LOC', 'I-LOC', 'I-LOC', 'O']
    """
    choose("scheme", target, SCHEMES)
    written, before = ["O"] * len(tags), ("", 0)
    for kind, start, stop in _in_order(spans(tags, source)):
        prefixes = ["I"] * (stop - start)
        touching = before == (kind, start)
        if target not in ("io", "iob1") or (target == "iob1" and touching):
            prefixes[0] = "B"
        if target in ("bioes", *_WRITTEN_AS):
            prefixes[-1] = "E" if len(prefixes) > 1 else "S"
        letters = _WRITTEN_AS.get(target, {})
        prefixes = [letters.get(prefix, prefix) for prefix in prefixes]
        written[start:stop] = [f"{prefix}-{kind}" for prefix in prefixes]
        before = kind, stop
    return written


def family_of(sentences: Iterable[Sequence[str]]) -> str:
    """Returns a scheme that has all prefixes of the tags of a corpus, if one does.

    Args:
      sentences: The tags of each sentence.

    Returns:
      `bmewo` where there is a W-, `bmes` where there is an M-, otherwise `bioes`.

    >>> family_of([["B-LOC", "M-LOC", "E-LOC"]]), family_of([["I-LOC"]])
    ('bmes', 'bioes')
    """
    prefixes = {tag[:2] for tags in sentences for tag in tags}
    if "W-" in prefixes:
        return "bmewo"
    return "bmes" if "M-" in prefixes else "bioes"


def scheme_of(sentences: Sequence[Sequence[str]]) -> str:
    """Returns the scheme of the tags of a corpus.

    One W- means bmewo, one M- bmes, which have no I-. One E-, S-, L- or U- means bioes.
    I- without any B- means io; iob1 without adjacent
    entities looks the same, and is read the same. Otherwise iob1 and iob2 differ in the
    first token of every entity that does not follow another of its type: I- or B-. The
    majority decides, so that a few errors do not change it. A tie, also that of a
    corpus without entities, is iob2.

    Args:
      sentences: The tags of each sentence.

    Raises:
      InputError: A tag belongs to no scheme.

    >>> scheme_of([["I-LOC", "B-LOC"], ["O", "I-PER"]])
    'iob1'
    >>> scheme_of([["I-LOC", "I-LOC"], ["O", "I-PER"]])
    'io'
    """
    votes, seen, family = Counter(), set(), family_of(sentences)
    for tags in sentences:
        before = ("", 0)
        for kind, start, stop in _in_order(spans(tags, family)):
            votes[tags[start][0]] += before != (kind, start)
            before = kind, stop
        seen |= {tag[0] for tag in tags}
    if family != "bioes" or seen & set("ESLU"):
        return family
    if "I" in seen and "B" not in seen:
        return "io"
    return "iob1" if votes["I"] > votes["B"] else "iob2"


def span_f1(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], scheme: str
) -> dict:
    """Returns the scores of predicted entities: right if type and both ends are.

    Args:
      predicted: The predicted tags of each sentence.
      gold: The true tags, as many in each sentence.
      scheme: The scheme of both, a name of `SCHEMES`.

    Returns:
      `precision`, `recall` and `f1`, each from 0 to 1, over the entities of all types,
      and `support`, the number of true ones; under `types` the same for each type that
      is true or predicted. 0 / 0 is 0: without any entity F1 is 0, although all tags
      are right.

    Raises:
      InputError: The scheme is unknown, a tag does not belong to it, or predicted and
        gold differ in length.

    Source: conlleval and seqeval, as for `spans`; conlleval has the same numbers in
    percent.

    >>> gold = [["B-LOC", "I-LOC", "O", "B-PER"], ["O", "B-LOC"]]
    >>> guess = [["B-LOC", "I-LOC", "O", "O"], ["B-LOC", "I-LOC"]]
    >>> scores = span_f1(guess, gold, "iob2")
    >>> scores["precision"], round(scores["recall"], 3), scores["types"]["LOC"]["f1"]
    (0.5, 0.333, 0.5)
    """
    if len(predicted) != len(gold):
        what = f"expected {len(gold)} sentences, as in gold, found {len(predicted)}"
        raise InputError(f"predicted: {what}")
    guessed, true, right = Counter(), Counter(), Counter()
    for i, (guess, tags) in enumerate(zip(predicted, gold, strict=True)):
        if len(guess) != len(tags):
            what = f"expected {len(tags)} tags, as in gold, found {len(guess)}"
            raise InputError(f"predicted: sentence {i}: {what}")
        ours, theirs = spans(guess, scheme), spans(tags, scheme)
        guessed.update(kind for kind, _, _ in ours)
        true.update(kind for kind, _, _ in theirs)
        right.update(kind for kind, _, _ in ours & theirs)
    types = {
        kind: _scores(right[kind], guessed[kind], true[kind])
        for kind in sorted(guessed | true)
    }
    return _scores(right.total(), guessed.total(), true.total()) | {"types": types}


def span_counts(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], scheme: str
) -> np.ndarray:
    """Returns how many entities of each sentence are right, predicted and true.

    Args:
      predicted: The predicted tags of each sentence.
      gold: The true tags, as many in each sentence.
      scheme: The scheme of both; see `span_f1`, whose F1 is 2Σright / Σ(predicted +
        true).

    Returns:
      Integers `[sentences, 3]`.

    >>> guess, gold = [["B-LOC", "B-PER"], ["O"]], [["B-LOC", "O"], ["O"]]
    >>> span_counts(guess, gold, "iob2").tolist()
    [[1, 2, 1], [0, 0, 0]]
    """
    pairs = (
        (spans(guess, scheme), spans(tags, scheme))
        for guess, tags in zip(predicted, gold, strict=True)
    )
    counts = [(len(ours & theirs), len(ours), len(theirs)) for ours, theirs in pairs]
    return np.array(counts, np.int64).reshape(-1, 3)


def strict(tags: Sequence[str]) -> list[str]:
    """Returns IOB2 tags with O for every I- that follows no B- or I- of its type.

    Source: the strict mode of seqeval, in which such a tag is no entity.

    >>> strict(["I-LOC", "B-PER", "I-LOC", "I-PER", "B-PER", "I-PER"])
    ['O', 'B-PER', 'O', 'O', 'B-PER', 'I-PER']
    """
    kept, before = [], "O"
    for tag in tags:
        if tag.startswith("I-") and before[1:] != tag[1:]:
            tag = "O"
        kept.append(tag)
        before = tag
    return kept


def _scores(right: int, guessed: int, true: int) -> dict:
    """Returns precision, recall, F1 and support from counts of entities."""
    return {
        "precision": right / guessed if guessed else 0.0,
        "recall": right / true if true else 0.0,
        "f1": 2 * right / (guessed + true) if guessed + true else 0.0,
        "support": true,
    }


def _in_order(entities: set[Span]) -> list[Span]:
    """Returns spans from left to right; they do not overlap."""
    return sorted(entities, key=lambda span: span[1])


def _parted(tag: str, scheme: str, index: int) -> tuple[str, str]:
    """Returns the prefix, as one of O, B, I, E and S, and the type of a tag."""
    if tag == "O":
        return "O", ""
    prefix, _, kind = tag.partition("-")
    if prefix not in tuple(SCHEMES[scheme]) or not kind:
        known = " ".join(f"{letter}-" for letter in SCHEMES[scheme])
        what = f"expected O or one of {known} and a type, found {tag!r}"
        raise InputError(f"{scheme}: {what} at index {index}")
    return _READ_AS.get(prefix, prefix), kind
