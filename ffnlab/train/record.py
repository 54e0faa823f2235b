"""How long a run trains, and what it writes down on the way; NumPy on the host."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ffnlab.errors import InputError, choose

if TYPE_CHECKING:
    from ffnlab.train.record import Plan, Record


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and how often to look.

    Attributes:
      steps: how many steps.
      every: evaluate after this many; they run in one call without the host.
      batch: how many examples a step sees.
      patience: stop after this many evaluations without a better one, or None.
      monitor: the score of the validation part that decides what is better.
      higher_is_better: its direction; must be given unless `loss` is monitored.
    """

    steps: int
    every: int
    batch: int
    patience: int | None = None
    monitor: str = "loss"
    higher_is_better: bool | None = None

    def __post_init__(self):
        if self.higher_is_better is None:
            if self.monitor != "loss":
                raise InputError(
                    f"monitor={self.monitor!r}: say whether higher_is_better"
                )
            object.__setattr__(self, "higher_is_better", False)
        if min(self.steps, self.every, self.batch) < 1:
            raise InputError(
                f"steps={self.steps}, every={self.every}, batch={self.batch} must all "
                "be at least 1"
            )
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience={self.patience} must be at least 1")

    @property
    def evaluations(self) -> int:
        """How often a run that is not stopped early is evaluated."""
        return -(-self.steps // self.every)


class Record(NamedTuple):
    """What a run wrote down, on the host. Shapes are after any leading axis `[S]`.

    Attributes:
      step: how many steps were run, int `[]`, without the leading axis.
      loss: the training loss of each step, float32 `[steps]`; NaN where not run.
      scores: each score of the validation part after each `every` steps,
        float32 `[evaluations]`; NaN where not run.
      best: the best monitored score, float32 `[]`; infinitely bad before the first.
      best_step: the step it was reached at, int32 `[]`.
      waited: evaluations since then, int32 `[]`.
      diverged: the first step whose loss was not finite, int32 `[]`; −1 if none.
    """

    step: np.ndarray
    loss: np.ndarray
    scores: dict[str, np.ndarray]
    best: np.ndarray
    best_step: np.ndarray
    waited: np.ndarray
    diverged: np.ndarray

    def stopped(self, plan: Plan) -> np.ndarray:
        """Whether a run's patience has run out, bool `[]`."""
        if plan.patience is None:
            return np.zeros_like(self.waited, bool)
        return self.waited >= plan.patience

    def finished(self, plan: Plan) -> bool:
        """Whether there is nothing left to run."""
        return bool(self.step >= plan.steps or self.stopped(plan).all())


def blank(plan: Plan, names: Iterable[str], shape: tuple[int, ...] = ()) -> Record:
    """Returns the record of a run, or of a population of `shape`, before it starts.

    Raises:
      InputError: what the plan monitors is not among the names of the scores.
    """
    names = list(names)
    choose("monitor", plan.monitor, names)

    def full(length: int) -> np.ndarray:
        return np.full((*shape, length), np.nan, np.float32)

    return Record(
        step=np.zeros((), np.int64),
        loss=full(plan.steps),
        scores={name: full(plan.evaluations) for name in names},
        best=np.full(shape, -np.inf if plan.higher_is_better else np.inf, np.float32),
        best_step=np.zeros(shape, np.int32),
        waited=np.zeros(shape, np.int32),
        diverged=np.full(shape, -1, np.int32),
    )


def note(
    record: Record, plan: Plan, losses: np.ndarray, scores: dict[str, np.ndarray]
) -> tuple[Record, np.ndarray]:
    """Adds one evaluation to a record.

    Args:
      record: what was written down so far.
      plan: how better is decided.
      losses: the training losses since the last evaluation, `[..., steps]`.
      scores: each score, `[...]`.

    Returns:
      The record, and whether this evaluation is a run's best so far, bool `[...]`. A
      run that was stopped or has diverged does not get better.
    """
    start = int(record.step)
    stop, row = start + losses.shape[-1], start // plan.every
    bad = ~np.isfinite(losses)
    first = np.where(bad.any(axis=-1), start + bad.argmax(axis=-1), -1)
    diverged = np.where(record.diverged >= 0, record.diverged, first).astype(np.int32)
    score = scores[plan.monitor]
    ahead = score > record.best if plan.higher_is_better else score < record.best
    better = ahead & ~record.stopped(plan) & (diverged < 0)

    loss = record.loss.copy()
    loss[..., start:stop] = losses
    curves = {name: curve.copy() for name, curve in record.scores.items()}
    for name, curve in curves.items():
        curve[..., row] = scores[name]
    updated = Record(
        step=np.asarray(stop, np.int64),
        loss=loss,
        scores=curves,
        best=np.where(better, score, record.best),
        best_step=np.where(better, stop, record.best_step).astype(np.int32),
        waited=np.where(better, 0, record.waited + 1).astype(np.int32),
        diverged=diverged,
    )
    return updated, better


def check_finite(record: "Record", learning_rate: float) -> None:
    """Refuses a run whose loss was not finite.

    Raises:
      InputError: it was not, or that of one of several; the step is named.
    """
    if (record.diverged >= 0).any():
        raise InputError(
            f"learning_rate: {learning_rate:g}: the loss was not finite at step "
            f"{record.diverged.max()}; lower it"
        )
