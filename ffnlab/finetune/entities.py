"""Entities in texts: words cut by a model's tokenizer, and the spans of their tags."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data import tags
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.finetune.outputs import Entity, Prediction


class Words(NamedTuple):
    """The words of a text or sentence.

    Attributes:
      words: The words.
      spans: Where each is: its first character and the one after its last, or in a
        list of words its number and the next.
    """

    words: list[str]
    spans: list[tuple[int, int]]


def cut_words(tokenizer: Tokenizer, text: str | Sequence[str]) -> Words:
    """Returns the words of a text as the tokenizer cuts them, or those of a list.

    The pre-tokenizer of a BERT or RoBERTa parts words from punctuation. Space, and what
    has no token, is in no word.

    Args:
      tokenizer: The tokenizer of the model.
      text: A text, or a list of words.

    >>> cut_words(None, ["Ada", "sings"]).spans
    [(0, 1), (1, 2)]
    """
    if not isinstance(text, str):
        return Words(list(text), [(n, n + 1) for n in range(len(text))])
    encoding = tokenizer.inner.encode(text, add_special_tokens=False)
    ends: dict[int, tuple[int, int]] = {}
    for word, (begin, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        first, last = ends.get(word, (begin, end))
        ends[word] = min(first, begin), max(last, end)
    spans = [_trim(text, *span) for span in ends.values()]
    spans = [(begin, end) for begin, end in spans if begin < end]
    return Words([text[begin:end] for begin, end in spans], spans)


def _trim(text: str, begin: int, end: int) -> tuple[int, int]:
    """Returns a span without the space around it, with the accents that follow it.

    >>> _trim("a cafe\\u0301 ", 1, 6)
    (2, 7)
    """
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    word = text[begin:end]
    return end - len(word.lstrip()), begin + len(word.rstrip())


def entities_of(
    text: str | Sequence[str],
    words: Words,
    prediction: Prediction,
    names: Sequence[str],
) -> list[Entity]:
    """Returns the entities of a text, from left to right.

    Tags are read as the evaluation reads them, see `ffnlab.data.tags`. Of labels that
    are not tags of spans, such as parts of speech, each word is an entity. Words that
    were cut off have none.

    Args:
      text: A text, or a list of words.
      words: Its words, from `cut_words`.
      prediction: Their tags and probabilities.
      names: The labels of the model.

    >>> words = cut_words(None, ["Ada", "Lovelace", "sings"])
    >>> tagged = Prediction(["B-PER", "I-PER", "O"], [0.5, 1.0, 1.0])
    >>> entities_of(words.words, words, tagged, ["O", "B-PER", "I-PER"])
    [Entity(type='PER', start=0, end=2, score=0.75, text='Ada Lovelace')]
    """
    labels, probabilities = prediction.text, prediction.probability
    if tags.are_of_spans(names):
        spans = sorted(tags.spans(labels, "iob2"), key=lambda span: span[1])
    else:
        every = enumerate(zip(labels, probabilities, strict=True))
        spans = [(label, n, n + 1) for n, (label, p) in every if p]
    entities = []
    for kind, first, stop in spans:
        begin, end = words.spans[first][0], words.spans[stop - 1][1]
        part = text[begin:end]
        shown = part if isinstance(text, str) else " ".join(part)
        score = float(np.mean(probabilities[first:stop]))
        entities.append(Entity(kind, begin, end, score, shown))
    return entities
