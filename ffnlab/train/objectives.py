"""Objectives: what a model's outputs score against a batch.

Every score is a value and a weight for each entry, so that padding and ignored labels
stay out of every mean: a mean is always `sum(value · weight) / sum(weight)`.
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
    """Returns −log softmax(logits)[label] in nats, and which entries count.

    Args:
      logits: `[..., K]`.
      labels: int `[...]` in 0…K−1, or `IGNORE` (−100) where there is no label.
      smoothing: the share of the target that is spread evenly over all classes.

    Returns:
      values `[...]`, 0 where ignored, and weight `[...]`, 1 or 0.

    Source: smoothing as in Szegedy et al. 2016, section 7.

    >>> values, weight = cross_entropy(jnp.zeros((2, 4)), jnp.array([1, IGNORE]))
    >>> [round(float(v), 4) for v in values], weight.tolist()
    ([1.3863, 0.0], [1.0, 0.0])
    """
    counts = labels != IGNORE
    values = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(counts, labels, 0)
    )
    if smoothing:
        # Against the even target the loss is logsumexp − mean; the difference of the
        # two is the label's logit minus the mean of all.
        label = jnp.where(counts, labels, 0)[..., None]
        chosen = jnp.take_along_axis(logits, label, axis=-1)[..., 0]
        values = values + smoothing * (chosen - logits.mean(axis=-1))
    weight = counts.astype(values.dtype)
    return values * weight, weight


def score_classes(logits: Array, batch: Batch) -> Scores:
    """Scores class predictions: `loss` in nats and `accuracy` in [0, 1].

    Args:
      logits: `[..., K]`.
      batch: `y` int `[...]`, with `IGNORE` where there is no label.

    >>> scores = score_classes(jnp.eye(3), {"y": jnp.array([0, 1, 1])})
    >>> scores.values["accuracy"].tolist()
    [1.0, 1.0, 0.0]
    """
    loss, weight = cross_entropy(logits, batch["y"])
    return Scores({"loss": loss, "accuracy": accuracy(logits, batch["y"])}, weight)


def label_weights(labels: Array, weights: Sequence[float] | None = None) -> Array:
    """Returns the weight of each label: that of its class, or 0 where it is ignored.

    Args:
      labels: int `[...]`, `IGNORE` (−100) where there is no label.
      weights: the weight of each class; None is 1 each.

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
      smoothing: the share of the target that is spread evenly over all classes.
      weights: the weight of each class; None is 1 each.
      class_logits: `class_logits(outputs, batch)` returns the logits of the classes,
        `[..., K]`, for each entry of `y`; the default returns the outputs.
      joint: whether the last axis of `y` holds labels of one entry, such as the start
        and end of an answer: the loss is their mean, and all must be right.

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
        right = accuracy(logits, labels)
        if joint:
            loss, right, weight = loss.mean(-1), right.prod(-1), weight[..., 0]
        return Scores({"loss": loss, "accuracy": right}, weight)

    return Objective(score, "accuracy", higher_is_better=True)


def score_values(outputs: Array, batch: Batch) -> Scores:
    """Scores predicted values: `loss`, the squared error.

    Args:
      outputs: `[..., 1]`.
      batch: `y` float `[...]`. Standardised by the training part, so that an error of
        1 is what the training mean would score.

    >>> score_values(jnp.ones((1, 1)), {"y": jnp.array([3.0])}).values["loss"].tolist()
    [4.0]
    """
    loss = jnp.square(outputs[..., 0] - batch["y"])
    return Scores({"loss": loss}, jnp.ones_like(loss))


def score_bytes(logits: Array, batch: Batch) -> Scores:
    """Scores next-byte predictions: `loss` in nats and `bits` per byte.

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
    """Returns 1 where the largest logit is the label's and 0 elsewhere.

    Args:
      logits: `[..., K]`.
      labels: int `[...]`; a negative label is never hit.

    Returns:
      `[...]` in the dtype of `logits`. Of equal logits the first counts as largest; a
      row with a NaN scores 0.

    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    hit = jnp.argmax(logits, axis=-1) == labels
    return (hit & ~jnp.isnan(logits).any(axis=-1)).astype(logits.dtype)


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
    """Returns the weighted mean of each score; 0 where nothing counts.

    >>> scores = Scores({"loss": jnp.array([1.0, 5.0])}, jnp.array([1.0, 0.0]))
    >>> float(means(scores)["loss"])
    1.0
    """
    return average(*totals(scores))


def average(sums: dict[str, Array], weight: Array) -> dict[str, Array]:
    """Returns sums over their weight; 0 where nothing counts.

    >>> float(average({"loss": jnp.array(6.0)}, jnp.array(4.0))["loss"])
    1.5
    """
    return {name: value / jnp.maximum(weight, 1e-9) for name, value in sums.items()}


def mean_loss(model: Model, objective: Objective) -> Loss:
    """Returns `loss(params, batch, key)`, the mean of an objective's loss.

    Args:
      model: The model; `apply(params, x, key)` takes the key of its dropout last.
      objective: Its score named `loss` is averaged over what counts.
    """

    def loss(params: Params, batch: Batch, key: Key) -> Array:
        outputs, _ = model.apply(params, batch["x"], key)
        return means(objective.score(outputs, batch))["loss"]

    return loss
