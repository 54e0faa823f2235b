"""Batch normalization, whose running statistics are updated by each training step."""

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.types import Array


class BatchNorm(nnx.Module):
    """Normalizes each feature by its mean and variance over a batch.

    The statistics are over all axes but the last: over the examples of a batch and,
    where there are any, over its positions. Nothing is masked. Padded positions and
    those with the label `IGNORE` (−100) count like all others, so pad no input of a
    model with this norm, or use another norm. In evaluation the running statistics
    normalize, and an example does not depend on the others of its batch.

    After a training step, a running statistic is `momentum` times the old one plus
    `1 − momentum` times that of the batch. The variance is that of the batch itself,
    divided by n, as in Flax; PyTorch keeps the one divided by n − 1.

    Args:
      features: Number of features.
      epsilon: Number that is added to the variance.
      momentum: Weight of the old running statistics, in [0, 1). After n steps the
        initial ones (mean 0, variance 1) have the weight momentumⁿ.
      rngs: Not used; all norms take it.

    Source: Ioffe & Szegedy 2015, "Batch Normalization", algorithms 1 and 2.

    >>> norm = BatchNorm(1, epsilon=1e-12, rngs=nnx.Rngs(0))
    >>> norm(jnp.array([[1.0], [3.0]]), training=True).tolist()
    [[-1.0], [1.0]]
    >>> [round(float(stat[0]), 4) for stat in (norm.mean, norm.var)]
    [0.2, 1.0]
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-6,
        momentum: float = 0.9,
        rngs: nnx.Rngs | None = None,
    ):
        self.epsilon, self.momentum = epsilon, momentum
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: Array, training: bool = False) -> Array:
        """Returns the normalized values, and updates the statistics in training.

        Args:
          x: `[..., F]`.
          training: Whether the statistics are those of `x`.

        Returns:
          `[..., F]`, in the dtype of `x`.

        Raises:
          InputError: In training, `x` has a single row, which has no variance.
        """
        if training:
            self.update(x)
        return self.normalize(x, training)

    def normalize(self, x: Array, training: bool = False) -> Array:
        """Returns the normalized values, and changes nothing; see `__call__`."""
        mean, var = moments(x) if training else (self.mean[...], self.var[...])
        mean, var, scale, bias = (
            part.reshape((1,) * (x.ndim - 1) + (-1,))
            for part in (mean, var, self.scale[...], self.bias[...])
        )
        y = (x - mean) * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias
        return y.astype(x.dtype)

    def update(self, x: Array) -> None:
        """Updates the running statistics by those of a batch `[..., F]`."""
        for running, new in zip((self.mean, self.var), moments(x), strict=True):
            old, new = running[...], jax.lax.stop_gradient(new)
            updated = self.momentum * old + (1 - self.momentum) * new
            running[...] = updated.astype(old.dtype)


def moments(x: Array) -> tuple[Array, Array]:
    """Returns mean and variance over all axes but the last, `[F]` each, in float32.

    The variance is the mean of squared differences from the mean.

    Raises:
      InputError: There is a single row, whose variance would be 0.

    >>> mean, var = moments(jnp.array([[1.0], [3.0]]))
    >>> mean.tolist(), var.tolist()
    ([2.0], [1.0])
    """
    if x.size == x.shape[-1]:
        raise InputError(
            "norm_kind: batch needs the variance of several rows in training, and "
            "there is a single one; use larger batches, or norm_kind=layer"
        )
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean = wide.mean(axes, keepdims=True)
    return mean.ravel(), jnp.square(wide - mean).mean(axes)


def normalize(norm: nnx.Module, x: Array, training: bool) -> Array:
    """Returns the output of a norm of any kind; one of batches updates its statistics.

    Args:
      norm: The norm.
      x: `[..., F]`.
      training: Whether this is training; only a `BatchNorm` differs then.
    """
    return norm(x, training) if isinstance(norm, BatchNorm) else norm(x)
