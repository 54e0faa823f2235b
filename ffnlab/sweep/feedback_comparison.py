"""What does a network gain when every state depends on both neighbours?"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices
from ffnlab.escape import terminal
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.feedback_config import CERTIFIED, FeedbackCompareConfig
from ffnlab.sweep.jobs import Job, train_all
from ffnlab.sweep.results import frame_of, plot_ranking

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset, Replicates
    from ffnlab.feedback.iteration import Solver
    from ffnlab.models.sequence import SequenceConfig
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Section

_DIAGNOSTICS = ("iterations", "residual", "radius", "converged")


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
    from ffnlab.report import compile_time, run_directory

    out = choose_directory(config.out, "feedback", config.resume)
    devices.select(config.device)
    for doubt in config.doubts(config.models):
        print(terminal(f"note: {doubt}"), flush=True)
    datasets = _datasets(config)
    for dataset in datasets.values():
        config.layout(dataset=dataset)  # refuses a mesh that does not fit

    from ffnlab.sweep.report import publish  # this imports JAX, what is above does not

    jobs = [
        job
        for task, dataset in datasets.items()
        for job in _jobs(config, task, dataset)
    ]
    with (
        compile_time.shown(),
        run_directory.open_run(out, config, config.resume) as directory,
    ):
        run_directory.check_same_data(directory, _digest(datasets))
        print(terminal(f"writing to {directory}"), flush=True)
        runs = train_all(config, jobs, directory, config.design)
        sections = [
            _section(config, task, dataset, jobs, runs, directory)
            for task, dataset in datasets.items()
        ]
        if config.train:
            from ffnlab.sweep import tagger_scores

            taggers = [job for job in jobs if job.name in config.models]
            remark = tagger_scores.span_f1_remark(taggers, config.seeds, directory)
            sections[0].ranking.remarks.append(remark)
        title = "What does a network gain when every state depends on both neighbours?"
        pictures = _pictures(config, datasets, jobs, runs, directory)
        publish(directory, title, sections, _note(config, datasets), pictures)
        run_directory.finish(directory)
    rankings = {section.name: section.ranking for section in sections}
    return FeedbackCompareResult(directory, runs, rankings)


def _section(
    config: FeedbackCompareConfig,
    task: str,
    dataset: "Dataset | Replicates",
    jobs: list[Job],
    runs: list[dict[str, Any]],
    directory: Path,
) -> "Section":
    """Returns the ranking of a task."""
    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section
    from ffnlab.train import objectives

    lines = [r for r in runs if r["task"] == task and r["block"] in config.models]
    ranked = ranking.rank(
        lines,
        config.baseline,
        objectives.OBJECTIVES[dataset.task],
        config.seed,
        _DIAGNOSTICS,
        config.margin,
        _test_ratio(dataset),
        _examples(config, jobs, lines, directory),
    )
    about = {name: fact for name, fact in dataset.about.items() if name != "ceiling"}
    return Section(task, ranked, lines, about, _marks(dataset))


def _examples(
    config: FeedbackCompareConfig,
    jobs: list[Job],
    lines: list[dict[str, Any]],
    directory: Path,
) -> "dict[str, np.ndarray] | None":
    """Returns the scores on each sentence of a test file that all replicates share."""
    if not config.train or config.split == "fixed":
        return None
    from ffnlab.sweep.run_files import read_examples

    slugs = {job.name: job.slug for job in jobs if job.name in config.models}
    return read_examples(directory, slugs, lines)


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


def _test_ratio(dataset: "Dataset | Replicates") -> float | None:
    """Returns the test examples per training example of splits of the same data.

    It is None for data that are the same for all runs, and for independent draws, whose
    p-value is about new data already.
    """
    from ffnlab import data

    if not isinstance(dataset, data.Replicates) or _is_drawn(dataset):
        return None
    return dataset.rows["test"].shape[1] / dataset.rows["train"].shape[1]


def _is_drawn(dataset: "Dataset | Replicates") -> bool:
    """Returns whether the data come from a known process."""
    from ffnlab.data import synthetic

    return dataset.about["source"] == synthetic.DRAWN


def _marks(dataset: "Dataset | Replicates") -> dict[str, float]:
    """Returns the best possible scores, by name."""
    names = {
        "two_sided": "best possible from both sides",
        "one_sided": "best possible from the left",
    }
    return {names[k]: v for k, v in dataset.about.get("ceiling", {}).items()}


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
        bounds |= {_certified_name(bound): bound for bound in config.couplings}
    for name, bound in bounds.items():
        variants[name] = dataclasses.replace(
            reference,
            contractive=bound,
            coupling=min(bound, config.coupling),
            solver=_solver(config, certified=True),
        )
    return variants


def _certified_name(bound: float) -> str:
    """Returns the name of a model that is certified by a bound."""
    return f"{CERTIFIED} {bound:g}"


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


def _pictures(
    config: FeedbackCompareConfig,
    datasets: "Mapping[str, Dataset | Replicates]",
    jobs: list[Job],
    runs: list[dict[str, Any]],
    directory: Path,
) -> "dict[str, tuple[str, Figure]]":
    """Returns captions and figures on the solution of the first task's networks."""
    from ffnlab.sweep import solver_plots
    from ffnlab.sweep.run_files import read_best

    task = config.sources[0]
    dataset = datasets[task]
    pictures = {}
    shown = [
        job
        for job in jobs
        if job.facts["task"] == task and job.name in ("feedback", CERTIFIED)
    ]
    if shown:
        variants = _variants(config, task, dataset)
        pictures |= solver_plots.plot_solvers(
            {job.name: variants[job.name] for job in shown},
            {job.name: read_best(directory, job.slug) for job in shown},
            shown[0].first,
        )
    if config.couplings:
        lines = [run for run in runs if run["task"] == task]
        names = {bound: _certified_name(bound) for bound in config.couplings}
        if CERTIFIED in config.models:
            names[config.contractive] = CERTIFIED
        pictures["coupling.png"] = solver_plots.plot_certificates(
            lines, dict(sorted(names.items())), dataset, _marks(dataset)
        )
    return pictures


def _note(
    config: FeedbackCompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> str:
    """Returns how the numbers in the tables were computed."""
    return f"""{_design(config, datasets)} The test part was scored once, at the chosen
rate.

All models have as many parameters as a feedback network of hidden width
{config.hidden}; the remaining difference is in brackets. Scores are means with
Student's 95 % intervals, each for itself. Δ is the mean of the paired differences from
the baseline. Its intervals hold for all models together, and p is adjusted for their
number, by the distribution of the largest studentised difference under random signs
(Liu 1988; Westfall and Young 1993; Romano and Wolf 2005): an interval excludes zero
exactly when p is at most 0.05. P(better) is the share of replicates in which the model
beats the baseline. A model is equivalent if its interval is within the margin. A run
that diverged has the score of a trivial predictor. Iterations, residual, spectral
radius and the fraction of sequences that converged are means over the validation
part."""


def _design(
    config: FeedbackCompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> str:
    """Returns what a replicate is, and what data the p-values are about."""
    runs = config.seeds
    if config.split == "fixed":
        return f"""The {runs} replicates of a model differ in their initial parameters
and the order of the data. The data are the same for all, and so is the learning rate of
a model, which the validation part chose: the verdict is about these data and these
learning rates, and others may give another one."""
    if config.train:
        return f"""A replicate has its own initial parameters, order of the data and
learning rate, which the validation part chose. The sentences are those of the files for
all {runs} replicates. Standard errors are therefore two-way: they count the draw of the
replicates and that of the test sentences (Cameron, Gelbach and Miller 2011). There is
no p-value for new data of the kind, since only one draw of the training part was
seen."""
    drawn = {name: _is_drawn(dataset) for name, dataset in datasets.items()}
    text = f"""A replicate has its own data, initial parameters, order of the data and
learning rate, which its own validation part chose. Models are compared in pairs of
equal data and order, over {runs} replicates."""
    new, split = (
        ", ".join(name for name, known in drawn.items() if known == wanted)
        for wanted in (True, False)
    )
    if new:
        text += f""" The data of {new} are drawn anew, independently of the other
replicates, so that p-values are about new data of the kind; the best possible scores
are means over the test parts of all replicates."""
    if split:
        text += f""" The data of {split} are split anew: the p-value is about this data
set, and the one for new data of the kind corrects the variance for the overlap of
splits (Nadeau and Bengio 2003)."""
    return text
