"""The training of the populations that a comparison needs, one after another."""

import dataclasses
import functools
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.errors import InputError
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.report.progress import Progress
    from ffnlab.sweep.population import Members, Population
    from ffnlab.sweep.tuning import Extension
    from ffnlab.train.loop import Learner, Programs
    from ffnlab.train.record import Plan
    from ffnlab.types import Key, Model, Objective


class Design(NamedTuple):
    """What the runs of a model have in common.

    Attributes:
      fixed: Whether runs of one number have equal random numbers in all models and
        experiments, and all runs of a model one learning rate. Otherwise the seed of
        the experiment changes everything, the order of the data is shared by runs of
        one number, and every run has the rate that its validation part chose.
      extensions: The largest number of learning rates beyond those of the
        configuration, for a run whose best rate is the smallest or the largest.
    """

    fixed: bool = True
    extensions: int = 0


FIXED = Design()


class Job(NamedTuple):
    """A population to train.

    Attributes:
      name: What is compared.
      model: The model, as pure functions.
      dataset: What it is trained and scored on; with replicates, each run has its own.
      facts: What all its lines in results.jsonl hold; `block` is the name, and `task`
        is what differs between jobs of one name.
    """

    name: str
    model: "Model"
    dataset: "Dataset | Replicates"
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
    def first(self) -> "Dataset":
        """The data set of the first run."""
        from ffnlab.data import Replicates

        replicated = isinstance(self.dataset, Replicates)
        return self.dataset.dataset(0) if replicated else self.dataset

    @property
    def objective(self) -> "Objective":
        """What it is trained and scored by."""
        from ffnlab.train.objectives import OBJECTIVES

        return OBJECTIVES[self.dataset.task]


def train_all(
    config: Training, jobs: Sequence[Job], directory: Path, design: Design = FIXED
) -> list[dict]:
    """Trains the populations that a directory has no results of, one after another.

    Args:
      config: How to train.
      jobs: All populations.
      directory: Receives results.jsonl, and best/NAME.npz with the parameters of the
        chosen runs, `[seeds, ...]` each; while training, checkpoints.
      design: What the runs of a model have in common.

    Returns:
      One line for every run, as `result_lines.lines` makes them.
    """
    from ffnlab import io
    from ffnlab.report.progress import Progress

    runs = io.read_lines(directory / "results.jsonl")
    finished = {(run.get("task", ""), run["block"]) for run in runs}
    plans = {job.key: config.plan(job.first, job.objective) for job in jobs}
    sizes = {key: plan.steps * config.members for key, plan in plans.items()}
    done = sum(size for key, size in sizes.items() if key in finished)
    with Progress(sum(sizes.values()), "steps", done) as progress:
        for job in (job for job in jobs if job.key not in finished):
            plan, folder = plans[job.key], directory / "checkpoints" / job.slug
            progress.begin(" ".join(filter(None, job.key)))
            training = _JobTraining(config, job, plan, folder, design, progress)
            population = training.run()
            runs += _test(job, plan, population, directory, design.fixed)
            io.write_lines(directory / "results.jsonl", runs)
            for path in (directory / "checkpoints").glob(f"{job.slug}*"):
                shutil.rmtree(path, ignore_errors=True)
            progress.end()
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return runs


@dataclasses.dataclass
class _JobTraining:
    """The training of the runs of a job, one population after another."""

    config: Training
    job: Job
    plan: "Plan"
    folder: Path
    design: Design
    progress: "Progress"
    done: int = 0  # steps of all members of the populations so far

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run, by its number."""
        from ffnlab import data

        if self.design.fixed:
            return tuple(range(self.config.seeds))
        return data.replicate_seeds(self.config.seed, self.config.seeds)

    @functools.cached_property
    def key(self) -> "Key":
        """The root key of all runs."""
        import jax

        key = jax.random.key(self.config.seed)
        return key if self.design.fixed else _key_of(key, self.job.name)

    @functools.cached_property
    def learner(self) -> "Learner":
        """The model, its objective and its optimizer."""
        from ffnlab.train.loop import Learner

        optimizer = self.config.make_optimizer(self.plan.steps)
        return Learner(self.job.model, self.job.objective, optimizer)

    @functools.cached_property
    def programs(self) -> "Programs":
        """The compiled functions of all populations."""
        from ffnlab.sweep.population import make_programs

        return make_programs(self.learner)

    def run(self) -> "Population":
        """Trains all runs; their seeds in the result are their numbers."""
        import jax
        import numpy as np

        from ffnlab.sweep import tuning

        rates, folder = self.config.learning_rates, self.folder
        if self.design.fixed or jax.default_backend() != "cpu":
            runs = self.fit_grid(rates, folder)
        else:  # in turn, by the program that further rates need too
            names = [folder.with_name(f"{folder.name}-{rate:g}") for rate in rates]
            parts = map(self.fit_grid, [[rate] for rate in rates], names)
            runs = functools.reduce(tuning.joined, parts)
        runs = tuning.extend(runs, self.plan, self.design.extensions, self.fit_further)
        numbers = {seed: number for number, seed in enumerate(self.seeds)}
        return runs._replace(seeds=np.array([numbers[int(s)] for s in runs.seeds]))

    def fit_grid(self, rates: Sequence[float], folder: Path) -> "Population":
        """Trains all runs at some learning rates."""
        from ffnlab.sweep.population import grid

        identity = {"seeds": [*self.seeds], "learning_rates": [*map(float, rates)]}
        return self.fit(grid(self.seeds, rates), identity, folder)

    def fit_further(self, extension: "Extension") -> "Population":
        """Trains the members of an extension of the learning rates."""
        members = extension.members
        self.progress.add(self.plan.steps * len(members.seeds))
        identity = {
            "seeds": members.seeds.tolist(),
            "learning_rates": members.learning_rates.tolist(),
        }
        name = f"{self.folder.name}-extension-{extension.number}"
        return self.fit(members, identity, self.folder.with_name(name))

    def fit(self, members: "Members", identity: dict, folder: Path) -> "Population":
        """Trains a population, with its checkpoints in a folder."""
        from ffnlab.sweep import population
        from ffnlab.train.checkpoint import Checkpoints
        from ffnlab.train.loop import Hooks

        start, size = self.done, len(members.seeds)
        self.done += self.plan.steps * size
        return population.fit_members(
            self.learner,
            self.job.dataset,
            self.plan,
            members,
            self.programs,
            identity=identity,
            key=self.key,
            hooks=Hooks(
                Checkpoints(folder, seconds=60.0),
                lambda record: self.progress.reach(start + int(record.step) * size),
            ),
        )


def _key_of(key: "Key", name: str) -> "Key":
    """Returns the key of a model, so that no two models start from equal numbers."""
    import jax

    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _test(
    job: Job, plan: "Plan", population: "Population", directory: Path, fixed: bool
) -> list[dict]:
    """Scores the chosen members on the test part, and writes their parameters.

    The test part is used once, at the learning rate that validation chose.
    """
    import jax
    import numpy as np

    from ffnlab import trees
    from ffnlab.data import Replicates
    from ffnlab.sweep import result_lines
    from ffnlab.sweep.population import evaluate_members

    chosen = result_lines.choose_members(population, plan, shared_rate=fixed)
    params = jax.tree.map(
        lambda array: jax.device_get(array)[chosen], population.fit.best
    )
    replicated = isinstance(job.dataset, Replicates)
    rows = job.dataset.rows["test"] if replicated else None
    scores = evaluate_members(job.model, job.objective, job.dataset.test, params, rows)
    path = directory / "best" / f"{job.slug}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **trees.flatten(params))
    trivial = trivial_scores(job.dataset, plan.monitor)
    return result_lines.lines(job.facts, population, plan, chosen, scores, trivial)


def trivial_scores(dataset: "Dataset | Replicates", monitor: str) -> list[float]:
    """Returns the test score of the best constant prediction, of each split.

    That is the most frequent class, the mean of the values, or the frequencies of the
    classes, all of the training part.

    Args:
      dataset: A data set, with one split, or replicates.
      monitor: The score: `accuracy`, `loss` (squared error) or `bits`.

    >>> from ffnlab import data
    >>> [round(score, 4) for score in trivial_scores(data.load("wine"), "accuracy")]
    [0.3889]
    """
    from ffnlab import data

    if not isinstance(dataset, data.Replicates):
        return [_trivial_score(dataset, dataset.train, dataset.test, monitor)]
    return [
        _trivial_score(
            dataset, dataset.examples("train", r), dataset.examples("test", r), monitor
        )
        for r in range(len(dataset.seeds))
    ]


def _trivial_score(dataset: Any, train: dict, test: dict, monitor: str) -> float:
    import numpy as np

    seen, asked = (
        (part["text"][part["ends"]] if "ends" in part else part["y"]).ravel()
        for part in (train, test)
    )
    if dataset.task == "values":
        return float(np.square(asked - seen.mean()).mean())
    counts = np.bincount(seen[seen >= 0], minlength=dataset.classes)
    asked = asked[asked >= 0]
    if monitor == "bits":
        shares = (counts + 1) / (counts.sum() + counts.size)
        return float(-np.log2(shares[asked]).mean())
    return float((asked == counts.argmax()).mean())


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
