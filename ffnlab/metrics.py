"""Scores that are read, not trained on."""

import jax.numpy as jnp

from ffnlab.types import Array, Scores


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
