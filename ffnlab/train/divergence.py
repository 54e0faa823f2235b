"""Runs whose loss was not finite: where they end, and the batches that led there."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data, io
from ffnlab.train.record import Plan, Record
from ffnlab.types import Array, Params

NAME = "diverged.json"  # in a run directory


class Divergence(NamedTuple):
    """Where a run ended since a number was not finite.

    Attributes:
      step: The number of steps taken before.
      what: What was not finite then: `the loss` or `a parameter`.
      best_step: The step of the parameters that are kept, 0 before the first.
    """

    step: int
    what: str
    best_step: int

    def __str__(self) -> str:
        """Returns the sentence of a report.

        >>> print(Divergence(12, "the loss", 11))  # doctest: +NORMALIZE_WHITESPACE
        Training stopped at step 12, since the loss was not finite; the parameters are
        those of step 11.
        """
        step = self.best_step
        kept = f"those of step {step:,}" if step else "the initial ones, of step 0"
        return (
            f"Training stopped at step {self.step:,}, since {self.what} was not "
            f"finite; the parameters are {kept}."
        )

    def message(self, learning_rate: float, directory: Path) -> str:
        """Returns the error that says what was written and what to do.

        Args:
          learning_rate: The peak learning rate.
          directory: The run directory.
        """
        sentence = str(self).rstrip(".")
        advice = "lower it, or raise warmup_steps"
        if not self.step:
            advice = "check the checkpoint and the first batch"
        return (
            f"learning_rate: {learning_rate:g}: {sentence[0].lower()}{sentence[1:]}; "
            f"{directory} has them and a report, and its {NAME} the batch; {advice}"
        )


def divergence_of(record: Record) -> Divergence | None:
    """Returns where a single run or one member ended; None if all was finite."""
    step = int(record.diverged)
    if step < 0:
        return None
    what = "the loss" if step < int(record.step) else "a parameter"
    return Divergence(step, what, int(record.best_step))


@functools.partial(jax.jit, static_argnums=1)
def are_finite(params: Params, axes: int) -> Array:
    """Returns whether all parameters are finite, bool of the leading axes `[...]`."""
    leaves = jax.tree.leaves(params)
    finite = [jnp.isfinite(x).all(tuple(range(axes, x.ndim))) for x in leaves]
    return jnp.stack(finite).all(axis=0)


def train_to_last_good(train: Callable[[int | None], Any]) -> Any:
    """Returns a training that has scored parameters, if any step was good.

    Where no loss is finite any more before the first evaluation, it trains again up to
    the last step whose loss was finite, and evaluates there.

    Args:
      train: `train(until)` returns a `Fit`, of the whole plan if `until` is None, else
        up to that step, with an evaluation.

    Returns:
      The `Fit`; its losses and the step that was not finite are of the first training.
    """
    first = again = train(None)
    while _is_lost(again.record):
        again = train(int(again.record.diverged.max()) - 1)
    if again is first:
        return first
    kept = {name: getattr(first.record, name) for name in ("step", "loss", "diverged")}
    return again._replace(
        record=again.record._replace(**kept), seconds_per_step=first.seconds_per_step
    )


def _is_lost(record: Record) -> bool:
    """Returns whether nothing was evaluated before all failed, but a step was good."""
    lost = (record.diverged >= 0).all() and (record.best_step == 0).all()
    return bool(lost and record.diverged.max() > 1)


def describe(
    record: Record,
    plan: Plan,
    seed: int,
    learning_rate: float,
    size: int,
    contents: Callable[[np.ndarray], dict[str, Any]],
) -> dict[str, Any]:
    """Returns what a run tells about the step that was not finite, ready for JSON.

    The loss of a step is that of its batch before its update, so that the batch of the
    step before may be the cause as well.

    Args:
      record: The record of a run that diverged.
      plan: Its plan.
      seed: Its seed.
      learning_rate: Its peak learning rate.
      size: The number of rows of the training part.
      contents: `contents(rows)` returns what the rows of a batch hold, int `[B]`.
    """
    found, batches = divergence_of(record), []
    for step in range(max(found.step - 1, 0), min(found.step + 1, plan.steps)):
        rows = data.indices([seed], step, step + 1, plan.batch, size)[0, 0]
        loss = float(record.loss[step])
        batches.append({"step": step, "loss": loss, **contents(np.unique(rows))})
    return {
        "seed": seed,
        "step": found.step,
        "not_finite": found.what,
        "best_step": found.best_step,
        "learning_rate": learning_rate,
        "batches": batches,
    }


def write(directory: Path, runs: list[dict[str, Any]]) -> None:
    """Writes what `describe` returns of each run that diverged."""
    text = json.dumps(io.jsonable(runs), indent=1, ensure_ascii=True)
    io.write(directory / NAME, text + "\n")
