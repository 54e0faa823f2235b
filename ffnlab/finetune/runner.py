"""Fine-tunes a checkpoint on files and writes a report."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices
from ffnlab.escape import terminal, terminal_lines
from ffnlab.finetune.config import Config
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
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


class Result(NamedTuple):
    """The result of a fine-tuning.

    Attributes:
      out: The run directory.
      scores: By part, the scores of each seed, see `ffnlab.finetune.metrics`.
      table: The table of scores by part.
    """

    out: Path
    scores: dict[str, list[dict[str, Any]]]
    table: "Table"


def run(config: Config) -> Result:
    """Fine-tunes a checkpoint and writes a run directory with a report.

    Raises:
      InputError: A file or directory cannot be used, flags do not fit together, or the
        loss of all seeds was not finite, which the finished report says.
    """
    from ffnlab.finetune import diverged_runs, report, trainer
    from ffnlab.finetune.task import digest
    from ffnlab.report import run_directory

    out = choose_unfinished(config, "finetune")
    devices.select(config.device)
    task = prepare(config)
    adaptation = trainer.prepare_adaptation(config, task)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, digest(task))
        print(terminal(f"writing to {directory}"))
        print(terminal_lines(task.summary), flush=True)
        if adaptation:
            print(terminal(str(adaptation.summary)), flush=True)
        runs = trainer.train(config, task, directory, adaptation)
        table = report.publish(config, task, directory, runs, adaptation)
        run_directory.finish(directory)
    diverged_runs.check(config, runs, directory)
    scores = {part: [run.scores[part] for run in runs] for part in runs[0].scores}
    return Result(directory, scores, table)


def prepare(config: Config) -> "Task":
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    module = importlib.import_module(f"ffnlab.finetune.{_MODULES[config.task]}")
    return module.prepare(config)
