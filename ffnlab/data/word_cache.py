"""Tokens of long texts, in which each word is tokenized once.

The `tokenizers` library takes about a microsecond for each byte. Texts repeat their
words, so that a table of words takes a fraction of that.
"""

import abc
import itertools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ffnlab.data.corpus import Tokenizes
from ffnlab.data.tokenizer import line_groups
from ffnlab.data.word_boundaries import find_boundaries

Encode = Callable[[bytes], tuple[np.ndarray, np.ndarray]]
_MOST = 2**19  # words in the table
_BYTES = 2**27  # of the words in the table, which are long where no space divides them
_GROUP = 200  # words that are tokenized as one text
# Between a letter, digit or punctuation mark of ASCII and white space there is a
# boundary of words for BERT and for GPT-2, whatever stands before and after.
_BOUNDARY = re.compile(rb"(?<=[!-~])(?=[ \t\r\n])")
_JOINS = re.compile(rb"[ \t\r\n].*[!-~]", re.DOTALL)
_ANCHOR = "a"  # stands before words that are not the first of a text
_AFTER = b" a"  # stands after each of several words in a text
_FIRST = b"\xff"  # marks those that are, and is in no text
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
      tokenizer: The tokenizer. Where texts can be divided into words, as for BERT,
        GPT-2, XLM-RoBERTa and Llama, a table of words is used; the others are called
        with the whole text.

    Returns:
      `encode(text)`, which returns int32 `[T]`, the tokens of `tokenizer.stream`, and
      bool `[T]`, whether a word begins.
    """
    inner = getattr(tokenizer, "inner", None)
    kind = _kind_of(inner) if inner is not None else None
    if kind is not None:
        return WordTable(inner, kind).encode
    boundary = find_boundaries(inner) if inner is not None else None
    if boundary is not None and inner.encode(_ANCHOR, add_special_tokens=False).ids:
        return AnchoredTable(inner, boundary).encode

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


class _Table(abc.ABC):
    """The tokens of words, which are found as they occur.

    Args:
      inner: A `tokenizers.Tokenizer`.
      most: The words that are kept; where there are more, all are found again.
    """

    def __init__(self, inner: Any, most: int):
        self._inner, self._most = inner, most
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._size = 0  # bytes of the words
        self._tokens = np.zeros(0, np.int32)
        self._begins = np.zeros(0, bool)
        self._ends = np.zeros(1, np.int64)  # of the tokens of each word

    def _find(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of words, and whether a word begins at each."""
        new = [word for word in dict.fromkeys(words) if word not in self._numbers]
        size = sum(map(len, new))
        if len(self._numbers) + len(new) > self._most or self._size + size > _BYTES:
            self._clear()
            new = list(dict.fromkeys(words))
            size = sum(map(len, new))
        self._size += size
        if new:
            self._add(new)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64)
        starts = self._ends[numbers]
        counts = self._ends[numbers + 1] - starts
        before = np.cumsum(counts) - counts
        places = np.repeat(starts - before, counts) + np.arange(counts.sum())
        return self._tokens[places], self._begins[places]

    @abc.abstractmethod
    def _add(self, words: list[bytes]) -> None:
        """Adds the tokens of words to the table."""

    def _append(
        self,
        words: list[bytes],
        tokens: list[np.ndarray],
        begins: list[np.ndarray],
        counts: np.ndarray,
    ) -> None:
        """Appends words, their tokens, and how many tokens each word has."""
        for word in words:
            self._numbers[word] = len(self._numbers)
        self._tokens = np.concatenate([self._tokens, *tokens])
        self._begins = np.concatenate([self._begins, *begins])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(counts)])


class WordTable(_Table):
    """The tokens of the words of a BERT or GPT-2.

    Args:
      inner: A `tokenizers.Tokenizer`.
      kind: How it divides texts into words.
      most: The words that are kept; where there are more, all are found again.
    """

    def __init__(self, inner: Any, kind: _Kind, most: int = _MOST):
        super().__init__(inner, most)
        self._kind = kind

    def encode(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of a text in UTF-8, and whether a word begins at each."""
        return self._find(self._kind.split(text))

    def _add(self, words: list[bytes]) -> None:
        """Adds the tokens of words to the table."""
        joined = [word for word in words if self._kind.joins(word)]
        groups = [joined[i : i + _GROUP] for i in range(0, len(joined), _GROUP)]
        groups += [[word] for word in words if not self._kind.joins(word)]
        texts = [self._kind.glue.join(group).decode() for group in groups]
        encodings = self._inner.encode_batch(texts, add_special_tokens=False)
        pairs = zip(groups, encodings, strict=True)
        counts = [self._counts(group, each) for group, each in pairs]
        tokens = [np.array(each.ids, np.int32) for each in encodings]
        begins = [_begins(np.array(each.word_ids)) for each in encodings]
        ordered = [word for group in groups for word in group]
        self._append(ordered, tokens, begins, np.concatenate(counts))

    def _counts(self, group: list[bytes], encoding: Any) -> np.ndarray:
        """Returns the number of tokens of each word of a text, by their characters."""
        lengths = [len(word.decode()) + len(self._kind.glue) for word in group]
        starts = np.cumsum([0, *lengths[:-1]])
        first = [begin for begin, _ in encoding.offsets]
        owners = np.searchsorted(starts, first, "right") - 1
        return np.bincount(owners, minlength=len(group))


class AnchoredTable(_Table):
    """The tokens of the words of a tokenizer that may put a space before a text.

    A word is tokenized after another one, unless it is the first of a group of lines.
    The tokens are those of `Tokenizer.stream`.

    Args:
      inner: A `tokenizers.Tokenizer`.
      boundary: What matches between its words, of `find_boundaries`.
      most: The words that are kept; where there are more, all are found again.
    """

    def __init__(self, inner: Any, boundary: re.Pattern[bytes], most: int = _MOST):
        super().__init__(inner, most)
        self._boundary = boundary
        added = inner.get_added_tokens_decoder().values()
        contents = [re.escape(token.content.encode()) for token in added]
        self._added = re.compile(b"|".join(contents) or rb"(?!)")
        self._alone = self._encode(_ANCHOR)
        self._after = self._encode(_ANCHOR + _AFTER.decode())[len(self._alone) :]

    def _encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of a text in UTF-8, and whether a word begins at each."""
        groups = (group.encode() for group in line_groups(text.decode()))
        tokens, begins = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
        for added, each in itertools.groupby(groups, self._has_added):
            same = list(each)
            found = map(self._whole, same) if added else [self._words(same)]
            for ids, starts in found:
                tokens.append(ids)
                begins.append(starts)
        return np.concatenate(tokens), np.concatenate(begins)

    def _has_added(self, group: bytes) -> bool:
        """Returns whether lines hold an added token, whose neighbours may differ."""
        return self._added.search(group) is not None

    def _whole(self, group: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of lines that are not divided, and where words begin."""
        encoding = self._inner.encode(group.decode(), add_special_tokens=False)
        return np.array(encoding.ids, np.int32), _begins(np.array(encoding.word_ids))

    def _words(self, groups: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of lines by their words, and where words begin."""
        words: list[bytes] = []
        for group in groups:
            first, *rest = self._boundary.split(group)
            words += [_FIRST + first, *rest]
        return self._find(words)

    def _add(self, words: list[bytes]) -> None:
        """Adds the tokens of words to the table."""
        joined = [word for word in words if self._joins(word)]
        others = [word for word in words if not self._joins(word)]
        groups = [joined[i : i + _GROUP] for i in range(0, len(joined), _GROUP)]
        texts = [(_AFTER.join([b"", *group, b""])[1:]).decode() for group in groups]
        encodings = self._inner.encode_batch(texts, add_special_tokens=False)
        for group, encoding in zip(groups, encodings, strict=True):
            counts, own = self._divide(group, encoding)
            if own is None:
                others += group
                continue
            begins = _begins(np.array(encoding.word_ids))
            tokens = np.array(encoding.ids, np.int32)
            self._append(group, [tokens[own]], [begins[own]], counts)
        self._add_one_by_one(others)

    def _joins(self, word: bytes) -> bool:
        """Returns whether a word may stand between others in a text."""
        if word.startswith(_FIRST):
            return False
        return self._boundary.match(word + _AFTER, len(word)) is not None

    def _divide(
        self, group: list[bytes], encoding: Any
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the number of tokens of each word of a text, and which are of words.

        The tokens between the words are known, so that characters of tokens which the
        library gives as those of a neighbour are noticed; the second is then None.
        """
        lengths = np.full(2 * len(group) + 1, len(_AFTER))
        lengths[0] = len(_ANCHOR)
        lengths[1::2] = [len(word.decode()) for word in group]
        starts = np.cumsum(lengths) - lengths
        owners = np.searchsorted(starts, [o[0] for o in encoding.offsets], "right") - 1
        counts, own = np.bincount(owners, minlength=len(lengths)), owners % 2 == 1
        between = [*self._alone, *self._after * len(group)]
        expected = np.full(len(group) + 1, len(self._after))
        expected[0] = len(self._alone)
        same = np.array_equal(counts[::2], expected) and (np.diff(owners) >= 0).all()
        same = same and np.array_equal(np.array(encoding.ids)[~own], between)
        return counts[1::2], own if same else None

    def _add_one_by_one(self, words: list[bytes]) -> None:
        """Adds the tokens of words, each of a text of its own."""
        if not words:
            return
        texts, skipped = [], []
        for word in words:
            first = word.startswith(_FIRST)
            texts.append(word[1:].decode() if first else _ANCHOR + word.decode())
            skipped.append(0 if first else len(self._alone))
        encodings = self._inner.encode_batch(texts, add_special_tokens=False)
        pairs = list(zip(encodings, skipped, strict=True))
        tokens = [np.array(each.ids[n:], np.int32) for each, n in pairs]
        begins = [_begins(np.array(each.word_ids))[n:] for each, n in pairs]
        self._append(words, tokens, begins, np.array([len(each) for each in tokens]))
