"""Which feed-forward block should I use, and how sure can I be?"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices
from ffnlab.escape import terminal
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep import timing
from ffnlab.sweep.comparison_config import MATCHED, CompareConfig
from ffnlab.sweep.jobs import Job, Sweep, train_all
from ffnlab.sweep.sequential import train_until_decided

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.models.mlp import TowerConfig
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison
    from ffnlab.sweep.joint import Joint
    from ffnlab.sweep.ranking import Ranking
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
    devices.select(config.device)
    datasets = {source: _dataset(config, source) for source in config.sources}

    # These import JAX, what is above does not.
    from ffnlab.sweep import comparison_note, report

    config = timing.recall_widths(config, out)
    matches = _match_blocks(config)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, _digest(datasets))
        print(terminal(f"writing to {directory}"), flush=True)
        if config.budget == "time":
            config, matches = _match_times(config, matches, datasets, directory)
        jobs = [
            _job(config, source, dataset, match)
            for source, dataset in datasets.items()
            for match in matches
        ]
        runs = _train(config, jobs, directory)
        sections = [
            report.Section(
                _task(config, source),
                _rank(config, source, jobs, runs, directory),
                _lines(config, source, runs),
                dataset.about,
            )
            for source, dataset in datasets.items()
        ]
        rankings = {s.name or config.sources[0]: s.ranking for s in sections}
        joint = _joint(rankings)
        title = f"Which feed-forward block? {', '.join(config.sources)}"
        note = comparison_note.note(config, datasets, matches)
        report.publish(directory, title, sections, note, opening=joint)
        run_directory.finish(directory)
    first = sections[0].ranking
    table, verdict = (joint or first).table, (joint or first).verdict
    return CompareResult(directory, runs, first.comparisons, table, verdict, rankings)


def _train(config: CompareConfig, jobs: list[Job], directory: Path) -> list[dict]:
    """Trains all replicates of all blocks, or those that are needed to decide."""
    if config.stages is None:
        return train_all(config, jobs, directory, config.design)
    (source,) = config.sources

    def judge(runs: list[dict]) -> "list[Comparison]":
        return _rank(config, source, jobs, runs, directory).comparisons

    sweep = Sweep(config, jobs, directory, config.design)
    return train_until_decided(sweep, jobs, config.stages, config.reference, judge)


def _rank(
    config: CompareConfig,
    source: str,
    jobs: list[Job],
    runs: list[dict],
    directory: Path,
) -> "Ranking":
    """Returns the ranking of a data set."""
    from ffnlab.sweep import ranking, run_files

    task, lines = _task(config, source), _lines(config, source, runs)
    jobs = [job for job in jobs if job.key[0] == task]
    ratio, examples = _test_ratio(jobs[0].dataset), None
    if ratio is None and config.split == "replicates":
        slugs = {job.name: job.slug for job in jobs}
        examples = run_files.read_examples(directory, slugs, lines)
    return ranking.rank(
        lines,
        config.reference,
        jobs[0].objective,
        config.seed,
        margin=config.margin,
        test_ratio=ratio,
        examples=examples,
        stages=config.stages,
    )


def _lines(config: CompareConfig, source: str, runs: list[dict]) -> list[dict]:
    """Returns the runs of a data set."""
    task = _task(config, source)
    return [run for run in runs if run.get("task", "") == task]


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
    first, *rest = data.replicate_seeds(config.seed, config.replicates)
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

    digests = [*map(data.digest_any, datasets.values())]
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
    reference = _reference(config)
    blocks = [dataclasses.replace(reference, kind=name) for name in config.names]
    return [_match(config, block, reference) for block in blocks]


def _match(
    config: CompareConfig, block: "BlockConfig", reference: "BlockConfig"
) -> "Match":
    """Returns a block with the width of the budget, or with the one that is given.

    At equal time it starts with the width of equal FLOPs, until `_match_times`.
    """
    from ffnlab.nn.budget import Match, at_width, match

    width = config.given_widths.get(block.kind)
    if config.budget == "time":
        products = len(block.block.inputs) + 1
        hidden = width or max(1, 2 * config.hidden // products)
        resized = dataclasses.replace(block, hidden=hidden)
        return Match(resized, "time", math.nan, math.nan)
    if width is not None:
        return at_width(block, reference, config.budget, width)
    return match(block, reference, config.budget)


def _match_times(
    config: CompareConfig,
    matches: "list[Match]",
    datasets: "Mapping[str, Dataset | Replicates]",
    directory: Path,
) -> "tuple[CompareConfig, list[Match]]":
    """Returns the configuration and the blocks with the widths of equal time.

    Steps are timed for the model of the first data set.
    """
    dataset = next(iter(datasets.values()))

    def make_job(block: "BlockConfig") -> Job:
        return Job(block.kind, _model(config, dataset, block), dataset, {})

    reference = _reference(config)
    return timing.match_times(config, reference, matches, make_job, directory)


def _reference(config: CompareConfig) -> "BlockConfig":
    """Returns the block whose cost all blocks have."""
    from ffnlab.nn.ffn import BlockConfig

    return BlockConfig(
        "mlp:relu",
        config.features,
        config.hidden,
        dropout=config.dropout,
        norm=config.norm,
        norm_kind=config.norm_kind,
        initializer="lecun" if config.initializer == MATCHED else config.initializer,
    )


def _job(
    config: CompareConfig, source: str, dataset: "Dataset | Replicates", match: "Match"
) -> Job:
    """Returns the job of a block, with the facts that its lines hold."""
    from ffnlab.models import mlp
    from ffnlab.nn import pure

    block, model = match.config, _model(config, dataset, match.config)
    costs = {"parameters": pure.parameters(model), "flops": pure.flops(model)}
    if (counted := _xla_flops(_tower(config, dataset, block))) is not None:
        costs["xla_flops"] = counted
    x = _examples(dataset)
    if config.initializer == MATCHED:
        model = mlp.with_output_variance(model, x)
    unmatched = match.difference  # of the block; of the whole model where it is counted
    if match.budget in costs:
        excess = config.layers * (match.value - match.target)
        unmatched = excess / (costs[match.budget] - excess)
    if match.budget == "time" and not math.isnan(match.value):
        costs["time"] = 1e6 * match.value  # µs
    task = _task(config, source)
    facts = {
        **({"task": task} if task else {}),
        "block": block.kind,
        "activation": block.activation_name,
        "hidden": block.hidden,
        "initial_variance": _initial_variance(model, x, config.seed),
        **costs,
        "budget": config.budget,
        "unmatched": unmatched,
    }
    return Job(block.kind, model, dataset, facts)


def _model(
    config: CompareConfig, dataset: "Dataset | Replicates", block: "BlockConfig"
) -> "Model":
    """Returns a model of a stack of blocks for a data set."""
    from ffnlab.models import mlp

    return mlp.tower(_tower(config, dataset, block))


def _tower(
    config: CompareConfig, dataset: "Dataset | Replicates", block: "BlockConfig"
) -> "TowerConfig":
    """Returns the configuration of a stack of blocks for a data set."""
    from ffnlab.models.mlp import TowerConfig

    vocabulary = dataset.classes if dataset.task == "bytes" else None
    return TowerConfig(
        dataset.features, dataset.classes, block, config.layers, vocabulary
    )


@functools.cache
def _xla_flops(tower: "TowerConfig") -> int | None:
    """Returns the operations of a model for one example, as XLA counts them."""
    import jax

    from ffnlab.models import mlp
    from ffnlab.nn import pure

    kind = "int32" if tower.vocabulary else "float32"
    x = jax.ShapeDtypeStruct((8, tower.inputs), kind)
    return pure.xla_flops(mlp.tower(tower), x)


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
    from ffnlab.nn.pure import quick_to_compile

    def variances(keys: "Array", x: "Array") -> "Array":
        def draw(key: "Array") -> "Array":
            return mlp.output_variances(model, model.init(key), x)

        return jax.lax.map(draw, keys)

    keys = jax.random.split(jax.random.key(seed), 4)
    program = jax.jit(variances).lower(keys, x).compile(quick_to_compile())
    return float(program(keys, x).mean())
