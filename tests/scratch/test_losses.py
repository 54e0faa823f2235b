"""Losses against JAX and optax, in float64: the value, the vjp, and theirs."""

import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.scratch import losses, vjp
from tests.scratch.agreement import check_function, normals

pytestmark = pytest.mark.usefixtures("x64")


def test_cross_entropy_leaves_ignored_labels_out():
    import optax

    labels = np.array([[0, 2, losses.IGNORE], [losses.IGNORE, 1, 1]])

    def theirs(logits):
        counts = labels != losses.IGNORE
        values = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(counts, labels, 0)
        )
        return jnp.where(counts, values, 0.0).sum() / counts.sum()

    (logits,) = normals(0, (2, 3, 4))
    check_function(lambda x: losses.cross_entropy(x, labels), theirs, [logits])
    logits[0, 2] = np.nan  # padding may hold anything
    value, pull = vjp(lambda x: losses.cross_entropy(x, labels), logits)
    assert np.isfinite(value) and not pull(1.0)[0][0, 2].any()
    nothing = np.full((2, 3), losses.IGNORE)
    assert float(losses.cross_entropy(np.ones((2, 3, 4)), nothing)) == 0.0


def test_squared_error():
    check_function(
        losses.squared_error,
        lambda a, b: ((a - b) ** 2).mean(),
        normals(0, (3, 2), (3, 2)),
    )
