"""Pictures of the solution of an untrained network, and of hand-made certificates."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ffnlab.feedback.iteration import Solution
from ffnlab.feedback.solvers import Jacobi
from ffnlab.models.sequence import SequenceConfig, sequence_model
from ffnlab.report import plots
from ffnlab.sweep import solver_plots
from ffnlab.train.objectives import OBJECTIVES
from tests.sweep.test_ranking import GOOD, WORSE, runs

MASK = np.arange(5)[None] < np.array([2, 5, 3])[:, None]
VALUES = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
TEST = {"x/values": VALUES, "x/mask": MASK, "y": np.zeros((3, 5), np.int32)}
DATASET = SimpleNamespace(test=TEST)


@pytest.fixture(scope="module")
def network():
    """Returns a configuration, and initial parameters of its network."""
    config = SequenceConfig(3, features=2, hidden=4, contractive=0.8)
    return config, jax.jit(sequence_model(config).init)(jax.random.key(0))


def test_solvers_are_drawn_on_the_test_part(network, monkeypatch):
    config, params = network
    solvers = {"jacobi": Jacobi(max_steps=6), "damped": Jacobi(None, 6, 0.5)}
    monkeypatch.setattr(solver_plots, "SOLVERS", solvers)
    monkeypatch.setattr(plots, "convergence", lambda panels: panels)
    monkeypatch.setattr(plots, "relaxation", lambda panels: panels)
    pictures = solver_plots.plot_solvers({"net": config}, {"net": params}, DATASET)
    assert list(pictures) == ["solvers.png", "states.png"]
    residuals = pictures["solvers.png"][1]["net"]
    assert {name: rows.shape for name, rows in residuals.items()} == {
        "jacobi": (7, 3), "damped": (7, 3),
    }  # fmt: skip
    for rows in residuals.values():
        assert (rows[-1] < rows[0]).all()
    assert (residuals["jacobi"][-1] < residuals["damped"][-1]).all()
    distances = pictures["states.png"][1]["net"]  # of the second, the longest sequence
    assert distances.shape == (7, 5) and (distances[-1] == 0).all()
    assert (np.diff(distances.max(axis=1)) <= 0).all() and distances[0].max() == 1


def test_distances_are_of_the_longest_sequence_and_relative():
    states = np.zeros((3, 3, 5, 1), np.float32)
    states[:, 1, :, 0] = [[0, 0, 0, 0, 0], [1, 2, 2, 4, 2], [2, 2, 2, 4, 1]]
    solutions = Solution(states, None, None, None)
    distances = solver_plots._distances(solutions, MASK)
    expected = [[0.5, 0.5, 0.5, 1, 0.25], [0.25, 0, 0, 0, 0.25], [0] * 5]
    np.testing.assert_allclose(distances, expected)
    states[:, 0] = 8.0 * states[:, 1]  # without a mask the first is as long as any
    unmasked = solver_plots._distances(solutions, None)
    np.testing.assert_allclose(unmasked, expected)
    assert not solver_plots._distances(solutions._replace(state=0 * states), None).any()


def test_only_the_first_sequences_are_solved(network, monkeypatch):
    monkeypatch.setattr(solver_plots, "SEQUENCES", 2)
    _, args, start = solver_plots.network_problem(*network, DATASET)
    assert start.shape == (2, 5, 4)
    np.testing.assert_array_equal(args["mask"], MASK[:2])


def test_scores_are_drawn_against_the_certificate():
    lines = runs("certified 0.3", WORSE) + runs("certified", GOOD) + runs("mlp", WORSE)
    names = {0.3: "certified 0.3", 0.9: "certified"}
    caption, figure = solver_plots.plot_certificates(
        lines, names, OBJECTIVES["classes"], {"best possible": 0.99}
    )
    assert "against the certificate" in caption
    (axes,) = figure.axes
    score, mark = axes.get_lines()[0], axes.get_lines()[-1]
    points = np.array(score.get_xydata(), float)
    np.testing.assert_allclose(points, [[0.3, 88.5], [0.9, 93.5]], rtol=1e-6)
    np.testing.assert_allclose(mark.get_ydata(), [99, 99])
    assert axes.get_ylabel() == "test accuracy, %"
