"""Text that does not fit in memory, as shards of tokens that are read where needed.

    shards = open_shards("shards")                  # made by experiments.prepare_text
    dataset = shards.dataset(shards.tokenizer(), length=256)
    dataset.train.read(np.array([5, 10**6]))        # the windows of these numbers

The windows are those that `data.corpus.language_data` would make of the same tokens.
The training part is a `Streamed`, whose order is a function of seed and step.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ffnlab import digests
from ffnlab.data.corpus import ByteTokenizer, Tokenizes
from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.shard_index import AGAIN, NAME, read_index, shard_files
from ffnlab.data.shard_index import tokenizer_digest as digest_of
from ffnlab.data.streamed import Streamed
from ffnlab.errors import InputError


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
        tokens, words = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        labels = np.full(shape, IGNORE, np.int32)
        rows = tokens[:, inside] = self._rows(begins, self._room)
        starts = self._starts(begins, self._room)
        numbers = np.cumsum(starts, axis=1, dtype=np.int32, out=words[:, inside])
        numbers -= starts[:, :1]
        labels[:, inside] = rows
        tokens[:, : inside.start] = self._before
        ends = inside.start + (rows >= 0).sum(axis=1) if self._after else None
        for place, token in enumerate(self._after):
            tokens[np.arange(len(rows)), ends + place] = token
        outside = (rows < 0) if self._end is None else (rows < 0) | (rows == self._end)
        if outside.any():
            words[:, inside][outside] = -1
            labels[:, inside][outside] = IGNORE
        mask = tokens >= 0
        tokens[~mask] = 0
        return {"x/tokens": tokens, "x/mask": mask, "x/words": words, "y": labels}

    def _rows(self, begins: np.ndarray, width: int) -> np.ndarray:
        """Returns stretches of tokens, −1 after the last one, int32 `[n, width]`."""
        rows = np.full((len(begins), width), -1, np.int32)
        for row, column, shard, place, count in self._pieces(begins, width):
            tokens = self._tokens[shard][place : place + count]
            rows[row, column : column + count] = tokens
        return rows

    def _starts(self, begins: np.ndarray, width: int) -> np.ndarray:
        """Returns 1 where a word begins in stretches, uint8 `[n, width]`."""
        packed = np.zeros((len(begins), width // 8 + 2), np.uint8)
        skipped, divided = np.zeros(len(begins), np.int64), []
        for row, column, shard, place, count in self._pieces(begins, width):
            held = self._words[shard][place // 8 : (place + count + 7) // 8]
            if count < width:
                divided.append((row, column, held, place % 8, count))
                continue
            packed[row, : len(held)] = held
            skipped[row] = place % 8
        bits = np.unpackbits(packed, axis=1, bitorder="little")
        starts = np.zeros((len(begins), width), np.uint8)
        for first in range(8):  # bits of a byte that are before the stretch
            chosen = np.flatnonzero(skipped == first)
            starts[chosen] = bits[chosen, first : first + width]
        for row, column, held, first, count in divided:
            piece = np.unpackbits(held, bitorder="little")[first : first + count]
            starts[row, column : column + count] = piece
        return starts

    def _pieces(
        self, begins: np.ndarray, width: int
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Yields the pieces of stretches, of which one may be in several shards.

        Args:
          begins: The first token of each stretch, int64 `[n]`.
          width: The tokens of a stretch; after the last token there is nothing.

        Yields:
          The row, the column, the shard, the place in the shard and the length.
        """
        shards = np.searchsorted(self._edges, begins, "right") - 1
        places = begins - self._edges[shards]
        whole = places + width <= np.diff(self._edges)[shards]
        rows = zip(shards.tolist(), places.tolist(), whole.tolist(), strict=True)
        for row, (shard, place, fits) in enumerate(rows):
            if fits:
                yield row, 0, shard, place, width
                continue
            column = 0
            while column < width and shard < len(self._tokens):
                count = min(len(self._tokens[shard]) - place, width - column)
                yield row, column, shard, place, count
                column, shard, place = column + count, shard + 1, 0
