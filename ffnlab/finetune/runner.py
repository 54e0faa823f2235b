"""Fine-tunes a checkpoint on files and writes a report."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.finetune.config import Config
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.finetune.task import Task
    from ffnlab.report.table import Table


# Imported for its task alone; each has a `prepare`.
_MODULES = {
    "classify": "classification",
    "pairs": "classification",
    "tag": "classification",
    "qa": "question_answering",
    "generate": "generation",
}


class Result(NamedTuple):
    """What a fine-tuning found.

    Attributes:
      out: the directory that holds it.
      scores: by part, for each seed a report, see `ffnlab.finetune.metrics`.
      table: what was printed.
    """

    out: Path
    scores: dict[str, list[dict[str, Any]]]
    table: "Table"


def run(config: Config) -> Result:
    """Fine-tunes and writes a report.

    Raises:
      InputError: a file or directory cannot be used, or flags do not fit together.
    """
    import shutil

    from ffnlab.finetune import report, trainer
    from ffnlab.finetune.task import digest
    from ffnlab.report import run_directory

    out = choose_unfinished(config, "finetune")
    task = prepare(config)
    flags = options.to_flags(config, leave_out=("out", "resume"))
    with run_directory.open_run(out, flags, config.resume) as directory:
        run_directory.same_data(directory, digest(task))
        print(f"writing to {directory}\n{task.summary}", flush=True)
        runs = trainer.train(config, task, directory)
        table = report.publish(config, task, directory, runs)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    scores = {part: [each.scores[part] for each in runs] for part in runs[0].scores}
    return Result(directory, scores, table)


def prepare(config: Config) -> "Task":
    """Reads all files and packs them; everything that can be wrong is found here."""
    module = importlib.import_module(f"ffnlab.finetune.{_MODULES[config.task]}")
    return module.prepare(config)
