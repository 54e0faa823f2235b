"""The training of the populations that a comparison needs, one after another."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.errors import InputError
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.sweep.population import Population
    from ffnlab.train.record import Plan
    from ffnlab.types import Model, Objective


class Job(NamedTuple):
    """A population to train.

    Attributes:
      name: What is compared.
      model: The model, as pure functions.
      dataset: What it is trained and scored on.
      facts: What all its lines in results.jsonl hold; `block` is the name, and `task`
        tells jobs of one name apart.
    """

    name: str
    model: "Model"
    dataset: "Dataset"
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the other jobs."""
        return self.facts.get("task", ""), self.name

    @property
    def slug(self) -> str:
        """Its name as part of a path."""
        return "-".join(filter(None, self.key)).replace(":", "-")

    @property
    def objective(self) -> "Objective":
        """What it is trained and scored by."""
        from ffnlab.train.objectives import OBJECTIVES

        return OBJECTIVES[self.dataset.task]


def train_all(config: Training, jobs: Sequence[Job], directory: Path) -> list[dict]:
    """Trains the populations that a directory has no results of, one after another.

    Args:
      config: How to train.
      jobs: All populations.
      directory: Receives results.jsonl, and best/NAME.npz with the parameters of the
        chosen runs, `[seeds, ...]` each; while training, checkpoints.

    Returns:
      One line for every run, as `ranking.lines` makes them.
    """
    import jax

    from ffnlab import io
    from ffnlab.report.progress import Progress
    from ffnlab.sweep.population import fit_population
    from ffnlab.train.checkpoint import Checkpoints
    from ffnlab.train.loop import Hooks, Learner

    runs = io.read_lines(directory / "results.jsonl")
    finished = {(run.get("task", ""), run["block"]) for run in runs}
    plans = {job.key: config.plan(job.dataset, job.objective) for job in jobs}
    sizes = {key: plan.steps * config.members for key, plan in plans.items()}
    done = sum(size for key, size in sizes.items() if key in finished)
    with Progress(sum(sizes.values()), "steps", done) as progress:
        for job in (job for job in jobs if job.key not in finished):
            plan, folder = plans[job.key], directory / "checkpoints" / job.slug
            progress.begin(" ".join(filter(None, job.key)))
            population = fit_population(
                Learner(job.model, job.objective, config.make_optimizer(plan.steps)),
                job.dataset,
                plan,
                seeds=range(config.seeds),
                learning_rates=config.learning_rates,
                key=jax.random.key(config.seed),
                hooks=Hooks(
                    Checkpoints(folder, seconds=60.0),
                    lambda record: progress.reach(int(record.step) * config.members),
                ),
            )
            runs += _test(job, plan, population, directory)
            io.write_lines(directory / "results.jsonl", runs)
            shutil.rmtree(folder, ignore_errors=True)
            progress.end()
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return runs


def _test(
    job: Job, plan: "Plan", population: "Population", directory: Path
) -> list[dict]:
    """Scores the chosen members on the test part, and writes their parameters.

    The test part is used once, at the learning rate that validation chose.
    """
    import jax
    import numpy as np

    from ffnlab import trees
    from ffnlab.sweep import ranking
    from ffnlab.sweep.population import evaluate_members

    chosen = ranking.choose_members(population, plan)
    params = jax.tree.map(
        lambda array: jax.device_get(array)[chosen], population.fit.best
    )
    scores = evaluate_members(job.model, job.objective, job.dataset.test, params)
    path = directory / "best" / f"{job.slug}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **trees.flatten(params))
    return ranking.lines(job.facts, population, plan, chosen, scores)


def read_best(directory: Path, job: Job, member: int = 0) -> dict[str, Any]:
    """Returns the best parameters of one chosen run, in the order of the seeds.

    Raises:
      InputError: The file is missing or is not what training wrote.
    """
    import numpy as np

    from ffnlab import trees

    path = directory / "best" / f"{job.slug}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return trees.unflatten({name: file[name][member] for name in file})
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: {error}; remove its lines and resume") from None
