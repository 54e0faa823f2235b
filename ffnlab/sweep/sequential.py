"""Replicates that are added in stages until every block is decided."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ffnlab.stats import comparison as comparison_

if TYPE_CHECKING:
    from ffnlab.stats import Comparison
    from ffnlab.sweep.job import Job
    from ffnlab.sweep.jobs import Sweep

Judge = Callable[[list[dict[str, Any]]], "list[Comparison]"]


def train_until_decided(
    sweep: "Sweep",
    jobs: "Sequence[Job]",
    stages: Sequence[int],
    baseline: str,
    judge: Judge,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Trains replicates in stages, each time of the blocks that are not decided.

    What a stage trains depends on the results of the stages before it alone, so that a
    run that was interrupted goes on as it would have.

    Args:
      sweep: Trains replicates of jobs.
      jobs: All blocks, on one data set.
      stages: The number of replicates after each stage.
      baseline: The block that the others are compared with; it is in every stage.
      judge: Compares the blocks, given the lines of all runs so far.
      quiet: Whether to print nothing.

    Returns:
      The lines of all runs.
    """
    names, runs = [job.name for job in jobs], []
    for stage, (first, last) in enumerate(zip((0, *stages), stages, strict=False), 1):
        keys = [job.key for job in jobs if job.name in names]
        blocks = f"{len(keys)} block{'s' * (len(keys) != 1)}"
        text = f"stage {stage} of at most {len(stages)}: {last} replicates of {blocks}"
        if not quiet:
            print(text, flush=True)
        runs = sweep.train(keys, range(first, last))
        runs = [run for run in runs if run["seed"] < last]  # a resumed run has more
        undecided = comparison_.going_on(judge(runs))
        if not undecided:
            break
        names = [baseline, *undecided]
    return runs
