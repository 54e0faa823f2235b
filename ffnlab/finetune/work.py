"""What the runs of a fine-tuning have in common, and what hooks into their training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.finetune.adapting import Adaptation
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.report.progress import Progress, progress_callback
from ffnlab.report.trackers import Series, Tracker
from ffnlab.train import loop
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.record import Plan
from ffnlab.train.sharding import Layout
from ffnlab.types import Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

Predictors = dict[str, Callable[[Params], Any]]  # by part; compiled once for all runs


class Work(NamedTuple):
    """What the runs of a fine-tuning have in common."""

    config: "Config"
    task: Task
    directory: Path
    plan: Plan
    progress: Progress
    predictors: Predictors
    adaptation: Adaptation | None = None
    tracker: Tracker | None = None
    layout: Layout | None = None


def hooks(
    work: Work, folder: str, prefix: str = "", seeds: Sequence[int] = ()
) -> loop.Hooks:
    """Returns the checkpoints and the progress of a run or population."""
    shown = f"{prefix}{work.task.monitor} {{:{'.2%' if work.task.percent else '.4f'}}}"
    on_progress = progress_callback(work.progress, work.plan, MONITORED, shown)
    if work.tracker is not None:
        rates = work.config.rate_curve(work.plan.steps, work.config.learning_rate)
        tags = {MONITORED: f"dev/{work.task.monitor}"}
        several = work.config.seeds > 1
        series = [
            Series(f"seed {seed}" if several else "", seed * work.plan.steps)
            for seed in seeds
        ]
        on_progress = work.tracker.callback(
            work.plan, rates, tags, series, also=on_progress
        )
    return loop.Hooks(
        Checkpoints(
            work.directory / "checkpoints" / folder,
            seconds=60.0,
            strict=work.config.strict_resume,
        ),
        on_progress,
    )
