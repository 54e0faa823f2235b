"""The training of the populations that a comparison needs, one after another."""

import dataclasses
import functools
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab.sweep.design import FIXED, Design
from ffnlab.sweep.job import Job
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.report.progress import Progress
    from ffnlab.sweep.population import Members, Population
    from ffnlab.sweep.tuning import Extension
    from ffnlab.train.learner import Learner
    from ffnlab.train.program import Programs
    from ffnlab.train.record import Plan
    from ffnlab.train.sharding import Layout
    from ffnlab.types import Key


def train_all(
    config: Training,
    jobs: Sequence[Job],
    directory: Path,
    design: Design = FIXED,
    quiet: bool = False,
) -> list[dict]:
    """Trains the populations that a directory has no results of, one after another.

    Args:
      config: How to train.
      jobs: All populations.
      directory: Receives results.jsonl, and best/NAME.npz with the parameters of the
        chosen runs, `[seeds, ...]` each; while training, checkpoints. Where all
        replicates have the same test part, and learning rates of their own, it also
        receives examples/NAME.npz, with the score of each on each example.
      design: What the runs of a model have in common.
      quiet: Whether to show no progress.

    Returns:
      One line for every run, as `result_lines.lines` makes them.
    """
    sweep = Sweep(config, jobs, directory, design, quiet)
    numbers = design.part or range(config.seeds)
    return sweep.train([job.key for job in jobs], numbers)


class Sweep:
    """Populations that are trained, some or all replicates at a time; see `train_all`.

    What was compiled for a job serves all its replicates. A quiet one shows no
    progress.
    """

    def __init__(
        self,
        config: Training,
        jobs: Sequence[Job],
        directory: Path,
        design: Design = FIXED,
        quiet: bool = False,
    ):
        self._directory, self._quiet = directory, quiet
        self._trainings = {
            job.key: _JobTraining(config, job, directory, design) for job in jobs
        }

    def train(
        self, keys: Sequence[tuple[str, str]], numbers: range
    ) -> list[dict[str, Any]]:
        """Trains replicates of some jobs, unless the directory has their results.

        Args:
          keys: The keys of the jobs.
          numbers: The numbers of the replicates; those before them have been trained.

        Returns:
          The lines of all runs so far.
        """
        from ffnlab import io
        from ffnlab.report.progress import Progress, QuietProgress
        from ffnlab.sweep.result_lines import NAMES

        path = self._directory / "results.jsonl"
        runs = io.read_lines(path, NAMES)
        trainings = [self._trainings[key] for key in keys]
        waiting = []
        for training in trainings:
            if training.is_finished(runs, numbers):
                self._clean(training)  # a run may have been killed before it did so
            else:
                waiting.append(training)
        sizes = {t.job.key: t.steps * len(numbers) for t in trainings}
        left = sum(sizes[t.job.key] for t in waiting)
        total = sum(sizes.values())
        kind = QuietProgress if self._quiet else Progress
        with kind(total, "steps", total - left) as progress:
            for training in waiting:
                progress.begin(" ".join(filter(None, training.job.key)))
                runs = [r for r in runs if not training.holds(r, numbers)]
                runs += training.run(numbers, progress)
                runs.sort(key=lambda run: self._place(run, numbers))  # noqa: B023
                io.write_lines(path, runs)
                self._clean(training)
                progress.end()
        return runs

    def _clean(self, training: "_JobTraining") -> None:
        """Removes the checkpoints of a job, which later replicates would find."""
        slugs = [each.job.slug for each in self._trainings.values()]
        for path in training.folder.parent.glob(f"{training.folder.name}*"):
            owners = [
                s for s in slugs if path.name == s or path.name.startswith(f"{s}-")
            ]
            if max(owners, key=len, default=None) == training.job.slug:
                shutil.rmtree(path, ignore_errors=True)

    def _place(self, run: dict[str, Any], numbers: range) -> tuple[int, int]:
        """Returns the place of a line: earlier replicates, these by job, later ones."""
        if run["seed"] not in numbers:
            return (-1 if run["seed"] < numbers.start else 1), 0
        return 0, [*self._trainings].index(_key(run))


@dataclasses.dataclass
class _JobTraining:
    """The training of the runs of a job, one population after another."""

    config: Training
    job: Job
    directory: Path
    design: Design
    numbers: range = range(0)  # of the replicates that are trained now
    progress: "Progress | None" = None
    done: int = 0  # steps of all members of the populations so far

    @functools.cached_property
    def plan(self) -> "Plan":
        """How long to train and how often to evaluate."""
        return self.config.plan(self.job.first, self.job.objective)

    def holds(self, run: dict[str, Any], numbers: range) -> bool:
        """Returns whether a line is of some replicates of the job."""
        return _key(run) == self.job.key and run["seed"] in numbers

    def is_finished(self, runs: list[dict[str, Any]], numbers: range) -> bool:
        """Returns whether all lines and files of some replicates are there."""
        from ffnlab.sweep import result_lines, run_files

        own = [run for run in runs if self.holds(run, numbers)]
        scored = self.job.scores_examples(self.design)
        folders = ("best", "examples") if scored else ("best",)
        rows = [run_files.count(self.directory, f, self.job.slug) for f in folders]
        held = min(rows) >= numbers.stop - self.design.first
        return held and result_lines.is_complete(own, numbers)

    @property
    def steps(self) -> int:
        """The steps of a replicate at all given learning rates."""
        return self.plan.steps * len(self.rates)

    @functools.cached_property
    def rates(self) -> tuple[float, ...]:
        """The given learning rates; NaN for an optimizer that has its own."""
        if self.job.optimizer is None:
            return self.config.learning_rates
        import jax

        from ffnlab.sweep.population import OWN_RATE
        from ffnlab.train.optimizers import has_learning_rate

        params = jax.eval_shape(self.job.model.init, jax.random.key(0))
        rated = has_learning_rate(self.learner.optimizer, params)
        return self.config.learning_rates if rated else OWN_RATE

    @property
    def folder(self) -> Path:
        """The first part of the names of its checkpoints."""
        return self.directory / "checkpoints" / self.job.slug

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run, by its number."""
        from ffnlab import data

        if self.design.fixed:
            return tuple(self.numbers)
        seeds = data.replicate_seeds(self.config.seed, self.numbers.stop)
        return seeds[self.numbers.start :]

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

        optimizer = self.job.optimizer or self.config.make_optimizer(self.plan.steps)
        return Learner(self.job.model, self.job.objective, optimizer)

    @functools.cached_property
    def layout(self) -> "Layout | None":
        """How populations are divided over devices."""
        return self.config.layout(self.plan.batch, self.job.dataset)

    @functools.cached_property
    def programs(self) -> "Programs":
        """The compiled functions of all populations."""
        from ffnlab.sweep.population import make_programs

        return make_programs(self.learner, layout=self.layout)

    def run(self, numbers: range, progress: "Progress") -> list[dict[str, Any]]:
        """Trains replicates, scores the chosen runs, and returns the lines of all.

        Args:
          numbers: The numbers of the replicates.
          progress: Receives the steps.
        """
        from ffnlab.sweep.final_scores import score_chosen

        self.numbers, self.progress, self.done = numbers, progress, 0
        population = self.train()
        program = None if self.layout else self.programs.evaluator
        given = (self.job, self.plan, population, self.directory, self.design)
        return score_chosen(*given, program)

    def train(self) -> "Population":
        """Trains the runs; their seeds in the result are their numbers."""
        import jax
        import numpy as np

        from ffnlab.sweep import tuning

        rates, folder = self.rates, self.folder
        if self.design.fixed or jax.default_backend() != "cpu":
            runs = self.fit_grid(rates, folder)
        else:  # in turn, by the program that further rates need too
            names = [folder.with_name(f"{folder.name}-{rate:g}") for rate in rates]
            parts = map(self.fit_grid, [[rate] for rate in rates], names)
            runs = functools.reduce(tuning.joined, parts)
        runs = tuning.extend(runs, self.plan, self.design.extensions, self.fit_further)
        numbers = dict(zip(self.seeds, self.numbers, strict=True))
        return runs._replace(seeds=np.array([numbers[int(s)] for s in runs.seeds]))

    def fit_grid(self, rates: Sequence[float], folder: Path) -> "Population":
        """Trains all runs at some learning rates."""
        from ffnlab.sweep.population import grid

        known = None if self.rates is not self.config.learning_rates else rates
        identity = {
            "seeds": [*self.seeds],
            "learning_rates": known and [*map(float, known)],
        }
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
        from ffnlab.sweep import fillers, population
        from ffnlab.train.checkpoint import Checkpoints
        from ffnlab.train.loop import Hooks

        progress, start, size = self.progress, self.done, len(members.seeds)
        self.done += self.plan.steps * size
        members = members._replace(splits=members.splits + self.numbers.start)
        result = population.fit_members(
            self.learner,
            self.job.dataset,
            self.plan,
            fillers.fill(members, self.layout) if self.design.part else members,
            self.programs,
            identity=identity,
            key=self.key,
            hooks=Hooks(
                Checkpoints(folder, 60.0, self.config.strict_resume),
                lambda record: progress.reach(start + int(record.step) * size),
            ),
            layout=self.layout,
        )
        return fillers.cut(result, size) if self.design.part else result


def _key(run: dict[str, Any]) -> tuple[str, str]:
    """Returns the key of the job of a line."""
    return run.get("task", ""), run["block"]


def _key_of(key: "Key", name: str) -> "Key":
    """Returns the key of a model, so that no two models start from equal numbers."""
    import jax

    return jax.random.fold_in(key, zlib.crc32(name.encode()))
