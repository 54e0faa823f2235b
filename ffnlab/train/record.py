"""How long a run trains, and what is recorded on the way; NumPy on the host."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ffnlab.errors import InputError, choose

if TYPE_CHECKING:
    from ffnlab.train.record import Plan, Record


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and how often to evaluate.

    Attributes:
      steps: The number of steps.
      every: Steps between evaluations; they run in one call without the host.
      batch: Examples per step.
      patience: Stop after this many evaluations without a better one, or None.
      monitor: The score of the validation part that decides what is better.
      higher_is_better: Its direction; required unless `loss` is monitored.
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
                raise InputError(f"monitor={self.monitor!r} needs higher_is_better")
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
        """The number of evaluations of a run that is not stopped early."""
        return -(-self.steps // self.every)


class Record(NamedTuple):
    """What is recorded of a run, on the host. Shapes follow any leading axis `[S]`.

    Attributes:
      step: The number of steps run, int `[]`, without the leading axis.
      loss: The training loss of each step, float32 `[steps]`; NaN where not run.
      scores: Each score of the validation part after every `every` steps,
        float32 `[evaluations]`; NaN where not run.
      best: The best monitored score, float32 `[]`; infinitely bad before the first.
      best_step: The step of the best score, int32 `[]`.
      waited: Evaluations since then, int32 `[]`.
      diverged: The first step whose loss was not finite, or the number of steps after
        which a parameter was not, int32 `[]`; −1 if none.
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

    @property
    def failed(self) -> bool:
        """Whether this is a single run whose loss was not finite."""
        return self.diverged.ndim == 0 and bool(self.diverged >= 0)

    def finished(self, plan: Plan) -> bool:
        """Whether no run has steps left that are worth running."""
        ended = self.stopped(plan) | (self.diverged >= 0)
        return bool(self.step >= plan.steps or ended.all())


def empty_record(
    plan: Plan, names: Iterable[str], shape: tuple[int, ...] = ()
) -> Record:
    """Returns the record of a run, or of a population of `shape`, before it starts.

    Raises:
      InputError: The monitored score is not among the names of the scores.
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


def add_losses(record: Record, losses: np.ndarray) -> Record:
    """Returns a record with the training losses of further steps, `[..., steps]`."""
    start, stop = int(record.step), int(record.step) + losses.shape[-1]
    bad = ~np.isfinite(losses)
    first = np.where(bad.any(axis=-1), start + bad.argmax(axis=-1), -1)
    diverged = np.where(record.diverged >= 0, record.diverged, first).astype(np.int32)
    loss = record.loss.copy()
    loss[..., start:stop] = losses
    return record._replace(
        step=np.asarray(stop, np.int64), loss=loss, diverged=diverged
    )


def mark_failed(record: Record, finite: np.ndarray) -> Record:
    """Returns a record in which runs with parameters that are not finite have failed.

    Their next losses cannot be finite.

    Args:
      record: The record so far.
      finite: Whether the parameters of a run are finite, bool `[...]`.
    """
    failed = ~finite & (record.diverged < 0)
    diverged = np.where(failed, record.step, record.diverged)
    return record._replace(diverged=diverged.astype(np.int32))


def add_evaluation(
    record: Record, plan: Plan, scores: Mapping[str, Any]
) -> tuple[Record, np.ndarray]:
    """Returns a record with one more evaluation.

    Args:
      record: The record so far, with the losses of the steps before the evaluation.
      plan: The plan of the run; its monitored score decides what is better.
      scores: Each score, `[...]`; it is compared and recorded as float32.

    Returns:
      The record, and whether this evaluation is a run's best so far, bool `[...]`;
      it never is for a run that was stopped or has diverged.
    """
    row = (int(record.step) - 1) // plan.every
    scores = {name: np.asarray(score, np.float32) for name, score in scores.items()}
    score = scores[plan.monitor]
    ahead = score > record.best if plan.higher_is_better else score < record.best
    better = ahead & ~record.stopped(plan) & (record.diverged < 0)

    curves = {name: curve.copy() for name, curve in record.scores.items()}
    for name, curve in curves.items():
        curve[..., row] = scores[name]
    updated = record._replace(
        scores=curves,
        best=np.where(better, score, record.best).astype(np.float32),
        best_step=np.where(better, record.step, record.best_step).astype(np.int32),
        waited=np.where(better, 0, record.waited + 1).astype(np.int32),
    )
    return updated, better
