"""Runs of a fine-tuning whose loss was not finite: what counts, and what is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ffnlab.errors import InputError
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.finetune.trainer import Run, make_plan
from ffnlab.train import divergence
from ffnlab.train.divergence import divergence_of

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_LONGEST = 80  # characters of a text


def best_run(runs: Sequence[Run]) -> Run:
    """Returns the run that is best on dev, of those that did not fail if there are any.

    Of runs that failed, one that was evaluated before comes first.
    """

    def rank(run: Run) -> tuple[bool, bool, float]:
        good, record = not is_failed(run), run.record
        return good, bool(record.best_step > 0), run.scores["dev"][MONITORED]

    return max(runs, key=rank)


def counted_runs(runs: Sequence[Run]) -> Sequence[Run]:
    """Returns the runs whose scores count: not those that failed unevaluated.

    If that leaves none, all count.
    """
    return [run for run in runs if not _is_unscored(run)] or runs


def is_failed(run: Run) -> bool:
    """Returns whether the loss or a parameter of a run was not finite."""
    return bool(run.record.diverged >= 0)


def _is_unscored(run: Run) -> bool:
    return is_failed(run) and not run.record.best_step > 0


def summary(runs: Sequence[Run]) -> str:
    """Returns a sentence on each run that failed, for the report."""
    sentences = []
    for run in filter(is_failed, runs):
        sentence = str(divergence_of(run.record))
        if len(runs) > 1:
            sentence = f"Seed {run.seed}: {sentence[0].lower()}{sentence[1:]}"
        sentences.append(sentence)
        if len(counted_runs(runs)) < len(runs) and _is_unscored(run):
            sentences.append("Its scores are left out of the means.")
    if sentences:
        sentences.append(f"{divergence.NAME} has the batches.")
    return " ".join(sentences)


def write(config: "Config", task: Task, directory: Path, runs: Sequence[Run]) -> None:
    """Writes the batches at which runs failed, if any did."""
    plan, rows = make_plan(config, task), task.rows["train"]

    def contents(batch: np.ndarray) -> dict[str, Any]:
        numbers = task.train_examples(batch)
        texts = ((n, task.train_text(n)[:_LONGEST]) for n in numbers)
        return {"examples": [{"number": n + 1, "text": text} for n, text in texts]}

    rate, size = config.learning_rate, len(rows.example_index)
    failed = [
        divergence.describe(run.record, plan, run.seed, rate, size, contents)
        for run in runs
        if is_failed(run)
    ]
    if failed:
        divergence.write(directory, failed)


def check(config: "Config", runs: Sequence[Run], directory: Path) -> None:
    """Raises if all runs failed.

    Raises:
      InputError: All failed; the message says what was written and what to do.
    """
    found = divergence_of(best_run(runs).record)
    if found:
        raise InputError(found.message(config.learning_rate, directory))


def finite_parts(run: Run) -> dict[str, Any]:
    """Returns the predictions by part of a run, of parts whose numbers are finite."""
    parts = run.predicted.items()
    return {part: predicted for part, predicted in parts if is_finite(predicted)}


def is_finite(predicted: Any) -> bool:
    """Returns whether all numbers of the predictions of a part are finite."""
    leaves = (leaf for leaf in jax.tree.leaves(predicted) if not isinstance(leaf, str))
    return all(np.isfinite(leaf).all() for leaf in leaves)
