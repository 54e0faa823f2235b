"""What an optimizer is given: losses of a batch, and gradients made of them.

    loss = r_drop(model, objective, alpha=1.0)      # loss(params, batch, key)
    gradient = accumulated(mean_gradient(loss), parts=4, count=count)
    found = fit(model, objective, optimizer, dataset, plan, gradient=gradient)

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
    """Returns a loss with its gradient.

    >>> gradient = mean_gradient(lambda params, batch, key: params["w"] ** 2)
    >>> value, grads = gradient({"w": jnp.float32(3.0)}, {}, jax.random.key(0))
    >>> float(value), float(grads["w"])
    (9.0, 6.0)
    """
    return jax.value_and_grad(loss)


def accumulate(
    gradient: Gradient, parts: int, count: Callable[[Batch], Array]
) -> Gradient:
    """Returns a gradient that is gathered from parts of the batch, one after another.

    It takes the memory of one part. Without dropout it is that of the whole batch, if
    the loss is a mean by the weights that `count` adds up.

    Args:
      gradient: of a batch.
      parts: how many; they must divide the batch. Each has a key of its own.
      count: `count(batch)`, the sum of the weights of what is averaged in a batch, such
        as that of `finetuning.counted(batch["y"])`.

    Raises:
      InputError: the batch does not divide.

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

    def gathered(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        if rows % parts:
            raise InputError(
                f"accumulate: {parts} parts of a batch of {rows} rows would not be "
                "equal; give a divisor, or another batch size"
            )
        cut = jax.tree.map(
            lambda each: each.reshape(parts, rows // parts, *each.shape[1:]), batch
        )
        keys = jax.vmap(lambda part: jax.random.fold_in(key, part))(jnp.arange(parts))
        weights = jax.vmap(count)(cut)  # [parts]
        shares = weights / jnp.maximum(weights.sum(), 1e-9)

        def add(sums: tuple, part: tuple) -> tuple[tuple, None]:
            share, batch, key = part
            found = gradient(params, batch, key)
            return jax.tree.map(
                lambda a, b: a + share.astype(b.dtype) * b, sums, found
            ), None

        first = jax.tree.map(lambda each: each[0], (cut, keys))
        shape = jax.eval_shape(gradient, params, *first)
        zeros = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shape)
        return jax.lax.scan(add, zeros, (shares, cut, keys))[0]

    return gathered


def r_drop(
    model: Model,
    objective: Objective,
    alpha: float,
    classes: Callable[[Any, Batch], Array] = lambda outputs, batch: outputs,
) -> Loss:
    """Returns the mean loss of two passes, and how far their dropout pulls them apart.

    That is α · (KL(p‖q) + KL(q‖p)) / 2, in the mean over the places with a label. The
    paper adds the two losses where this is their mean, so its α is twice this one.

    The two passes are one over the batch twice: on a CPU a step takes as long either
    way, and a doubled batch compiles sooner.

    Args:
      model: with dropout.
      objective: what is minimised.
      alpha: the weight of the divergence.
      classes: makes of outputs and batch logits `[..., K]`, of which −∞, or anything
        near it, are no class, one row for each entry of y; outputs as they are if not
        given.

    Source: Liang et al. 2021, equations 2 to 4.
    """

    def loss(params: Params, batch: Batch, key: Key) -> Array:
        twice = jax.tree.map(lambda each: jnp.concatenate([each, each]), batch)
        logits, _ = model.apply(params, twice["x"], key)
        both = objectives.means(objective.score(logits, twice))["loss"]
        apart = divergence(*jnp.split(classes(logits, twice), 2))
        weight = (batch["y"] != IGNORE).astype(apart.dtype)
        mean = objectives.means(Scores({"apart": apart}, weight))["apart"]
        return both + alpha * mean

    return loss


def divergence(one: Array, two: Array) -> Array:
    """Returns (KL(p‖q) + KL(q‖p)) / 2 of softmax p and q, in nats.

    Args:
      one: logits of p, `[..., K]`; −∞ is a chance of 0, and must be so in both.
      two: of q.

    Returns:
      `[...]`.

    >>> one = jnp.log(jnp.array([0.5, 0.5, 0.0]))
    >>> two = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    >>> round(float(divergence(one, two)), 4)
    0.1373
    """
    # The two sum to Σ (p − q)(log p − log q).
    one, two = jax.nn.log_softmax(one), jax.nn.log_softmax(two)
    there = jnp.isfinite(one) & jnp.isfinite(two)
    one, two = (jnp.where(there, each, 0.0) for each in (one, two))
    chances = jnp.where(there, jnp.exp(one) - jnp.exp(two), 0.0)
    return (chances * (one - two)).sum(axis=-1) / 2
