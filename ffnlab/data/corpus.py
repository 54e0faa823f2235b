"""Text for language models: documents in three parts, as windows of tokens.

    parts, about = read_texts(["book.txt"])
    dataset = language_data("book", parts, ByteTokenizer(), length=128)
    dataset.train["x/tokens"]    # [N, 128]
    dataset.train["y"]           # [N, 128], the tokens to predict

A tokenizer has the methods of `ByteTokenizer`, such as those of `data.tokenizer`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.files import require_file
from ffnlab.errors import InputError

Parts = Mapping[str, Sequence[bytes]]
_SHARES = {"train": 0.9, "valid": 0.05, "test": 0.05}
_END, _MASK = 0, 256  # tokens of bytes: the end of a document, and the mask


class Stream(NamedTuple):
    """A document as tokens.

    Attributes:
      tokens: int32 `[T]`.
      words: The number of the word of each token, int32 `[T]`, ascending.
    """

    tokens: np.ndarray
    words: np.ndarray


class Tokenizes(Protocol):
    """A tokenizer of a language model.

    Attributes:
      size: The number V of tokens.
      end: The token between documents; None if each window has tokens around it.
      around: The special tokens before and after each window.
      mask: The mask token; None if there is none.
    """

    size: int
    end: int | None
    around: tuple[list[int], list[int]]
    mask: int | None

    def stream(self, document: bytes) -> Stream:
        """Returns a document as tokens, without special ones around it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without the special ones."""


class ByteTokenizer:
    """Bytes as tokens: 0 is the end of a document, 256 the mask.

    A word is a run of letters, digits, underscores and bytes beyond ASCII; any other
    byte is a word of its own.

    >>> tokens, words = ByteTokenizer().stream(b"if x_1:")
    >>> tokens.tolist(), words.tolist()
    ([105, 102, 32, 120, 95, 49, 58], [0, 0, 1, 2, 2, 2, 3])
    """

    size = 257
    end: int | None = _END
    around: tuple[list[int], list[int]] = ([], [])
    mask: int | None = _MASK

    def stream(self, document: bytes) -> Stream:
        """Returns a document as tokens."""
        tokens = np.frombuffer(document, np.uint8).astype(np.int32)
        letter = (tokens >= 128) | np.isin(tokens, _LETTERS)
        begins = np.ones(len(tokens), bool)
        begins[1:] = ~(letter[1:] & letter[:-1])
        return Stream(tokens, np.cumsum(begins, dtype=np.int32) - 1)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens; bytes that are not UTF-8 are replaced."""
        inside = [int(token) for token in tokens if token not in (_END, _MASK)]
        return bytes(inside).decode("utf-8", "replace")


_LETTERS = np.frombuffer(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", np.uint8
)


def read_texts(
    paths: Sequence[str], utf8: bool = False
) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """Returns the parts of text files, and facts for a report.

    The first 90 % of each file are train, the next 5 % valid and the last 5 % test;
    files are cut at line ends.

    Args:
      paths: The paths of the files.
      utf8: Whether they must be UTF-8; otherwise they may have any bytes.

    Raises:
      InputError: There is no such file, one has fewer than three lines, or is not
        UTF-8.
    """
    parts: dict[str, list[bytes]] = {part: [] for part in _SHARES}
    digest = hashlib.sha256()
    for path in paths:
        text = require_file(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
        digest.update(text)
        if utf8:
            _check_utf8(str(path), text)
        for part, piece in _cut(str(path), text).items():
            parts[part].append(piece)
    return parts, {
        "source": ", ".join(Path(path).name for path in paths),
        "sha256": digest.hexdigest(),
        "sizes": {part: sum(map(len, texts)) for part, texts in parts.items()},
    }


def _check_utf8(path: str, text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8, which a tokenizer needs; bytes need none"
        ) from None


def _cut(path: str, text: bytes) -> dict[str, bytes]:
    """Returns the parts of a text, each with whole lines."""
    lines = text.splitlines(keepends=True)
    if len(lines) < 3:
        raise InputError(
            f"{path}: {len(lines)} lines; at least 3 are needed, one for each part"
        )
    ends, total = np.cumsum([len(line) for line in lines]), len(text)
    first = int(np.searchsorted(ends, _SHARES["train"] * total)) + 1
    first = min(first, len(lines) - 2)
    shares = _SHARES["train"] + _SHARES["valid"]
    second = int(np.searchsorted(ends, shares * total)) + 1
    second = min(max(second, first + 1), len(lines) - 1)
    pieces = lines[:first], lines[first:second], lines[second:]
    return {part: b"".join(piece) for part, piece in zip(_SHARES, pieces, strict=True)}


def language_data(
    name: str,
    parts: Parts,
    tokenizer: Tokenizes,
    length: int,
    *,
    masked: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Dataset:
    """Returns windows of text in which each token is predicted once.

    Args:
      name: The name of the data set.
      parts: The documents of `train`, `valid` and `test`.
      tokenizer: The tokenizer.
      length: T, the number of tokens of a window, special ones included.
      masked: Whether the data are for masked language models; otherwise each token is
        predicted from those before it.
      about: Facts for a report.

    Returns:
      The data set, with K = V classes. A part has x/tokens int32 [N, T], x/mask bool
      [N, T], False at padding, and y int32 [N, T]: the next token, or, if masked, the
      token itself where it may be masked; −100 elsewhere. If masked, it also has
      x/words int32 [N, T], the number of the word, −1 for tokens that are never masked.
      `about["tokens_per_byte"]` has by part the factor from a mean over tokens to one
      over bytes.

    Raises:
      InputError: There is nothing to predict, or a window has no room.
    """
    if masked and tokenizer.mask is None:
        raise InputError(f"{name}: this tokenizer has no mask token; is it of a BERT?")
    splits, ratios = {}, {}
    for part, documents in parts.items():
        streams = [tokenizer.stream(document) for document in documents]
        splits[part] = _windows(streams, tokenizer, length, masked)
        count = int((splits[part]["y"] != IGNORE).sum())
        if not count:
            raise InputError(f"{name}: the {part} part has no token to predict")
        ratios[part] = count / sum(map(len, documents))
    facts = {**(about or {}), "tokens_per_byte": ratios}
    return Dataset(
        name, **splits, task="tokens", features=1, classes=tokenizer.size, about=facts
    )


def sequence_data(
    tokens: Sequence[np.ndarray], special: Sequence[int], masked: bool
) -> Arrays:
    """Returns one sequence per row, with the arrays of a part of `language_data`.

    Args:
      tokens: Int `[T]` for each sequence, special tokens included.
      special: The tokens that are never masked.
      masked: Whether tokens are masked; otherwise the next one is predicted.

    >>> rows = [np.array([1, 5, 6, 2]), np.array([1, 7, 2])]
    >>> part = sequence_data(rows, special=[1, 2], masked=True)
    >>> part["x/words"].tolist()
    [[-1, 0, 1, -1], [-1, 0, -1, -1]]
    """
    rows = np.full((len(tokens), max(map(len, tokens))), -1, np.int32)
    for row, sequence in zip(rows, tokens, strict=True):
        row[: len(sequence)] = sequence
    x = {"x/tokens": np.maximum(rows, 0), "x/mask": rows >= 0}
    if not masked:
        labels = np.pad(rows[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        return {**x, "y": np.where(labels >= 0, labels, IGNORE).astype(np.int32)}
    inside = (rows >= 0) & ~np.isin(rows, special)
    words = np.where(inside, np.cumsum(inside, axis=1) - 1, -1).astype(np.int32)
    return {**x, "x/words": words, "y": np.where(inside, rows, IGNORE)}


def _windows(
    streams: Sequence[Stream], tokenizer: Tokenizes, length: int, masked: bool
) -> Arrays:
    """Returns the windows of one part."""
    before, after = tokenizer.around
    room = length - len(before) - len(after)
    if room < 1:
        raise InputError(f"a window of {length} tokens has no room for text")
    tokens, words = _joined(streams, None if masked else tokenizer.end)
    if not masked:
        rows = _rows(tokens, length, overlap=1, empty=-1)  # [N, T + 1]
        x, y = rows[:, :-1], rows[:, 1:]
        labels = np.where(y >= 0, y, IGNORE).astype(np.int32)
        return {"x/tokens": np.maximum(x, 0), "x/mask": x >= 0, "y": labels}
    rows = _around(_rows(tokens, room, overlap=0, empty=-1), before, after)
    numbers = _around(_rows(words, room, overlap=0, empty=-1), [-1] * len(before), [])
    numbers = np.pad(numbers, ((0, 0), (0, len(after))), constant_values=-1)
    least = numbers[:, len(before)][:, None]  # the number of the first word
    return {
        "x/tokens": np.maximum(rows, 0),
        "x/mask": rows >= 0,
        "x/words": np.where(numbers >= 0, numbers - least, -1),
        "y": np.where(numbers >= 0, rows, IGNORE).astype(np.int32),
    }


def _joined(
    streams: Sequence[Stream], end: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of all documents, each followed by `end`, and their words."""
    tokens, words, last = [], [], 0
    for stream in streams:
        tokens.append(stream.tokens)
        words.append(stream.words + last)
        last += int(stream.words[-1]) + 1 if len(stream.words) else 0
        if end is not None:
            tokens.append(np.array([end], np.int32))
            words.append(np.array([last], np.int32))
            last += 1
    empty = [np.zeros(0, np.int32)]
    return np.concatenate(tokens or empty), np.concatenate(words or empty)


def _rows(values: np.ndarray, width: int, overlap: int, empty: int) -> np.ndarray:
    """Returns a stream in rows of `width + overlap`, the last one padded."""
    count = max(-(-(len(values) - overlap) // width), 0)
    padded = np.full(count * width + overlap, empty, np.int32)
    padded[: len(values)] = values[: len(padded)]
    index = np.arange(count)[:, None] * width + np.arange(width + overlap)
    return padded[index]


def _around(rows: np.ndarray, before: list[int], after: list[int]) -> np.ndarray:
    """Returns rows with special tokens before and right after their tokens."""
    left = np.tile(np.array(before, np.int32), (len(rows), 1))
    right = np.full((len(rows), len(after)), -1, np.int32)
    surrounded = np.concatenate([left, rows, right], axis=1)
    ends = len(before) + (rows >= 0).sum(axis=1)
    for place, token in enumerate(after):
        surrounded[np.arange(len(rows)), ends + place] = token
    return surrounded
