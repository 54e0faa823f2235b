"""Data augmentation: copies of texts with words swapped, deleted or replaced.

    more = augment(train, "tag", ("swap", "mention_replace"), copies=2)
    len(more.texts)    # the examples, then up to 4 altered copies of each

Spans of words stay whole. Words drawn from a language model are in
`ffnlab.finetune.mlm_augment`.
"""

import functools
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ffnlab.data import tags
from ffnlab.data.examples import TASKS, Examples
from ffnlab.errors import InputError, choose

AUGMENTATIONS = ("swap", "delete", "mention_replace", "mlm_substitute")

Random = np.random.Generator
Draw = Callable[[Random, int, list[int], float], list[int]]

_REPLACED = 0.5  # the fraction of mentions that `mention_replace` replaces


def augment(
    examples: Examples,
    task: str,
    names: Sequence[str],
    copies: int = 1,
    rate: float = 0.1,
    seed: int = 0,
) -> Examples:
    """Returns examples followed by altered copies of them.

    - `swap`: two random words change places, round(rate · n) times for n words, at
      least once.
    - `delete`: each word is left out with probability `rate`, but never all.
    - `mention_replace`: each mention is replaced with probability 0.5 by another one of
      its type, drawn evenly from the different mentions in the examples.

    Words are separated by blanks; the two texts of a pair are treated separately. In
    sentences with spans only words with the tag O move, and n is their number. If tags
    are not of spans, such as parts of speech, all words move with their tags.

    Copies that equal the original are dropped. A copy keeps the lines of the original;
    the words of a new mention have the line of the first word of the old one.

    Args:
      examples: The training examples; sentences have tags, in IOB2 if of spans.
      task: One of `examples.TASKS`.
      names: Some of `AUGMENTATIONS` except `mlm_substitute`, in any order.
      copies: The number of copies of each example, for each name; at least 1.
      rate: The fraction of words, in (0, 1).
      seed: Any integer, taken modulo 2**64.

    Raises:
      InputError: A name or the task is unknown, a number is out of range, or there are
        no mentions for `mention_replace`.

    Source: Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques for Boosting
    Performance on Text Classification Tasks" (swap, delete); Dai and Adel 2020, "An
    Analysis of Simple Data Augmentation for Named Entity Recognition"
    (mention_replace, without its binomial draw).

    >>> one = Examples(["see you soon"], [], ["bye"], [1])
    >>> sorted(augment(one, "classify", ["swap"]).texts[1].split())
    ['see', 'soon', 'you']
    """
    choose("task", task, TASKS)
    for name in names:
        choose("augment", name, _MAKERS)
    check_amounts(copies, rate)
    made: list[Examples] = []
    for name in sorted(set(names)):
        for copy in range(copies):
            # A stream for each name and copy, so that they do not depend on others.
            streams = [seed % 2**64, zlib.crc32(name.encode()), copy]
            rng = np.random.default_rng(streams)
            made += _MAKERS[name](rng, examples, task, rate)
    return examples.joined(*made)


def check_amounts(copies: int, rate: float) -> None:
    """Checks the number of copies and the fraction of words.

    Raises:
      InputError: One of them is out of range.
    """
    if copies < 1:
        raise InputError(f"copies={copies} must be at least 1")
    if not 0.0 < rate < 1.0:
        raise InputError(f"rate={rate:g} must be above 0 and below 1")


def movable(row: Sequence[str], scheme: str | None) -> list[int]:
    """Returns the positions of words outside of spans; all if tags are not of spans.

    >>> movable(["B-LOC", "O", "O"], "iob2"), movable(["DET", "NOUN"], None)
    ([1, 2], [0, 1])
    """
    return [place for place, tag in enumerate(row) if not scheme or tag == "O"]


def _swapped(rng: Random, size: int, free: list[int], rate: float) -> list[int]:
    """Returns the new order of words, with some pairs of the free ones swapped."""
    index = list(range(size))
    if len(free) < 2:
        return index
    for _ in range(max(round(rate * len(free)), 1)):
        one, other = rng.choice(free, 2, replace=False)
        index[one], index[other] = index[other], index[one]
    return index


def _kept(rng: Random, size: int, free: list[int], rate: float) -> list[int]:
    """Returns the positions of the words that stay."""
    draws = zip(free, rng.random(len(free)), strict=True)
    lost = {place for place, draw in draws if draw < rate}
    if len(lost) == size:
        lost.discard(int(rng.integers(size)))
    return [place for place in range(size) if place not in lost]


def _rearranged(
    draw: Draw, rng: Random, examples: Examples, task: str, rate: float
) -> Iterator[Examples]:
    """Yields copies with some of their words, in the order that `draw` returns."""
    for number in range(len(examples.texts)):
        one = examples.subset([number])
        if task == "tag":
            words, row = one.texts[0], one.labels[0]
            index = draw(rng, len(words), movable(row, one.scheme), rate)
            made = one._replace(
                texts=[[words[i] for i in index]],
                labels=[[row[i] for i in index]],
                lines=[[one.lines[0][i] for i in index]],
            )
            changed = (made.texts, made.labels) != (one.texts, one.labels)
        else:
            before = [text.split() for text in (*one.texts, *one.pairs)]
            after = [
                [words[i] for i in draw(rng, len(words), [*range(len(words))], rate)]
                for words in before
            ]
            text, *pair = map(" ".join, after)
            made, changed = one._replace(texts=[text], pairs=pair), after != before
        if changed:
            yield made


def _renamed(
    rng: Random, examples: Examples, task: str, rate: float
) -> Iterator[Examples]:
    """Yields copies of sentences in which some mentions are replaced."""
    if task != "tag" or not examples.scheme:
        raise InputError(
            "augment: mention_replace needs task=tag and tags of spans, such as "
            "B-PER; leave it out"
        )
    known: dict[str, dict[tuple[str, ...], None]] = {}  # in the order of the file
    for kind, mention in _mentions(examples):
        known.setdefault(kind, {})[mention] = None
    others = {kind: list(mentions) for kind, mentions in known.items()}
    for number in range(len(examples.texts)):
        one = examples.subset([number])
        for kind, start, stop in _from_the_last(one.labels[0]):
            old = new = tuple(one.texts[0][start:stop])
            if len(others[kind]) == 1 or rng.random() >= _REPLACED:
                continue
            while new == old:
                new = others[kind][rng.integers(len(others[kind]))]
            one = _with_mention(one, kind, start, stop, new)
        if one.texts != [examples.texts[number]]:
            yield one


def _mentions(examples: Examples) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the type and the words of every mention."""
    for words, row in zip(examples.texts, examples.labels, strict=True):
        for kind, start, stop in reversed(_from_the_last(row)):
            yield kind, tuple(words[start:stop])


def _from_the_last(row: Sequence[str]) -> list[tags.Span]:
    """Returns the spans of a sentence from right to left."""
    return sorted(tags.spans(row, "iob2"), key=lambda span: -span[1])


def _with_mention(
    one: Examples, kind: str, start: int, stop: int, new: tuple[str, ...]
) -> Examples:
    """Returns a sentence in which the words of a span are replaced."""

    def spliced(column: list, inside: list) -> list:
        return [[*column[0][:start], *inside, *column[0][stop:]]]

    inner = [f"I-{kind}"] * (len(new) - 1)
    return one._replace(
        texts=spliced(one.texts, [*new]),
        labels=spliced(one.labels, [f"B-{kind}", *inner]),
        lines=spliced(one.lines, [one.lines[0][start]] * len(new)),
    )


_MAKERS = {
    "swap": functools.partial(_rearranged, _swapped),
    "delete": functools.partial(_rearranged, _kept),
    "mention_replace": _renamed,
}
