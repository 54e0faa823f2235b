"""Fine-tunes a checkpoint on files and writes a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.finetune.config import Config
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.finetune.task import Task
    from ffnlab.report.table import Table


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
        print(f"writing to {directory}\n{task.told}", flush=True)
        runs = trainer.trained(config, task, directory)
        table = report.publish(config, task, directory, runs)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    scores = {part: [each.scores[part] for each in runs] for part in runs[0].scores}
    return Result(directory, scores, table)


def prepare(config: Config) -> "Task":
    """Reads all files and packs them; everything that can be wrong is found here."""
    if config.task == "qa":
        from ffnlab.finetune import question_answering as module
    elif config.task == "generate":
        from ffnlab.finetune import generation as module
    else:
        from ffnlab.finetune import classification as module
    return module.prepare(config)
