"""What is told of a fine-tuning: tables, pictures, predictions, the model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import io, stats
from ffnlab.finetune import model_card
from ffnlab.finetune.task import Task, save
from ffnlab.finetune.trainer import Run
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


def publish(config: "Config", task: Task, directory: Path, runs: list[Run]) -> Table:
    """Prints and writes what the runs found, and the best of them by the dev part."""
    best = max(runs, key=lambda run: run.scores["dev"]["headline"])
    save(config, task, best.params, directory / "best")
    part = "test" if "test" in best.scores else "dev"
    table, tables = _table(task, runs), task.details(best.scores[part])
    print()
    table.show(
        f"the best epoch by the dev part, {len(runs)} seed{'s' * (len(runs) > 1)}"
    )
    for title, each in tables.items():
        print()
        each.show(f"seed {best.seed}, {part} part, {title}")
    io.write_lines(directory / "results.jsonl", [_line(run) for run in runs])
    for name, predicted in best.predicted.items():
        task.write(name, predicted, directory)
    pictures = task.draw(best.scores[part], directory)
    io.write(directory / "report.md", _report(config, task, table, tables, pictures))
    card = model_card.model_card(config, task, table)
    for folder in (directory, directory / "best"):
        io.write(folder / "README.md", card)
    hidden = ("lock", "data.sha256", "checkpoints")
    names = sorted(p.name for p in directory.iterdir() if p.name not in hidden)
    print(f"\nwritten to {directory}: {', '.join(names)}")
    return table


def _line(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "best_step": int(run.record.best_step),
        "dev_curve": run.record.scores["headline"].tolist(),
        "seconds_per_step": None if np.isnan(run.seconds) else run.seconds,
        **run.scores,
    }


def _table(task: Task, runs: list[Run]) -> Table:
    """Returns a line for each part: the mean over seeds, and its interval."""
    rows = []
    for part in runs[0].scores:
        cells = []
        for key in task.columns.values():
            values = 100 * np.array([run.scores[part][key] for run in runs])
            shown = f"{values.mean():.2f}"
            if len(values) > 1:
                low, high = stats.bootstrap_interval(values, np.mean)
                shown += f" [{low:.2f}, {high:.2f}]"
            cells.append(shown)
        rows.append([part, f"{task.sizes[part]:,}", *cells])
    return Table(["part", "texts", *(f"{n}, %" for n in task.columns)], rows, words=1)


def _report(
    config: "Config",
    task: Task,
    table: Table,
    tables: dict[str, Table],
    pictures: dict[str, str],
) -> str:
    summary = "".join(f"- {line}\n" for line in task.summary.splitlines())
    shown = "\n\n".join(f"{title[0].upper() + title[1:]}:\n\n{each.markdown()}"
                        for title, each in tables.items())  # fmt: skip
    drawn = "".join(f"![{title}]({name})\n" for name, title in pictures.items())
    shape = task.found.config
    length = f"{config.steps:,} steps" if config.steps else f"{config.epochs:g} epochs"
    return f"""# What does {model_card.checkpoint_name(config)} make of {Path(config.train).name}?

{table.markdown()}

{shown}

{drawn}
Fine-tuned: a {task.found.family} of {shape.layers} layers of width {shape.features},
{length}. The best was chosen by {task.monitor} of the dev part; over several seeds
there are means with bootstrap 95 % intervals. What was cut off at {config.most} tokens
counts as missed.

{summary}
`python -m experiments.predict --run=DIR` uses best/ on new text; README.md is its card.
"""
