"""Losses of a batch, and the gradients that an optimizer receives.

    loss = r_drop(model, objective, alpha=1.0)  # loss(params, batch, key)
    gradient = accumulate(mean_gradient(loss), parts=4, count=count)
    result = fit(Learner(model, objective, optimizer, gradient), dataset, plan)

A gradient is `gradient(params, batch, key) -> (loss, gradient)`. More losses are in
`ffnlab.models.language_model`, more gradients in `ffnlab.train.adversarial`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from ffnlab.train import objectives
from ffnlab.types import (
    Array,
    Batch,
    Gradient,
    Key,
    Loss,
    Model,
    Objective,
    Params,
    Scores,
)


def mean_gradient(loss: Loss) -> Gradient:
    """Returns `gradient(params, batch, key) -> (loss, gradient)` of a loss.

    Args:
      loss: `loss(params, batch, key)`.

    >>> gradient = mean_gradient(lambda params, batch, key: params["w"] ** 2)
    >>> value, grads = gradient({"w": jnp.float32(3.0)}, {}, jax.random.key(0))
    >>> float(value), float(grads["w"])
    (9.0, 6.0)
    """
    return jax.value_and_grad(loss)


def add_penalty(loss: Loss, penalty: Callable[[Params], Array]) -> Loss:
    """Returns a loss plus a function of the parameters alone.

    Args:
      loss: `loss(params, batch, key)`.
      penalty: `penalty(params)`.

    >>> added = add_penalty(lambda params, batch, key: 1.0, lambda params: params["w"])
    >>> added({"w": 2.0}, {}, None)
    3.0
    """

    def sum_of_both(params: Params, batch: Batch, key: Key) -> Array:
        return loss(params, batch, key) + penalty(params)

    return sum_of_both


def accumulate(
    gradient: Gradient, parts: int, count: Callable[[Batch], Array]
) -> Gradient:
    """Returns a gradient that is accumulated over parts of the batch, one by one.

    It takes the memory of one part. Without dropout it equals that of the whole batch
    if the loss is a mean weighted by what `count` sums.

    Args:
      gradient: The gradient of a batch.
      parts: The number of parts, which must divide the rows of the batch. Each part
        draws its dropout from a key of its own.
      count: `count(batch)` returns the sum of the weights of what is averaged in a
        batch, for instance `label_weights(batch["y"]).sum()`.

    Raises:
      InputError: The parts do not divide the batch.

    >>> def loss(params, batch, key):
    ...     return (params["w"] * batch["y"]).mean()
    >>> def count(batch):
    ...     return jnp.array(batch["y"].size)
    >>> one = accumulate(mean_gradient(loss), 2, count)
    >>> batch = {"y": jnp.array([1.0, 2.0, 3.0, 6.0])}
    >>> float(one({"w": jnp.float32(1.0)}, batch, jax.random.key(0))[1]["w"])
    3.0
    """
    if parts == 1:
        return gradient

    def accumulated(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        if rows % parts:
            raise InputError(
                f"parts: {parts} parts of a batch of {rows} rows would not be equal; "
                "give a divisor of the rows, or another batch size"
            )
        split = jax.tree.map(
            lambda leaf: leaf.reshape(parts, rows // parts, *leaf.shape[1:]), batch
        )
        keys = jax.vmap(lambda part: jax.random.fold_in(key, part))(jnp.arange(parts))
        weights = jax.vmap(count)(split)  # [parts]
        fractions = weights / jnp.maximum(weights.sum(), 1e-9)

        def add(sums: tuple, part: tuple) -> tuple[tuple, None]:
            fraction, batch, key = part

            def add_leaf(total: Array, leaf: Array) -> Array:
                return total + fraction.astype(leaf.dtype) * leaf

            return jax.tree.map(add_leaf, sums, gradient(params, batch, key)), None

        first = jax.tree.map(lambda leaf: leaf[0], (split, keys))
        outputs = jax.eval_shape(gradient, params, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        return jax.lax.scan(add, zeros, (fractions, split, keys))[0]

    return accumulated


def r_drop(
    model: Model,
    objective: Objective,
    alpha: float,
    classes: Callable[[Any, Batch], Array] = lambda outputs, batch: outputs,
) -> Loss:
    """Returns the mean loss of two passes plus the divergence of their predictions.

    The two passes differ in their dropout. The divergence is
    α · (KL(p‖q) + KL(q‖p)) / 2, averaged over the entries with a label. The paper adds
    the two losses where this is their mean, so its α is twice this one.

    Both passes are computed as one over the concatenation of the batch with itself: a
    step takes as long on a CPU as two passes do, and compiles sooner.

    Args:
      model: The model, with dropout.
      objective: What is minimised.
      alpha: α, the weight of the divergence.
      classes: `classes(outputs, batch)` returns logits `[..., K]`, one row for each
        entry of y, in which classes that are ruled out have −∞ or a value near it. The
        default returns the outputs.

    Returns:
      `loss(params, batch, key)`.

    Source: Liang et al. 2021, equations 2 to 4.
    """

    def loss(params: Params, batch: Batch, key: Key) -> Array:
        twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch)
        outputs, _ = model.apply(params, twice["x"], key)
        mean = objectives.means(objective.score(outputs, twice))["loss"]
        values = divergence(*jnp.split(classes(outputs, twice), 2))
        weight = (batch["y"] != IGNORE).astype(values.dtype)
        scores = Scores({"divergence": values}, weight)
        return mean + alpha * objectives.means(scores)["divergence"]

    return loss


def divergence(one: Array, two: Array) -> Array:
    """Returns (KL(p‖q) + KL(q‖p)) / 2 of softmax p and q, in nats.

    Args:
      one: The logits of p, `[..., K]`. −∞ stands for a probability of 0, and must be
        at the same places in both.
      two: The logits of q, `[..., K]`.

    Returns:
      `[...]`.

    >>> one = jnp.log(jnp.array([0.5, 0.5, 0.0]))
    >>> two = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    >>> round(float(divergence(one, two)), 4)
    0.1373
    """
    # The two sum to Σ (p − q)(log p − log q).
    one, two = jax.nn.log_softmax(one), jax.nn.log_softmax(two)
    mask = jnp.isfinite(one) & jnp.isfinite(two)
    one, two = (jnp.where(mask, logs, 0.0) for logs in (one, two))
    difference = jnp.where(mask, jnp.exp(one) - jnp.exp(two), 0.0)
    return (difference * (one - two)).sum(axis=-1) / 2
