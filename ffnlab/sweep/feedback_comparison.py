"""What does a network gain when every state hears both neighbours?"""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory
from ffnlab.sweep.jobs import Job, read_best, train_all
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset
    from ffnlab.feedback.solvers import Solver, Unrolled
    from ffnlab.models.sequence import SequenceConfig
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Section

_TASKS = names_in("ffnlab.data.synthetic", "SEQUENCES")
_KINDS = names_in("ffnlab.models.sequence", "KINDS")
_SOLVERS = ("auto", "jacobi", "gauss_seidel", "anderson", "newton", "unrolled")
_CERTIFIED = "certified"
_TOLD = ("iterations", "residual", "radius", "converged")

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
    """What to train, on what, and how it is solved; each field is a flag."""

    tasks: tuple[str, ...] = option(
        ("noisy_smoothing", "two_sided_copy", "brackets"),
        "tasks whose best possible score is known, or digit_rows",
        known=_TASKS,
    )
    train: str | None = option(None, "a CoNLL file to learn from, instead of --tasks")
    dev: str | None = option(None, "a CoNLL file to choose by")
    test: str | None = option(None, "a CoNLL file to report on")
    models: tuple[str, ...] = option(
        ("feedback", "certified", "elman", "birnn", "gru", "window"),
        "certified is feedback with --contractive",
        known=lambda: [*_KINDS(), _CERTIFIED],
    )
    baseline: str = option("elman", "the model the others are tested against")
    hidden: int = option(32, "states of the feedback network; others match it", least=1)
    layers: int = option(1, "layers of each model", least=1)
    top_down: bool = option(False, "whether a feedback layer hears the one above")
    embedding: int = option(16, "width of a token's embedding", least=1)
    activation: str = option(
        "relu", "of the states", known=names_in("ffnlab.nn.activations", "ACTIVATIONS")
    )
    radius: int = option(3, "how far the window sees to either side", least=0)
    boundary: str = option(
        "zeros",
        "the states outside a sequence: zeros or learned",
        known=lambda: ("zeros", "learned"),
    )
    coupling: float = option(0.9, "how strong W and V are at the start", least=0)
    begin: str = option(
        "split",
        "half of the states hear each side at the start, or mixed: all hear both",
        known=lambda: ("split", "mixed"),
    )
    contractive: float = option(
        0.9,
        "the bound on the Lipschitz constant, if certified",
        above=0,
        below=1,
    )
    certificate: str = option(
        "joint",
        "how it is bounded: joint, or sum, which is Lip(f)·(‖W‖ + ‖V‖)",
        known=lambda: ("joint", "sum"),
    )
    couplings: tuple[float, ...] = option(
        (0.3, 0.6), "more certificates to draw the first task's score at; or none",
        above=0, below=1, empty=True,
    )  # fmt: skip
    solver: str = option(
        "auto",
        "jacobi, gauss_seidel, anderson, newton, unrolled, or auto: jacobi where "
        "something is certified, otherwise gauss_seidel",
        known=lambda: _SOLVERS,
    )
    iterations: int = option(40, "the most a solve may take", least=1)
    tolerance: float = option(1e-3, "the residual that will do", least=1e-6, below=1)
    damping: float = option(0.0, "share of the old state kept", least=0, below=1)
    gradient: str = option(
        "implicit",
        "implicit, bptt or one_step",
        known=lambda: ("implicit", "bptt", "one_step"),
    )
    seeds: int = option(8, "runs per model and learning rate", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (3e-3, 1e-2), "peaks; validation chooses one for each model", above=0
    )
    steps: int = option(200, "steps of a run", least=1)
    batch_size: int = option(32, "sequences a step", least=1)
    evaluations: int = option(
        4, "how often a run is validated, at equal distances", least=1
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
                "certified; leave certified out of models, and give couplings="
            )
        if self.top_down and self.boundary == "learned":
            raise InputError("boundary: learned ends are not for top_down")

    @property
    def sources(self) -> tuple[str, ...]:
        """What the tasks are called in a report."""
        return (Path(self.train).stem,) if self.train else self.tasks


class FeedbackCompareResult(NamedTuple):
    """What an experiment found.

    Attributes:
      out: the directory that holds it.
      runs: a dict for each run, as in results.jsonl.
      rankings: by task.
    """

    out: Path
    runs: list[dict[str, Any]]
    rankings: "dict[str, Ranking]"


def compare_feedback(config: FeedbackCompareConfig) -> FeedbackCompareResult:
    """Runs the experiment and writes its report.

    Raises:
      InputError: a file or directory cannot be used, or flags contradict each other.
    """
    from ffnlab.report import run_directory

    out = choose_directory(config.out, "feedback", config.resume)
    datasets = _datasets(config)

    from ffnlab import data  # these import JAX, what is above does not
    from ffnlab.sweep.report import publish

    flags = options.to_flags(config, leave_out=("out", "resume"))
    jobs = [
        job
        for task, dataset in datasets.items()
        for job in _jobs(config, task, dataset)
    ]
    with run_directory.open_run(out, flags, config.resume) as directory:
        digests = "".join(map(data.digest, datasets.values()))
        run_directory.same_data(directory, hashlib.sha256(digests.encode()).hexdigest())
        print(f"writing to {directory}", flush=True)
        runs = train_all(config, jobs, directory)
        sections = [_section(config, *each, runs) for each in datasets.items()]
        if config.train:
            from ffnlab.sweep import tagger_scores

            mine = [job for job in jobs if job.name in config.models]
            told = tagger_scores.remark(mine, config.seeds, directory)
            sections[0].found.remarks.append(told)
        title = "What does hearing both neighbours gain?"
        pictures = _pictures(config, datasets, jobs, runs, directory)
        publish(directory, title, sections, _note(config), pictures)
    return FeedbackCompareResult(
        directory, runs, {each.name: each.found for each in sections}
    )


def _section(
    config: FeedbackCompareConfig,
    task: str,
    dataset: "Dataset",
    runs: list[dict[str, Any]],
) -> "Section":
    from ffnlab.sweep import ranking
    from ffnlab.sweep.report import Section
    from ffnlab.train import objectives

    lines = [r for r in runs if r["task"] == task and r["block"] in config.models]
    objective = objectives.OBJECTIVES[dataset.task]
    found = ranking.rank(lines, config.baseline, objective, config.seed, _TOLD)
    about = {name: fact for name, fact in dataset.about.items() if name != "ceiling"}
    return Section(task, found, lines, about, _marks(dataset))


def _datasets(config: FeedbackCompareConfig) -> "dict[str, Dataset]":
    from ffnlab import data

    if config.train:
        found = data.tagging_dataset(config.train, config.dev, config.test)
        return {config.sources[0]: found}
    return {task: data.SEQUENCES[task](config.seed) for task in config.tasks}


def _marks(dataset: "Dataset") -> dict[str, float]:
    """Returns the best scores that there can be, by what they are called."""
    names = {
        "two_sided": "the best from both sides",
        "one_sided": "the best from the left",
    }
    return {names[k]: v for k, v in dataset.about.get("ceiling", {}).items()}


def _solver(config: FeedbackCompareConfig, certified: bool) -> "Solver | Unrolled":
    from ffnlab.feedback import solvers

    given = (config.tolerance, config.iterations, config.damping)
    if config.solver == "auto":
        return solvers.auto(certified, *given)
    if config.solver == "unrolled":
        return solvers.Unrolled(config.iterations, config.damping)
    kinds = {
        "jacobi": solvers.Jacobi,
        "gauss_seidel": solvers.GaussSeidel,
        "anderson": solvers.Anderson,
        "newton": solvers.Newton,
    }
    return kinds[config.solver](*given)


def _reference(config: FeedbackCompareConfig, dataset: "Dataset") -> "SequenceConfig":
    """Returns the feedback network that the other models are as large as."""
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
        radius=config.radius,
        solver=_solver(config, certified=False),
        gradient=config.gradient,
        certificate=config.certificate,
        coupling=config.coupling,
        coupling_init=config.begin,
        boundary=config.boundary,
        top_down=config.top_down,
    )


def _jobs(config: FeedbackCompareConfig, task: str, dataset: "Dataset") -> list[Job]:
    """Returns what is to be trained on a task."""
    reference = _reference(config, dataset)
    return [
        _job(name, task, dataset, variant, reference)
        for name, variant in _variants(config, task, dataset).items()
    ]


def _variants(
    config: FeedbackCompareConfig, task: str, dataset: "Dataset"
) -> "dict[str, SequenceConfig]":
    """Returns the models of a task, and for the first one those of --couplings."""
    reference = _reference(config, dataset)
    variants: dict[str, SequenceConfig] = {}
    for name in config.models:
        kind = "feedback" if name == _CERTIFIED else name
        variants[name] = dataclasses.replace(reference, kind=kind)
    bounds = {_CERTIFIED: config.contractive} if _CERTIFIED in config.models else {}
    if task == config.sources[0]:
        bounds |= {_named(bound): bound for bound in config.couplings}
    for name, bound in bounds.items():
        variants[name] = dataclasses.replace(
            reference,
            contractive=bound,
            coupling=min(bound, config.coupling),
            solver=_solver(config, certified=True),
        )
    return variants


def _named(bound: float) -> str:
    return f"{_CERTIFIED} {bound:g}"


def _job(
    name: str,
    task: str,
    dataset: "Dataset",
    variant: "SequenceConfig",
    reference: "SequenceConfig",
) -> Job:
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
    """Returns the pictures of how the first task's networks are solved."""
    from ffnlab.sweep import solver_plots

    task = config.sources[0]
    dataset = datasets[task]
    found = {}
    shown = [
        job
        for job in jobs
        if job.facts["task"] == task and job.name in ("feedback", _CERTIFIED)
    ]
    if shown:
        variants = _variants(config, task, dataset)
        found |= solver_plots.pictures(
            {job.name: variants[job.name] for job in shown},
            {job.name: read_best(directory, job) for job in shown},
            dataset,
        )
    if config.couplings:
        lines = [run for run in runs if run["task"] == task]
        names = {bound: _named(bound) for bound in config.couplings}
        if _CERTIFIED in config.models:
            names[config.contractive] = _CERTIFIED
        found["coupling.png"] = solver_plots.against_coupling(
            lines, dict(sorted(names.items())), dataset, _marks(dataset), config.seed
        )
    return found


def _note(config: FeedbackCompareConfig) -> str:
    """Returns how the numbers in the tables came about."""
    return f"""Interquartile means over {config.seeds} seeds, with bootstrap 95 %
intervals. All models have as many parameters as a feedback network of hidden width
{config.hidden}; what remains is in brackets. Validation chose the learning rate; the
test part was scored once, at it. Δ is the mean difference over equal seeds; p is of a
paired permutation test, corrected by Holm; P(better) is the chance that a run beats a
baseline's. Iterations, residual, spectral radius and the share that converged are means
over the validation part."""
