"""Tokenizers of checkpoints, for texts, pairs of texts and lists of words.

    tokenizer = read_tokenizer("minilm")
    encoded = tokenizer.words([["A", "cat"], ["Dogs"]], length=128)
    encoded.tokens[0]     # [CLS] a cat [SEP]
    encoded.first[0]      # the first token of each word: [1, 2]

The `tokenizers` library does the tokenization.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab import io
from ffnlab.data.corpus import Stream
from ffnlab.errors import InputError

_LINES = 1000  # lines that are encoded together, by threads of the library


class Encoded(NamedTuple):
    """Sequences of tokens, one for each text or sentence.

    Attributes:
      tokens: int32 `[T]` each, with the special tokens of the checkpoint.
      types: int32 `[T]` each: 1 for the second text of a pair, otherwise 0.
      first: The position of the first token of each word, −1 if it was cut off; empty
        for texts.
      lost: The number of words, or tokens of texts, that were cut off.
    """

    tokens: list[np.ndarray]
    types: list[np.ndarray]
    first: list[np.ndarray]
    lost: int


class Tokenizer:
    """A tokenizer of a checkpoint.

    Args:
      inner: A `tokenizers.Tokenizer`.
      source: Its file, for errors.
      notes: A line on everything in which files disagree.
      names: The names of special tokens, `unk_token` and `mask_token`; the usual ones
        if there are none.
    """

    def __init__(
        self,
        inner: Any,
        source: str,
        notes: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
    ):
        inner.no_truncation()
        inner.no_padding()
        self.inner, self.source, self.notes = inner, source, tuple(notes)
        unknown, mask = ((names or {}).get(f"{n}_token", "") for n in ("unk", "mask"))
        alone, pair = inner.encode(""), inner.encode("", "")
        self._around, self._between = alone.ids, pair.ids
        self._second = (inner.encode("a", "a").type_ids or [0])[-1]
        self._spaced = "ByteLevel" in str(inner.pre_tokenizer)
        self.unknown = self._known(unknown, "[UNK]", "<unk>", "<|endoftext|>")
        self.mask = self._first(mask, "[MASK]", "<mask>")
        self.around = self._split(self._around)
        self.end = None if self._around else self._first("<|endoftext|>", "</s>")

    @property
    def size(self) -> int:
        """One more than the largest id, which is the number of tokens without gaps."""
        return max(self.inner.get_vocab().values(), default=-1) + 1

    @property
    def types(self) -> int:
        """The number of token types: 2 if the second text of a pair has its own."""
        return self._second + 1

    def check(self, vocabulary: int, types: int = 0) -> None:
        """Checks that a model has embeddings for all tokens and token types.

        Args:
          vocabulary: The rows of the embeddings of tokens.
          types: The rows of the embeddings of token types; 0 for none, which takes any.

        Raises:
          InputError: A row is missing; the message names the tokens without one.
        """
        if self.size > vocabulary:
            ids = self.inner.get_vocab()
            lost = sorted((n, token) for token, n in ids.items() if n >= vocabulary)
            names = ", ".join(repr(token) for _, token in lost[:5])
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            first, last = lost[0][0], lost[-1][0]
            raise InputError(
                f"{self.source}: ids {first} to {last} have no embedding ({names}"
                f"{more}): the model has {vocabulary} rows; in transformers, "
                "model.resize_token_embeddings(len(tokenizer)) adds the others"
            )
        if types and self.types > types:
            raise InputError(
                f"{self.source}: the second text of a pair has token type "
                f"{self._second}, the model has {types} types; save the tokenizer that "
                "belongs to the model"
            )

    def _known(self, *names: str) -> int:
        token = self._first(*names)
        if token is None:
            known = ", ".join(filter(None, names))
            raise InputError(f"{self.source}: none of {known} is a token")
        return token

    def _first(self, *names: str) -> int | None:
        """Returns the first of some tokens that is in the vocabulary."""
        tokens = (self.inner.token_to_id(name) for name in names if name)
        return next((token for token in tokens if token is not None), None)

    def texts(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        length: int = 512,
    ) -> Encoded:
        """Returns the tokens of texts, or of pairs of texts.

        Args:
          texts: N texts.
          pairs: Their N second texts; None for none.
          length: The maximum number of tokens, special ones included; of a pair the
            longer text is cut first.

        Raises:
          InputError: `length` leaves no room.
        """
        room = self.room(length, paired=pairs is not None)
        rows = self._plain(texts)
        others = [[]] * len(rows) if pairs is None else self._plain(pairs)
        tokens, types, lost = [], [], 0
        for row, other in zip(rows, others, strict=True):
            kept = _shares(len(row), len(other), room)
            lost += len(row) + len(other) - sum(kept)
            second = None if pairs is None else other[: kept[1]]
            made, kinds, _ = self.joined(row[: kept[0]], second)
            tokens.append(np.array(made, np.int32))
            types.append(np.array(kinds, np.int32))
        return Encoded(tokens, types, [], lost)

    def words(self, sentences: Sequence[Sequence[str]], length: int = 512) -> Encoded:
        """Returns the tokens of sentences that are lists of words.

        A word without a token, such as a control character, becomes the unknown token.

        Args:
          sentences: The words of each sentence.
          length: The maximum number of tokens, special ones included. The last words
            are cut off, whole.

        Raises:
          InputError: `length` leaves no room, or a sentence is a text.
        """
        room = self.room(length)
        _check_sentences(sentences)
        flat = [" " + w if self._spaced else w for words in sentences for w in words]
        pieces = iter(self._plain(flat))
        tokens, types, first, lost = [], [], [], 0
        for words in sentences:
            row: list[int] = []
            starts = np.full(len(words), -1, np.int32)
            for place in range(len(words)):
                piece = next(pieces) or [self.unknown]
                if len(row) + len(piece) > room or (place and starts[place - 1] < 0):
                    lost += 1
                    continue
                starts[place] = len(row)
                row += piece
            made, kinds, _ = self.joined(row)
            starts[starts >= 0] += len(self.around[0])
            tokens.append(np.array(made, np.int32))
            types.append(np.array(kinds, np.int32))
            first.append(starts)
        return Encoded(tokens, types, first, lost)

    def spans(self, texts: Sequence[str]) -> list[tuple[list[int], np.ndarray]]:
        """Returns the tokens of texts, with their positions in the text.

        Args:
          texts: N texts.

        Returns:
          For each text its tokens, without special ones, and int32 `[T, 2]`: the first
          character of each and the one after its last, without the space before; −1
          and −1 for a token of space alone.
        """
        encodings = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return [
            (encoding.ids, _visible(text, encoding.offsets))
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def room(self, length: int, paired: bool = False) -> int:
        """Returns how many of `length` tokens are left beside the special ones.

        Args:
          length: The number of tokens, special ones included.
          paired: Whether there is a second text.

        Raises:
          InputError: None is left.
        """
        special = self._between if paired else self._around
        if length <= len(special):
            raise InputError(
                f"length {length}: no room beside {len(special)} special tokens"
            )
        return length - len(special)

    def joined(
        self, row: list[int], other: list[int] | None = None
    ) -> tuple[list[int], list[int], int]:
        """Returns tokens and types of one text or of a pair, with special tokens.

        Args:
          row: The tokens of the text.
          other: The tokens of a second text; None for no second text.

        Returns:
          Tokens and types, `[T]` each, and the position at which the second text
          begins.
        """
        before, after = self.around
        first = [*before, *row, *after]
        if other is None:
            return first, [0] * len(first), len(first)
        # The special tokens that only a pair has are around the second: [SEP] b [SEP].
        extra = self._between[len(self._around) :]
        lead = extra[: len(extra) - len(after)]
        second = [*lead, *other, *after[: len(extra) - len(lead)]]
        types = [0] * len(first) + [self._second] * len(second)
        return first + second, types, len(first) + len(lead)

    def stream(self, document: bytes) -> Stream:
        """Returns a document as tokens, without special ones, and their words.

        Raises:
          InputError: It is not UTF-8.
        """
        try:
            pieces = line_groups(document.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"text for {self.source}: not UTF-8 at byte {error.start} of a "
                "document; bytes need no tokenizer"
            ) from None
        tokens, words, last = [], [], 0
        for piece in self.inner.encode_batch(pieces, add_special_tokens=False):
            numbers = np.array(piece.word_ids, np.int32) + last
            tokens.append(np.array(piece.ids, np.int32))
            words.append(numbers)
            last = int(numbers[-1]) + 1 if len(numbers) else last
        empty = [np.zeros(0, np.int32)]
        return Stream(np.concatenate(tokens or empty), np.concatenate(words or empty))

    def save(self, directory: Path) -> None:
        """Writes tokenizer.json into a directory."""
        io.write(directory / "tokenizer.json", self.inner.to_str(pretty=True))

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without the special ones."""
        return self.inner.decode([int(token) for token in tokens])

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _split(self, special: list[int]) -> tuple[list[int], list[int]]:
        """Returns the special tokens before and after a text."""
        half = (len(special) + 1) // 2
        return special[:half], special[half:]


def line_groups(text: str) -> list[str]:
    r"""Returns a text in groups of lines, each of which is tokenized by itself.

    >>> [len(group) for group in line_groups("a\n" * 1500)]
    [2000, 1000]
    """
    lines = text.splitlines(keepends=True)
    places = range(0, len(lines), _LINES)
    return ["".join(lines[place : place + _LINES]) for place in places]


def _check_sentences(sentences: Sequence[Sequence[str]]) -> None:
    """Raises if a sentence is a text, whose words would be its characters."""
    whole = [sentences] if isinstance(sentences, str) else sentences
    for number, sentence in enumerate(whole, 1):
        if isinstance(sentence, str):
            raise InputError(
                f"sentences: sentence {number} is a text, {sentence!r:.60}; give the "
                "list of its words, such as text.split()"
            )


def _visible(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns spans without the space at their beginning; −1 if nothing is left.

    >>> _visible("a b ", [(0, 1), (1, 3), (3, 4)]).tolist()
    [[0, 1], [2, 3], [-1, -1]]
    """
    spans = np.full((len(offsets), 2), -1, np.int32)
    for number, (begin, end) in enumerate(offsets):
        left = len(text[begin:end].lstrip())
        if left:
            spans[number] = end - left, end
    return spans


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns how many tokens of each text are kept; the longer one is cut first.

    >>> _shares(10, 3, 8), _shares(10, 9, 8), _shares(2, 3, 8)
    ((5, 3), (4, 4), (2, 3))
    """
    if first + second <= room:
        return first, second
    if second <= room // 2:
        return room - second, second
    if first <= room // 2:
        return first, room - first
    return room - room // 2, room // 2
