"""shards.json: what a directory of token shards holds, and how its files are named.

The directory holds, for each shard, `train-00000.tokens`, whose tokens are unsigned
little-endian integers, and `train-00000.words`, with a bit for each token, set where a
word begins, lowest bit first; beside them the tokenizer, unless it is that of bytes,
and a manifest with the digest of every file.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import digests, io
from ffnlab.data.corpus import ByteTokenizer, Tokenizes
from ffnlab.data.text_blocks import PARTS
from ffnlab.errors import InputError
from ffnlab.schema import Field, check, check_object, parse_json

NAME = "shards.json"
VERSION = 1
AGAIN = "prepare the text again, in a new directory"
_BYTES, _FILE = "bytes", "tokenizer.json"
_LIMITS = {"uint16": 2**16, "uint32": 2**32}  # one more than the largest token
_COUNT = Field(kind=int, least=0, required=True)
_TEXT = Field(kind=str, required=True)
_FIELDS = {
    "version": Field(kind=int, least=1, required=True),
    "tokenizer": Field(kind=str, known=(_BYTES, _FILE), required=True),
    "tokenizer_sha256": _TEXT,
    "vocabulary": Field(kind=int, least=1, most=2**32, required=True),
    "dtype": Field(kind=str, known=tuple(_LIMITS), required=True),
    "shard_tokens": Field(kind=int, least=1, required=True),
    "sources": Field(kind=list, least=1, items=Field(kind=dict), required=True),
    "parts": Field(kind=dict, least=3, required=True),
    "next": Field(kind=list, optional=True, items=_COUNT, required=True),
}
_SOURCE = {"name": _TEXT, "sha256": _TEXT, "bytes": _COUNT}
_SHARDS = Field(kind=list, items=Field(kind=int, least=1), required=True)
_PART = {"bytes": _COUNT, "ends": _COUNT, "shards": _SHARDS}
_PROBE = (
    "The quick BROWN fox's 1,234.50 caf\u00e9s \u2014 na\u00efve co\u00f6peration; "
    "x_1 = f(y)\n\tstra\u00dfe \u732b\u306f\u3053 \U0001f600 \u0418\u0432\u0430\u043d"
)


@dataclasses.dataclass
class Part:
    """The shards of one part.

    Attributes:
      bytes: The bytes of its text.
      ends: How many of its tokens end a document, and are not of the text.
      shards: The tokens of each shard.
    """

    bytes: int = 0
    ends: int = 0
    shards: list[int] = dataclasses.field(default_factory=list)

    @property
    def tokens(self) -> int:
        """The tokens of all shards."""
        return sum(self.shards)


@dataclasses.dataclass
class ShardIndex:
    """What shards.json holds.

    Attributes:
      tokenizer: `bytes`, or the name of the file of the tokenizer.
      tokenizer_sha256: The digest of what the tokenizer does, of `tokenizer_digest`.
      vocabulary: The number of different tokens.
      dtype: `uint16` or `uint32`.
      shard_tokens: The tokens at which a shard ends.
      sources: The `name`, `sha256`, `bytes` and `ends` of each text.
      parts: The shards of `train`, `valid` and `test`.
      next: The part, the text and the byte at which the preparation goes on; None if it
        is finished.
      version: The version of the format.
    """

    tokenizer: str
    tokenizer_sha256: str
    vocabulary: int
    dtype: str
    shard_tokens: int
    sources: list[dict[str, Any]]
    parts: dict[str, Part]
    next: list[int] | None
    version: int = VERSION

    @classmethod
    def start(
        cls, tokenizer: Tokenizes, shard_tokens: int, sources: list[dict[str, Any]]
    ) -> "ShardIndex":
        """Returns the index of a preparation that has not written a shard."""
        return cls(
            _BYTES if isinstance(tokenizer, ByteTokenizer) else _FILE,
            tokenizer_digest(tokenizer),
            tokenizer.size,
            "uint16" if tokenizer.size <= _LIMITS["uint16"] else "uint32",
            shard_tokens,
            sources,
            {part: Part() for part in PARTS},
            [0, 0, 0],
        )

    @property
    def stored(self) -> np.dtype:
        """The dtype of the tokens in a file."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def source(self) -> str:
        """The names of the texts."""
        return ", ".join(source["name"] for source in self.sources)

    def write(self, directory: Path) -> None:
        """Writes shards.json."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        io.write(directory / NAME, text + "\n")


def shard_files(directory: Path, part: str, number: int) -> tuple[Path, Path]:
    """Returns the files of the tokens and of the words of a shard."""
    name = f"{part}-{number:05d}"
    return directory / f"{name}.tokens", directory / f"{name}.words"


def read_index(directory: str | Path) -> ShardIndex:
    """Returns the index of a directory of token shards, after a check of its fields.

    Raises:
      InputError: The directory holds no token shards, or the index is damaged or of a
        later version.
    """
    directory = Path(directory)
    path, where = directory / NAME, f"{directory}: "
    if not path.is_file() or not (directory / digests.NAME).is_file():
        missing = NAME if not path.is_file() else digests.NAME
        what = "not a directory" if not directory.is_dir() else f"no {missing} in it"
        raise InputError(
            f"{where}{what}; name a directory of token shards, which "
            "experiments.prepare_text makes"
        )
    digests.check(path, AGAIN)
    values = check(parse_json(io.read(path), str(path)), Field(kind=dict), str(path))
    version = values.get("version")
    if type(version) is int and version > VERSION:
        raise InputError(
            f"{path}: version {version} is of a later ffnlab, which reads it; this one "
            f"reads version {VERSION}"
        )
    values = check_object(values, _FIELDS, str(path), AGAIN)
    for number, source in enumerate(values["sources"], 1):
        check_object(source, _SOURCE, f"{path}: sources: entry {number}", AGAIN)
    parts = {}
    for part in PARTS:
        held = values["parts"].get(part)
        parts[part] = Part(**check_object(held, _PART, f"{path}: parts: {part}", AGAIN))
    if values["vocabulary"] > _LIMITS[values["dtype"]]:
        raise InputError(
            f"{path}: vocabulary: {values['vocabulary']} tokens do not fit in "
            f"{values['dtype']}, which has {_LIMITS[values['dtype']]}; {AGAIN}"
        )
    return ShardIndex(**{**values, "parts": parts})


def tokenizer_digest(tokenizer: Tokenizes) -> str:
    """Returns the SHA-256 of what a tokenizer does: its vocabulary and a probe text.

    It stays the same where the tokenizer is saved in another form.
    """
    inner = getattr(tokenizer, "inner", None)
    words = sorted(inner.get_vocab().items()) if inner else []
    probe = tokenizer.stream(_PROBE.encode()).tokens.tolist()
    facts = [tokenizer.size, tokenizer.end, tokenizer.around, words, probe]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
