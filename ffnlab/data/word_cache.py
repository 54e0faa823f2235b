"""Tokens of long texts, in which each word is tokenized once.

The `tokenizers` library takes about a microsecond for each byte. Texts repeat their
words, so that a table of words takes a fraction of that.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ffnlab.data.corpus import Tokenizes

Encode = Callable[[bytes], tuple[np.ndarray, np.ndarray]]
_MOST = 2**19  # words in the table
_GROUP = 200  # words that are tokenized as one text
# Between a letter, digit or punctuation mark of ASCII and white space there is a
# boundary of words for BERT and for GPT-2, whatever stands before and after.
_BOUNDARY = re.compile(rb"(?<=[!-~])(?=[ \t\r\n])")
_JOINS = re.compile(rb"[ \t\r\n].*[!-~]", re.DOTALL)
_CONTROL = re.compile(rb"[\x0b\x0c]")  # no space for BERT, one for bytes.split


class _Kind(NamedTuple):
    """How a kind of tokenizers divides a text into words.

    Attributes:
      split: Returns the words of a text.
      glue: What joins words to a text that has the tokens of each.
      joins: Whether a word may be joined to others.
    """

    split: Callable[[bytes], list[bytes]]
    glue: bytes
    joins: Callable[[bytes], Any]


def _split_bert(text: bytes) -> list[bytes]:
    """Returns the words between spaces, which have no tokens of their own."""
    return _BOUNDARY.split(text) if _CONTROL.search(text) else text.split()


_BERT = _Kind(_split_bert, b" ", lambda word: True)
_GPT2 = _Kind(_BOUNDARY.split, b"", _JOINS.fullmatch)  # a space belongs to its word


def make_encode(tokenizer: Tokenizes) -> Encode:
    """Returns a function that returns the tokens of a text.

    Args:
      tokenizer: The tokenizer. For those that split texts as BERT and GPT-2 do, a table
        of words is used; the others are called with the whole text.

    Returns:
      `encode(text)`, which returns int32 `[T]`, the tokens of `tokenizer.stream`, and
      bool `[T]`, whether a word begins.
    """
    inner = getattr(tokenizer, "inner", None)
    kind = _kind_of(inner) if inner is not None else None
    if kind is not None:
        return WordTable(inner, kind).encode

    def encode(text: bytes) -> tuple[np.ndarray, np.ndarray]:
        tokens, words = tokenizer.stream(text)
        return tokens, _begins(words)

    return encode


def _begins(words: np.ndarray) -> np.ndarray:
    """Returns whether a word begins at each token, given the numbers of the words."""
    begins = np.ones(len(words), bool)
    begins[1:] = words[1:] != words[:-1]
    return begins


def _kind_of(inner: Any) -> _Kind | None:
    """Returns how a tokenizer divides texts, or None if it is of another kind."""
    spec = json.loads(inner.to_str())
    split, normalizer = spec["pre_tokenizer"] or {}, spec["normalizer"] or {}
    for token in spec["added_tokens"]:
        if token["rstrip"] or len(token["content"].split()) != 1:
            return None
    if spec["model"].get("dropout"):
        return None
    if split.get("type") == "ByteLevel":
        plain = not split["add_prefix_space"] and split.get("use_regex", True)
        return _GPT2 if plain and not normalizer else None
    same = split.get("type") == "BertPreTokenizer"
    same = same and normalizer.get("type", "BertNormalizer") == "BertNormalizer"
    return _BERT if same else None


class WordTable:
    """The tokens of the words of a tokenizer, which are found as they occur.

    Args:
      inner: A `tokenizers.Tokenizer`.
      kind: How it divides texts into words.
      most: The words that are kept; where there are more, all are found again.
    """

    def __init__(self, inner: Any, kind: _Kind, most: int = _MOST):
        self._inner, self._kind, self._most = inner, kind, most
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._tokens = np.zeros(0, np.int32)
        self._begins = np.zeros(0, bool)
        self._ends = np.zeros(1, np.int64)  # of the tokens of each word

    def encode(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of a text in UTF-8, and whether a word begins at each."""
        words = self._kind.split(text)
        new = [word for word in dict.fromkeys(words) if word not in self._numbers]
        if len(self._numbers) + len(new) > self._most:
            self._clear()
            new = list(dict.fromkeys(words))
        if new:
            self._add(new)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64)
        starts = self._ends[numbers]
        counts = self._ends[numbers + 1] - starts
        before = np.cumsum(counts) - counts
        places = np.repeat(starts - before, counts) + np.arange(counts.sum())
        return self._tokens[places], self._begins[places]

    def _add(self, words: list[bytes]) -> None:
        """Adds the tokens of words to the table."""
        joined = [word for word in words if self._kind.joins(word)]
        groups = [joined[i : i + _GROUP] for i in range(0, len(joined), _GROUP)]
        groups += [[word] for word in words if not self._kind.joins(word)]
        for group in groups:
            for word in group:
                self._numbers[word] = len(self._numbers)
        texts = [self._kind.glue.join(group).decode() for group in groups]
        encodings = self._inner.encode_batch(texts, add_special_tokens=False)
        pairs = zip(groups, encodings, strict=True)
        counts = [self._counts(group, each) for group, each in pairs]
        tokens = [np.array(each.ids, np.int32) for each in encodings]
        begins = [_begins(np.array(each.word_ids)) for each in encodings]
        ends = self._ends[-1] + np.cumsum(np.concatenate(counts))
        self._tokens = np.concatenate([self._tokens, *tokens])
        self._begins = np.concatenate([self._begins, *begins])
        self._ends = np.concatenate([self._ends, ends])

    def _counts(self, group: list[bytes], encoding: Any) -> np.ndarray:
        """Returns the number of tokens of each word of a text, by their characters."""
        lengths = [len(word.decode()) + len(self._kind.glue) for word in group]
        starts = np.cumsum([0, *lengths[:-1]])
        first = [begin for begin, _ in encoding.offsets]
        owners = np.searchsorted(starts, first, "right") - 1
        return np.bincount(owners, minlength=len(group))
