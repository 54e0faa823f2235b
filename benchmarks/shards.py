"""How fast is text written to token shards, and read from them, by one core?

Writes the shards of a text by its bytes and, with --tokenizer, by a tokenizer, and
reads random windows of them, as training does: for a causal model, and for a masked one
if the tokenizer has a mask token. Rates are those of the time of the CPU, so that other
load counts little, in megabytes of text and of stored tokens. The peer of a tokenizer
is the `tokenizers` library on whole pieces of the text, checked to give equal tokens.
The default text is the source of Python's standard library.

    python -m benchmarks.shards --tokenizer=minilm
    python -m benchmarks.shards --rounds=1 --megabytes=1    (a smoke run)
"""

import dataclasses
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import data
from ffnlab.data.corpus import ByteTokenizer, Tokenizes
from ffnlab.data.text_blocks import read_blocks, scan
from ffnlab.data.word_cache import make_encode
from ffnlab.options import option

# Targets in megabytes a second: of text that is written, of tokens that are read.
WRITTEN, READ = 2.0, 50.0
WINDOWS = 4096  # read by a run


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """Text, tokenizer and windows; each field is a flag."""

    rounds: int = option(5, "Number of rounds; each runs every entry once.", least=1)
    text: str | None = option(None, "Text file. The default is Python's own source.")
    tokenizer: str | None = option(None, "Directory with a tokenizer.")
    megabytes: int = option(8, "Megabytes of the text to use, at most.", least=1)
    max_seq_length: int = option(256, "Tokens per window.", least=4)


class CpuEntry(Entry):
    """A row whose time is that of the CPU."""

    __slots__ = ()

    def seconds(self) -> float:
        """Returns the CPU time of one run, in seconds."""
        start = time.process_time()
        self.work.run(None)
        return time.process_time() - start


class Row(NamedTuple):
    """An entry, and what its time stands for.

    Attributes:
      entry: The entry.
      text: Bytes of text of a run.
      stored: Bytes of tokens of a run.
      target: Megabytes a second to reach, of text where it is written and of stored
        tokens where it is read; None for a peer.
    """

    entry: CpuEntry
    text: float
    stored: float
    target: float | None

    @property
    def counted(self) -> float:
        """The bytes that the target is about."""
        return self.text if self.target == WRITTEN else self.stored


def _text(config: Config, directory: Path) -> str:
    """Returns the path of the text to use."""
    if config.text:
        source = Path(config.text).read_bytes()
    else:
        source = b"".join(data.python_files(config.seed)[0]["train"])
    path = directory / "text.txt"
    path.write_bytes(source[: config.megabytes * 10**6].rpartition(b"\n")[0])
    return str(path)


def _rows(name: str, tokenizer: Tokenizes, config: Config, path: str) -> list[Row]:
    """Returns the entries of one tokenizer."""
    source = scan(path, 0.05, 0.05, utf8=False)
    out = Path(path).parent

    def write(_: None) -> None:
        with tempfile.TemporaryDirectory(dir=out) as directory:
            data.write_shards(directory, [source], tokenizer)

    kept = out / name
    index = data.write_shards(kept, [source], tokenizer)
    stored = sum(part.tokens for part in index.parts.values()) * index.stored.itemsize
    rows = [Row(_entry(name, "write", write), source.size, stored, WRITTEN)]
    if name != "bytes":
        rows.append(_peer(name, tokenizer, path, source.size, stored))
    shards = data.open_shards(kept)
    for masked in (False, True)[: 1 + (tokenizer.mask is not None)]:
        part = shards.dataset(tokenizer, config.max_seq_length, masked=masked)
        kind = "read, masked" if masked else "read, causal"
        read = functools.partial(_read, part.train, config.seed)
        text = WINDOWS * config.max_seq_length / part.about["tokens_per_byte"]["train"]
        size = WINDOWS * config.max_seq_length * index.stored.itemsize
        rows.append(Row(_entry(name, kind, read), text, size, READ))
    return rows


def _entry(name: str, setting: str, run: Any) -> CpuEntry:
    return CpuEntry(name, setting, Work(run))


def _read(part: data.Streamed, seed: int, _: None) -> None:
    """Reads windows in the order of training, 64 steps of 64 at once."""
    index = data.indices([seed], 0, WINDOWS // 64, 64, part.size)
    part.read(index.ravel())


def _peer(name: str, tokenizer: Tokenizes, path: str, size: int, stored: float) -> Row:
    """Returns the library alone, after a check that it gives the same tokens."""
    pieces = [text for _, text in read_blocks(path, 0, size)]
    encode = make_encode(tokenizer)
    for piece in pieces[:1]:
        tokens = tokenizer.stream(piece).tokens
        np.testing.assert_array_equal(encode(piece)[0], tokens)

    def run(_: None) -> None:
        for piece in pieces:
            tokenizer.stream(piece)

    return Row(_entry(name, "tokenizers alone", run), size, stored, None)


def tabulate(rows: list[Row], times: np.ndarray) -> Any:
    """Returns the rates of the times `[rounds, N]` of rows, in MB a second of CPU."""
    from ffnlab.report.table import Table

    cells = []
    for row, column in zip(rows, times.T, strict=True):
        text, stored = (size / 1e6 / column for size in (row.text, row.stored))
        low, high = np.quantile(text, [0.25, 0.75])
        rate = row.counted / 1e6 / np.median(column)
        met = "met" if row.target and rate >= row.target else "not met"
        cells.append(
            [
                row.entry.name,
                row.entry.setting,
                f"{np.median(text):.1f}",
                f"{low:.1f}–{high:.1f}",
                f"{np.median(stored):.1f}",
                f"≥ {row.target:g} {met}" if row.target else "",
            ]
        )
    columns = ["tokens", "work", "text, MB/s", "quartiles", "stored, MB/s", "target"]
    return Table(columns, cells, words=2)


def run(config: Config) -> Any:
    """Prints and returns the table of rates."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # the threads of tokenizers
    protocol.use_cpu()
    protocol.describe()
    with tempfile.TemporaryDirectory() as directory:
        path = _text(config, Path(directory))
        rows = _rows("bytes", ByteTokenizer(), config, path)
        if config.tokenizer:
            tokenizer = data.read_tokenizer(config.tokenizer)
            rows += _rows(Path(config.tokenizer).name, tokenizer, config, path)
        entries = [row.entry for row in rows]
        times = protocol.measure("shards", entries, config)
    table = tabulate(rows, times)
    print()
    table.show(f"megabytes a second of one core: median of {config.rounds} rounds")
    return table


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
