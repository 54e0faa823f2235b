"""The report of a fine-tuning: tables, pictures, predictions and the model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import io, stats
from ffnlab.escape import markdown, terminal
from ffnlab.finetune import adapting, diverged_runs, error_rows, model_card
from ffnlab.finetune.adapting import Adaptation
from ffnlab.finetune.task import MONITORED, Task, describe, save
from ffnlab.finetune.trainer import Run
from ffnlab.report.table import Table
from ffnlab.types import Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


def publish(
    config: "Config",
    task: Task,
    directory: Path,
    runs: list[Run],
    adaptation: Adaptation | None = None,
) -> Table:
    """Prints and writes the results of runs, and saves the one that is best on dev.

    Runs whose loss was not finite are named, and are only saved if all are such.

    Args:
      config: The flags.
      task: The task.
      directory: The run directory.
      runs: One run for each seed.
      adaptation: The model in two parts, if few parameters were trained.

    Returns:
      The table of scores by part.
    """
    best = diverged_runs.best_run(runs)
    task = task.settle(best.predicted)
    trained = _save(config, task, best.params, directory, adaptation)
    part = "test" if "test" in best.scores else "dev"
    table, tables = scores_table(task, runs), task.details(best.scores[part])
    io.write_lines(directory / "results.jsonl", [result_line(run) for run in runs])
    diverged_runs.write(config, task, directory, runs)
    finite = diverged_runs.finite_parts(best)
    for name, predicted in finite.items():
        task.write(name, predicted, directory)
    errors = error_rows.collect(task, finite)
    sizes = {name: task.sizes[name] for name in finite}
    io.write(directory / error_rows.NAME, error_rows.as_markdown(errors, sizes))
    pictures = task.draw(best.scores[part], directory)
    failed = diverged_runs.summary(runs)
    text = report_text(config, task, table, tables, pictures, trained, failed)
    card = model_card.model_card(config, task, table, failed)
    for folder in (directory, directory / "best"):
        io.write(folder / "README.md", card)
    io.write(directory / "report.md", text)  # the last file of a run
    _show(table, tables, runs, f"seed {best.seed}, {part} part")
    if failed:
        print(f"\n{failed}")
    hidden = ("lock", "data.sha256", "checkpoints")
    names = sorted(p.name for p in directory.iterdir() if p.name not in hidden)
    print(f"\n{terminal(f'written to {directory}: ' + ', '.join(names))}")
    return table


def _save(
    config: "Config",
    task: Task,
    params: Params,
    directory: Path,
    adaptation: Adaptation | None,
) -> str:
    """Saves a model, and its adapter alone; returns a sentence on what was trained."""
    best = directory / "best"
    if adaptation is None:
        save(config, task, params, best)
        return ""
    save(config, task, adapting.plain(adaptation, params), best)
    folders, base = [directory / adapting.FOLDER], {"encoder": task.checkpoint.params}
    if not adapting.mergeable(adaptation.methods):
        folders.append(best / adapting.FOLDER)
    for folder in folders:
        about = {**describe(config, task), "checkpoint": config.checkpoint}
        adapting.save(adaptation, task.exported(params), folder, base, about)
    size = adapting.size(folders[0])
    return f"Method {config.method}: {adaptation.summary}; adapter/ has {size:,} bytes."


def _show(
    table: Table, tables: dict[str, Table], runs: list[Run], subject: str
) -> None:
    """Prints the table of all runs, then those of the best."""
    print()
    seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
    table.show(f"the best epoch by the dev part, {seeds}")
    for title, each in tables.items():
        print()
        each.show(f"{subject}, {title}")


def result_line(run: Run) -> dict[str, Any]:
    """Returns the line of results.jsonl on a run."""
    return {
        "seed": run.seed,
        "best_step": int(run.record.best_step),
        "diverged_at": int(run.record.diverged) if run.record.diverged >= 0 else None,
        "dev_curve": run.record.scores[MONITORED].tolist(),
        "seconds_per_step": None if np.isnan(run.seconds) else run.seconds,
        **run.scores,
    }


def scores_table(task: Task, runs: list[Run]) -> Table:
    """Returns a row for each part: mean scores over seeds, with their intervals.

    Intervals end where the range of a score ends.
    """
    rows, runs = [], diverged_runs.counted_runs(runs)
    for part in runs[0].scores:
        cells = []
        for key in task.columns.values():
            values = np.array([run.scores[part][key] for run in runs])
            values, form = (100 * values, ".2f") if task.percent else (values, "#.4g")
            cell = f"{values.mean():{form}}"
            if interval := stats.mean_interval(values):
                low, high = interval.clip(*task.limits(key))
                cell += f" [{low:{form}}, {high:{form}}]"
            cells.append(cell)
        rows.append([part, f"{task.sizes[part]:,}", *cells])
    names = [f"{name}, %" if task.percent else name for name in task.columns]
    return Table(["part", "texts", *names], rows, words=1)


def report_text(
    config: "Config",
    task: Task,
    table: Table,
    tables: dict[str, Table],
    pictures: dict[str, str],
    trained: str = "",
    failed: str = "",
) -> str:
    """Returns report.md.

    Args:
      config: The flags.
      task: The task.
      table: The scores by part.
      tables: Further tables of the best run, by title.
      pictures: The titles of pictures, by file.
      trained: A sentence on what was trained, if that is not everything.
      failed: Sentences on runs whose loss was not finite.
    """
    name = markdown(model_card.checkpoint_name(config))
    file = markdown(Path(config.train).name)
    summary = "".join(f"- {markdown(line)}\n" for line in task.summary.splitlines())
    details = "\n\n".join(
        f"{title[0].upper() + title[1:]}:\n\n{each.markdown()}"
        for title, each in tables.items()
    )
    images = "".join(f"![{title}]({path})\n" for path, title in pictures.items())
    shape, family = task.checkpoint.config, task.checkpoint.family
    most = config.max_length
    length = f"{config.epochs:g} epoch{'s' * (config.epochs != 1)}"
    length = f"{config.steps:,} steps" if config.steps else length
    cut = f"Longer inputs than {most} tokens are cut off."
    if config.task == "tag":
        cut = f"Words that were cut off at {most} tokens count as missed."
    elif config.task == "qa":
        cut = f"Contexts are read in windows of {most} tokens."
    return f"""# {name}, fine-tuned on {file}

{table.markdown()}

{f"{markdown(failed)}{chr(10) * 2}" if failed else ""}{details}

{images}
Fine-tuned: {family}, {shape.layers} layers of width {shape.features}, for {length}. The
best was chosen by {task.monitor} of the dev part; over several seeds there are means
with Student's 95 % intervals. {cut} {markdown(trained)}

{summary}
`python -m experiments.predict --run=DIR` uses best/ on new text; README.md is its card.
"""
