"""Files that are not what they should be, for every function that reads files."""

import dataclasses
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import launch
from ffnlab import digests, io, pretrained
from ffnlab.data import (
    corpus,
    open_shards,
    read_conll,
    read_npz,
    squad,
    tabular,
    text_blocks,
    write_shards,
)
from ffnlab.data.examples import Columns, read_labelled
from ffnlab.data.tokenizer_files import read_tokenizer
from ffnlab.finetune.finetuned_model import read_finetuned
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.run_table import RunTable, read_scores
from tests.faults.trials import EXACT, REFUSED, TRACEBACK, Trial

SECONDS, BYTES = 10, 2**30  # most time and memory for one file
_VALUES = [
    None, True, -1, 0, 3, 0.5, 10**30, 1e308, float("nan"), float("inf"), "", "\0",
    "[/b]", "\x1b[31m", "x" * 70_000, [], [[]], [None], {}, {"": ""}, {"a": {"a": []}},
    json.loads("[" * 500 + "]" * 500),
]  # fmt: skip
_PIECES = [
    b"\xff", b"\0", b"\n", b"\r", b"\t", b",", b'"', b"{", b"]", b"\xef\xbb\xbf",
    "\u2028".encode(), "\u202e".encode(), b"9" * 5000, b"[" * 2000, b"nan", b"-",
]  # fmt: skip


class Reader(NamedTuple):
    """A function that reads a file.

    Attributes:
      path: The file that is changed, in the folder of the files.
      read: The function; it is called with the folder.
    """

    path: str
    read: Callable[[Path], Any]


def _flags(folder: Path) -> Any:
    return launch.parse(CompareConfig, ["program", f"--flagfile={folder / 'flags'}"])


def _shards(folder: Path) -> Any:
    digests.seal(folder / "shards")  # which would notice every change
    return open_shards(folder / "shards")


def _scores(folder: Path) -> Any:
    return read_scores(RunTable(str(folder / "runs.csv"), "block", "seed", "score"))


READERS = {
    "config.json": Reader("bert/config.json", lambda f: pretrained.load(f / "bert")),
    "safetensors": Reader(
        "bert/model.safetensors", lambda f: pretrained.load(f / "bert")
    ),
    "vocab.txt": Reader("bert/vocab.txt", lambda f: read_tokenizer(f / "bert")),
    "config.json of best": Reader(
        "run/best/config.json", lambda f: read_finetuned(f / "run")
    ),
    "tokenizer_config.json": Reader(
        "bert/tokenizer_config.json", lambda f: read_tokenizer(f / "bert")
    ),
    "tokenizer.json": Reader(
        "tokenizer/tokenizer.json", lambda f: read_tokenizer(f / "tokenizer")
    ),
    "adapter.json": Reader(
        "run/adapter/adapter.json", lambda f: read_finetuned(f / "run/adapter")
    ),
    "adapter.safetensors": Reader(
        "run/adapter/adapter.safetensors", lambda f: read_finetuned(f / "run/adapter")
    ),
    "CoNLL": Reader("train.conll", lambda f: read_conll(f / "train.conll")),
    "TSV": Reader(
        "train.tsv",
        lambda f: read_labelled(f / "train.tsv", "classify", Columns("2", None, "1")),
    ),
    "JSON lines": Reader(
        "train.jsonl",
        lambda f: read_labelled(f / "train.jsonl", "pairs", Columns("one", "two")),
    ),
    "SQuAD": Reader("train.json", lambda f: squad.read_questions(f / "train.json")),
    "table of runs": Reader("runs.csv", _scores),
    "CSV": Reader("runs.csv", lambda f: tabular.read_csv(f / "runs.csv", "score")),
    "npz": Reader("data.npz", lambda f: read_npz(f / "data.npz")),
    "text": Reader("lines.txt", lambda f: corpus.read_texts((f / "lines.txt",), True)),
    "flags": Reader("flags", _flags),
    "shards.json": Reader("shards/shards.json", _shards),
    "results.jsonl": Reader(
        "results.jsonl", lambda f: io.read_lines(f / "results.jsonl")
    ),
    "manifest.sha256": Reader(
        "manifest.sha256", lambda f: digests.read(f / "manifest.sha256")
    ),
}


def write_files(folder: Path, inputs: Path, tuned: Path | None = None) -> None:
    """Writes a good file for every reader.

    Args:
      folder: A directory that does not exist.
      inputs: The files that small runs read.
      tuned: A finished fine-tuning by an adapter; None leaves out its files.
    """
    shutil.copytree(inputs, folder)
    if tuned:
        shutil.copytree(tuned, folder / "run")
    for manifest in (folder / "run").rglob(digests.NAME):
        manifest.unlink()  # which would notice every change
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}
    (folder / "bert" / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer").mkdir()
    inner = read_tokenizer(folder / "bert").inner
    inner.save(str(folder / "tokenizer" / "tokenizer.json"))
    rng = np.random.default_rng(4)
    np.savez(folder / "data.npz", x=rng.normal(size=(30, 4)), y=np.arange(30) % 2)
    source = text_blocks.scan(str(folder / "lines.txt"), 0.05, 0.05, utf8=True)
    write_shards(folder / "shards", [source], corpus.ByteTokenizer())
    (folder / "flags").write_text("--data=iris\n--seeds=4\n--steps=8\n")
    io.write_lines(folder / "results.jsonl", [{"a": n, "b": "c"} for n in range(5)])
    (folder / "manifest.sha256").unlink(missing_ok=True)
    digests.start(folder, {"flags": digests.digest(folder / "flags")})


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns the bytes of a file with some changes."""
    for _ in range(int(rng.integers(1, 4))):
        kind, place = int(rng.integers(6)), int(rng.integers(len(content) + 1))
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content = content[place:]
        elif kind == 2:
            piece = _PIECES[rng.integers(len(_PIECES))]
            content = content[:place] + piece + content[place:]
        elif kind == 3 and content:
            changed = bytearray(content)
            changed[place % len(content)] ^= 1 << int(rng.integers(8))
            content = bytes(changed)
        else:
            content = _mutate_json(content, rng)
    return content


def _mutate_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns a JSON file with another value somewhere; other files by lines."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        lines = content.split(b"\n")
        line = int(rng.integers(len(lines)))
        with_value = json.dumps(_VALUES[rng.integers(len(_VALUES))]).encode()
        return b"\n".join([*lines[:line], with_value, *lines[line:]])
    holder, key = {"": value}, ""
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        keys = [*holder] if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(len(keys))]
    whole = holder.get("") is value if isinstance(holder, dict) else False
    holder[key] = _VALUES[rng.integers(len(_VALUES))]
    return json.dumps(holder[""] if whole else value).encode()


@dataclasses.dataclass(frozen=True)
class _Config:
    """No flags, which errors would name."""


def read(folder: Path, name: str, seed: int, count: int) -> list[Trial]:
    """Reads malformed files in this process.

    Args:
      folder: Good files, see `write_files`.
      name: The name of the reader.
      seed: Draws the changes.
      count: The number of files.
    """
    reader, trials = READERS[name], []
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent, "files")
        shutil.copytree(folder, copy)
        path = copy / reader.path
        good = path.read_bytes()
        reader.read(copy)  # what is good can be read
        for number in range(count):
            path.write_bytes(mutate(good, np.random.default_rng([seed, number])))
            trials.append(_read(reader, copy, f"{name}, seed {seed}, file {number}"))
    return trials


def _read(reader: Reader, folder: Path, name: str) -> Trial:
    """Reads a file, and says how that ended."""
    start, before = time.monotonic(), _peak()
    outcome, note = EXACT, ""
    try:
        reader.read(folder)
    except BaseException as error:
        ending = launch.describe(error, _Config)
        outcome, note = REFUSED, ending[1] if ending else ""
        if ending is None or not note or (note.count("\n") > 21):
            outcome, note = TRACEBACK, f"{type(error).__name__}: {error}"[:500]
    seconds, grown = time.monotonic() - start, _peak() - before
    slow = seconds > SECONDS or grown > BYTES
    if slow:
        note += f" ({seconds:.0f} s, {grown / 2**20:.0f} MiB)"
    return Trial(name, outcome, note, outcome == TRACEBACK or slow)


def _peak() -> int:
    """Returns the most memory that this process has used, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
