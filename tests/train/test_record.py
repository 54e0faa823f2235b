import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.train.record import (
    Plan,
    add_evaluation,
    add_losses,
    empty_record,
    mark_failed,
)

PLAN = Plan(6, 2, 4, patience=1)


def test_record_of_a_population():
    record = empty_record(PLAN, ["loss"], (3,))
    losses = np.array([[1, 1], [1, np.nan], [1, 1]], np.float32)
    record = add_losses(record, losses)
    record, better = add_evaluation(record, PLAN, {"loss": [3.0, 3.0, 3.0]})
    assert better.tolist() == [True, False, True]
    assert record.diverged.tolist() == [-1, 1, -1]
    good = np.ones((3, 2), np.float32)
    record = add_losses(record, good)
    record, better = add_evaluation(record, PLAN, {"loss": [2.0, 0.0, 4.0]})
    assert better.tolist() == [True, False, False]
    assert record.stopped(PLAN).tolist() == [False, True, True]
    record = add_losses(record, good)
    record, better = add_evaluation(record, PLAN, {"loss": [9.0, 9.0, 0.0]})
    assert better.tolist() == [False, False, False]  # the third had stopped
    assert record.best.tolist() == [2.0, np.inf, 3.0]
    assert record.best_step.tolist() == [4, 0, 2]
    assert record.finished(PLAN)


def test_a_score_of_nan_is_never_better():
    plan = Plan(2, 1, 4)
    losses, record = np.ones(1, np.float32), empty_record(plan, ["loss"])
    record = add_losses(record, losses)
    record, better = add_evaluation(record, plan, {"loss": np.float32(np.nan)})
    assert not better and record.best == np.inf


@pytest.mark.parametrize("higher", [False, True])
def test_a_score_is_compared_as_it_is_recorded(higher):
    """0.1 is above its float32, and 0.3 below: neither is better than itself."""
    plan = Plan(2, 1, 4, monitor="f1", higher_is_better=higher)
    for score in (0.1, 0.3):
        record, losses = empty_record(plan, ["f1"]), np.ones(1, np.float32)
        record = add_losses(record, losses)
        record, better = add_evaluation(record, plan, {"f1": score})
        assert better and record.best == np.float32(score)
        record = add_losses(record, losses)
        record, better = add_evaluation(record, plan, {"f1": score})
        assert not better and int(record.waited) == 1
        assert record.scores["f1"].dtype == record.best.dtype == np.float32


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"every": 0}, {"batch": 0}, {"patience": 0}]
)
def test_bad_plans(change):
    with pytest.raises(InputError, match="at least 1"):
        Plan(**{"steps": 1, "every": 1, "batch": 1, **change})


def test_another_score_needs_its_direction():
    with pytest.raises(InputError, match="needs higher_is_better"):
        Plan(1, 1, 16, monitor="accuracy")
    assert not Plan(1, 1, 16).higher_is_better


def test_runs_with_parameters_that_are_not_finite_have_failed():
    record = empty_record(Plan(4, 2, 1), ["loss"], (3,))
    losses = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, np.inf]], np.float32)
    record = mark_failed(add_losses(record, losses), np.array([True, False, False]))
    assert record.diverged.tolist() == [-1, 2, 1]
    assert record.diverged.dtype == np.int32
