"""Texts pushed against their labels: gradients at embeddings that are made harder.

    gradient = fgm(mean_loss(model, objective), width=768, epsilon=1.0)
    gradient = freelb(mean_loss(model, objective), width=768)
    found = fit(model, objective, optimizer, dataset, plan, gradient=gradient)

The push is an offset to the embeddings of tokens, `x["offset"]` `[B, T, D]`. Its size
is that of each text: of a row, or of each pack where several share one. Padding has
none. All passes of a step have the same dropout key, so that a push is aimed at the
very network that it meets; with another mask it would be aimed at another one (Zhu et
al. 2020, section 3.3).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ffnlab.types import Array, Batch, Gradient, Key, Loss, Params

_START = 0x0FF5E7  # sets the draw of the first offset apart from those of dropout


def offset_norms(offset: Array, segment_ids: Array | None = None) -> Array:
    """Returns the Frobenius norm of the offset of each token's text.

    Args:
      offset: `[B, T, D]`.
      segment_ids: int `[B, T]`, the text of each token; None is one a row.

    Returns:
      `[B, T]`.

    >>> offset_norms(jnp.array([[[3.0], [4.0], [2.0]]]), jnp.array([[0, 0, 1]])).tolist()
    [[5.0, 5.0, 2.0]]
    """
    squares = jnp.square(offset).sum(axis=-1)  # [B, T]
    if segment_ids is None:
        whole = squares.sum(axis=1, keepdims=True)
        return jnp.sqrt(jnp.broadcast_to(whole, squares.shape))
    same = (segment_ids[:, :, None] == segment_ids[:, None, :]).astype(
        squares.dtype
    )  # [B, T, T]
    return jnp.sqrt(jnp.einsum("bts,bs->bt", same, squares))


def rescale(offset: Array, size: float, segment_ids: Array | None = None) -> Array:
    """Returns offsets whose norm is `size` for each text; one of 0 stays 0."""
    norm = offset_norms(offset, segment_ids)[..., None]
    return jnp.where(norm > 0, size * offset / jnp.where(norm > 0, norm, 1.0), 0.0)


def project(offset: Array, radius: float, segment_ids: Array | None = None) -> Array:
    """Returns offsets whose norm is at most `radius` for each text.

    >>> project(jnp.array([[[3.0, 0.0]], [[0.5, 0.0]]]), 1.0)[:, 0, 0].tolist()
    [1.0, 0.5]
    """
    norm = offset_norms(offset, segment_ids)[..., None]
    return jnp.where(norm > radius, rescale(offset, radius, segment_ids), offset)


def fgm(loss: Loss, width: int, epsilon: float) -> Gradient:
    """Returns the gradient of a loss and of that after one step uphill, added.

    loss(δ = 0) + loss(δ = ε g / ‖g‖), where g is the gradient by δ at 0.

    Args:
      loss: `loss(params, batch, key)` of a model that takes `x["offset"]`.
      width: D, of the embeddings.
      epsilon: ε, of the offset of a text.

    Source: Miyato et al. 2017, equations 4 to 6.
    """

    def gradient(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        none = jnp.zeros((*batch["x"]["tokens"].shape, width))  # [B, T, D]
        clean, (grads, uphill) = _at(loss)(params, none, batch, key)
        uphill = uphill * _there(batch)
        offset = rescale(uphill, epsilon, batch["x"].get("segment_ids"))
        pushed, more = jax.value_and_grad(loss)(params, _with(batch, offset), key)
        return clean + pushed, jax.tree.map(jnp.add, grads, more)

    return gradient


def freelb(
    loss: Loss,
    width: int,
    steps: int = 3,
    step_size: float = 0.1,
    radius: float = 0.5,
    start: float = 0.1,
) -> Gradient:
    """Returns the gradient in the mean over K steps uphill.

    δ₀ is even in ±start / √(T D), T being the tokens of the text;
    δ ← Π(δ + step_size · g / ‖g‖), and Π takes what is longer back to the radius. The
    loss is the mean at δ₀ to δ of step K − 1.

    Args:
      loss: `loss(params, batch, key)` of a model that takes `x["offset"]`.
      width: D, of the embeddings.
      steps: K.
      step_size: the length of a step.
      radius: the most that the offset of a text may be.
      start: the most that the first one may be; 0 begins at the texts themselves.

    Source: Zhu et al. 2020, algorithm 1.
    """

    def gradient(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        segment_ids, there = batch["x"].get("segment_ids"), _there(batch)

        def climb(carry: tuple, _: None) -> tuple[tuple, None]:
            offset, sums = carry
            value, (grads, uphill) = _at(loss)(params, offset, batch, key)
            step = rescale(uphill * there, step_size, segment_ids)
            sums = jax.tree.map(lambda a, b: a + b / steps, sums, (value, grads))
            return (project(offset + step, radius, segment_ids), sums), None

        length = offset_norms(there, segment_ids)[..., None]  # √T of the text
        draw = jax.random.uniform(
            jax.random.fold_in(key, _START), (*there.shape[:2], width),
            minval=-start, maxval=start,
        )  # fmt: skip
        offset = draw * there / (jnp.maximum(length, 1.0) * width**0.5)
        begin = project(offset, radius, segment_ids)
        shape = jax.eval_shape(
            jax.value_and_grad(loss), params, _with(batch, begin), key
        )
        zeros = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shape)
        return jax.lax.scan(climb, (begin, zeros), length=steps)[0][1]

    return gradient


def _with(batch: Batch, offset: Array) -> Batch:
    return {**batch, "x": {**batch["x"], "offset": offset}}


def _at(loss: Loss) -> Callable[..., tuple[Array, tuple[Params, Array]]]:
    """Returns a loss with its gradients, by the parameters and by the offset."""

    def there(params: Params, offset: Array, batch: Batch, key: Key) -> Array:
        return loss(params, _with(batch, offset), key)

    return jax.value_and_grad(there, argnums=(0, 1))


def _there(batch: Batch) -> Array:
    """Returns 1 where there is a token, and 0 at padding, `[B, T, 1]`."""
    tokens, mask = batch["x"]["tokens"], batch["x"].get("mask")
    there = jnp.ones(tokens.shape) if mask is None else mask.astype(float)
    return there[..., None]
