"""Which feed-forward block should I use, and how sure can I be?"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.comparison_config import MATCHED, CompareConfig
from ffnlab.sweep.jobs import Job, train_all

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison
    from ffnlab.sweep.joint import Joint
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Section
    from ffnlab.types import Array, Model


class CompareResult(NamedTuple):
    """The result of a comparison.

    Attributes:
      out: The run directory.
      runs: A dict for each run, as in results.jsonl.
      comparisons: The blocks, ranked from best to worst; of several data sets those of
        the first.
      table: The ranking as a table; of several data sets the joint table.
      verdict: The ranking in two sentences; of several data sets the joint verdict.
      rankings: Name of the data set to its ranking.
    """

    out: Path
    runs: list[dict[str, Any]]
    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str
    rankings: "dict[str, Ranking]"


def compare(config: CompareConfig) -> CompareResult:
    """Runs a comparison and writes its report to the run directory.

    Args:
      config: What to compare, on what data, and how to train.

    Raises:
      InputError: A file or directory cannot be used, or options contradict each other.
    """
    from ffnlab.report import run_directory

    name = f"compare-{'-'.join(config.sources)}"
    out = choose_directory(config.out, name, config.resume)
    datasets = {source: _dataset(config, source) for source in config.sources}

    from ffnlab.sweep.report import publish  # this imports JAX, what is above does not

    matches = _match_blocks(config)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, _digest(datasets))
        print(f"writing to {directory}", flush=True)
        jobs = [
            _job(config, source, dataset, match)
            for source, dataset in datasets.items()
            for match in matches
        ]
        runs = train_all(config, jobs, directory, config.design)
        sections = [_section(config, *item, runs) for item in datasets.items()]
        rankings = {s.name or config.sources[0]: s.ranking for s in sections}
        joint = _joint(rankings)
        title = f"Which feed-forward block? {', '.join(config.sources)}"
        note = _note(config, datasets)
        publish(directory, title, sections, note, opening=joint)
    first = sections[0].ranking
    table, verdict = (joint or first).table, (joint or first).verdict
    return CompareResult(directory, runs, first.comparisons, table, verdict, rankings)


def _section(
    config: CompareConfig, source: str, dataset: "Dataset | Replicates", runs: list
) -> "Section":
    """Returns the ranking of a data set."""
    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section
    from ffnlab.train import objectives

    task = _task(config, source)
    lines = [run for run in runs if run.get("task", "") == task]
    ranked = ranking.rank(
        lines,
        config.reference,
        objectives.OBJECTIVES[dataset.task],
        config.seed,
        margin=config.margin,
        test_ratio=_test_ratio(dataset),
    )
    return Section(task, ranked, lines, dataset.about)


def _task(config: CompareConfig, source: str) -> str:
    """Returns the task of the runs of a data set; empty if there is only one."""
    return source if len(config.sources) > 1 else ""


def _joint(rankings: "Mapping[str, Ranking]") -> "Joint | None":
    """Returns the joint verdict on several data sets; None for one."""
    from ffnlab.sweep import joint

    return joint.judge_together(rankings) if len(rankings) > 1 else None


def _dataset(
    config: CompareConfig, source: str | None = None
) -> "Dataset | Replicates":
    """Returns the data set, or its replicates where a split is drawn for each run."""
    from ffnlab import data

    source = source or config.sources[0]
    if config.split == "fixed":
        return _load(config, source, config.seed)
    first, *rest = data.replicate_seeds(config.seed, config.seeds)
    dataset = _load(config, source, first)
    if dataset.about.get("split") in ("in the file", "by file"):
        return dataset
    return data.replicate(lambda seed: _load(config, source, seed), (first, *rest))


def _load(config: CompareConfig, source: str, seed: int) -> "Dataset":
    """Returns the data set, with at most `eval_examples` to score of each part."""
    from ffnlab import data

    if config.csv:
        dataset = data.read_csv(config.csv, config.target, seed, config.task)
    elif config.npz:
        dataset = data.read_npz(config.npz, seed, config.task)
    else:
        dataset = data.load(source, seed)
    return dataclasses.replace(
        dataset,
        valid=data.thin(dataset.valid, config.eval_examples),
        test=data.thin(dataset.test, config.eval_examples),
    )


def _digest(datasets: "Mapping[str, Dataset | Replicates]") -> str:
    """Returns the digest of a data set, or of the digests of several."""
    from ffnlab import data

    digests = [
        data.digest_replicates(dataset)
        if isinstance(dataset, data.Replicates)
        else data.digest(dataset)
        for dataset in datasets.values()
    ]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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
        initializer="lecun" if config.initializer == MATCHED else config.initializer,
    )
    return [
        match(dataclasses.replace(reference, kind=name), reference, config.budget)
        for name in config.names
    ]


def _job(
    config: CompareConfig, source: str, dataset: "Dataset | Replicates", match: "Match"
) -> Job:
    """Returns the job of a block, with the facts that its lines hold."""
    from ffnlab.models import mlp
    from ffnlab.nn import pure

    block, model = match.config, _model(config, dataset, match.config)
    costs = {"parameters": pure.parameters(model), "flops": pure.flops(model)}
    x = _examples(dataset)
    if config.initializer == MATCHED:
        model = mlp.with_output_variance(model, x)
    excess = config.layers * (match.value - match.target)
    task = _task(config, source)
    facts = {
        **({"task": task} if task else {}),
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


def _note(config: CompareConfig, datasets: "Mapping[str, Dataset | Replicates]") -> str:
    """Returns how the numbers in the table were computed."""
    from ffnlab import data

    runs = config.seeds
    if config.split == "fixed":
        design = f"""The {runs} replicates of a block differ in their initial
parameters and the order of the data. The split is the same for all, and so is the
learning rate of a block, which the validation part chose: the verdict is about this
split and these learning rates, and another split may give another one."""
    elif all(isinstance(dataset, data.Replicates) for dataset in datasets.values()):
        design = f"""A replicate has its own split, initial parameters, order of the
data and learning rate, which its own validation part chose. Blocks are compared in
pairs of equal split and order, over {runs} replicates. The p-value is about this data
set; the one for new data of the kind corrects the variance for the overlap of splits
(Nadeau and Bengio 2003)."""
    else:
        design = f"""A replicate has its own initial parameters, order of the data and
learning rate, which the validation part chose. Where the data have a split of their
own, it is the same for all {runs} replicates, and the verdict is about that test part;
other data are split anew for each."""
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
