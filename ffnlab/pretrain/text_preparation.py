"""Prepares text of any size for pretraining, as token shards."""

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ffnlab import digests
from ffnlab.data.shard_index import NAME, ShardIndex, read_index
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.options import check, option

if TYPE_CHECKING:
    from ffnlab.data.corpus import Tokenizes
    from ffnlab.data.text_blocks import Source
    from ffnlab.report.table import Table


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Text, tokens and output directory."""

    text: tuple[str, ...] = option((), "Text files, in UTF-8 for a tokenizer.")
    tokenizer: str | None = option(
        None, "Directory with a tokenizer. The default is one token per byte."
    )
    out: str | None = option(None, "Output directory, which pretrain takes as shards.")
    valid_fraction: float = option(
        0.05, "Fraction of each file that is the validation part.", above=0, below=1
    )
    test_fraction: float = option(
        0.05, "Fraction of each file that is the test part.", above=0, below=1
    )
    shard_tokens: int = option(
        100_000_000,
        "Tokens at which a shard ends, with the block of text that reaches them.",
        least=1024,
    )
    resume: bool = option(
        False, "Continue the preparation in the output directory after its last shard."
    )

    def __post_init__(self):
        check(self)
        if not self.out:
            raise InputError("out: name a directory for the shards")
        if self.valid_fraction + self.test_fraction >= 1:
            raise InputError(
                "valid_fraction and test_fraction: together they should be below 1"
            )


class Prepared(NamedTuple):
    """Text that was prepared.

    Attributes:
      out: The directory of the shards.
      index: What its shards.json holds.
      table: A row for each part.
    """

    out: Path
    index: "ShardIndex"
    table: "Table"


def prepare_text(config: PrepareConfig) -> Prepared:
    """Writes the token shards of texts, and prints what they hold.

    Raises:
      InputError: A file or directory cannot be used, or a part has no token.
    """
    from ffnlab.data.corpus import ByteTokenizer
    from ffnlab.data.tokenizer_files import read_tokenizer
    from ffnlab.report import run_directory

    out = Path(config.out)
    _check_directory(out, config.resume)
    tokenizer = read_tokenizer(config.tokenizer) if config.tokenizer else None
    tokenizer = tokenizer or ByteTokenizer()
    sources = _scan(config, utf8=not isinstance(tokenizer, ByteTokenizer))
    out.mkdir(parents=True, exist_ok=True)
    with run_directory.acquire(out):
        try:
            index = _write(config, out, sources, tokenizer)
        except InputError:
            if not config.resume:
                shutil.rmtree(out)
            raise
        except BaseException as error:
            error.add_note(f"to continue: {_way_to_continue(config)}")
            raise
    table = _table(index)
    print()
    table.show(f"token shards of {index.source}, as {index.dtype}")
    print(terminal(f"written to {out}; pretrain takes it by --shards={out}"))
    return Prepared(out, index, table)


def _check_directory(out: Path, resume: bool) -> None:
    """Raises unless shards may be written to a directory.

    One without shards.json is of a preparation that had no time to begin.
    """
    from ffnlab.report import run_directory

    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; name a directory")
    is_started = (out / NAME).exists()
    others = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others -= {"lock", digests.NAME, "tokenizer.json"}
    others = {name for name in others if not name.endswith(".part")}
    if resume and not is_started:
        raise InputError(f"resume: {out} holds no run to continue")
    if resume:
        with run_directory.acquire(out):
            digests.recover(out)  # such as the last shards.json
    if resume and read_index(out).next is None:
        raise InputError(f"resume: {out} is finished; pretrain takes it as shards")
    if is_started and not resume:
        raise InputError(
            f"out: {out} already holds token shards; resume=true continues a "
            "preparation, or delete it, or choose another directory"
        )
    if others and not is_started:
        raise InputError(
            f"out: {out} holds files of something else; choose another directory"
        )


def _scan(config: PrepareConfig, utf8: bool) -> "list[Source]":
    """Returns the texts, after one pass that checks all of them."""
    from ffnlab.data import text_blocks
    from ffnlab.data.files import require_file
    from ffnlab.report.progress import Progress

    sizes = [require_file(path).stat().st_size for path in config.text]
    shares, sources = (config.valid_fraction, config.test_fraction), []
    with Progress(_kib(sum(sizes)), "KiB") as progress:
        for path, size in zip(config.text, sizes, strict=True):
            progress.begin(f"checking {Path(path).name}")

            def reach(done: int) -> None:
                progress.reach(done >> 10)

            sources.append(text_blocks.scan(path, *shares, utf8, reach))
            progress.reach(size >> 10)
    return sources


def _kib(count: int) -> int:
    """Returns a number of bytes in kibibytes, at least 1."""
    return max(count >> 10, 1)


def _write(
    config: PrepareConfig, out: Path, sources: "list[Source]", tokenizer: "Tokenizes"
) -> "ShardIndex":
    """Writes the shards, and shows the progress."""
    from ffnlab.data import shard_writer
    from ffnlab.report.progress import Progress

    total, start = _kib(sum(source.size for source in sources)), 0
    if config.resume:
        start = sum(part.bytes for part in read_index(out).parts.values()) >> 10
    with Progress(total, "KiB", done=start) as progress:
        progress.begin("tokenizing")

        def reach(done: int) -> None:
            progress.reach((done >> 10) - start)

        index = shard_writer.write_shards(
            out, sources, tokenizer, config.shard_tokens, reach
        )
        progress.reach(total - start, ends=True)
        progress.end()
    return index


def _way_to_continue(config: PrepareConfig) -> str:
    """Returns the flags that continue a preparation."""
    from ffnlab.options import to_flags

    return shlex.join([*to_flags(config, ("out", "resume")).split("\n")[:-1]]) + (
        f" --out={shlex.quote(config.out)} --resume"
    )


def _table(index: "ShardIndex") -> "Table":
    """Returns a row for each part of the shards."""
    from ffnlab.report.table import Table

    rows = [
        [
            name,
            f"{part.bytes:,}",
            f"{part.tokens:,}",
            f"{part.bytes / (part.tokens - part.ends):.2f}",
            f"{len(part.shards):,}",
        ]
        for name, part in index.parts.items()
    ]
    return Table(["part", "bytes", "tokens", "bytes/token", "shards"], rows, words=1)
