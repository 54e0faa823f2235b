"""Text and words to the tokens of a checkpoint, and back to the words.

    tokenizer = read_tokenizer("minilm")
    encoded = tokenizer.words([["A", "cat"], ["Dogs"]], length=128)
    encoded.tokens[0]     # [CLS] a cat [SEP]
    encoded.first[0]      # where each word begins: [1, 2]

The tokens themselves are the work of the `tokenizers` library.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab.data.corpus import ByteTokenizer, Stream, Tokenizes
from ffnlab.data.files import read_json, require_file
from ffnlab.errors import InputError


class Encoded(NamedTuple):
    """Sequences of tokens, one for each text or sentence.

    Attributes:
      tokens: int32 `[T]` each, with the special tokens of the checkpoint.
      types: int32 `[T]` each: 1 for the second text of a pair, otherwise 0.
      first: for each word the place of its first token, −1 if it was cut off; of texts
        empty.
      lost: how many words, or tokens of texts, were cut off.
    """

    tokens: list[np.ndarray]
    types: list[np.ndarray]
    first: list[np.ndarray]
    lost: int


class Tokenizer:
    """A tokenizer of a checkpoint.

    Args:
      inner: a `tokenizers.Tokenizer`.
      source: the file it is from, for messages.
    """

    def __init__(self, inner: Any, source: str):
        inner.no_truncation()
        inner.no_padding()
        self.inner, self.source = inner, source
        alone, pair = inner.encode(""), inner.encode("", "")
        self._around, self._between = alone.ids, pair.ids
        self._second = (inner.encode("a", "a").type_ids or [0])[-1]
        self._spaced = "ByteLevel" in str(inner.pre_tokenizer)
        self.unknown = self._known("[UNK]", "<unk>", "<|endoftext|>")
        self.mask = self._first("[MASK]", "<mask>")
        self.around = self._split(self._around)
        self.end = None if self._around else self._first("<|endoftext|>", "</s>")

    @property
    def size(self) -> int:
        """The number of tokens."""
        return self.inner.get_vocab_size()

    def _known(self, *names: str) -> int:
        found = self._first(*names)
        if found is None:
            raise InputError(f"{self.source}: none of {', '.join(names)} is a token")
        return found

    def _first(self, *names: str) -> int | None:
        """Returns the first of some tokens that there is."""
        found = (self.inner.token_to_id(name) for name in names)
        return next((number for number in found if number is not None), None)

    def texts(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        length: int = 512,
    ) -> Encoded:
        """Returns the tokens of texts, or of pairs of texts.

        Args:
          texts: N texts.
          pairs: N more, to follow them; None for none.
          length: the most tokens, special ones included; of a pair the longer text is
            cut first.

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
        """Returns the tokens of sentences that are words already.

        Every word keeps its place: one that yields no token, such as a lone control
        character, is the unknown token.

        Args:
          sentences: the words of each.
          length: the most tokens, special ones included. Words are cut off whole.

        Raises:
          InputError: `length` leaves no room.
        """
        room = self.room(length)
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
        """Returns the tokens of texts, and where in its text each of them is.

        Args:
          texts: N texts.

        Returns:
          For each its tokens, without special ones, and int32 `[T, 2]`: the characters
          from where to where, without the space before them; −1 and −1 if there is
          nothing but space.
        """
        found = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return [
            (each.ids, _visible(text, each.offsets))
            for text, each in zip(texts, found, strict=True)
        ]

    def room(self, length: int, paired: bool = False) -> int:
        """Returns how many of so many tokens are left beside the special ones.

        Raises:
          InputError: none is.
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
          row: the tokens of the text.
          other: those of a second one; None is no second one, and none an empty one.

        Returns:
          Tokens and types, `[T]` each, and the place where the second text begins.
        """
        before, after = self.around
        first = [*before, *row, *after]
        if other is None:
            return first, [0] * len(first), len(first)
        # What a pair has beyond one text stands around the second: [SEP] b [SEP].
        extra = self._between[len(self._around) :]
        lead = extra[: len(extra) - len(after)]
        second = [*lead, *other, *after[: len(extra) - len(lead)]]
        types = [0] * len(first) + [self._second] * len(second)
        return first + second, types, len(first) + len(lead)

    def stream(self, document: bytes) -> Stream:
        """Returns a document as tokens, without special ones, and their words.

        Raises:
          InputError: it is not UTF-8.
        """
        try:
            lines = document.decode("utf-8").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise InputError(
                f"text for {self.source}: not UTF-8 at byte {error.start} of a "
                "document; bytes need no tokenizer"
            ) from None
        size = 1000  # lines that are encoded together, by threads of the library
        pieces = [
            "".join(lines[begin : begin + size]) for begin in range(0, len(lines), size)
        ]
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
        self.inner.save(str(directory / "tokenizer.json"))

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without the special ones."""
        return self.inner.decode([int(token) for token in tokens])

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in found]

    def _split(self, special: list[int]) -> tuple[list[int], list[int]]:
        """Returns the special tokens before and after a text."""
        half = (len(special) + 1) // 2
        return special[:half], special[half:]


def _visible(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns spans without the space that they begin with; −1 if nothing is left.

    >>> _visible("a b ", [(0, 1), (1, 3), (3, 4)]).tolist()
    [[0, 1], [2, 3], [-1, -1]]
    """
    found = np.full((len(offsets), 2), -1, np.int32)
    for number, (begin, end) in enumerate(offsets):
        left = len(text[begin:end].lstrip())
        if left:
            found[number] = end - left, end
    return found


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns how much of each text stays; the longer one is cut first.

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


def read_tokenizer(directory: str | Path) -> Tokenizer:
    """Reads the tokenizer of a checkpoint directory.

    Args:
      directory: holds tokenizer.json, or vocab.txt of a BERT, whose letters are made
        small as tokenizer_config.json says, and if it says nothing.

    Raises:
      InputError: there is neither, or it cannot be read.
    """
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"{directory}: tokens need tokenizers: pip install 'ffnlab[pretrained]'"
        ) from None
    directory = Path(directory)
    path = directory / "tokenizer.json"
    if not path.is_file():
        return Tokenizer(_wordpiece(directory), str(directory / "vocab.txt"))
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)), str(path))
    except InputError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path}: not a tokenizer: {error}") from None


def checkpoint_tokenizer(directory: str | Path, vocabulary: int) -> Tokenizes:
    """Returns the tokenizer of a checkpoint; one of bytes has no file of it.

    Args:
      directory: of the checkpoint.
      vocabulary: the number of tokens of its model.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    names = ("tokenizer.json", "vocab.txt")
    there = any(Path(directory, name).exists() for name in names)
    if vocabulary == ByteTokenizer.size and not there:
        return ByteTokenizer()
    return read_tokenizer(directory)


def _wordpiece(directory: Path) -> Any:
    """Returns BERT's tokenizer for a vocab.txt."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    path, settings = require_file(directory / "vocab.txt"), {}
    if (directory / "tokenizer_config.json").is_file():
        settings = read_json(directory / "tokenizer_config.json")
    try:
        words = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) < len(words):
        number = next(n for n, word in enumerate(words) if vocabulary[word] != n)
        raise InputError(f"{path}:{number + 1}: {words[number]!r} is there twice")
    for name in ("[UNK]", "[CLS]", "[SEP]"):
        if name not in vocabulary:
            raise InputError(f"{path}: {name} is missing; is it the file of a BERT?")
    inner = Inner(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    special = [f"[{name}]" for name in ("UNK", "CLS", "SEP", "PAD", "MASK")]
    inner.add_special_tokens([name for name in special if name in vocabulary])
    return inner
