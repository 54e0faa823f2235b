"""Objectives: the scores of a model's outputs on a batch, and their means.

A score has a value and a weight for each entry, so that padding and ignored labels are
left out of every mean: a mean is always `sum(value · weight) / sum(weight)`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from ffnlab.data.dataset import IGNORE
from ffnlab.types import Array, Batch, Key, Loss, Model, Objective, Params, Scores


def cross_entropy(
    logits: Array, labels: Array, smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Returns −log softmax(logits)[label] in nats, and the weight of each entry.

    Args:
      logits: The logits of the classes, `[..., K]`.
      labels: The labels, int `[...]` in 0…K−1, or `IGNORE` (−100) where there is none.
      smoothing: The fraction of the target distribution that is spread evenly over all
        classes.

    Returns:
      Values `[...]`, 0 where ignored, and weights `[...]`, 1 or 0.

    Source: Szegedy et al. 2016, section 7, for label smoothing.

    >>> values, weight = cross_entropy(jnp.zeros((2, 4)), jnp.array([1, IGNORE]))
    >>> [round(float(v), 4) for v in values], weight.tolist()
    ([1.3863, 0.0], [1.0, 0.0])
    """
    counts = labels != IGNORE
    values = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(counts, labels, 0)
    )
    if smoothing:
        # With an even target the loss is logsumexp(logits) − mean(logits). It exceeds
        # the loss of the label by logits[label] − mean(logits).
        label = jnp.where(counts, labels, 0)[..., None]
        chosen = jnp.take_along_axis(logits, label, axis=-1)[..., 0]
        values = values + smoothing * (chosen - logits.mean(axis=-1))
    weight = counts.astype(values.dtype)
    return values * weight, weight


def score_classes(logits: Array, batch: Batch) -> Scores:
    """Scores class predictions: `loss` in nats and `accuracy` in [0, 1].

    Args:
      logits: The logits of the classes, `[..., K]`.
      batch: Holds the labels `y`, int `[...]`, `IGNORE` where there is none.

    >>> scores = score_classes(jnp.eye(3), {"y": jnp.array([0, 1, 1])})
    >>> scores.values["accuracy"].tolist()
    [1.0, 1.0, 0.0]
    """
    loss, weight = cross_entropy(logits, batch["y"])
    return Scores({"loss": loss, "accuracy": accuracy(logits, batch["y"])}, weight)


def label_weights(labels: Array, weights: Sequence[float] | None = None) -> Array:
    """Returns the weight of each label: that of its class, or 0 where it is ignored.

    Args:
      labels: The labels, int `[...]` in 0…K−1, or `IGNORE` (−100) where there is none.
      weights: The weight of each class; None is 1 for all.

    Returns:
      `[...]`.

    >>> label_weights(jnp.array([1, 0, -100]), [0.5, 2.0]).tolist()
    [2.0, 0.5, 0.0]
    """
    mask = labels != IGNORE
    if weights is None:
        return mask.astype(float)
    return jnp.where(mask, jnp.asarray(weights)[jnp.where(mask, labels, 0)], 0.0)


def cross_entropy_objective(
    smoothing: float = 0.0,
    weights: Sequence[float] | None = None,
    class_logits: Callable[[Any, Batch], Array] = lambda outputs, batch: outputs,
    joint: bool = False,
) -> Objective:
    """Returns the objective of a classifier: the cross-entropy of its labels.

    Scores are `loss` in nats and `accuracy` in [0, 1] for each entry of `y`.

    Args:
      smoothing: The fraction of the target distribution that is spread evenly over all
        classes.
      weights: The weight of each class; None is 1 for all.
      class_logits: `class_logits(outputs, batch)` returns the logits of the classes,
        `[..., K]`, for each entry of `y`. The default returns the outputs.
      joint: Whether the last axis of `y` holds several labels of one entry, such as the
        start and the end of an answer. The loss is then their mean, a prediction is
        accurate if all of them are, and the entry has the weight of the first label.

    >>> batch = {"y": jnp.array([[1, -100]])}
    >>> scores = cross_entropy_objective().score(jnp.zeros((1, 2, 4)), batch)
    >>> [round(float(loss), 4) for loss in scores.values["loss"][0]]
    [1.3863, 0.0]
    """

    def score(outputs: Any, batch: Batch) -> Scores:
        logits, labels = class_logits(outputs, batch), batch["y"]
        loss, weight = cross_entropy(logits, labels, smoothing)
        if weights is not None:
            weight = weight * label_weights(labels, weights).astype(loss.dtype)
        hits = accuracy(logits, labels)
        if joint:
            loss, hits, weight = loss.mean(-1), hits.prod(-1), weight[..., 0]
        return Scores({"loss": loss, "accuracy": hits}, weight)

    return Objective(score, "accuracy", higher_is_better=True)


def binary_cross_entropy_objective(smoothing: float = 0.0) -> Objective:
    """Returns the objective of several labels: the cross-entropy of each, yes or no.

    Scores are `loss` in nats and `accuracy` in [0, 1] for each label of each entry.
    Outputs are logits `[..., L]`, and `y` is int `[..., L]`: 1, 0, or `IGNORE` (−100).

    Args:
      smoothing: The fraction of the target that is spread evenly over yes and no.

    >>> batch = {"y": jnp.array([[1, 0, -100]])}
    >>> scores = binary_cross_entropy_objective().score(jnp.zeros((1, 3)), batch)
    >>> [round(float(loss), 4) for loss in scores.values["loss"][0]]
    [0.6931, 0.6931, 0.0]
    """

    def score(outputs: Array, batch: Batch) -> Scores:
        weight = label_weights(batch["y"]).astype(outputs.dtype)
        true = jnp.where(weight > 0, batch["y"], 0).astype(outputs.dtype)
        target = true * (1 - smoothing) + smoothing / 2
        loss = optax.sigmoid_binary_cross_entropy(outputs, target)
        hits = ((outputs > 0) == (true > 0)).astype(outputs.dtype)
        return Scores({"loss": loss * weight, "accuracy": hits * weight}, weight)

    return Objective(score, "accuracy", higher_is_better=True)


def squared_error_objective() -> Objective:
    """Returns the objective of numbers: `loss` is the squared error of each entry.

    Outputs are `[..., 1]`, and `y` is float `[...]`, NaN where there is no number.

    >>> batch = {"y": jnp.array([3.0, jnp.nan])}
    >>> scores = squared_error_objective().score(jnp.ones((2, 1)), batch)
    >>> scores.values["loss"].tolist(), scores.weight.tolist()
    ([4.0, 0.0], [1.0, 0.0])
    """

    def score(outputs: Array, batch: Batch) -> Scores:
        mask = ~jnp.isnan(batch["y"])
        true = jnp.where(mask, batch["y"], 0.0)
        weight = mask.astype(outputs.dtype)
        return Scores({"loss": jnp.square(outputs[..., 0] - true) * weight}, weight)

    return Objective(score, "loss", higher_is_better=False)


def score_values(outputs: Array, batch: Batch) -> Scores:
    """Scores predicted values: `loss` is the squared error.

    Args:
      outputs: The predicted values, `[..., 1]`.
      batch: Holds the values `y`, float `[...]`, standardised by the training part, so
        that predicting the training mean has an expected error of 1.

    >>> score_values(jnp.ones((1, 1)), {"y": jnp.array([3.0])}).values["loss"].tolist()
    [4.0]
    """
    loss = jnp.square(outputs[..., 0] - batch["y"])
    return Scores({"loss": loss}, jnp.ones_like(loss))


def score_bytes(logits: Array, batch: Batch) -> Scores:
    """Scores next-byte predictions: `loss` in nats, `accuracy`, and `bits` per byte.

    Args:
      logits: The logits of the next byte, `[..., 256]`.
      batch: Holds the next bytes `y`, int `[...]`.

    >>> scores = score_bytes(jnp.zeros((1, 256)), {"y": jnp.array([7])})
    >>> round(float(scores.values["bits"][0]), 4)
    8.0
    """
    scores = score_classes(logits, batch)
    bits = scores.values["loss"] / math.log(2.0)
    return Scores({**scores.values, "bits": bits}, scores.weight)


OBJECTIVES: dict[str, Objective] = {
    "classes": Objective(score_classes, "accuracy", higher_is_better=True),
    "values": Objective(score_values, "loss", higher_is_better=False),
    "bytes": Objective(score_bytes, "bits", higher_is_better=False),
}


def accuracy(logits: Array, labels: Array) -> Array:
    """Returns 1 where the largest logit is that of the label, and 0 elsewhere.

    Args:
      logits: The logits of the classes, `[..., K]`.
      labels: The labels, int `[...]`; a negative label is never predicted.

    Returns:
      `[...]` in the dtype of `logits`. The first of several equal logits counts as the
      largest; a row with a NaN scores 0.

    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    hits = jnp.argmax(logits, axis=-1) == labels
    return (hits & ~jnp.isnan(logits).any(axis=-1)).astype(logits.dtype)


def totals(scores: Scores) -> tuple[dict[str, Array], Array]:
    """Returns the weighted sum of each score, and the sum of the weights.

    >>> scores = Scores({"loss": jnp.array([1.0, 5.0])}, jnp.array([1.0, 0.0]))
    >>> sums, weight = totals(scores)
    >>> float(sums["loss"]), float(weight)
    (1.0, 1.0)
    """
    weight = scores.weight
    # A masked entry may hold NaN or infinity, and 0 · NaN would spread it.
    sums = {
        name: jnp.sum(jnp.where(weight > 0, value * weight, 0.0))
        for name, value in scores.values.items()
    }
    return sums, weight.sum()


def means(scores: Scores) -> dict[str, Array]:
    """Returns the weighted mean of each score; 0 where all weights are 0.

    >>> scores = Scores({"loss": jnp.array([1.0, 5.0])}, jnp.array([1.0, 0.0]))
    >>> float(means(scores)["loss"])
    1.0
    """
    return average(*totals(scores))


def average(sums: dict[str, Array], weight: Array) -> dict[str, Array]:
    """Returns sums divided by the sum of the weights; 0 where that is 0.

    Args:
      sums: The weighted sum of each score, as of `totals`.
      weight: The sum of the weights, `[]`.

    >>> float(average({"loss": jnp.array(6.0)}, jnp.array(4.0))["loss"])
    1.5
    """
    return {name: value / jnp.maximum(weight, 1e-9) for name, value in sums.items()}


def mean_loss(model: Model, objective: Objective) -> Loss:
    """Returns `loss(params, batch, key)`, the weighted mean of an objective's loss.

    Args:
      model: The model; `apply(params, x, key)` takes the key of its dropout last.
      objective: The objective; its score named `loss` is averaged.
    """

    def loss(params: Params, batch: Batch, key: Key) -> Array:
        outputs, _ = model.apply(params, batch["x"], key)
        return means(objective.score(outputs, batch))["loss"]

    return loss
