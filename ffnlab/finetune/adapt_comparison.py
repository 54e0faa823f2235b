"""Which method of fine-tuning few parameters is as good as training all of them?"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices, io, processes
from ffnlab.escape import terminal, terminal_lines
from ffnlab.finetune import example_scores
from ffnlab.finetune.adapt_compare_config import AdaptCompareConfig
from ffnlab.finetune.config import Config
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.finetune.adapting import Adaptation
    from ffnlab.finetune.task import Task
    from ffnlab.finetune.work import Work
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison
    from ffnlab.train.sharding import Layout


class AdaptCompareResult(NamedTuple):
    """The result of a comparison of methods.

    Attributes:
      out: The run directory.
      runs: A dict for each run, as in results.jsonl.
      comparisons: The methods, the best first.
      table: The ranking as a table.
      verdict: The ranking in two sentences.
    """

    out: Path
    runs: list[dict[str, Any]]
    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str


def compare_methods(config: AdaptCompareConfig) -> AdaptCompareResult:
    """Runs a comparison of methods and writes its report to the run directory.

    Args:
      config: What to compare, on which task and checkpoint.

    Raises:
      InputError: A file or directory cannot be used, or a method does not fit.
    """
    with processes.joined(config) as config:
        return _compare(config)


def _compare(config: AdaptCompareConfig) -> AdaptCompareResult:
    """Runs the comparison of a configuration."""
    from ffnlab.finetune import adapt_ranking, runner, task
    from ffnlab.report import run_directory

    out = choose_unfinished(config, "adapt")
    devices.select(config.device)
    prepared = runner.prepare(config)
    variants = config.variants()
    layout = _check_variants(config, variants, prepared)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, task.digest(prepared))
        print(terminal(f"writing to {directory}"))
        print(terminal_lines(prepared.summary), flush=True)
        for name, variant in variants.items():
            _MethodRuns(config, name, variant, prepared, directory, layout).train()
        ranking = adapt_ranking.publish(config, prepared, directory)
        run_directory.finish(directory)
    return AdaptCompareResult(directory, *ranking)


def _check_variants(
    config: AdaptCompareConfig, variants: Mapping[str, Config], task: "Task"
) -> "Layout | None":
    """Returns how every population of runs is divided over devices.

    Several processes divide the batch of runs that train one at a time, so that the
    population of one run is the same for any number of them.

    Raises:
      InputError: A method or the mesh does not fit; nothing has been written yet.
    """
    from ffnlab.finetune import trainer, work
    from ffnlab.train.sharding import sizes_of_processes

    replicas = _trains_together() and not config.fsdp
    sizes = config.mesh_sizes or sizes_of_processes(replicas)
    rows = trainer.make_plan(config, task).batch
    layout = work.divide_rows(config, task, rows, sizes, replicas=True)
    for variant in variants.values():
        adaptation = trainer.prepare_adaptation(variant, task)
        if layout:
            model = adaptation or trainer.init_from_checkpoint(variant, task)
            layout.check(model.init)
    return layout


def _trains_together() -> bool:
    """Returns whether several runs of a method are trained as one population."""
    import jax

    return jax.default_backend() != "cpu"


@dataclasses.dataclass
class _MethodRuns:
    """The runs of one method: all learning rates of some seeds, then all other seeds.

    Runs are trained together, as many as a CPU has devices, and elsewhere all of either
    kind.
    """

    config: AdaptCompareConfig
    name: str
    variant: Config
    task: "Task"
    directory: Path
    layout: "Layout | None"

    def rates(self) -> list[float]:
        """Returns the learning rates to try, by the results so far."""
        common, config = self.variant.learning_rate, self.config
        given = [float(f"{common * factor:.3g}") for factor in config.rate_factors]
        return extend_rates(given, self.lines(), self.tuning_seeds, config.extend_rates)

    @property
    def tuning_seeds(self) -> int:
        """The number of replicates on which all learning rates are tried."""
        return min(self.config.tuning_seeds, self.config.seeds)

    @property
    def path(self) -> Path:
        """The file of all results."""
        return self.directory / "results.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """Returns the results so far."""
        own = [e for e in io.read_lines(self.path) if e["method"] == self.name]
        return example_scores.scored(self.directory, self.name, own)

    def next_runs(self, most: int = 1) -> "Runs | None":
        """Returns at most so many runs, by process 0; None if all are done."""
        tuned, seeds = self.tuning_seeds, self.config.seeds

        def choose() -> Runs | None:
            return next_runs(self.lines(), self.rates(), tuned, seeds, most)

        runs = processes.first_does(choose)
        return None if runs is None else Runs(*runs)

    def total(self) -> int:
        """Returns the number of runs, by the results so far."""
        tuned = self.tuning_seeds
        return len(self.rates()) * tuned + self.config.seeds - tuned

    def train(self) -> None:
        """Trains the runs that the directory has no results of."""
        from ffnlab.finetune import trainer
        from ffnlab.report.progress import Progress

        if self.next_runs() is None:
            return
        plan = trainer.make_plan(self.variant, self.task)
        parts = [part for part in ("dev", "test") if part in self.task.rows]
        adaptation = trainer.prepare_adaptation(self.variant, self.task)
        predictors = trainer.make_predictors(self.task, plan, parts, adaptation)
        done = len(self.lines()) * plan.steps
        with Progress(self.total() * plan.steps, "steps", done) as progress:
            work = trainer.Work(
                self.variant,
                self.task,
                self.directory,
                plan,
                progress,
                predictors,
                adaptation,
                layout=self.layout,
            )
            self._train(work)

    def _most(self, adaptation: "Adaptation | None") -> int:
        """Returns the largest number of runs to train together."""
        from ffnlab.finetune import trainer
        from ffnlab.sweep.spreading import parts

        fitting = max(trainer.runs_that_fit(self.variant, self.task, adaptation), 1)
        return fitting if _trains_together() else min(fitting, parts(self.layout))

    def _train(self, work: "Work") -> None:
        """Trains runs until all are done; one program serves all of equal number."""
        from ffnlab.finetune import trainer

        programs: dict[int, Any] = {}
        number = [*self.config.variants()].index(self.name)
        total, most = self.total(), self._most(work.adaptation)
        while True:
            lines, runs = self.lines(), self.next_runs(most)
            if runs is None:
                return
            size = len(runs.seeds) * len(runs.rates)
            if size not in programs:
                programs[size] = trainer.make_programs(work, size)
            work.progress.begin(f"{self.name}, {runs}")
            first = f"{runs.seeds[0]}-{runs.rates[0]:g}"
            folder = f"{number}-{first}-{size}"
            results = trainer.train_members(
                work, runs.seeds, runs.rates, programs[size], folder
            )
            steps = programs[size].steps
            scores = {}
            for index, run in enumerate(results):
                rate = runs.rates[index // len(runs.seeds)]
                lines.append(_line(self.name, rate, run, work, steps, size))
                scores[run.seed, rate] = self.task.settle(run.predicted).example_scores(
                    self.task.last_part, run.predicted[self.task.last_part]
                )
            example_scores.add(self.directory, self.name, scores)
            others = [e for e in io.read_lines(self.path) if e["method"] != self.name]
            io.write_lines(self.path, others + lines)
            shutil.rmtree(self.directory / "checkpoints", ignore_errors=True)
            work.progress.end()
            work.progress.add((self.total() - total) * work.plan.steps)
            total = self.total()


class Runs(NamedTuple):
    """Runs to train together: all seeds at all learning rates."""

    seeds: list[int]
    rates: list[float]

    def __str__(self) -> str:
        """Returns them as the progress of a run shows them.

        >>> print(Runs([0, 1], [0.1]))
        seeds 0,1, rate 0.1
        """
        seeds = ",".join(map(str, self.seeds))
        rates = ",".join(f"{rate:g}" for rate in self.rates)
        return (
            f"seed{'s' if len(self.seeds) > 1 else ''} {seeds}, "
            f"rate{'s' if len(self.rates) > 1 else ''} {rates}"
        )


def extend_rates(
    rates: Sequence[float], lines: Sequence[dict], tuned: int, extensions: int
) -> list[float]:
    """Returns learning rates and further ones, as long as the best is at an end.

    Args:
      rates: The learning rates that are tried in any case.
      lines: The results of a method so far.
      tuned: The number of seeds that try all of them, at least 1.
      extensions: The largest number of further learning rates.

    >>> lines = [{"seed": 0, "learning_rate": r, "dev": r} for r in (0.1, 0.3)]
    >>> extend_rates([0.1, 0.3], lines, tuned=1, extensions=3)
    [0.1, 0.3, 0.9]
    """
    from ffnlab.finetune.adapt_ranking import best_rate

    rates = sorted(rates)
    for _ in range(extensions if len(rates) > 1 else 0):
        tried = [e for e in lines if e["seed"] < tuned and e["learning_rate"] in rates]
        best = best_rate(tried) if len(tried) == tuned * len(rates) else None
        if best == rates[-1]:
            rates.append(float(f"{best * best / rates[-2]:.3g}"))
        elif best == rates[0]:
            rates.insert(0, float(f"{best * best / rates[1]:.3g}"))
        else:
            break
    return rates


def next_runs(
    lines: Sequence[dict],
    rates: Sequence[float],
    tuned: int,
    seeds: int,
    most: int,
) -> Runs | None:
    """Returns the runs of a method to train next; None if all are done.

    Args:
      lines: The results so far.
      rates: The learning rates to try; the one of the best mean on dev is that of the
        rest.
      tuned: The number of seeds that try all of them, at least 1.
      seeds: The number of seeds.
      most: The largest number of runs to train together, at least 1.

    >>> next_runs([], [0.1, 0.2], tuned=1, seeds=3, most=4)
    Runs(seeds=[0], rates=[0.1, 0.2])
    """
    from ffnlab.finetune.adapt_ranking import best_rate

    done = {(line["seed"], line["learning_rate"]) for line in lines}

    def left(rate: float, seeds: int) -> list[int]:
        return [seed for seed in range(seeds) if (seed, rate) not in done]

    untried = [rate for rate in rates if left(rate, tuned)]
    if untried:
        first = left(untried[0], tuned)
        alike = [rate for rate in untried if left(rate, tuned) == first]
        return Runs(first[:most], alike[: max(most // len(first), 1)])
    rate = best_rate(lines)
    others = left(rate, seeds)
    return Runs(others[:most], [rate]) if others else None


def _line(
    name: str, rate: float, run: Any, work: Any, steps: Any, members: int
) -> dict[str, Any]:
    """Returns the line of results.jsonl on a run."""
    import jax
    import numpy as np

    from ffnlab import trees
    from ffnlab.finetune.task import MONITORED

    adaptation = work.adaptation
    unused = 0 if adaptation else work.task.unused_parameters  # without a gradient
    trained = trees.count(run.params) + unused
    total = adaptation.summary.total if adaptation else trained
    seconds = run.seconds / members
    return {
        "method": name,
        "seed": run.seed,
        "learning_rate": rate,
        "dev": float(run.scores["dev"][MONITORED]),
        "test": float(run.scores[work.task.last_part][MONITORED]),
        "best_step": int(run.record.best_step),
        "diverged": bool(run.record.diverged >= 0),
        "seconds_per_step": None if np.isnan(seconds) else float(seconds),
        "trained": trained,
        "share": trained / total,
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(run.params)) + 4 * unused,
        "temporary_bytes": steps.temporary_bytes,
    }
