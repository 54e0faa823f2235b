"""Small runs of every launcher, which take seconds, and what they leave."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab import digests
from tests import tuned

_COMPARE = (
    "--data=iris --blocks=mlp,swiglu --activations=relu --features=8 --hidden=8 "
    "--layers=1 --learning_rates=1e-2 --steps=8 --evaluations=4 --batch_size=16"
)
_TUNE = (
    "--checkpoint=bert --train=train.{0} --dev=dev.{0} --test=test.{0} "
    "--max_seq_length=14 --epochs=2 --learning_rate=1e-2 --batch_size=8"
)
_TAG = f"--task=tag {_TUNE.format('conll')}"
_TABLE = f"{_TUNE.format('tsv')} --text_column=2 --label_column=1"
_METHODS = (
    f"{_TAG} --methods=full,lora --rate_factors=1 --tuning_seeds=1 --seeds=2"
).replace(" --learning_rate=1e-2", "")

# Launcher and flags, by name; the files are those of `write_inputs`.
RUNS: Mapping[str, tuple[str, str]] = {
    "compare": (
        "compare",
        f"{_COMPARE} --seeds=4",
    ),
    "compare until decided": (
        "compare",
        f"{_COMPARE} --seeds=8 --max_replicates=16 --until=decided",
    ),
    "feedback": (
        "feedback",
        "--tasks=brackets --models=feedback,elman --couplings= --hidden=8 "
        "--embedding=4 --seeds=2 --learning_rates=1e-2 --steps=8 --evaluations=4 "
        "--batch_size=8 --iterations=8",
    ),
    "pretrain": (
        "pretrain",
        "--text=lines.txt --features=16 --layers=1 --heads=2 --max_seq_length=24 "
        "--steps=8 --evaluations=4 --batch_size=4 --scored=8 --samples=1 "
        "--sample_length=9",
    ),
    "prepare_text": (
        "prepare_text",
        "--text=lines.txt --tokenizer=bert --shard_tokens=1024",
    ),
    "finetune tag": ("finetune", _TAG),
    "finetune tag, two seeds": ("finetune", f"{_TAG} --seeds=2"),
    "finetune tag by lora": ("finetune", f"{_TAG} --method=lora --rank=2"),
    "finetune classify": ("finetune", f"--task=classify {_TABLE}"),
    "finetune classify, two seeds, by ia3": (
        "finetune",
        f"--task=classify {_TABLE} --seeds=2 --method=ia3",
    ),
    "finetune pairs by houlsby": (
        "finetune",
        f"--task=pairs {_TUNE.format('jsonl')} --text_column=one --pair_column=two "
        "--method=houlsby --bottleneck_width=4",
    ),
    "finetune generate": (
        "finetune",
        "--task=generate --checkpoint=tiny --text_column=words --label_column=digits "
        "--train=numbers/train.tsv --dev=numbers/dev.tsv --max_seq_length=24 "
        "--max_target_length=4 --steps=4 --evaluations=2 --batch_size=32",
    ),
    "finetune qa": (
        "finetune",
        f"--task=qa {_TUNE.format('json')} --doc_stride=4 --max_answer_length=2",
    ),
    "finetune qa, two seeds, by prefix": (
        "finetune",
        f"--task=qa {_TUNE.format('json')} --doc_stride=4 --max_answer_length=2 "
        "--seeds=2 --method=prefix --num_virtual_tokens=3",
    ),
    "exchange": (
        "exchange",
        "--checkpoint=bert --text=words.txt --blocks=swiglu,mlp:relu --lines=20 "
        "--max_seq_length=14 --steps=8",
    ),
    "from_scratch": (
        "from_scratch",
        "--data=wine --optimizers=sgd,adam --hidden=8 --seeds=1 --steps=6 "
        "--batch_size=32",
    ),
    "adapt_compare": ("adapt_compare", _METHODS),
    "judge": (
        "judge",
        "--results=runs.csv --block=block --pair=seed --score=score --margin=0.1",
    ),
}
# Runs without checkpoints, which are started again.
WITHOUT_RESUME = ("judge",)
_TIMES = ("second", "bytes", "checksum")  # parts of names of what differs in each run
_HIDDEN = ("versions.json", "manifest.sha256", "lock", "flags", "report.md")


def write_inputs(folder: Path) -> None:
    """Writes the checkpoint and the files that the runs read."""
    tuned.first_layer(
        tuned.with_vocabulary("bert", folder / "two_layers"), folder / "bert"
    )
    tuned.write_sentences(folder)
    tuned.write_questions(folder)
    numbers = [f"number {n} is w{n % 26}\n" for n in range(300)]
    (folder / "lines.txt").write_text("".join(numbers))
    (folder / "numbers").mkdir()
    tuned.write_numbers(folder / "numbers")
    words = [f"w{n % 26} w{n % 7} w{n % 5}\n" for n in range(20)]
    (folder / "words.txt").write_text("".join(words))
    scores = np.random.default_rng(3).normal(size=(3, 8))
    rows = [f"b{i},{j},{x}\n" for (i, j), x in np.ndenumerate(scores)]
    (folder / "runs.csv").write_text("block,seed,score\n" + "".join(rows))


def flags_of(name: str, folder: Path, out: Path) -> list[str]:
    """Returns the flags of a run that writes to a directory."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    flags = []
    for flag in RUNS[name][1].split():
        key, equals, value = flag.partition("=")
        flags.append(f"{key}={folder / value}" if value in files else flag)
    return [*flags, f"--out={out}"]


class Difference(NamedTuple):
    """A file in which two runs differ, and how."""

    path: str
    why: str


def compare(out: Path, wanted: Path) -> list[Difference]:
    """Returns in which files two finished runs differ, without times and versions."""
    names = [
        {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
        for root in (out, wanted)
    ]
    odd = sorted(names[0] ^ names[1])
    found = [Difference(name, "is in one run alone") for name in odd]
    if digests.digests_below(out, out) != digests.read(out / digests.NAME):
        found.append(Difference(digests.NAME, "has not the digests of all files"))
    for name in sorted(names[0] & names[1]):
        if name in _HIDDEN or name.endswith((".png", "README.md", "manifest.sha256")):
            continue
        if why := _compare_files(out / name, wanted / name):
            found.append(Difference(name, why))
    return found


def _compare_files(path: Path, wanted: Path) -> str:
    """Returns how two files differ; nothing if they do not."""
    if path.suffix == ".npz":
        one, two = (dict(np.load(each)) for each in (path, wanted))
        same = one.keys() == two.keys() and all(
            a.dtype == two[n].dtype and a.tobytes() == two[n].tobytes()
            for n, a in one.items()
        )
        return "" if same else "other arrays"
    if path.name == "results.jsonl":
        one, two = (_without_times(each) for each in (path, wanted))
        return "" if one == two else "other results"
    return "" if path.read_bytes() == wanted.read_bytes() else "other bytes"


def _without_times(path: Path) -> list[Any]:
    """Returns the rows of a file, without what differs in each run."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        {k: v for k, v in row.items() if not any(part in k for part in _TIMES)}
        for row in rows
    ]
