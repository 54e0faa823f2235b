"""What is minimised: cross-entropy and squared error, as means over what counts."""

from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.tensor import Primitive, Tensor, array, floating

IGNORE = -100  # a label that stays out of every mean


def _softmax(x, *, axis=-1):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _softmax_rule(g, y, x, axis=-1):
    return y * (g - ops.sum(g * y, axis=axis, keepdims=True))


softmax = Primitive(_softmax, _softmax_rule)


def _surprise(x, *, labels):
    """−log softmax(x)[label], row by row: `[N, K]`, int `[N]` → `[N]`."""
    top = x.max(axis=1)
    total = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
    return total - x[np.arange(len(labels)), labels]


def _surprise_rule(g, y, x, labels):
    onehot = np.zeros(x.shape, x.dtype)
    onehot[np.arange(len(labels)), labels] = 1
    return ops.reshape(g, shape=(len(labels), 1)) * (softmax(x) - onehot)


surprise = Primitive(_surprise, _surprise_rule)


def cross_entropy(logits: Any, labels: Any) -> Tensor:
    """Returns the mean of −log softmax(logits)[label], in nats.

    Args:
      logits: `[..., K]`.
      labels: int `[...]` in 0…K−1, or `IGNORE` (−100) where there is none: those stay
        out of the mean, which is 0 where no label counts.

    Raises:
      ValueError: shapes that do not fit, labels that are no integers or out of range.

    >>> float(cross_entropy(np.zeros((2, 4)), [3, IGNORE])).__round__(4)
    1.3863
    """
    logits, labels = floating(logits), np.asarray(array(labels))
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy of shapes {logits.shape} and {labels.shape}: expected "
            f"[..., K] and integers [...], found {labels.dtype}"
        )
    classes, labels = logits.shape[-1], labels.ravel()
    counts = labels != IGNORE
    wrong = counts & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise ValueError(
            f"cross_entropy: label {labels[wrong][0]} is not in 0…{classes - 1}"
        )
    rows = ops.reshape(logits, shape=(labels.size, classes))
    if not counts.all():  # not even a NaN of theirs reaches the mean
        rows, labels = (
            ops.where(counts[:, None], rows, 0.0),
            np.where(counts, labels, 0),
        )
    values = surprise(rows, labels=labels) * counts
    return ops.sum(values) / max(int(counts.sum()), 1)


def squared_error(outputs: Any, targets: Any) -> Tensor:
    """Returns the mean of (output − target)² over all entries, of equal shapes.

    >>> float(squared_error([1.0, 3.0], [1.0, 1.0]))
    2.0
    """
    outputs, targets = floating(outputs), floating(targets)
    if outputs.shape != targets.shape:
        raise ValueError(f"squared_error of shapes {outputs.shape} and {targets.shape}")
    gap = outputs - targets
    return ops.mean(gap * gap)
