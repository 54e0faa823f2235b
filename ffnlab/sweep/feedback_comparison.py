"""What does a network gain when every state depends on both neighbours?"""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.jobs import Job, read_best, train_all
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset
    from ffnlab.feedback.iteration import Solver
    from ffnlab.models.sequence import SequenceConfig
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Section

_TASKS = names_in("ffnlab.data.synthetic", "SEQUENCES")
_KINDS = names_in("ffnlab.models.sequence", "KINDS")
_SOLVERS = ("auto", "jacobi", "gauss_seidel", "anderson", "newton", "unrolled")
_CERTIFIED = "certified"
_DIAGNOSTICS = ("iterations", "residual", "radius", "converged")

QUICK = {
    "tasks": ("noisy_smoothing",),
    "models": ("feedback", "certified", "elman"),
    "seeds": 2,
    "learning_rates": (1e-2,),
    "steps": 60,
    "evaluations": 2,
    "couplings": (),
}


@dataclasses.dataclass(frozen=True)
class FeedbackCompareConfig(Training):
    """Feedback networks: the tasks, the models and the solver."""

    RENAMED: ClassVar[dict[str, str]] = {
        **Training.RENAMED,
        "begin": "coupling_init",
        "radius": "window_radius",
    }

    tasks: tuple[str, ...] = option(
        ("noisy_smoothing", "two_sided_copy", "brackets"),
        "Tasks. The best possible score is known for all but digit_rows.",
        known=_TASKS,
    )
    train: str | None = option(
        None, "CoNLL file of training sentences, instead of --tasks."
    )
    dev: str | None = option(
        None, "CoNLL file that the learning rate and the best step are chosen on."
    )
    test: str | None = option(None, "CoNLL file that the scores are computed on.")
    models: tuple[str, ...] = option(
        ("feedback", "certified", "elman", "birnn", "gru", "window"),
        "Models. certified is the feedback network with the bound of --contractive.",
        known=lambda: [*_KINDS(), _CERTIFIED],
    )
    baseline: str = option("elman", "Model that the others are tested against.")
    hidden: int = option(
        32,
        "Hidden width of the feedback network. The other models get the width at which "
        "they have as many parameters.",
        least=1,
    )
    layers: int = option(1, "Layers per model.", least=1)
    top_down: bool = option(
        False, "Whether a feedback layer also reads the layer above it."
    )
    embedding: int = option(16, "Width of the token embeddings.", least=1)
    activation: str = option(
        "relu",
        "Activation of the states.",
        known=names_in("ffnlab.nn.activations", "ACTIVATIONS"),
    )
    window_radius: int = option(
        3, "Positions that the window model reads on either side.", least=0
    )
    boundary: str = option(
        "zeros", "States outside of a sequence.", known=lambda: ("zeros", "learned")
    )
    coupling: float = option(0.9, "Strength of W and V at initialization.", least=0)
    coupling_init: str = option(
        "split",
        "Initial coupling: split, where half of the states read the left neighbour and "
        "half the right one, or mixed, where all states read both.",
        known=lambda: ("split", "mixed"),
    )
    contractive: float = option(
        0.9,
        "Bound on the Lipschitz constant of the certified model.",
        above=0,
        below=1,
    )
    certificate: str = option(
        "joint",
        "How the Lipschitz constant is bounded: jointly, or by the sum Lip(f)·(‖W‖ + "
        "‖V‖).",
        known=lambda: ("joint", "sum"),
    )
    couplings: tuple[float, ...] = option(
        (0.3, 0.6),
        "More bounds to train a certified model of the first task with, for a picture "
        "of the score against the bound.",
        above=0,
        below=1,
        empty=True,
    )
    solver: str = option(
        "auto",
        "Solver of the states. auto is jacobi for certified models and gauss_seidel "
        "for others.",
        known=lambda: _SOLVERS,
    )
    iterations: int = option(40, "Largest number of iterations per solve.", least=1)
    tolerance: float = option(
        1e-3, "Residual at which a solve has converged.", least=1e-6, below=1
    )
    damping: float = option(
        0.0,
        "Fraction of the old state that an iteration keeps.",
        least=0,
        below=1,
    )
    gradient: str = option(
        "implicit",
        "How a solve is differentiated.",
        known=lambda: ("implicit", "bptt", "one_step"),
    )
    seeds: int = option(8, "Runs per model and learning rate.", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (3e-3, 1e-2),
        "Peak learning rates; validation chooses one for each model.",
        above=0,
    )
    steps: int = option(200, "Steps per run.", least=1)
    batch_size: int = option(32, "Sequences per step.", least=1)
    evaluations: int = option(
        4, "Evaluations on the validation part per run, evenly spaced.", least=1
    )

    def __post_init__(self):
        super().__post_init__()
        choose("baseline", self.baseline, self.models)
        files = [self.train, self.dev, self.test]
        if any(files) and not all(files):
            raise InputError("train, dev and test: all three are needed")
        if self.activation == "relu2" and (_CERTIFIED in self.models or self.couplings):
            raise InputError(
                "activation: the slope of relu2 has no bound, so nothing can be "
                "certified; remove certified from models, and set couplings to none"
            )
        if self.top_down and self.boundary == "learned":
            raise InputError("boundary: learned cannot be combined with top_down")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the tasks in a report."""
        return (Path(self.train).stem,) if self.train else self.tasks


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


def compare_feedback(config: FeedbackCompareConfig) -> FeedbackCompareResult:
    """Runs a comparison and writes its report to the run directory.

    Args:
      config: What to compare, on which tasks, and how to train.

    Raises:
      InputError: A file or directory cannot be used, or options contradict each other.
    """
    from ffnlab.report import run_directory

    out = choose_directory(config.out, "feedback", config.resume)
    datasets = _datasets(config)

    from ffnlab import data  # these import JAX, what is above does not
    from ffnlab.sweep.report import publish

    jobs = [
        job
        for task, dataset in datasets.items()
        for job in _jobs(config, task, dataset)
    ]
    with run_directory.open_run(out, config, config.resume) as directory:
        digests = "".join(map(data.digest, datasets.values()))
        digest = hashlib.sha256(digests.encode()).hexdigest()
        run_directory.check_same_data(directory, digest)
        print(f"writing to {directory}", flush=True)
        runs = train_all(config, jobs, directory)
        sections = [
            _section(config, task, dataset, runs) for task, dataset in datasets.items()
        ]
        if config.train:
            from ffnlab.sweep import tagger_scores

            taggers = [job for job in jobs if job.name in config.models]
            remark = tagger_scores.span_f1_remark(taggers, config.seeds, directory)
            sections[0].ranking.remarks.append(remark)
        title = "What does a network gain when every state depends on both neighbours?"
        pictures = _pictures(config, datasets, jobs, runs, directory)
        publish(directory, title, sections, _note(config), pictures)
    rankings = {section.name: section.ranking for section in sections}
    return FeedbackCompareResult(directory, runs, rankings)


def _section(
    config: FeedbackCompareConfig,
    task: str,
    dataset: "Dataset",
    runs: list[dict[str, Any]],
) -> "Section":
    """Returns the ranking of a task."""
    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section
    from ffnlab.train import objectives

    lines = [r for r in runs if r["task"] == task and r["block"] in config.models]
    objective = objectives.OBJECTIVES[dataset.task]
    ranked = ranking.rank(lines, config.baseline, objective, config.seed, _DIAGNOSTICS)
    about = {name: fact for name, fact in dataset.about.items() if name != "ceiling"}
    return Section(task, ranked, lines, about, _marks(dataset))


def _datasets(config: FeedbackCompareConfig) -> "dict[str, Dataset]":
    """Returns the data sets by task."""
    from ffnlab import data

    if config.train:
        dataset = data.tagging_dataset(config.train, config.dev, config.test)
        return {config.sources[0]: dataset}
    return {task: data.SEQUENCES[task](config.seed) for task in config.tasks}


def _marks(dataset: "Dataset") -> dict[str, float]:
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
    kinds = {
        "jacobi": solvers.Jacobi,
        "gauss_seidel": solvers.GaussSeidel,
        "anderson": solvers.Anderson,
        "newton": solvers.Newton,
    }
    return kinds[config.solver](*options)


def _reference(config: FeedbackCompareConfig, dataset: "Dataset") -> "SequenceConfig":
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


def _jobs(config: FeedbackCompareConfig, task: str, dataset: "Dataset") -> list[Job]:
    """Returns the jobs of a task."""
    reference = _reference(config, dataset)
    return [
        _job(name, task, dataset, variant, reference)
        for name, variant in _variants(config, task, dataset).items()
    ]


def _variants(
    config: FeedbackCompareConfig, task: str, dataset: "Dataset"
) -> "dict[str, SequenceConfig]":
    """Returns the models of a task, and for the first task those of couplings."""
    reference = _reference(config, dataset)
    variants: dict[str, SequenceConfig] = {}
    for name in config.models:
        kind = "feedback" if name == _CERTIFIED else name
        variants[name] = dataclasses.replace(reference, kind=kind)
    bounds = {_CERTIFIED: config.contractive} if _CERTIFIED in config.models else {}
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
    return f"{_CERTIFIED} {bound:g}"


def _job(
    name: str,
    task: str,
    dataset: "Dataset",
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
    datasets: "dict[str, Dataset]",
    jobs: list[Job],
    runs: list[dict[str, Any]],
    directory: Path,
) -> "dict[str, tuple[str, Figure]]":
    """Returns captions and figures on the solution of the first task's networks."""
    from ffnlab.sweep import solver_plots

    task = config.sources[0]
    dataset = datasets[task]
    pictures = {}
    shown = [
        job
        for job in jobs
        if job.facts["task"] == task and job.name in ("feedback", _CERTIFIED)
    ]
    if shown:
        variants = _variants(config, task, dataset)
        pictures |= solver_plots.plot_solvers(
            {job.name: variants[job.name] for job in shown},
            {job.name: read_best(directory, job) for job in shown},
            dataset,
        )
    if config.couplings:
        lines = [run for run in runs if run["task"] == task]
        names = {bound: _certified_name(bound) for bound in config.couplings}
        if _CERTIFIED in config.models:
            names[config.contractive] = _CERTIFIED
        pictures["coupling.png"] = solver_plots.plot_certificates(
            lines, dict(sorted(names.items())), dataset, _marks(dataset)
        )
    return pictures


def _note(config: FeedbackCompareConfig) -> str:
    """Returns how the numbers in the tables were computed."""
    return f"""Scores are means over {config.seeds} seeds with Student's 95 %
intervals. A seed sets the initial parameters and the order of the data; the data are
the same for all. All models have as many parameters as a feedback network of hidden
width {config.hidden}; the remaining difference is in brackets. The learning rate was
chosen on the validation part, and the test part was scored once, at that rate. Δ is the
mean of the paired differences from the baseline. Its intervals hold for all models
together, and p is adjusted for their number, by the distribution of the largest
studentised difference under random signs: an interval excludes zero exactly when p is
at most 0.05. P(better) is the share of seeds in which the model beats the baseline.
Iterations, residual, spectral radius and the fraction of sequences that converged are
means over the validation part."""
