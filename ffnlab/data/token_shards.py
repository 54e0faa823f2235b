"""Text that does not fit in memory, as shards of tokens that are read where needed.

    shards = open_shards("shards")                  # made by experiments.prepare_text
    dataset = shards.dataset(shards.tokenizer(), length=256)
    dataset.train.read(np.array([5, 10**6]))        # the windows of these numbers

The windows are those that `data.corpus.language_data` would make of the same tokens.
The training part is a `Streamed`, whose order is a function of seed and step.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ffnlab import digests
from ffnlab.data.corpus import ByteTokenizer, Tokenizes
from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.shard_index import AGAIN, NAME, read_index, shard_files
from ffnlab.data.shard_index import tokenizer_digest as digest_of
from ffnlab.data.streamed import Streamed
from ffnlab.errors import InputError

# The cumulative sums of the bits of each byte, the lowest first, int32 [256, 8]. A bit
# is set where a word begins.
_COUNTS = np.cumsum(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"),
    axis=1,
    dtype=np.int32,
)


class TokenShards:
    """A directory of token shards.

    Attributes:
      directory: The directory.
      index: What its shards.json holds.
      digest: A SHA-256 of the digests of all its files.
    """

    def __init__(self, directory: str | Path):
        self.directory, self.index = Path(directory), read_index(directory)
        if self.index.next is not None:
            raise InputError(
                f"{directory}: the preparation is not finished; "
                "experiments.prepare_text with resume=true continues it"
            )
        names = digests.read(self.directory / digests.NAME)
        text = json.dumps(sorted(names.items()))
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self._check_files(names)

    def __str__(self) -> str:
        counts = [f"{part.tokens:,} {name}" for name, part in self.index.parts.items()]
        return (
            f"tokens of {self.index.source}: {', '.join(counts)}; vocabulary of "
            f"{self.index.vocabulary:,} ({self.index.tokenizer}), {self.index.dtype}"
        )

    def _check_files(self, names: dict[str, str]) -> None:
        """Raises unless every shard is there and has its size and digest."""
        for part, held in self.index.parts.items():
            for number, count in enumerate(held.shards):
                sizes = count * self.index.stored.itemsize, -(-count // 8)
                paths = shard_files(self.directory, part, number)
                for path, size in zip(paths, sizes, strict=True):
                    _check_file(path, size, names)
        if self.index.tokenizer != "bytes":
            digests.check(self.directory / self.index.tokenizer, AGAIN)

    def tokenizer(self) -> Tokenizes:
        """Returns the tokenizer that made the tokens."""
        from ffnlab.data.tokenizer_files import read_tokenizer

        if self.index.tokenizer == "bytes":
            return ByteTokenizer()
        return read_tokenizer(self.directory)

    def check_tokenizer(self, tokenizer: Tokenizes, source: str) -> None:
        """Raises an InputError unless a tokenizer is that of the shards.

        Args:
          tokenizer: The tokenizer.
          source: Where it is from, for the error.
        """
        if digest_of(tokenizer) != self.index.tokenizer_sha256:
            raise InputError(
                f"{self.directory}: the shards are of another tokenizer, of "
                f"{self.index.vocabulary} tokens, than {source}, of {tokenizer.size}; "
                "prepare the text with that tokenizer"
            )

    def dataset(
        self,
        tokenizer: Tokenizes,
        length: int,
        *,
        masked: bool = False,
        held_out: int = 256,
    ) -> Dataset:
        """Returns the windows of the shards, as `data.corpus.language_data` does.

        Args:
          tokenizer: The tokenizer of the shards.
          length: T, the number of tokens of a window, special ones included.
          masked: Whether the data are for masked language models.
          held_out: The maximum number of windows of the validation and of the test
            part, evenly spaced; these are in memory.

        Raises:
          InputError: A part has fewer tokens than a window, or the tokenizer has no
            mask token.
        """
        if masked and tokenizer.mask is None:
            raise InputError(
                f"{self.directory}: its tokenizer has no mask token; is it of a BERT?"
            )
        parts = {
            part: Windows(self, part, tokenizer, length, masked)
            for part in self.index.parts
        }
        train = Streamed(len(parts["train"]), parts["train"].read, self.digest)
        held = {part: parts[part].thin(held_out) for part in ("valid", "test")}
        ratios = {
            part: windows.predicted / self.index.parts[part].bytes
            for part, windows in parts.items()
        }
        sizes = {part: held.bytes for part, held in self.index.parts.items()}
        about = {"source": self.index.source, "sizes": sizes}
        return Dataset(
            self.directory.resolve().name,
            train,
            **held,
            task="tokens",
            features=1,
            classes=tokenizer.size,
            about={**about, "tokens_per_byte": ratios},
        )


def open_shards(directory: str | Path) -> TokenShards:
    """Opens a directory of token shards, after a check of all digests.

    Raises:
      InputError: The directory holds none, its preparation is not finished, or a shard
        is missing, cut or changed.
    """
    return TokenShards(directory)


def _check_file(path: Path, size: int, names: dict[str, str]) -> None:
    """Raises unless a file of a shard has its size and its digest."""
    remedy = f"restore it from a copy, or {AGAIN}"
    if not path.is_file():
        raise InputError(f"{path}: the shard is missing; {remedy}")
    found = path.stat().st_size
    if found != size:
        raise InputError(
            f"{path}: the shard has {found} bytes, and {size} in {NAME}; {remedy}"
        )
    if digests.digest(path) != names.get(path.name):
        raise InputError(
            f"{path}: the shard was changed or is damaged, by its digest in "
            f"{digests.NAME}; {remedy}"
        )


class Windows:
    """The windows of a part, read from its shards; `len()` is their number N.

    Args:
      shards: The shards.
      part: `train`, `valid` or `test`.
      tokenizer: The tokenizer of the shards.
      length: T, the number of tokens of a window, special ones included.
      masked: Whether the windows are for masked language models.

    Raises:
      InputError: The part has fewer tokens than a window.
    """

    def __init__(
        self,
        shards: TokenShards,
        part: str,
        tokenizer: Tokenizes,
        length: int,
        masked: bool,
    ):
        held = shards.index.parts[part]
        self._masked, self._end = masked, tokenizer.end
        self._before, self._after = tokenizer.around if masked else ([], [])
        self._room = length - len(self._before) - len(self._after)
        if self._room < 1:
            raise InputError(f"a window of {length} tokens has no room for text")
        if held.tokens < self._room + (not masked):
            raise InputError(
                f"max_seq_length: {length} is more than the {held.tokens} tokens of "
                f"the {part} part of {shards.directory}"
            )
        self._count = held.tokens
        self._edges = np.cumsum([0, *held.shards])
        paths = [
            shard_files(shards.directory, part, n) for n in range(len(held.shards))
        ]
        stored = shards.index.stored
        self._tokens = [np.asarray(np.memmap(path, stored, "r")) for path, _ in paths]
        self._words = [np.asarray(np.memmap(path, np.uint8, "r")) for _, path in paths]
        self.predicted = held.tokens - held.ends if masked else held.tokens - 1

    def __len__(self) -> int:
        return -(-(self._count - (not self._masked)) // self._room)

    def thin(self, most: int) -> Arrays:
        """Returns at most `most` windows, evenly spaced, as `data.thin` chooses them.

        Args:
          most: The maximum number of windows.
        """
        count = len(self)
        if count <= most:
            return self.read(np.arange(count))
        return self.read(np.linspace(0, count - 1, most).round().astype(np.int64))

    def read(self, index: np.ndarray) -> Arrays:
        """Returns the windows of some numbers.

        Args:
          index: Int `[n]`, each in `range(N)`.

        Returns:
          The arrays of a part of `language_data`, `[n, T]` each.
        """
        begins = np.asarray(index, np.int64) * self._room
        if self._masked:
            return self._masked_windows(begins)
        rows = self._rows(begins, self._room + 1)  # [n, T + 1]
        x, y = rows[:, :-1], rows[:, 1:]
        if begins.max(initial=0) + rows.shape[1] <= self._count:  # no padding
            return {"x/tokens": x, "x/mask": np.ones(x.shape, bool), "y": y}
        labels = np.where(y >= 0, y, IGNORE)
        return {"x/tokens": np.maximum(x, 0), "x/mask": x >= 0, "y": labels}

    def _masked_windows(self, begins: np.ndarray) -> Arrays:
        """Returns the windows of a masked model that begin at some tokens."""
        shape = len(begins), len(self._before) + self._room + len(self._after)
        inside = slice(len(self._before), len(self._before) + self._room)
        tokens, words, labels = (np.empty(shape, np.int32) for _ in range(3))
        rows = self._rows(begins, self._room, out=tokens[:, inside])
        self._number_words(begins, words[:, inside])
        labels[:, inside] = rows
        tokens[:, : inside.start], tokens[:, inside.stop :] = self._before, self._after
        for array, empty in ((words, -1), (labels, IGNORE)):
            array[:, : inside.start] = array[:, inside.stop :] = empty
        if self._end is not None and (ends := rows == self._end).any():
            words[:, inside][ends], labels[:, inside][ends] = -1, IGNORE
        mask = np.ones(shape, bool)
        for row in np.flatnonzero(begins + self._room > self._count):
            stop = inside.start + int(self._count - begins[row])
            tokens[row, stop : stop + len(self._after)] = self._after
            words[row, stop:], labels[row, stop:] = -1, IGNORE
            tokens[row, stop + len(self._after) :] = 0
            mask[row, stop + len(self._after) :] = False
        return {"x/tokens": tokens, "x/mask": mask, "x/words": words, "y": labels}

    def _rows(
        self, begins: np.ndarray, width: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns stretches of tokens, −1 after the last one, int32 `[n, width]`.

        Args:
          begins: The first token of each stretch, int64 `[n]`.
          width: The tokens of a stretch.
          out: Where they are written; None is a new array.
        """
        rows = np.empty((len(begins), width), np.int32) if out is None else out
        shards, places = self._locate(begins)
        whole = places + width <= np.diff(self._edges)[shards]
        for shard, chosen in _groups(shards, whole):
            views = sliding_window_view(self._tokens[shard], width)
            rows[chosen] = views[places[chosen]]
        for row in np.flatnonzero(~whole):
            rows[row] = -1
            for column, shard, piece in self._pieces(shards[row], places[row], width):
                tokens = self._tokens[shard][piece]
                rows[row, column : column + len(tokens)] = tokens
        return rows

    def _number_words(self, begins: np.ndarray, out: np.ndarray) -> None:
        """Writes the numbers of the words of stretches, from 0 in each.

        Args:
          begins: The first token of each stretch, int64 `[n]`.
          out: Where they are written, int32 `[n, width]`.
        """
        starts = self._starts(begins, out.shape[1])  # [n, width / 8]
        starts[:, 0] &= 0xFE  # the first word has number 0
        counts = _COUNTS[starts, -1]
        before = np.cumsum(counts, axis=1, dtype=np.int32) - counts
        numbers = _COUNTS[starts]  # [n, width / 8, 8]
        numbers += before[:, :, None]
        out[:] = numbers.reshape(len(starts), 8 * starts.shape[1])[:, : out.shape[1]]

    def _starts(self, begins: np.ndarray, width: int) -> np.ndarray:
        """Returns the bits of stretches, set where a word begins, uint8 `[n, B]`."""
        size = -(-width // 8) + 1  # one more, of which bits are shifted in
        packed = np.zeros((len(begins), size), np.uint8)
        shards, places = self._locate(begins)
        held = np.array([len(words) for words in self._words])
        whole = (places + width <= np.diff(self._edges)[shards]) & (
            places // 8 + size <= held[shards]
        )
        for shard, chosen in _groups(shards, whole):
            views = sliding_window_view(self._words[shard], size)
            packed[chosen] = views[places[chosen] // 8]
        skipped = np.where(whole, places % 8, 0).astype(np.uint8)[:, None]
        bits = packed[:, :-1] >> skipped | packed[:, 1:] << (8 - skipped)
        for row in np.flatnonzero(~whole):
            starts = np.zeros(width, np.uint8)
            for column, shard, piece in self._pieces(shards[row], places[row], width):
                unpacked = self._unpack(shard, piece)
                starts[column : column + len(unpacked)] = unpacked
            bits[row] = np.packbits(starts, bitorder="little")
        return bits

    def _unpack(self, shard: int, piece: slice) -> np.ndarray:
        """Returns 1 where a word begins in a piece of a shard, uint8 `[T]`."""
        first, last = piece.start // 8, -(-piece.stop // 8)
        bits = np.unpackbits(self._words[shard][first:last], bitorder="little")
        return bits[piece.start - 8 * first : piece.stop - 8 * first]

    def _locate(self, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard of each of some tokens, and its place there, int `[n]`."""
        shards = np.searchsorted(self._edges, begins, "right") - 1
        return shards, begins - self._edges[shards]

    def _pieces(
        self, shard: int, place: int, width: int
    ) -> Iterator[tuple[int, int, slice]]:
        """Yields the pieces of a stretch that is in several shards, or ends the last.

        Args:
          shard: The shard of its first token.
          place: The place of that there.
          width: The tokens of a stretch; after the last token there is nothing.

        Yields:
          The column, the shard and the piece of the shard.
        """
        column = 0
        while column < width and shard < len(self._tokens):
            count = min(len(self._tokens[shard]) - place, width - column)
            yield column, shard, slice(int(place), int(place + count))
            column, shard, place = column + count, shard + 1, 0


def _groups(shards: np.ndarray, whole: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Yields each shard, and the rows of it that are whole."""
    if whole.all() and (shards == shards[:1]).all():
        if len(shards):
            yield int(shards[0]), slice(None)
        return
    rows = np.flatnonzero(whole)
    rows = rows[np.argsort(shards[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(shards[rows], prepend=-1, append=-1))
    for begin, end in itertools.pairwise(edges):
        yield int(shards[rows[begin]]), rows[begin:end]
