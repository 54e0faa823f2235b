"""What experiments that train share: their flags, and the training of populations."""

import dataclasses
import datetime
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import launch
from experiments.launch import names_in, option
from ffnlab.errors import InputError

if TYPE_CHECKING:
    import optax

    from ffnlab.data import Dataset
    from ffnlab.record import Plan, Record
    from ffnlab.report import Progress
    from ffnlab.types import Model, Objective


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a model is trained; each field is a flag."""

    optimizer: str = option(
        "adamw",
        "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion or muon",
        known=names_in("ffnlab.optimizers", "OPTIMIZERS"),
    )
    schedule: str = option(
        "cosine",
        "of the learning rate: constant, linear or cosine",
        known=names_in("ffnlab.optimizers", "SCHEDULES"),
    )
    warmup: int = option(
        20, "steps over which the learning rate rises; at most half the run", least=0
    )
    weight_decay: float | None = option(
        None, "decoupled; the optimizer's own if not given", least=0
    )
    clip: float = option(1.0, "largest norm of the gradient; 0 is no limit", least=0)
    steps: int = option(300, "steps of a run", least=1)
    epochs: float | None = option(None, "length of a run, before --steps", above=0)
    batch_size: int = option(128, "examples a step", least=1)
    evaluations: int = option(
        10, "how often a run is validated, at equal distances", least=1
    )
    seed: int = option(0, "of the split and of all else", least=0, below=2**31)
    out: str | None = option(None, "directory to write; runs/… if not given")
    resume: bool = option(False, "go on with the run in --out")

    def __post_init__(self):
        launch.check(self)
        if self.resume and not self.out:
            raise InputError("--resume: --out must name the run to go on with")

    def plan(self, dataset: "Dataset", objective: "Objective") -> "Plan":
        """Returns how long a model trains on a data set, and by what it is judged."""
        from ffnlab import data
        from ffnlab.record import Plan

        steps = self.steps
        if self.epochs is not None:
            size = data.size(dataset.train)
            steps = max(1, round(self.epochs * size / self.batch_size))
        return Plan(
            steps,
            -(-steps // self.evaluations),
            self.batch_size,
            monitor=objective.headline,
            higher_is_better=objective.higher_is_better,
        )

    def make_optimizer(
        self, steps: int, flat: bool = True, learning_rate: float = 1e-3
    ) -> "optax.GradientTransformation":
        """Returns the optimizer of a run of so many steps; see `optimizers.make`."""
        from ffnlab import optimizers

        warmup = min(self.warmup, steps // 2)
        return optimizers.make(
            self.optimizer,
            learning_rate,
            share=optimizers.schedule(self.schedule, steps, warmup),
            weight_decay=self.weight_decay,
            clip=self.clip or None,
            flat=flat,
        )


@dataclasses.dataclass(frozen=True)
class Training(Steps):
    """How populations are trained; each field is a flag."""

    seeds: int = option(16, "runs per model and learning rate", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (1e-3, 3e-3, 1e-2), "peaks; validation chooses one for each model", above=0
    )

    @property
    def members(self) -> int:
        """How many runs a population has."""
        return self.seeds * len(self.learning_rates)


def claim_unfinished(config: Steps, name: str) -> str:
    """Returns the directory of a run, as `claim`, unless the run to resume is over.

    Raises:
      InputError: as `claim`, or there is a report.md already.
    """
    out = claim(config.out, name, config.resume)
    if config.resume and Path(out, "report.md").exists():
        raise InputError(f"--resume: {out} is finished; its report.md says what came")
    return out


def follow(
    progress: "Progress", plan: "Plan", score: str, text: str
) -> "Callable[[Record], None]":
    """Returns what tells a Progress of a run as it is validated, for `train.fit`.

    Args:
      progress: of the steps.
      plan: of the run.
      score: the one to show.
      text: how, for instance `valid {:.3f} bits`.
    """
    last = 0

    def watch(record: "Record") -> None:
        nonlocal last
        progress.reach(int(record.step) - last)
        last = int(record.step)
        value = record.scores[score][..., (last - 1) // plan.every].mean()
        progress.begin(text.format(value))
        progress.end()

    return watch


def check_finite(record: "Record", learning_rate: float) -> None:
    """Refuses a run whose loss was not finite.

    Raises:
      InputError: it was not, or that of one of several; the step is named.
    """
    if (record.diverged >= 0).any():
        raise InputError(
            f"--learning_rate: {learning_rate:g}: the loss was not finite at step "
            f"{record.diverged.max()}; lower it"
        )


def claim(out: str | None, name: str, resume: bool | None = None) -> str:
    """Returns the directory of a run, which is free to use; takes all cores for it.

    Args:
      out: where it was asked for.
      name: what to call it if it was not.
      resume: whether it holds a run to go on with; None if that cannot be.

    Raises:
      InputError: `--out` is a file, holds another run, or holds none to resume.
    """
    from ffnlab import report

    launch.use_all_cores()
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = out or f"runs/{name}-{stamp}"
    report.check_directory(out, resume)
    return out


class Job(NamedTuple):
    """A population to train.

    Attributes:
      name: what is compared.
      model: as pure functions.
      dataset: what it is trained and scored on.
      facts: what all its lines say; `block` is the name, `task` sets jobs apart.
    """

    name: str
    model: "Model"
    dataset: "Dataset"
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What sets it apart from the other jobs."""
        return self.facts.get("task", ""), self.name

    @property
    def slug(self) -> str:
        """Its name as part of a path."""
        return "-".join(filter(None, self.key)).replace(":", "-")


def train_all(config: Training, jobs: Sequence[Job], directory: Path) -> list[dict]:
    """Trains the populations that a directory has no results of, one after another.

    Args:
      config: how.
      jobs: all of them.
      directory: receives results.jsonl, and best/NAME.npz with the parameters of the
        chosen runs, `[seeds, ...]` each; on the way, checkpoints.

    Returns:
      A line for every run, as `results.lines` makes them.
    """
    from ffnlab import report

    path = directory / "results.jsonl"
    runs = report.read_lines(path)
    finished = {(run.get("task", ""), run["block"]) for run in runs}
    from ffnlab.losses import OBJECTIVES

    plans = [config.plan(job.dataset, OBJECTIVES[job.dataset.task]) for job in jobs]
    sizes = [plan.steps * config.members for plan in plans]
    done = sum(s for s, job in zip(sizes, jobs, strict=True) if job.key in finished)
    with report.Progress(sum(sizes), "steps", done) as progress:
        for job, plan in zip(jobs, plans, strict=True):
            if job.key in finished:
                continue
            progress.begin(" ".join(filter(None, job.key)))
            folder = directory / "checkpoints" / job.slug
            best = directory / "best" / f"{job.slug}.npz"
            runs += _train(config, job, plan, folder, best, progress)
            report.write_lines(path, runs)
            shutil.rmtree(folder, ignore_errors=True)
            progress.end()
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return runs


def _train(
    config: Training,
    job: Job,
    plan: "Plan",
    folder: Path,
    best: Path,
    progress: "Progress",
) -> list[dict]:
    """Trains one population and scores the chosen members on the test part."""
    import jax
    import numpy as np

    from ffnlab import checkpoint, losses, results, sweep, trees

    objective = losses.OBJECTIVES[job.dataset.task]
    population = sweep.fit_population(
        job.model,
        objective,
        config.make_optimizer(plan.steps),
        job.dataset,
        plan,
        seeds=range(config.seeds),
        learning_rates=config.learning_rates,
        key=jax.random.key(config.seed),
        checkpoints=checkpoint.Checkpoints(folder, seconds=60.0),
        watch=lambda record: progress.reach(int(record.step) * config.members),
    )
    # The only look at the test part: once, at the rate that validation chose.
    chosen = results.choose_members(population, plan)
    params = jax.tree.map(
        lambda array: jax.device_get(array)[chosen], population.fit.best
    )
    scores = sweep.evaluate_members(job.model, objective, job.dataset.test, params)
    best.parent.mkdir(exist_ok=True)
    np.savez(best, **trees.flatten(params))
    return results.lines(job.facts, population, plan, chosen, scores)


def read_best(directory: Path, job: Job, member: int = 0) -> dict[str, Any]:
    """Returns the best parameters of one chosen run, in the order of the seeds.

    Raises:
      InputError: the file is not there or not what training wrote.
    """
    import numpy as np

    from ffnlab import trees

    path = directory / "best" / f"{job.slug}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return trees.unflatten({name: file[name][member] for name in file})
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: {error}; remove its lines and resume") from None
