"""Which feed-forward block should I use, and how sure can I be?"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ffnlab import names
from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.jobs import Design, Job, train_all
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison
    from ffnlab.types import Array, Model

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")
_INITIALIZERS = names_in("ffnlab.nn.ffn", "INITIALIZERS")
_MATCHED = "matched"
_ACTIVATIONS = names_in("ffnlab.nn.activations", "ACTIVATIONS")

QUICK = {
    "blocks": ("mlp", "swiglu"),
    "activations": ("relu", "gelu"),
    "seeds": 6,
    "learning_rates": (3e-3,),
    "steps": 100,
    "layers": 1,
}


@dataclasses.dataclass(frozen=True)
class CompareConfig(Training):
    """Comparison: the data, the blocks and their budget."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {"split": "fixed", "extend_rates": "3"}

    data: str | None = option(
        None,
        "Built-in data set; the default is digits. bytes is the source text of "
        "Python's own library, help_topics the prose of its help.",
        known=names_in("ffnlab.data.builtin", "DATASETS"),
    )
    csv: str | None = option(
        None, "CSV or TSV file with a header line, instead of a built-in data set."
    )
    target: str | None = option(None, "Column of the CSV file to predict.")
    npz: str | None = option(
        None, "npz file with arrays x and y, instead of a built-in data set."
    )
    task: str = option(
        "auto",
        "Kind of the target of a CSV or npz file; auto infers it from the values.",
        known=lambda: ("auto", "classes", "values"),
    )
    blocks: tuple[str, ...] = option(
        ("mlp", "glu", "reglu", "geglu", "swiglu", "bilinear"),
        "Blocks to compare. mlp:NAME and glu:NAME take any activation.",
    )
    activations: tuple[str, ...] = option(
        ("relu", "gelu", "swish", "mish", "relu2", "tanh", "sigmoid"),
        "Activations of a plain mlp in --blocks; each counts as one block.",
        known=_ACTIVATIONS,
    )
    baseline: str | None = option(
        None,
        "Block that the others are compared with. The default is mlp:relu, or the "
        "first block.",
    )
    split: str = option(
        "replicates",
        "replicates draws a split for each run, and every run has the learning rate "
        "that its own validation part chose; fixed gives all runs of a model the same "
        "split and the same learning rate.",
        known=lambda: ("replicates", "fixed"),
    )
    extend_rates: int = option(
        3,
        "Largest number of learning rates that are tried beyond the given ones, for a "
        "run whose best rate is the smallest or the largest.",
        least=0,
    )
    margin: float | None = option(
        None,
        "Largest difference that does not matter, in the unit of the table. The "
        "default is 0.5 points of accuracy, 0.01 bits or 1 % of the baseline's loss.",
        above=0,
    )
    eval_examples: int = option(
        16384,
        "Largest number of examples of the validation and of the test part to score; "
        "a larger part is thinned evenly.",
        least=1,
    )
    features: int = option(32, "Model width D.", least=1)
    hidden: int = option(
        128,
        "Hidden width of a plain mlp; that of other blocks follows from the budget.",
        least=1,
    )
    layers: int = option(2, "Blocks per model.", least=1)
    budget: str = option(
        "parameters",
        "Cost that is equal for all blocks.",
        known=lambda: ("parameters", "flops"),
    )
    norm: str = option(
        "pre",
        "Position of the normalization in a block.",
        known=lambda: ("none", "pre", "post", "hidden", "sandwich"),
    )
    norm_kind: str = option(
        "layer", "Kind of normalization.", known=names_in("ffnlab.nn.ffn", "NORMS")
    )
    initializer: str = option(
        "lecun",
        "Initializer of the kernels of a block. matched is lecun, scaled so that the "
        "outputs of all blocks start with a variance of 1 on training examples.",
        known=lambda: (*_INITIALIZERS(), _MATCHED),
    )
    dropout: float = option(0.0, "Dropout rate of the hidden units.", least=0, below=1)

    def __post_init__(self):
        super().__post_init__()
        if sum(map(bool, (self.data, self.csv, self.npz))) > 1:
            raise InputError("data, csv and npz: give one of them")
        if self.split == "fixed" and self.extend_rates not in (0, 3):
            raise InputError(
                f"extend_rates={self.extend_rates} needs split=replicates; with "
                "split=fixed all runs of a block share one of the given rates"
            )
        if self.task != "auto" and not (self.csv or self.npz):
            raise InputError(f"task={self.task} needs csv=FILE or npz=FILE")
        if bool(self.csv) != bool(self.target):
            raise InputError("csv and target: give both or neither")
        for name in self.names:
            kind, _, activation = name.partition(":")
            choose("blocks", kind, _BLOCKS())
            if activation:
                choose("blocks", activation, _ACTIVATIONS())
                self._check_open(name, kind)
        if self.baseline is not None:
            choose("baseline", self.baseline, self.names)

    def _check_open(self, name: str, kind: str) -> None:
        """Raises if a block with an activation of its own is given another."""
        if kind not in _open_blocks():
            forms = " or ".join(f"{block}:NAME" for block in _open_blocks())
            raise InputError(
                f"blocks: {name!r}: {kind} has an activation of its own; "
                f"write {kind} alone, or {forms}"
            )

    @property
    def names(self) -> list[str]:
        """The blocks to compare, each once."""
        plain = [f"mlp:{name}" for name in self.activations]
        blocks = ([block] if block != "mlp" else plain for block in self.blocks)
        return list(dict.fromkeys(itertools.chain.from_iterable(blocks)))

    @property
    def reference(self) -> str:
        """The block that the others are tested against."""
        default = "mlp:relu" if "mlp:relu" in self.names else self.names[0]
        return self.baseline or default

    @property
    def design(self) -> Design:
        """What the runs of a block have in common."""
        fixed = self.split == "fixed"
        return Design(fixed, 0 if fixed else self.extend_rates)

    @property
    def source(self) -> str:
        """The name of the data in a report."""
        return str(Path(self.csv or self.npz or self.data or "digits").stem)


def _open_blocks() -> list[str]:
    """Returns the blocks that take any activation: `mlp:NAME`, `glu:NAME`."""
    loaded = sys.modules.get("ffnlab.nn.ffn")
    if loaded is None:
        return list(names.OPEN_BLOCKS)
    return [name for name, block in loaded.BLOCKS.items() if not block.fixed]


class CompareResult(NamedTuple):
    """The result of a comparison.

    Attributes:
      out: The run directory.
      runs: A dict for each run, as in results.jsonl.
      comparisons: The blocks, ranked from best to worst.
      table: The ranking as a table, as it was printed.
      verdict: The ranking in two sentences.
    """

    out: Path
    runs: list[dict[str, Any]]
    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str


def compare(config: CompareConfig) -> CompareResult:
    """Runs a comparison and writes its report to the run directory.

    Args:
      config: What to compare, on what data, and how to train.

    Raises:
      InputError: A file or directory cannot be used, or options contradict each other.
    """
    from ffnlab.report import run_directory

    out = choose_directory(config.out, f"compare-{config.source}", config.resume)
    dataset = _dataset(config)

    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section, publish
    from ffnlab.train import objectives  # these import JAX, what is above does not

    matches = _match_blocks(config)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, _digest(dataset))
        print(f"writing to {directory}", flush=True)
        jobs = [_job(config, dataset, match) for match in matches]
        runs = train_all(config, jobs, directory, config.design)
        ranked = ranking.rank(
            runs,
            config.reference,
            objectives.OBJECTIVES[dataset.task],
            config.seed,
            margin=config.margin,
            test_ratio=_test_ratio(dataset),
        )
        title = f"Which feed-forward block? {config.source}"
        section = Section("", ranked, runs, dataset.about)
        publish(directory, title, [section], _note(config, dataset))
    return CompareResult(
        directory, runs, ranked.comparisons, ranked.table, ranked.verdict
    )


def _dataset(config: CompareConfig) -> "Dataset | Replicates":
    """Returns the data set, or its replicates where a split is drawn for each run."""
    from ffnlab import data

    if config.split == "fixed":
        return _load(config, config.seed)
    first, *rest = data.replicate_seeds(config.seed, config.seeds)
    dataset = _load(config, first)
    if dataset.about.get("split") in ("in the file", "by file"):
        return dataset
    return data.replicate(lambda seed: _load(config, seed), (first, *rest))


def _load(config: CompareConfig, seed: int) -> "Dataset":
    """Returns the data set, with at most `eval_examples` to score of each part."""
    from ffnlab import data

    if config.csv:
        dataset = data.read_csv(config.csv, config.target, seed, config.task)
    elif config.npz:
        dataset = data.read_npz(config.npz, seed, config.task)
    else:
        dataset = data.load(config.data or "digits", seed)
    return dataclasses.replace(
        dataset,
        valid=data.thin(dataset.valid, config.eval_examples),
        test=data.thin(dataset.test, config.eval_examples),
    )


def _digest(dataset: "Dataset | Replicates") -> str:
    from ffnlab import data

    if isinstance(dataset, data.Replicates):
        return data.digest_replicates(dataset)
    return data.digest(dataset)


def _test_ratio(dataset: "Dataset | Replicates") -> float | None:
    """Returns the test examples per training example; None for a single split."""
    from ffnlab import data

    if not isinstance(dataset, data.Replicates):
        return None
    return dataset.rows["test"].shape[1] / dataset.rows["train"].shape[1]


def _match_blocks(config: CompareConfig) -> "list[Match]":
    """Returns the blocks, each with the hidden width at which all cost the same."""
    from ffnlab.nn.budget import match
    from ffnlab.nn.ffn import BlockConfig

    reference = BlockConfig(
        "mlp",
        config.features,
        config.hidden,
        dropout=config.dropout,
        norm=config.norm,
        norm_kind=config.norm_kind,
        initializer="lecun" if config.initializer == _MATCHED else config.initializer,
    )
    return [
        match(dataclasses.replace(reference, kind=name), reference, config.budget)
        for name in config.names
    ]


def _job(config: CompareConfig, dataset: "Dataset | Replicates", match: "Match") -> Job:
    """Returns the job of a block, with the facts that its lines hold."""
    from ffnlab.models import mlp
    from ffnlab.nn import pure

    block, model = match.config, _model(config, dataset, match.config)
    costs = {"parameters": pure.parameters(model), "flops": pure.flops(model)}
    x = _examples(dataset)
    if config.initializer == _MATCHED:
        model = mlp.with_output_variance(model, x)
    excess = config.layers * (match.value - match.target)
    facts = {
        "block": block.kind,
        "activation": block.activation_name,
        "hidden": block.hidden,
        "initial_variance": _initial_variance(model, x, config.seed),
        **costs,
        "budget": config.budget,
        "unmatched": excess / (costs[config.budget] - excess),
    }
    return Job(block.kind, model, dataset, facts)


def _model(
    config: CompareConfig, dataset: "Dataset | Replicates", block: "BlockConfig"
) -> "Model":
    """Returns a model of a stack of blocks for a data set."""
    from ffnlab.models import mlp

    vocabulary = dataset.classes if dataset.task == "bytes" else None
    return mlp.tower(
        mlp.TowerConfig(
            dataset.features, dataset.classes, block, config.layers, vocabulary
        )
    )


def _examples(dataset: "Dataset | Replicates") -> "Array":
    """Returns the inputs of some training examples of the first replicate."""
    import jax.numpy as jnp

    from ffnlab import data

    pool, rows = dataset.train, None
    if isinstance(dataset, data.Replicates):
        rows = dataset.rows["train"][0]
    count = data.size(pool) if rows is None else len(rows)
    index = data.order(0, 0, min(256, count), count)
    return jnp.asarray(data.take(pool, index if rows is None else rows[index])["x"])


def _initial_variance(model: "Model", x: "Array", seed: int) -> float:
    """Returns the mean variance of the outputs of the blocks at the start."""
    import jax

    from ffnlab.models import mlp

    keys = jax.random.split(jax.random.key(seed), 4)  # not jitted: it runs once
    variances = [mlp.output_variances(model, model.init(key), x) for key in keys]
    return float(sum(each.mean() for each in variances)) / len(variances)


def _note(config: CompareConfig, dataset: "Dataset | Replicates") -> str:
    """Returns how the numbers in the table were computed."""
    from ffnlab import data

    runs = config.seeds
    if config.split == "fixed":
        design = f"""The {runs} replicates of a block differ in their initial
parameters and the order of the data. The split is the same for all, and so is the
learning rate of a block, which the validation part chose: the verdict is about this
split and these learning rates, and another split may give another one."""
    elif isinstance(dataset, data.Replicates):
        design = f"""A replicate has its own split, initial parameters, order of the
data and learning rate, which its own validation part chose. Blocks are compared in
pairs of equal split and order, over {runs} replicates. The p-value is about this data
set; the one for new data of the kind corrects the variance for the overlap of splits
(Nadeau and Bengio 2003)."""
    else:
        design = f"""A replicate has its own initial parameters, order of the data and
learning rate, which the validation part chose. The split is that of the data, the same
for all {runs} replicates: the verdict is about this test part."""
    return f"""{design} The test part was scored once, at the chosen rate.

All blocks have equal {config.budget}: those of a plain mlp of hidden width
{config.hidden}; the remaining difference is in brackets. Scores are means with
Student's 95 % intervals, each for itself. Δ is the mean of the paired differences from
the baseline. Its intervals hold for all blocks together, and p is adjusted for their
number, by the distribution of the largest studentised difference under random signs
(Liu 1988; Westfall and Young 1993; Romano and Wolf 2005): an interval excludes zero
exactly when p is at most 0.05. P(better) is the share of replicates in which the block
beats the baseline. A block is equivalent if its interval is within the margin. A run
that diverged has the score of a trivial predictor."""
