"""What trackers receive of a comparison."""

import numpy as np
import pytest

from ffnlab.report.trackers import TrackOptions
from ffnlab.sweep import tracking
from tests.report.test_trackers import events


def line(block, losses, scores, chosen=True):
    curve = {"step": [5, 9], "train_loss": losses, "accuracy": scores}
    return {"block": block, "chosen": chosen, "curve": curve}


RUNS = [
    line("mlp:relu", [4.0, 2.0], [0.5, 0.75]),
    line("mlp:relu", [2.0, None], [0.25, None]),  # diverged
    line("mlp:relu", [9.0, 9.0], [0.0, 0.0], chosen=False),
    line("glu", [1.0, 0.5], [0.5, 1.0]),
]


def test_the_curves_of_a_block_are_means_of_chosen_runs():
    curves = tracking.mean_curves(RUNS)
    assert list(curves) == ["mlp:relu", "glu"]
    np.testing.assert_array_equal(curves["mlp:relu"]["train_loss"], [3.0, 2.0])
    np.testing.assert_array_equal(curves["mlp:relu"]["accuracy"], [0.375, 0.75])
    both = tracking.mean_curves([{**run, "task": "iris"} for run in RUNS])
    assert list(both) == ["iris mlp:relu", "iris glu"]


def test_tensorboard_has_a_run_per_block(tmp_path):
    pytest.importorskip("tensorboardX")
    for _ in range(2):  # a comparison that was interrupted after that
        tracking.track(TrackOptions(report_to="tensorboard"), RUNS, tmp_path)
    found = events(tmp_path / "tensorboard" / "mlp-relu")
    assert [(tag, step, value.simple_value) for tag, step, value in found] == [
        ("train/loss", 5, 3.0), ("valid/accuracy", 5, 0.375),
        ("train/loss", 9, 2.0), ("valid/accuracy", 9, 0.75),
    ]  # fmt: skip
