"""Losses: cross-entropy and squared error, as means."""

from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Primitive, Tensor, array, as_floating

IGNORE = -100  # a label that is excluded from the mean


def _softmax(x, *, axis=-1):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _softmax_rule(g, y, x, axis=-1):
    return y * (g - ops.sum(g * y, axis=axis, keepdims=True))


softmax = Primitive(_softmax, _softmax_rule)


def _negative_log_likelihood(x, *, labels):
    """Returns −log softmax(x)[label] of each row, `[N, K]`, int `[N]` → `[N]`."""
    top = x.max(axis=1)
    total = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
    return total - x[np.arange(len(labels)), labels]


def _likelihood_rule(g, y, x, labels):
    one_hot = np.zeros(x.shape, x.dtype)
    one_hot[np.arange(len(labels)), labels] = 1
    return ops.reshape(g, shape=(len(labels), 1)) * (softmax(x) - one_hot)


negative_log_likelihood = Primitive(_negative_log_likelihood, _likelihood_rule)


def cross_entropy(logits: Any, labels: Any) -> Tensor:
    """Returns the mean of −log softmax(logits)[label], in nats.

    Args:
      logits: `[..., K]`.
      labels: Int `[...]` in 0…K−1, or `IGNORE` (−100), which is excluded from the mean.
        If all labels are, the mean is 0.

    Raises:
      ValueError: The shapes do not fit, or labels are no integers or out of range.

    >>> float(cross_entropy(np.zeros((2, 4)), [3, IGNORE])).__round__(4)
    1.3863
    """
    logits, labels = as_floating(logits), np.asarray(array(labels))
    if labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy: labels are {labels.dtype}, not integers")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy of shapes {logits.shape} and {labels.shape}: expected "
            "[..., K] and [...]"
        )
    classes, labels = logits.shape[-1], labels.ravel()
    mask = labels != IGNORE
    invalid = mask & ((labels < 0) | (labels >= classes))
    if invalid.any():
        raise ValueError(
            f"cross_entropy: label {labels[invalid][0]} is not in 0…{classes - 1}"
        )
    rows = ops.reshape(logits, shape=(labels.size, classes))
    if not mask.all():  # so that not even a NaN in an ignored row reaches the mean
        rows = ops.where(mask[:, None], rows, 0.0)
        labels = np.where(mask, labels, 0)
    values = negative_log_likelihood(rows, labels=labels) * mask
    return ops.sum(values) / max(int(mask.sum()), 1)


def squared_error(outputs: Any, targets: Any) -> Tensor:
    """Returns the mean of (output − target)² over all entries, of equal shapes.

    >>> float(squared_error([1.0, 3.0], [1.0, 1.0]))
    2.0
    """
    outputs, targets = as_floating(outputs), as_floating(targets)
    if outputs.shape != targets.shape:
        raise ValueError(f"squared_error of shapes {outputs.shape} and {targets.shape}")
    difference = outputs - targets
    return ops.mean(difference * difference)
