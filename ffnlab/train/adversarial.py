"""Adversarial training: gradients at embeddings that are perturbed to raise the loss.

    loss = mean_loss(model, objective)
    gradient = fgm(loss, width=768, epsilon=1.0)  # or freelb(loss, width=768)
    result = fit(Learner(model, objective, optimizer, gradient), dataset, plan)

The perturbation is an offset to the embeddings of tokens, `x["offset"]` `[B, T, D]`.
Its norm is that of each example: of a row, or of each segment where several examples
share a row. Padding has no offset. All passes of a step have the same dropout key, so
that the offset is computed for the network that it is applied to (Zhu et al. 2020,
section 3.3).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ffnlab.types import Array, Batch, Gradient, Key, Loss, Params

_START = 0x0FF5E7  # sets the draw of the first offset apart from those of dropout


def offset_norms(offset: Array, segment_ids: Array | None = None) -> Array:
    """Returns, for each token, the Frobenius norm of the offset of its example.

    Args:
      offset: The offset of each token's embedding, `[B, T, D]`.
      segment_ids: The example of each token, int `[B, T]`; None is one example per row.

    Returns:
      `[B, T]`.

    >>> offset = jnp.array([[[3.0], [4.0], [2.0]]])
    >>> offset_norms(offset, jnp.array([[0, 0, 1]])).tolist()
    [[5.0, 5.0, 2.0]]
    """
    squares = jnp.square(offset).sum(axis=-1)  # [B, T]
    if segment_ids is None:
        total = squares.sum(axis=1, keepdims=True)
        return jnp.sqrt(jnp.broadcast_to(total, squares.shape))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]  # [B, T, T]
    return jnp.sqrt(jnp.einsum("bts,bs->bt", same.astype(squares.dtype), squares))


def rescale(offset: Array, size: float, segment_ids: Array | None = None) -> Array:
    """Returns offsets whose norm is `size` for each example; an offset of 0 stays 0.

    Args:
      offset: The offset of each token's embedding, `[B, T, D]`.
      size: The norm of an example's offset.
      segment_ids: See `offset_norms`.

    Returns:
      `[B, T, D]`.
    """
    norm = offset_norms(offset, segment_ids)[..., None]
    return jnp.where(norm > 0, size * offset / jnp.where(norm > 0, norm, 1.0), 0.0)


def project(offset: Array, radius: float, segment_ids: Array | None = None) -> Array:
    """Returns offsets whose norm is at most `radius` for each example.

    Args:
      offset: The offset of each token's embedding, `[B, T, D]`.
      radius: The largest norm of an example's offset; longer ones are rescaled to it.
      segment_ids: See `offset_norms`.

    Returns:
      `[B, T, D]`.

    >>> project(jnp.array([[[3.0, 0.0]], [[0.5, 0.0]]]), 1.0)[:, 0, 0].tolist()
    [1.0, 0.5]
    """
    norm = offset_norms(offset, segment_ids)[..., None]
    return jnp.where(norm > radius, rescale(offset, radius, segment_ids), offset)


def fgm(loss: Loss, width: int, epsilon: float) -> Gradient:
    """Returns the gradient of the loss plus the loss at an adversarial offset (FGM).

    That is, of loss(δ = 0) + loss(δ = ε g / ‖g‖), where g is the gradient with respect
    to δ at 0.

    Args:
      loss: `loss(params, batch, key)` of a model that takes `x["offset"]`.
      width: D, the width of the embeddings.
      epsilon: ε, the norm of an example's offset.

    Source: Miyato et al. 2017, equations 4 to 6.
    """

    def gradient(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        zero = jnp.zeros((*batch["x"]["tokens"].shape, width))  # [B, T, D]
        clean, (grads, slope) = _differentiate(loss)(params, zero, batch, key)
        slope = slope * _token_mask(batch)
        offset = rescale(slope, epsilon, batch["x"].get("segment_ids"))
        adversarial, more = jax.value_and_grad(loss)(
            params, _add_offset(batch, offset), key
        )
        return clean + adversarial, jax.tree.map(jnp.add, grads, more)

    return gradient


def freelb(
    loss: Loss,
    width: int,
    steps: int = 3,
    step_size: float = 0.1,
    radius: float = 0.5,
    start: float = 0.1,
) -> Gradient:
    """Returns the mean gradient over K steps of gradient ascent in the offset (FreeLB).

    δ₀ is uniform in ±start / √(T D), where T is the number of tokens of the example;
    δ ← Π(δ + step_size · g / ‖g‖), and Π projects onto the ball of the radius. The loss
    is the mean over δ₀ to δ of step K − 1.

    Args:
      loss: `loss(params, batch, key)` of a model that takes `x["offset"]`.
      width: D, the width of the embeddings.
      steps: K, the number of steps.
      step_size: The norm of a step.
      radius: The largest norm of an example's offset.
      start: The largest norm of the first offset; 0 starts at the embeddings
        themselves.

    Source: Zhu et al. 2020, algorithm 1.
    """

    def gradient(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        segment_ids, mask = batch["x"].get("segment_ids"), _token_mask(batch)

        def ascend(carry: tuple, _: None) -> tuple[tuple, None]:
            offset, sums = carry
            value, (grads, slope) = _differentiate(loss)(params, offset, batch, key)
            step = rescale(slope * mask, step_size, segment_ids)
            sums = jax.tree.map(lambda a, b: a + b / steps, sums, (value, grads))
            return (project(offset + step, radius, segment_ids), sums), None

        length = offset_norms(mask, segment_ids)[..., None]  # √T of the example
        shape, draw_key = (*mask.shape[:2], width), jax.random.fold_in(key, _START)
        draw = jax.random.uniform(draw_key, shape, minval=-start, maxval=start)
        offset = draw * mask / (jnp.maximum(length, 1.0) * width**0.5)
        first = project(offset, radius, segment_ids)
        outputs = jax.eval_shape(
            jax.value_and_grad(loss), params, _add_offset(batch, first), key
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        return jax.lax.scan(ascend, (first, zeros), length=steps)[0][1]

    return gradient


def _add_offset(batch: Batch, offset: Array) -> Batch:
    """Returns a batch whose embeddings are perturbed by an offset."""
    return {**batch, "x": {**batch["x"], "offset": offset}}


def _differentiate(loss: Loss) -> Callable[..., tuple[Array, tuple[Params, Array]]]:
    """Returns a loss with its gradients by the parameters and by the offset."""

    def of_offset(params: Params, offset: Array, batch: Batch, key: Key) -> Array:
        return loss(params, _add_offset(batch, offset), key)

    return jax.value_and_grad(of_offset, argnums=(0, 1))


def _token_mask(batch: Batch) -> Array:
    """Returns 1 where there is a token and 0 at padding, `[B, T, 1]`."""
    tokens, mask = batch["x"]["tokens"], batch["x"].get("mask")
    mask = jnp.ones(tokens.shape) if mask is None else mask.astype(float)
    return mask[..., None]
