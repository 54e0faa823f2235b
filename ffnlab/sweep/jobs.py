"""What experiments that train share: their flags, and the training of populations."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.errors import InputError
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.report.progress import Progress
    from ffnlab.train.record import Plan
    from ffnlab.types import Model


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
    from ffnlab import io
    from ffnlab.report.progress import Progress

    path = directory / "results.jsonl"
    runs = io.read_lines(path)
    finished = {(run.get("task", ""), run["block"]) for run in runs}
    from ffnlab.train.objectives import OBJECTIVES

    plans = [config.plan(job.dataset, OBJECTIVES[job.dataset.task]) for job in jobs]
    sizes = [plan.steps * config.members for plan in plans]
    done = sum(s for s, job in zip(sizes, jobs, strict=True) if job.key in finished)
    with Progress(sum(sizes), "steps", done) as progress:
        for job, plan in zip(jobs, plans, strict=True):
            if job.key in finished:
                continue
            progress.begin(" ".join(filter(None, job.key)))
            folder = directory / "checkpoints" / job.slug
            best = directory / "best" / f"{job.slug}.npz"
            runs += _train(config, job, plan, folder, best, progress)
            io.write_lines(path, runs)
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

    from ffnlab import trees
    from ffnlab.sweep import ranking
    from ffnlab.sweep.population import evaluate_members, fit_population
    from ffnlab.train import checkpoint, objectives

    objective = objectives.OBJECTIVES[job.dataset.task]
    population = fit_population(
        job.model,
        objective,
        config.make_optimizer(plan.steps),
        job.dataset,
        plan,
        seeds=range(config.seeds),
        learning_rates=config.learning_rates,
        key=jax.random.key(config.seed),
        checkpoints=checkpoint.Checkpoints(folder, seconds=60.0),
        on_evaluation=lambda record: progress.reach(int(record.step) * config.members),
    )
    # The only look at the test part: once, at the rate that validation chose.
    chosen = ranking.choose_members(population, plan)
    params = jax.tree.map(
        lambda array: jax.device_get(array)[chosen], population.fit.best
    )
    scores = evaluate_members(job.model, objective, job.dataset.test, params)
    best.parent.mkdir(exist_ok=True)
    np.savez(best, **trees.flatten(params))
    return ranking.lines(job.facts, population, plan, chosen, scores)


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
