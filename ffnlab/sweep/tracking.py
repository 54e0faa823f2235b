"""The curves of a comparison for the trackers of `ffnlab.report.trackers`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffnlab.report.trackers import Series, TrackOptions, opened
from ffnlab.sweep.result_lines import Line


def track(config: TrackOptions, runs: Sequence[Line], directory: Path) -> None:
    """Reports the mean curves of each block, and the pictures.

    Args:
      config: The configuration of the comparison.
      runs: From `result_lines.lines`.
      directory: The run directory, with its pictures.
    """
    start = 0
    with opened(config, directory) as tracker:
        for block, curves in mean_curves(runs).items():
            series, steps = Series(block, start), curves["step"].astype(int).tolist()
            tags = {name: f"valid/{name}" for name in curves if name != "step"}
            tags["train_loss"] = "train/loss"
            tracker.begin(series)
            for place, step in enumerate(steps):
                values = {tag: float(curves[key][place]) for key, tag in tags.items()}
                tracker.scalars(step, {series: values})
            start += steps[-1]
        tracker.pictures(directory)


def mean_curves(runs: Sequence[Line]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the mean training loss and validation scores of the chosen runs.

    Args:
      runs: From `result_lines.lines`.

    Returns:
      Block, after the name of its data set if there are several, to `step`,
      `train_loss` and scores, `[evaluations]`; NaN where no run has a value.

    >>> curve = {"step": [5, 9], "train_loss": [1.0, 0.5], "loss": [2.0, None]}
    >>> curves = mean_curves([{"block": "glu", "chosen": True, "curve": curve}])
    >>> curves["glu"]["loss"].tolist()
    [2.0, nan]
    """
    rows: dict[str, list] = {}
    for run in runs:
        if run["chosen"]:
            name = f"{run.get('task', '')} {run['block']}".strip()
            rows.setdefault(name, []).append(run["curve"])
    return {
        block: {key: _mean([each[key] for each in curves]) for key in curves[0]}
        for block, curves in rows.items()
    }


def _mean(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Returns the mean of the finite values of each column, NaN where there is none."""
    values = np.array(rows, float)
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return np.where(count, total / np.maximum(count, 1), np.nan)
