import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from ffnlab.train import objectives
from ffnlab.types import Scores


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_against_numpy(smoothing, x64):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 5)), rng.integers(0, 5, (2, 3))
    labels[0, 1] = objectives.IGNORE
    target = np.eye(5)[np.maximum(labels, 0)] * (1 - smoothing) + smoothing / 5
    expected = -(target * log_softmax(logits, -1)).sum(-1) * (labels >= 0)
    values, weight = objectives.cross_entropy(
        jnp.asarray(logits), jnp.asarray(labels), smoothing
    )
    chex.assert_trees_all_close(values, expected, rtol=1e-12)
    assert weight.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_ignored_labels_get_no_gradient():
    def loss(logits):
        values, weight = objectives.cross_entropy(
            logits, jnp.array([1, objectives.IGNORE])
        )
        return values.sum() / weight.sum()

    slope = jax.grad(loss)(jnp.ones((2, 3)))
    assert slope[1].tolist() == [0.0, 0.0, 0.0]
    assert bool(jnp.any(slope[0] != 0))


def test_means_leave_out_what_does_not_count():
    scores = Scores({"loss": jnp.array([2.0, jnp.nan, 4.0])}, jnp.array([1.0, 0, 1]))
    assert float(objectives.means(scores)["loss"]) == 3.0
    empty = Scores({"loss": jnp.array([2.0])}, jnp.array([0.0]))
    assert float(objectives.means(empty)["loss"]) == 0.0


def test_accuracy_of_ties_and_nan():
    logits = jnp.array([[1.0, 1.0], [jnp.nan, 0.0], [0.0, 1.0]])
    assert objectives.accuracy(logits, jnp.array([0, 0, -100])).tolist() == [
        1.0,
        0.0,
        0.0,
    ]


def test_bits_are_nats_over_log_two():
    logits, labels = jnp.array([[0.0, 1.0, -1.0]]), jnp.array([2])
    scores = objectives.score_bytes(logits, {"y": labels})
    expected = -log_softmax([0.0, 1.0, -1.0])[2] / np.log(2)
    assert float(scores.values["bits"][0]) == pytest.approx(expected, rel=1e-6)


def test_squared_error():
    scores = objectives.score_values(
        jnp.array([[1.0], [2.0]]), {"y": jnp.array([0.0, 4.0])}
    )
    assert scores.values["loss"].tolist() == [1.0, 4.0]
