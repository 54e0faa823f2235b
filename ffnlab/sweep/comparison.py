"""Which feed-forward block should I use, and how sure can I be?"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab import devices, processes
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.report import trackers
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep import block_jobs, timing
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.job import Job
from ffnlab.sweep.jobs import Sweep, train_all
from ffnlab.sweep.results import CompareResult, check_new
from ffnlab.sweep.sequential import train_until_decided

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig
    from ffnlab.stats import Comparison
    from ffnlab.sweep.report_facts import Facts


def compare(
    config: "CompareConfig | Mapping[str, Any] | Sequence[str]",
    dataset: Any = None,
    *,
    replicates: int | None = None,
    learning_rates: Sequence[float] | None = None,
    optimizer: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    baseline: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    shard: "str | tuple[int, int] | None" = None,
    quiet: bool = False,
    **options: Any,
) -> CompareResult:
    """Compares blocks, or models of your own, and returns and reports the result.

    With a `CompareConfig`, all else but `quiet` is left out: its fields say what is
    compared, and the report goes to its run directory. With a dict, the arguments say
    it, and nothing is kept on the disk unless `out` names a directory.

    Args:
      config: A `CompareConfig`; or name to candidate: a block by name, such as
        `swiglu` or `mlp:gelu`, in a stack with the hidden width of the budget; a
        `BlockConfig`, in a stack with its own width; a `Model(init, apply)`; or a
        function `build(rngs)` that returns an `nnx.Module`, which is called with x, or
        with x and a key. A list of block names stands for a dict.
      dataset: A `Dataset`, such as that of `Dataset.from_arrays(x, y)`; the name of a
        built-in one; or a function of a seed that returns one. Data that can be split
        again are, for each replicate.
      replicates: Number of replicates, 16 if None. A claim needs at least 6.
      learning_rates: Peak learning rates, of which validation chooses one for each
        replicate; 0.001, 0.003 and 0.01 if None.
      optimizer: A key of `train.optimizers.OPTIMIZERS`, with a schedule and clipping;
        an optax transformation, with its own learning rate; or a function of the
        learning rate that returns one. None is adamw.
      steps: Steps per run, 300 if None.
      batch_size: Examples per step, 128 if None.
      baseline: The name that the others are compared with. If None, mlp:relu or the
        first.
      seed: Seed of the splits and of everything else, 0 if None.
      out: A new directory for the report, all runs and the parameters of the chosen
        ones; None keeps nothing.
      resume: Whether `out` holds this comparison, interrupted or finished, to continue
        bit for bit: finished models are not trained again, and the one that was being
        trained goes on from its last checkpoint, at most a minute before. The same
        models, optimizer, data and settings are to be given; others are an error.
      shard: The part of the replicates to run, (i, n) for the i-th of n shards, for a
        run on several machines; None is all. Its result has no verdict; `judge` joins
        the directories of all shards.
      quiet: Whether to print nothing.
      **options: Further fields of `CompareConfig`, such as `margin`, `evaluations` or
        `layers`.

    Returns:
      The result, with `verdict`, `table`, `frame()`, `plot()` and `save(directory)`.

    Raises:
      InputError: A file, directory, model or data set cannot be used, or options
        contradict each other.

    >>> result = compare(["mlp:relu", "bilinear"], "iris", replicates=2, steps=5,
    ...                  learning_rates=[0.01], layers=1, quiet=True)
    >>> result.verdict
    'Over 2 replicates, nothing can be claimed about mlp:relu and the others: a claim \
needs at least 6 replicates.'
    """
    named = {
        "replicates": replicates,
        "learning_rates": learning_rates,
        "optimizer": optimizer,
        "steps": steps,
        "batch_size": batch_size,
        "baseline": baseline,
        "seed": seed,
        "out": out,
        "resume": resume or None,
        "shard": shard,
    }
    given = {k: v for k, v in {**named, **options}.items() if v is not None}
    if not isinstance(config, CompareConfig):
        return _compare_candidates(config, dataset, given, quiet)
    if dataset is not None or given:
        name = "dataset" if dataset is not None else next(iter(given))
        raise InputError(f"{name}: with a CompareConfig, give its fields instead")
    with processes.joined(config) as config:
        return _compare_blocks(config, quiet)


def _default_name(config: CompareConfig) -> str:
    """Returns what a run directory is called that `out` does not name."""
    shard = f"-shard-{config.part_of.number}" if config.part_of else ""
    return f"compare-{'-'.join(config.sources)}{shard}"


def _compare_blocks(config: CompareConfig, quiet: bool) -> CompareResult:
    """Runs the comparison of a configuration."""
    from ffnlab.report import compile_time, run_directory

    out = choose_directory(config.out, _default_name(config), config.resume)
    trackers.require(config.report_to)
    devices.select(config.device)
    config.layout()  # refuses a mesh that does not fit, before data are read
    _show_doubts(config, quiet)
    datasets = {source: _dataset(config, source) for source in config.sources}
    _print_notes([] if quiet else _lost_columns(datasets))

    # These import JAX, what is above does not.
    from ffnlab.sweep import comparison_note, report_facts, tracking

    config = timing.recall_widths(config, out)
    matches = block_jobs.match_blocks(config)
    _check_mesh(config, matches, datasets)
    with (
        compile_time.shown(quiet),
        run_directory.open_run(out, config, config.resume, quiet) as directory,
    ):
        run_directory.check_same_data(directory, _digest(datasets))
        if not quiet:
            print(terminal(f"writing to {directory}"), flush=True)
        if config.budget == "time":
            config, matches = _match_times(config, matches, datasets, directory)
        jobs = [
            block_jobs.make_job(config, dataset, match, _task(config, source))
            for source, dataset in datasets.items()
            for match in matches
        ]
        note = comparison_note.note(config, datasets, matches)
        title = f"Which feed-forward block? {', '.join(config.sources)}"
        facts = report_facts.gather(config, datasets, title, note, report_facts.REPEAT)
        runs = _train(config, facts, jobs, directory, quiet)
        result = _conclude(config, facts, runs, directory)
        _publish(result, facts, directory, quiet)
        tracking.track(config, runs, directory)
        run_directory.finish(directory)
    return result


def _compare_candidates(
    given: Any, dataset: Any, options: dict[str, Any], quiet: bool
) -> CompareResult:
    """Runs a comparison from Python; see `compare`."""
    from ffnlab.report import run_directory
    from ffnlab.sweep import candidate_files, candidates, comparison_note, report_facts

    gathered = candidates.gather(given, dataset, options)
    config, source = gathered.config, gathered.config.source
    datasets = {source: gathered.dataset}
    _show_doubts(config, quiet)
    _print_notes([] if quiet else _lost_columns(datasets))
    jobs = candidates.make_jobs(gathered)
    _print_notes([] if quiet else candidates.doubts(gathered, jobs))
    config.check_mesh(jobs)
    with _open(config, quiet) as directory:
        if config.out:
            run_directory.check_same_data(directory, _digest(datasets))
            candidate_files.check_same_models(directory, jobs)
        note = comparison_note.note(config, datasets)
        how = comparison_note.REPEAT
        facts = report_facts.gather(
            config, datasets, f"Which model? {source}", note, how
        )
        runs = _train(config, facts, jobs, directory, quiet)
        result = _conclude(config, facts, runs, directory)
        if config.out:
            _publish(result, facts, directory, quiet)
        elif not quiet:
            result.report.show()
        run_directory.finish(directory)
    return result if config.out else result._replace(out=None)


@contextlib.contextmanager
def _open(config: CompareConfig, quiet: bool) -> Iterator[Path]:
    """Opens the directory of a comparison from Python, or one that is removed."""
    from ffnlab.report import run_directory

    with contextlib.ExitStack() as stack:
        if config.out and not config.resume:
            begun = Path(config.out, "flags").is_file()
            check_new(config.out, ", or resume=True" if begun else "")
        out = config.out or stack.enter_context(tempfile.TemporaryDirectory())
        resume = config.resume if config.out else None
        yield stack.enter_context(run_directory.open_run(out, config, resume, quiet))


def _show_doubts(config: CompareConfig, quiet: bool) -> None:
    """Prints why nothing can be claimed, before anything is trained."""
    _print_notes([] if quiet else config.doubts(config.names))


def _lost_columns(datasets: Mapping[str, Any]) -> list[str]:
    """Returns notes on columns of tables that no feature is made of, at most 10."""
    notes = [
        f"{source}: column {name!r} is left out: {reason}"
        for source, dataset in datasets.items()
        for name, reason in dataset.about.get("columns_without_features", {}).items()
    ]
    more = f"and {len(notes) - 10} more columns: see report.md"
    return notes if len(notes) <= 10 else [*notes[:10], more]


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(terminal(f"note: {note}"), flush=True)


def _publish(
    result: CompareResult, facts: "Facts", directory: Path, quiet: bool
) -> None:
    """Writes a report, and prints it."""
    from ffnlab.sweep import report_facts

    if not quiet:
        result.report.show()
    report_facts.write(directory, facts)
    written = ", ".join([*result.report.write(directory), "results.jsonl"])
    if not quiet:
        print(f"\n{terminal(f'written to {directory}: {written}')}")


def _conclude(
    config: CompareConfig, facts: "Facts", runs: list[dict], directory: Path
) -> CompareResult:
    """Returns the result of a comparison, or of a shard of one."""
    from ffnlab.sweep import comparison_report, shard_report

    if config.part_of:
        report = shard_report.make_report(facts, config.part_of, runs)
        return shard_report.result(config, report, runs, directory)
    report = comparison_report.make_report(facts, runs, directory)
    return comparison_report.result(config, facts, report, runs, directory)


def _train(
    config: CompareConfig,
    facts: "Facts",
    jobs: list[Job],
    directory: Path,
    quiet: bool,
) -> list[dict]:
    """Trains all replicates of all blocks, or those that are needed to decide."""
    if config.stages is None:
        return train_all(config, jobs, directory, config.design, quiet)
    from ffnlab.sweep import comparison_report

    (source,) = config.sources

    def judge(runs: list[dict]) -> "list[Comparison]":
        return comparison_report.rank_source(facts, source, runs, directory).comparisons

    sweep = Sweep(config, jobs, directory, config.design, quiet)
    stages, baseline = config.stages, config.reference
    return train_until_decided(sweep, jobs, stages, baseline, judge, quiet)


def _check_mesh(
    config: CompareConfig,
    matches: "Sequence[Match]",
    datasets: "Mapping[str, Dataset | Replicates]",
) -> None:
    """Raises unless the mesh fits all blocks, before anything is written."""
    known = len(config.given_widths) == len(config.names)
    size = config.mesh_sizes.get("model", 1)
    if config.budget == "time" and size > 1 and not known:
        raise InputError(
            f"mesh: model:{size} divides hidden widths, and budget=time measures "
            "widths that it need not divide; give those of all blocks as widths=..., "
            "or leave model out"
        )
    config.check_mesh(
        Job(
            match.config.kind,
            block_jobs.make_model(config, dataset, match.config),
            dataset,
            {"task": _task(config, source)},
        )
        for source, dataset in datasets.items()
        for match in matches
    )


def _task(config: CompareConfig, source: str) -> str:
    """Returns the task of the runs of a data set; empty if there is only one."""
    return source if len(config.sources) > 1 else ""


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
    return data.thin_parts(dataset, config.eval_examples)


def _digest(datasets: "Mapping[str, Dataset | Replicates]") -> str:
    """Returns the digest of a data set, or of the digests of several."""
    from ffnlab import data

    digests = [*map(data.digest_any, datasets.values())]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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
        model = block_jobs.make_model(config, dataset, block)
        return Job(block.kind, model, dataset, {})

    reference = block_jobs.reference_block(config)
    return timing.match_times(config, reference, matches, make_job, directory)
