"""Objectives: what a model's outputs score against a batch.

Every score is a value and a weight for each entry, so that padding and ignored labels
stay out of every mean: a mean is always `sum(value · weight) / sum(weight)`.
"""

import math

import jax.numpy as jnp
import optax

from ffnlab.data.dataset import IGNORE
from ffnlab.types import Array, Batch, Objective, Scores


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
