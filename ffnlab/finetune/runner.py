"""Fine-tunes a checkpoint on files and writes a report."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices, processes
from ffnlab.escape import terminal, terminal_lines
from ffnlab.finetune import in_memory
from ffnlab.finetune.config import Config
from ffnlab.report import trackers
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.finetune.predictor import Pipeline
    from ffnlab.finetune.task import Task
    from ffnlab.report.table import Table


# The module of each task, imported when it is needed; each has a `prepare`.
_MODULES = {
    "classify": "classification",
    "pairs": "classification",
    "tag": "classification",
    "qa": "question_answering",
    "generate": "generation",
}
_PROBLEMS = {"regression": "regression", "multi_label_classification": "multi_label"}


class Result(NamedTuple):
    """The result of a fine-tuning.

    Attributes:
      out: The run directory.
      scores: By part, the scores of each seed, see `ffnlab.finetune.metrics`.
      table: The table of scores by part.
      error_rows: What the model in `best/` got wrong in dev and test, a dict for each
        error, see `ffnlab.finetune.error_rows`.
    """

    out: Path
    scores: dict[str, list[dict[str, Any]]]
    table: "Table"
    error_rows: Sequence[dict[str, Any]] = ()

    def errors(self) -> Any:
        """Returns `error_rows` as a data frame if pandas is installed, else the list.

        errors.md in the run directory has the first 100 of each part.
        """
        from ffnlab.finetune.error_rows import as_frame

        return as_frame(self.error_rows)

    def pipeline(self, batch_size: int = 32) -> "Pipeline":
        """Returns the model in `best/`, ready to predict.

        Args:
          batch_size: See `ffnlab.finetune.pipeline`.
        """
        from ffnlab.finetune.predictor import pipeline

        return pipeline(self.out, batch_size)


def run(config: Config | None = None, **options: Any) -> Result:
    """Fine-tunes a checkpoint and writes a run directory with a report.

    Args:
      config: The configuration; or its fields are given as keyword arguments.
      **options: Fields of `Config`, such as `checkpoint`, `task`, `train` and `dev`.
        The parts `train`, `dev` and `test` are files, data frames, dicts of columns, or
        lists of dicts or of tuples: `(text, label)`, for pairs `(text, text, label)`,
        for tag `(words, tags)`, for generate `(text, target)`, for qa `(question,
        context, answers)`. Labels may be of any type that has a text. Values are
        written to `data/` of the run directory, with the columns that the task reads.
        Without `out` that is a new directory below `runs/`.

    Raises:
      InputError: A file, a value or directory cannot be used, options do not fit
        together, or the loss of all seeds was not finite, which the finished report
        says.
    """
    config, values = in_memory.read_options(config, options)
    with processes.joined(config) as config:
        out = choose_unfinished(config, "finetune")
        trackers.require(config.report_to)
        with in_memory.written(config, values):
            return _run(config, out)


def _run(config: Config, out: str) -> Result:
    """Fine-tunes a checkpoint in a directory that is checked."""
    from ffnlab.finetune import diverged_runs, error_rows, report, trainer
    from ffnlab.finetune.task import digest
    from ffnlab.report import run_directory

    devices.select(config.device)
    task = prepare(config)
    adaptation = trainer.prepare_adaptation(config, task)
    layout = trainer.make_layout(config, task, adaptation)
    with (
        run_directory.open_run(out, config, config.resume) as directory,
        trackers.opened(config, directory) as tracker,
    ):
        run_directory.check_same_data(directory, digest(task))
        print(terminal(f"writing to {directory}"))
        print(terminal_lines(task.summary), flush=True)
        if adaptation:
            print(terminal(str(adaptation.summary)), flush=True)
        runs = trainer.train(config, task, directory, adaptation, tracker, layout)
        table = report.publish(config, task, directory, runs, adaptation)
        tracker.pictures(directory)
        run_directory.finish(directory)
    diverged_runs.check(config, runs, directory)
    scores = {part: [run.scores[part] for run in runs] for part in runs[0].scores}
    best = diverged_runs.best_run(runs)
    errors = error_rows.collect(
        task.settle(best.predicted), diverged_runs.finite_parts(best)
    )
    return Result(directory, scores, table, errors)


def prepare(config: Config) -> "Task":
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    from ffnlab.nn.attention_kernel import require

    require(config.attention, config.dtype)
    name = _PROBLEMS.get(config.problem_type or "", _MODULES[config.task])
    module = importlib.import_module(f"ffnlab.finetune.{name}")
    return module.prepare(config)
