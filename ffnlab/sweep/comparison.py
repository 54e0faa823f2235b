"""Which feed-forward block should I use, and how sure can I be?"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import names
from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.jobs import Job, train_all
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.nn.budget import Match
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")

_ACTIVATIONS = names_in("ffnlab.nn.activations", "ACTIVATIONS")

QUICK = {
    "blocks": ("mlp", "swiglu"),
    "activations": ("relu", "gelu"),
    "seeds": 4,
    "learning_rates": (3e-3,),
    "steps": 100,
    "layers": 1,
}


@dataclasses.dataclass(frozen=True)
class CompareConfig(Training):
    """What to compare, on what, and for how long; each field is a flag."""

    data: str | None = option(
        None,
        "digits (the default), breast_cancer, wine, or bytes (Python's own library)",
        known=names_in("ffnlab.data.builtin", "DATASETS"),
    )
    csv: str | None = option(None, "a CSV or TSV file instead, with a header line")
    target: str | None = option(None, "the column of --csv to predict")
    npz: str | None = option(None, "an npz file instead, with arrays x and y")
    task: str = option(
        "auto",
        "what the target of --csv or --npz holds: classes, values, or auto to tell",
        known=lambda: ("auto", "classes", "values"),
    )
    blocks: tuple[str, ...] = option(
        ("mlp", "glu", "reglu", "geglu", "swiglu", "bilinear"),
        "blocks; mlp:NAME and glu:NAME take any activation",
    )
    activations: tuple[str, ...] = option(
        ("relu", "gelu", "swish", "mish", "relu2", "tanh", "sigmoid"),
        "what a plain mlp in --blocks is tried with",
        known=_ACTIVATIONS,
    )
    baseline: str | None = option(
        None, "the block the others are tested against; mlp:relu, else the first"
    )
    eval_examples: int = option(
        16384, "most examples of a part to score, evenly spread", least=1
    )
    features: int = option(32, "model width D", least=1)
    hidden: int = option(128, "hidden width of a plain mlp; others match it", least=1)
    layers: int = option(2, "blocks in a model", least=1)
    budget: str = option(
        "parameters",
        "what is equal: parameters or flops",
        known=lambda: ("parameters", "flops"),
    )
    norm: str = option(
        "pre",
        "of the blocks: none, pre, post, hidden or sandwich",
        known=lambda: ("none", "pre", "post", "hidden", "sandwich"),
    )
    norm_kind: str = option(
        "layer", "layer or rms", known=names_in("ffnlab.nn.ffn", "NORMS")
    )
    initializer: str = option(
        "lecun",
        "of the kernels of the blocks",
        known=names_in("ffnlab.nn.ffn", "INITIALIZERS"),
    )
    dropout: float = option(0.0, "rate on hidden units", least=0, below=1)

    def __post_init__(self):
        super().__post_init__()
        if sum(map(bool, (self.data, self.csv, self.npz))) > 1:
            raise InputError("data, csv and npz: give one of them")
        if self.task != "auto" and not (self.csv or self.npz):
            raise InputError("task: only with csv or npz")
        if bool(self.csv) != bool(self.target):
            raise InputError("csv and target: one needs the other")
        for name in self.names:
            kind, _, activation = name.partition(":")
            choose("blocks", kind, _BLOCKS())
            if activation:
                choose("blocks", activation, _ACTIVATIONS())
                self._check_open(name, kind)
        if self.baseline is not None:
            choose("baseline", self.baseline, self.names)

    def _check_open(self, name: str, kind: str) -> None:
        if kind not in _open_blocks():
            takers = " or ".join(f"{each}:NAME" for each in _open_blocks())
            raise InputError(
                f"blocks: {name!r}: {kind} has an activation of its own; "
                f"write {kind} alone, or {takers}"
            )

    @property
    def names(self) -> list[str]:
        """The blocks to compare, each once."""
        expanded = {"mlp": [f"mlp:{name}" for name in self.activations]}
        each = [name for kind in self.blocks for name in expanded.get(kind, [kind])]
        return list(dict.fromkeys(each))

    @property
    def reference(self) -> str:
        """The block that the others are tested against."""
        default = "mlp:relu" if "mlp:relu" in self.names else self.names[0]
        return self.baseline or default

    @property
    def source(self) -> str:
        """What the data is called in a report."""
        return str(Path(self.csv or self.npz or self.data or "digits").stem)


def _open_blocks() -> list[str]:
    """Returns the blocks that take the name of an activation."""
    loaded = sys.modules.get("ffnlab.nn.ffn")
    if loaded is None:
        return list(names.OPEN_BLOCKS)
    return [name for name, block in loaded.BLOCKS.items() if not block.fixed]


class CompareResult(NamedTuple):
    """What a comparison found.

    Attributes:
      out: the directory that holds it.
      runs: a dict for each run, as in results.jsonl.
      comparisons: the blocks, the best first.
      table: the same, as it was printed.
      verdict: the same, in a sentence.
    """

    out: Path
    runs: list[dict[str, Any]]
    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str


def compare(config: CompareConfig) -> CompareResult:
    """Runs a comparison and writes its report.

    Raises:
      InputError: a file or directory cannot be used, or flags contradict each other.
    """
    from ffnlab.report import run_directory

    out = choose_directory(config.out, f"compare-{config.source}", config.resume)
    dataset = _dataset(config)

    from ffnlab import data
    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section, publish
    from ffnlab.train import objectives  # these import JAX, what is above does not

    sizes = _matched(config)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, data.digest(dataset))
        print(f"writing to {directory}", flush=True)
        jobs = [_job(config, dataset, found) for found in sizes.values()]
        runs = train_all(config, jobs, directory)
        objective = objectives.OBJECTIVES[dataset.task]
        found = ranking.rank(runs, config.reference, objective, config.seed)
        title = f"Which feed-forward block? {config.source}"
        section = Section("", found, runs, dataset.about)
        publish(directory, title, [section], _note(config))
    return CompareResult(directory, runs, found.comparisons, found.table, found.verdict)


def _dataset(config: CompareConfig) -> "Dataset":
    from ffnlab import data

    if config.csv:
        found = data.read_csv(config.csv, config.target, config.seed, config.task)
    elif config.npz:
        found = data.read_npz(config.npz, config.seed, config.task)
    else:
        found = data.load(config.data or "digits", config.seed)
    return dataclasses.replace(
        found,
        valid=data.thin(found.valid, config.eval_examples),
        test=data.thin(found.test, config.eval_examples),
    )


def _matched(config: CompareConfig) -> dict[str, "Match"]:
    """Returns each block with the hidden width at which all cost the same."""
    from ffnlab.nn.budget import match
    from ffnlab.nn.ffn import BlockConfig

    reference = BlockConfig(
        "mlp",
        config.features,
        config.hidden,
        dropout=config.dropout,
        norm=config.norm,
        norm_kind=config.norm_kind,
        initializer=config.initializer,
    )
    return {
        name: match(dataclasses.replace(reference, kind=name), reference, config.budget)
        for name in config.names
    }


def _job(config: CompareConfig, dataset: "Dataset", found: "Match") -> Job:
    from ffnlab.nn import pure

    model = _model(config, dataset, found.config)
    costs = {"parameters": pure.parameters(model), "flops": pure.flops(model)}
    more = config.layers * (found.value - found.target)
    facts = {
        "block": found.config.kind,
        "activation": found.config.activation_name,
        "hidden": found.config.hidden,
        **costs,
        "budget": config.budget,
        "unmatched": more / (costs[config.budget] - more),
    }
    return Job(found.config.kind, model, dataset, facts)


def _model(config: CompareConfig, dataset: "Dataset", block: Any) -> Any:
    from ffnlab.models import mlp

    vocabulary = dataset.classes if dataset.task == "bytes" else None
    return mlp.tower(
        mlp.TowerConfig(
            dataset.features, dataset.classes, block, config.layers, vocabulary
        )
    )


def _note(config: CompareConfig) -> str:
    """Returns how the numbers in the table came about."""
    return f"""Interquartile means over {config.seeds} seeds, which are initial values
and orders of the data (the split is one), with bootstrap 95 % intervals. All blocks
have equal {config.budget}, those of a plain one of hidden width {config.hidden}; what
remains is in brackets. Validation chose the learning rate; the test part was scored
once, at it. Δ is the mean difference over equal seeds; p is of a paired permutation
test, corrected by Holm; P(better) is the chance that a run beats a baseline's."""
