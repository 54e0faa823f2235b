"""The report of `scratch_parity`: two tables, a picture and a verdict."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import io
from ffnlab.escape import terminal
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.sweep.scratch_parity_config import LIMIT, ScratchParityConfig


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of results.jsonl, with NaN where JSON has null."""

    def with_nan(value: Any) -> Any:
        if isinstance(value, list):
            return [with_nan(item) for item in value]
        return math.nan if value is None else value

    lines = io.read_lines(path)
    return [{key: with_nan(value) for key, value in e.items()} for e in lines]


def publish(
    config: ScratchParityConfig, directory: Path, runs: list[dict[str, Any]]
) -> tuple[Table, Table, float]:
    """Prints the tables, and writes the picture and report.md.

    Args:
      config: What was trained, and how.
      directory: The run directory.
      runs: A dict for each epoch of each run.

    Returns:
      The differences by epoch and by optimizer, and the largest of all.
    """
    epochs, optimizers = _by_epoch(runs), _by_optimizer(config, runs)
    names = ("loss_difference", "parameter_difference")
    largest = float(np.max([_largest(runs, name) for name in names]))
    relation = "below" if largest < LIMIT else "NOT below"
    verdict = f"largest difference of all: {largest:.2g}, {relation} {LIMIT:g}"
    print()
    epochs.show("largest differences between the engine and JAX, over all runs")
    print()
    optimizers.show(
        f"largest differences over {config.steps} steps, final test accuracy in %, and "
        "median time of a step"
    )
    print(f"\n{verdict}")
    figure = plots.parity(
        {name: _losses(runs, name) for name in config.optimizers},
        {name: _gaps(runs, name) for name in config.optimizers},
        ("the engine", "JAX"),
        LIMIT,
    )
    plots.save(figure, directory / "curves.png")
    io.write(directory / "report.md", _markdown(verdict, epochs, optimizers))
    print(terminal(f"written to {directory}: report.md, curves.png, results.jsonl"))
    return epochs, optimizers, largest


def _markdown(verdict: str, epochs: Table, optimizers: Table) -> str:
    """Returns the text of report.md."""
    return f"""# Does the engine from scratch compute the same as JAX and optax?

{verdict}

{epochs.markdown()}

{optimizers.markdown()}

Both programs start from equal parameters and use equal batches, in float64. The time of
a step includes gathering the batch; a step of JAX is one compiled call.

![losses and differences](curves.png)
"""


def _by_epoch(runs: list[dict[str, Any]]) -> Table:
    """Returns the largest differences of every epoch."""
    rows = []
    for epoch in sorted({line["epoch"] for line in runs}):
        lines = [line for line in runs if line["epoch"] == epoch]
        gaps = [line["parameter_difference"] for line in lines]
        farthest = lines[int(np.argmax(gaps))]
        cells = [
            f"{_largest(lines, 'loss_difference'):.1e}",
            f"{farthest['parameter_difference']:.1e}",
            farthest["optimizer"],
        ]
        rows.append([str(epoch), str(lines[0]["steps"]), *cells])
    return Table(
        ["epoch", "steps", "loss", "parameters", "optimizer of the largest"],
        rows,
        words=0,
    )


def _by_optimizer(config: ScratchParityConfig, runs: list[dict[str, Any]]) -> Table:
    """Returns the differences, scores and times of every optimizer."""
    rows = []
    for name in config.optimizers:
        lines = [line for line in runs if line["optimizer"] == name]
        last = [line for line in lines if line["steps"] == config.steps]
        scores = np.mean([line["test_accuracy"] for line in last], axis=0)
        ours, theirs = np.median([line["seconds_per_step"] for line in lines], axis=0)
        cells = [
            f"{config.rate(name):g}",
            f"{_largest(lines, 'loss_difference'):.1e}",
            f"{_largest(lines, 'parameter_difference'):.1e}",
            *(f"{100 * score:.2f}" for score in scores),
            f"{1e6 * ours:.0f}",
            f"{1e6 * theirs:.0f}",
            f"{ours / theirs:.2f}",
        ]
        rows.append([name, *cells])
    scores = ["test accuracy, engine", "test accuracy, JAX"]
    times = ["µs/step, engine", "µs/step, JAX", "ratio"]
    columns = ["optimizer", "rate", "loss", "parameters", *scores, *times]
    return Table(columns, rows, words=1)


def _losses(runs: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loss of every step of the first run of both programs."""
    lines = [run for run in runs if run["optimizer"] == name and run["seed"] == 0]
    ours, theirs = (np.concatenate([run["losses"][i] for run in lines]) for i in (0, 1))
    return ours, theirs


def _gaps(runs: list[dict[str, Any]], name: str) -> np.ndarray:
    """Returns the largest difference of parameters after each epoch, over all seeds."""
    lines = [run for run in runs if run["optimizer"] == name]
    epochs = sorted({run["epoch"] for run in lines})
    by_epoch = ([run for run in lines if run["epoch"] == epoch] for epoch in epochs)
    return np.array([_largest(each, "parameter_difference") for each in by_epoch])


def _largest(lines: list[dict[str, Any]], name: str) -> float:
    """Returns the largest difference of a kind; NaN if any is."""
    return float(np.max([line[name] for line in lines]))
