"""What the runs of a fine-tuning have in common, and what hooks into their training."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.finetune.adapting import Adaptation
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.report.progress import Progress, progress_callback
from ffnlab.report.trackers import Series, Tracker
from ffnlab.train import loop
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.mesh_config import check_divides
from ffnlab.train.record import Plan
from ffnlab.train.sharding import Layout, choose_layout
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


def divide_rows(
    config: "Config", task: Task, rows: int, sizes: Mapping[str, int], replicas: bool
) -> Layout | None:
    """Returns the layout of a mesh that divides the rows of a batch.

    Args:
      config: The flags.
      task: The task.
      rows: The number of rows of a batch.
      sizes: See `choose_layout`.
      replicas: Whether a population is trained.

    Raises:
      InputError: The mesh does not fit; if it does not divide the rows, the next batch
        size whose rows it divides is named.
    """
    if sizes and rows % sizes["data"]:
        size, wanted = _next_batch(config, task, sizes["data"])
        also = f", or batch_size={size} for {wanted} rows"
        check_divides("data", sizes["data"], f"the {rows} rows of a batch", rows, also)
    return choose_layout(sizes, config.fsdp, rows, replicas)


def _next_batch(config: "Config", task: Task, devices: int) -> tuple[int, int]:
    """Returns the next batch size whose number of rows devices divide, and the rows."""
    examples, rows = task.sizes["train"], len(task.rows["train"].example_index)
    parts = config.gradient_accumulation_steps
    for size in itertools.count(config.batch_size + 1):
        batch = parts * max(round(size * rows / examples), 1)
        if batch % devices == 0:
            return size, batch
