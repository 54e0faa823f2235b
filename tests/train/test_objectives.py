import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from ffnlab.train import objectives
from ffnlab.train.objectives import IGNORE, OBJECTIVES
from ffnlab.types import Model, Scores

LABELS = np.array([[0, IGNORE, 3], [4, 1, 1]])
LOGITS = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def entropy(smoothing=0.0, logits=LOGITS, labels=LABELS):
    """The cross-entropy from NumPy, 0 where there is no label."""
    classes = logits.shape[-1]
    target = np.eye(classes)[np.maximum(labels, 0)] * (1 - smoothing)
    target = target + smoothing / classes
    logs = log_softmax(logits.astype(float), -1)
    return -(target * logs).sum(-1) * (labels >= 0)


def score(objective, outputs=LOGITS, labels=LABELS):
    scores = jax.jit(lambda outputs: objective.score(outputs, {"y": labels}))(outputs)
    return jax.device_get(scores)


def test_cross_entropy_against_numpy(x64):
    @jax.jit
    def run(logits):
        return [objectives.cross_entropy(logits, LABELS, s) for s in (0.0, 0.1)]

    outputs = run(LOGITS.astype(float))
    for smoothing, (values, weight) in zip((0.0, 0.1), outputs, strict=True):
        chex.assert_trees_all_close(values, entropy(smoothing), rtol=1e-12)
        assert weight.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_ignored_labels_get_no_gradient():
    def loss(logits):
        values, weight = objectives.cross_entropy(logits, np.array([1, IGNORE]))
        return values.sum() / weight.sum()

    slope = jax.jit(jax.grad(loss))(np.ones((2, 3), np.float32))
    assert slope[1].tolist() == [0.0, 0.0, 0.0]
    assert np.asarray(slope[0] != 0).any()


def test_classes_are_scored_by_loss_and_accuracy():
    scores = score(OBJECTIVES["classes"])
    assert scores.values.keys() == {"loss", "accuracy"}
    np.testing.assert_allclose(scores.values["loss"], entropy(), rtol=1e-5)
    hits = LOGITS.argmax(-1) == LABELS
    assert (scores.values["accuracy"] == hits).all() and hits.any() and not hits.all()
    assert scores.weight.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_label_weights_are_those_of_the_classes():
    weights = [0.5, 1.0, 2.0, 4.0, 8.0]
    given = objectives.label_weights(LABELS, weights)
    assert given.tolist() == [[0.5, 0.0, 4.0], [8.0, 1.0, 1.0]]
    ones = objectives.label_weights(jnp.asarray(LABELS))
    assert ones.tolist() == [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    assert ones.dtype == jnp.float32


def test_the_objective_of_a_classifier_smooths_weighs_and_reads_its_outputs():
    weights = [0.5, 1.0, 2.0, 4.0, 8.0]
    objective = objectives.cross_entropy_objective(
        0.2, weights, class_logits=lambda outputs, batch: outputs["logits"]
    )
    assert objective.monitor == "accuracy" and objective.higher_is_better
    scores = score(objective, {"logits": LOGITS})
    np.testing.assert_allclose(scores.values["loss"], entropy(0.2), rtol=1e-5)
    assert (scores.values["accuracy"] == (LOGITS.argmax(-1) == LABELS)).all()
    assert scores.weight.tolist() == [[0.5, 0.0, 4.0], [8.0, 1.0, 1.0]]
    plain = score(objectives.cross_entropy_objective())
    np.testing.assert_allclose(plain.values["loss"], entropy(), rtol=1e-5)
    assert plain.weight.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_joint_labels_are_one_entry():
    """Its loss is their mean, a hit is one of all, and the first has its weight."""
    labels = np.array([[0, 1], [0, 1], [0, 1], [2, IGNORE], [IGNORE, 2]])
    likely = np.array([[0, 1], [0, 2], [2, 2], [0, 0], [0, 0]])
    logits = np.eye(3, dtype=np.float32)[likely]
    scores = score(objectives.cross_entropy_objective(joint=True), logits, labels)
    wanted = entropy(0.0, logits, labels).mean(-1)
    np.testing.assert_allclose(scores.values["loss"], wanted, rtol=1e-5)
    assert scores.values["accuracy"][:3].tolist() == [1.0, 0.0, 0.0]
    assert scores.weight.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_totals_and_means_leave_out_what_does_not_count():
    values = {"loss": np.array([2.0, np.nan, 4.0]), "hits": np.array([1.0, np.inf, 0])}
    scores = Scores(values, np.array([0.25, 0.0, 0.125]))
    sums, weight = jax.jit(objectives.totals)(scores)
    assert {name: float(value) for name, value in sums.items()} == {
        "loss": 1.0,
        "hits": 0.25,
    }
    assert float(weight) == 0.375
    means = jax.jit(objectives.means)(scores)
    assert float(means["loss"]) == pytest.approx(1.0 / 0.375)
    assert float(means["hits"]) == pytest.approx(0.25 / 0.375)
    empty = Scores({"loss": np.array([2.0])}, np.array([0.0]))
    assert float(objectives.means(empty)["loss"]) == 0.0


def test_accuracy_of_ties_and_nan():
    logits = np.array([[1.0, 1.0], [np.nan, 0.0], [0.0, 1.0]], np.float32)
    hits = objectives.accuracy(jnp.asarray(logits), np.array([0, 0, -100]))
    assert hits.tolist() == [1.0, 0.0, 0.0] and hits.dtype == jnp.float32
    hits = objectives.accuracy(jnp.asarray(logits), np.array([1, 1, 1]))
    assert hits.tolist() == [0.0, 0.0, 1.0]


def test_bits_are_nats_over_log_two():
    objective = OBJECTIVES["bytes"]
    assert objective.monitor == "bits" and not objective.higher_is_better
    scores = score(objective)
    assert scores.values.keys() == {"loss", "accuracy", "bits"}
    np.testing.assert_allclose(
        scores.values["bits"], entropy() / np.log(2), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(scores.values["loss"], entropy(), rtol=1e-5)
    assert scores.weight.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_squared_error():
    objective = OBJECTIVES["values"]
    assert objective.monitor == "loss" and not objective.higher_is_better
    scores = score(objective, np.array([[1.0], [2.0], [-0.5]]), np.array([0, 4.0, 0]))
    assert scores.values["loss"].tolist() == [1.0, 4.0, 0.25]
    assert scores.weight.tolist() == [1.0, 1.0, 1.0]


def test_accuracy_is_what_a_classifier_is_monitored_by():
    assert OBJECTIVES.keys() == {"classes", "values", "bytes"}
    assert OBJECTIVES["classes"].monitor == "accuracy"
    assert OBJECTIVES["classes"].higher_is_better


def test_the_mean_loss_is_weighted_and_passes_the_key():
    keys = []

    def apply(params, x, key):
        keys.append(key)
        return params * x, {}

    loss = objectives.mean_loss(Model(None, apply), OBJECTIVES["classes"])
    value = jax.jit(loss)(2.0, {"x": LOGITS, "y": LABELS}, 7)
    wanted = entropy(0.0, 2 * LOGITS).sum() / 5
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    assert len(keys) == 1 and keys[0] is not None


def test_several_labels_are_scored_one_by_one(x64):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (5, 4)), rng.integers(0, 2, (5, 4))
    labels[2] = IGNORE
    for smoothing in (0.0, 0.2):
        objective = objectives.binary_cross_entropy_objective(smoothing)

        def loss(logits, objective=objective):
            scores = objective.score(logits, {"y": jnp.array(labels)})
            return objectives.means(scores)["loss"]

        shares = 1 / (1 + np.exp(-logits))
        target = labels * (1 - smoothing) + smoothing / 2
        each = -target * np.log(shares) - (1 - target) * np.log(1 - shares)
        kept = labels != IGNORE
        np.testing.assert_allclose(
            loss(jnp.array(logits)), each[kept].mean(), rtol=1e-12
        )
        gradient = np.where(kept, shares - target, 0) / kept.sum()
        chex.assert_trees_all_close(
            jax.grad(loss)(jnp.array(logits)), gradient, atol=1e-12
        )
    scores = objective.score(jnp.array(logits), {"y": jnp.array(labels)})
    accuracy = ((logits > 0) == (labels == 1))[kept].mean()
    assert float(objectives.means(scores)["accuracy"]) == pytest.approx(accuracy)


def test_numbers_are_scored_where_there_are_any(x64):
    outputs, true = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([3.0, jnp.nan, 4.5])
    objective = objectives.squared_error_objective()

    def loss(outputs):
        return objectives.means(objective.score(outputs, {"y": true}))["loss"]

    assert float(loss(outputs)) == pytest.approx((4 + 0.25) / 2)
    assert jax.grad(loss)(outputs).ravel().tolist() == [-2.0, 0.0, -0.5]
