"""What does a network gain when every state depends on both neighbours?"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices, processes
from ffnlab.escape import terminal
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep import feedback_facts
from ffnlab.sweep.feedback_config import CERTIFIED, FeedbackCompareConfig
from ffnlab.sweep.job import Job
from ffnlab.sweep.jobs import train_all
from ffnlab.sweep.results import frame_of, plot_ranking

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset, Replicates
    from ffnlab.feedback.iteration import Solver
    from ffnlab.models.sequence import SequenceConfig
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Report
    from ffnlab.sweep.report_facts import Facts
    from ffnlab.sweep.shard_report import ShardReport


class FeedbackCompareResult(NamedTuple):
    """The result of a comparison of feedback networks.

    Attributes:
      out: The run directory.
      runs: A dict for each run, as in results.jsonl.
      rankings: Task to ranking.
    """

    out: Path
    runs: list[dict[str, Any]]
    rankings: "dict[str, Ranking]"

    def __repr__(self) -> str:
        verdicts = {task: ranking.verdict for task, ranking in self.rankings.items()}
        return f"FeedbackCompareResult({verdicts!r})"

    def frame(self) -> "pandas.DataFrame":
        """Returns a DataFrame with a row for each run; see `results.frame_of`."""
        return frame_of(self.runs)

    def plot(self, ax: "Axes | None" = None, task: str | None = None) -> "Axes":
        """Draws the differences from the baseline, as differences-TASK.png.

        Args:
          ax: The axes of matplotlib to draw on; None makes a figure by pyplot.
          task: The task; None is the first.

        Returns:
          The axes.
        """
        return plot_ranking(self.rankings, ax, task)


def compare_feedback(config: FeedbackCompareConfig) -> FeedbackCompareResult:
    """Runs a comparison and writes its report to the run directory.

    Args:
      config: What to compare, on which tasks, and how to train.

    Raises:
      InputError: A file or directory cannot be used, or options contradict each other.
    """
    with processes.joined(config) as config:
        return _compare(config)


def _compare(config: FeedbackCompareConfig) -> FeedbackCompareResult:
    """Runs the comparison of a configuration."""
    from ffnlab.report import compile_time, run_directory

    out = choose_directory(config.out, "feedback", config.resume)
    devices.select(config.device)
    for doubt in config.doubts(config.models):
        print(terminal(f"note: {doubt}"), flush=True)
    datasets = _datasets(config)
    jobs = [
        job
        for task, dataset in datasets.items()
        for job in _jobs(config, task, dataset)
    ]
    config.check_mesh(jobs)
    facts = feedback_facts.gather(config, datasets)
    with (
        compile_time.shown(),
        run_directory.open_run(out, config, config.resume) as directory,
    ):
        run_directory.check_same_data(directory, _digest(datasets))
        print(terminal(f"writing to {directory}"), flush=True)
        runs = train_all(config, jobs, directory, config.design)
        if config.train:
            from ffnlab.sweep import tagger_scores

            taggers = [job for job in jobs if job.name in config.models]
            tagger_scores.write(taggers, directory)
        pictures = _draw_solvers(config, datasets[config.sources[0]], jobs, directory)
        rankings = _publish(config, facts, runs, pictures, directory)
        run_directory.finish(directory)
    return FeedbackCompareResult(directory, runs, rankings)


def _publish(
    config: FeedbackCompareConfig,
    facts: "Facts",
    runs: list[dict[str, Any]],
    pictures: "dict[str, tuple[str, Figure]]",
    directory: Path,
) -> "dict[str, Ranking]":
    """Prints and writes the report, of all replicates or of a shard.

    Returns:
      The ranking of each task; a shard has none.
    """
    from ffnlab.sweep import (
        comparison_report,
        feedback_report,
        report_facts,
        shard_report,
    )

    report: Report | ShardReport
    if config.part_of:
        report = shard_report.make_report(facts, config.part_of, runs)
    else:
        report = comparison_report.make_report(facts, runs, directory)
        pictures |= feedback_report.draw_certificates(facts, runs)
    report.show()
    report_facts.write(directory, facts)
    written = ", ".join([*report.write(directory, pictures), "results.jsonl"])
    print(f"\n{terminal(f'written to {directory}: {written}')}")
    if config.part_of:
        return {}
    return comparison_report.rankings(facts, report.sections)


def _datasets(config: FeedbackCompareConfig) -> "dict[str, Dataset | Replicates]":
    """Returns the data sets by task; tasks are drawn or split anew for each run."""
    from ffnlab import data

    if config.train:
        dataset = data.tagging_dataset(config.train, config.dev, config.test)
        return {config.sources[0]: dataset}
    if config.split == "fixed":
        return {task: data.SEQUENCES[task](config.seed) for task in config.tasks}
    seeds = data.replicate_seeds(config.seed, config.seeds)
    return {task: data.replicate(data.SEQUENCES[task], seeds) for task in config.tasks}


def _digest(datasets: "Mapping[str, Dataset | Replicates]") -> str:
    """Returns the digest of the digests of all data sets."""
    from ffnlab import data

    digests = [*map(data.digest_any, datasets.values())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _solver(config: FeedbackCompareConfig, certified: bool) -> "Solver":
    """Returns the solver of certified or of other models."""
    from ffnlab.feedback import solvers

    options = (config.tolerance, config.iterations, config.damping)
    if config.solver == "auto":
        return solvers.auto(certified, *options)
    if config.solver == "unrolled":
        return solvers.Unrolled(config.iterations, config.damping)
    return solvers.SOLVERS[config.solver](*options)


def _reference(
    config: FeedbackCompareConfig, dataset: "Dataset | Replicates"
) -> "SequenceConfig":
    """Returns the feedback network, whose size the other models match."""
    from ffnlab.models.sequence import SequenceConfig

    return SequenceConfig(
        dataset.classes,
        dataset.features,
        dataset.about.get("vocabulary"),
        hidden=config.hidden,
        layers=config.layers,
        per=dataset.about["per"],
        embedding=config.embedding,
        activation=config.activation,
        radius=config.window_radius,
        solver=_solver(config, certified=False),
        gradient=config.gradient,
        certificate=config.certificate,
        coupling=config.coupling,
        coupling_init=config.coupling_init,
        boundary=config.boundary,
        top_down=config.top_down,
    )


def _jobs(
    config: FeedbackCompareConfig, task: str, dataset: "Dataset | Replicates"
) -> list[Job]:
    """Returns the jobs of a task."""
    reference = _reference(config, dataset)
    return [
        _job(name, task, dataset, variant, reference)
        for name, variant in _variants(config, task, dataset).items()
    ]


def _variants(
    config: FeedbackCompareConfig, task: str, dataset: "Dataset | Replicates"
) -> "dict[str, SequenceConfig]":
    """Returns the models of a task, and for the first task those of couplings."""
    reference = _reference(config, dataset)
    variants: dict[str, SequenceConfig] = {}
    for name in config.models:
        kind = "feedback" if name == CERTIFIED else name
        variants[name] = dataclasses.replace(reference, kind=kind)
    bounds = {CERTIFIED: config.contractive} if CERTIFIED in config.models else {}
    if task == config.sources[0]:
        bounds |= {
            feedback_facts.certified_name(bound): bound for bound in config.couplings
        }
    for name, bound in bounds.items():
        variants[name] = dataclasses.replace(
            reference,
            contractive=bound,
            coupling=min(bound, config.coupling),
            solver=_solver(config, certified=True),
        )
    return variants


def _job(
    name: str,
    task: str,
    dataset: "Dataset | Replicates",
    variant: "SequenceConfig",
    reference: "SequenceConfig",
) -> Job:
    """Returns the job of a model, with the facts that its lines hold."""
    from ffnlab.models import sequence

    variant = sequence.match(variant, reference)
    size, target = variant.parameters, reference.parameters
    model = sequence.sequence_model(variant)
    facts = {
        "task": task,
        "block": name,
        "hidden": variant.hidden,
        "parameters": size,
        "budget": "parameters",
        "unmatched": size / target - 1.0,
    }
    return Job(name, model, dataset, facts)


def _draw_solvers(
    config: FeedbackCompareConfig,
    dataset: "Dataset | Replicates",
    jobs: list[Job],
    directory: Path,
) -> "dict[str, tuple[str, Figure]]":
    """Returns captions and figures on the solution of the first task's networks.

    They show replicate 0; a shard without it has none.
    """
    from ffnlab.sweep import solver_plots
    from ffnlab.sweep.run_files import read_best

    task = config.sources[0]
    shown = [
        job
        for job in jobs
        if job.facts["task"] == task and job.name in ("feedback", CERTIFIED)
    ]
    if not shown or config.design.first:
        return {}
    variants = _variants(config, task, dataset)
    return solver_plots.plot_solvers(
        {job.name: variants[job.name] for job in shown},
        {job.name: read_best(directory, job.slug) for job in shown},
        shown[0].first,
    )
