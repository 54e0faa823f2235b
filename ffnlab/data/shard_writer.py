"""Writes token shards from texts of any size, shard by shard.

    sources = [scan("a.txt", valid=0.05, test=0.05, utf8=False)]
    write_shards("shards", sources, ByteTokenizer())

A shard is whole or not there, so that an interrupted preparation goes on after the last
one.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ffnlab import digests, io
from ffnlab.data.corpus import Tokenizes
from ffnlab.data.shard_index import AGAIN, NAME, ShardIndex, read_index
from ffnlab.data.shard_index import shard_files as files_of
from ffnlab.data.text_blocks import PARTS, Source, read_blocks
from ffnlab.data.word_cache import make_encode
from ffnlab.errors import InputError

SHARD_TOKENS = 100_000_000


class _Block(NamedTuple):
    """A block of text as tokens.

    Attributes:
      part: The number of its part.
      tokens: Tokens, the end of the document included if it is the last block of one.
      begins: Bool `[T]`, whether a word begins.
      bytes: The bytes of its text.
      ends: 1 if it has the end of a document, else 0.
      next: The part, the text and the byte after it.
    """

    part: int
    tokens: np.ndarray
    begins: np.ndarray
    bytes: int
    ends: int
    next: list[int]


def write_shards(
    directory: str | Path,
    sources: Sequence[Source],
    tokenizer: Tokenizes,
    shard_tokens: int = SHARD_TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> ShardIndex:
    """Writes the shards of texts, or goes on where an interrupted call has stopped.

    Args:
      directory: The directory, which no other process writes to. It is made if it does
        not exist; otherwise it is empty or holds a part of these shards.
      sources: The texts, of `scan`. A part of a file is a document.
      tokenizer: The tokenizer. If it has an `end`, that follows each document.
      shard_tokens: The tokens at which a shard ends. The block of text that reaches
        them, of a mebibyte or less, is its last one.
      on_progress: A function to call with the number of bytes that are done.

    Returns:
      What shards.json holds.

    Raises:
      InputError: The directory holds other shards, or a part of the text has no token.
    """
    directory = Path(directory)
    index = _open(directory, sources, tokenizer, shard_tokens)
    blocks = _encoded(sources, tokenizer, index.next, min(shard_tokens, 2**20))
    for part, group in itertools.groupby(blocks, key=lambda block: block.part):
        rest = iter(group)
        for first in rest:  # those before are written
            shard = itertools.chain([first], rest)
            _write_shard(directory, index, PARTS[part], shard, on_progress)
    for part, held in index.parts.items():
        if held.tokens - held.ends < 1:
            names = ", ".join(source.path for source in sources)
            raise InputError(f"{names}: the {part} part of the text has no token")
    index.next = None
    index.write(directory)
    return index


def _open(
    directory: Path, sources: Sequence[Source], tokenizer: Tokenizes, shard_tokens: int
) -> ShardIndex:
    """Returns the index to go on with, and removes what was left half written."""
    described = [
        {
            "name": Path(source.path).name,
            "sha256": source.sha256,
            "bytes": source.size,
            "ends": list(source.ends),
        }
        for source in sources
    ]
    new = ShardIndex.start(tokenizer, shard_tokens, described)
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / digests.NAME).exists():
        digests.start(directory)
    digests.recover(directory)
    if not (directory / NAME).exists():
        if hasattr(tokenizer, "save"):
            tokenizer.save(directory)
        new.write(directory)
        return new
    held = read_index(directory)
    for name in ("sources", "tokenizer_sha256", "shard_tokens"):
        before, now = getattr(held, name), getattr(new, name)
        if before != now:
            raise InputError(
                f"{directory}: the shards are of another preparation: {name} differs "
                "from those it was started with; restore them, or " + AGAIN
            )
    if held.next is None:
        raise InputError(f"{directory}: the preparation is finished")
    if held.tokenizer != "bytes":
        digests.check(directory / held.tokenizer, AGAIN)
    for part, counts in held.parts.items():
        for number in range(len(counts.shards)):
            for path in files_of(directory, part, number):
                digests.check(path, AGAIN)
    return held


def _encoded(
    sources: Sequence[Source], tokenizer: Tokenizes, start: list[int], size: int
) -> Iterator[_Block]:
    """Yields the blocks of all texts from a position on, as tokens."""
    encode = make_encode(tokenizer)
    for part in range(start[0], len(PARTS)):
        for number, source in enumerate(sources):
            begin, end = source.span(part)
            if [part, number] < start[:2]:
                continue
            if [part, number] == start[:2]:
                begin = max(begin, start[2])
            for place, text in read_blocks(source.path, begin, end, size):
                tokens, begins = encode(text)
                after = place + len(text)
                ends = int(after == end and tokenizer.end is not None)
                if ends:
                    tokens = np.append(tokens, tokenizer.end)
                    begins = np.append(begins, True)
                position = [part, number, after]
                yield _Block(part, tokens, begins, len(text), ends, position)


def _write_shard(
    directory: Path,
    index: ShardIndex,
    part: str,
    blocks: Iterator[_Block],
    on_progress: Callable[[int], None] | None,
) -> None:
    """Writes a shard of the next blocks of a part, and records it in the index."""
    held, count, block = index.parts[part], 0, None
    paths = files_of(directory, part, len(held.shards))
    done = sum(each.bytes for each in index.parts.values())
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(io.atomic(path, "wb")) for path in paths]
        bits = np.zeros(0, bool)
        while count < index.shard_tokens and (block := next(blocks, None)):
            files[0].write(block.tokens.astype(index.stored).tobytes())
            bits = _write_bits(files[1], np.concatenate([bits, block.begins]))
            count += len(block.tokens)
            held.bytes, held.ends = held.bytes + block.bytes, held.ends + block.ends
            done, after = done + block.bytes, block.next
            if on_progress:
                on_progress(done)
        files[1].write(np.packbits(bits, bitorder="little").tobytes())
    if count:
        held.shards.append(count)
    else:  # text without a token, such as spaces for a BERT
        digests.update(directory, {}, tuple(path.name for path in paths))
        for path in paths:
            path.unlink()
    index.next = after
    index.write(directory)


def _write_bits(file: IO[bytes], bits: np.ndarray) -> np.ndarray:
    """Writes the whole bytes of some bits, and returns the bits that are left."""
    whole = len(bits) // 8 * 8
    file.write(np.packbits(bits[:whole], bitorder="little").tobytes())
    return bits[whole:]
