"""Rotary positions and the pairs of positions that attend."""

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.nn.attention import attention_mask
from ffnlab.nn.positions import rotary, sinusoids


def test_products_of_rotated_vectors_depend_on_distance():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 1, 1, 1, 6)).astype(np.float32)

    @jax.jit
    def products(positions):  # [pairs, 2]
        vectors = (
            rotary(jnp.tile(vector, (len(positions), 1, 1, 1)), positions[:, i, None])
            for i, vector in enumerate((query, key))
        )
        return (next(vectors) * next(vectors)).sum(axis=(1, 2, 3))

    near, far, other = products(np.array([[7, 3], [104, 100], [7, 4]]))
    np.testing.assert_allclose(near, far, rtol=1e-4)
    assert abs(near - other) > 1e-3
    shape = jax.eval_shape(lambda p: sinusoids(p, 6), np.arange(5)[None]).shape
    assert shape == (1, 5, 6)


def test_attention_masks():
    assert attention_mask(3) is None
    segment_ids, mask = np.array([[1, 1, 2]]), np.array([[True, True, False]])
    pairs = attention_mask(3, causal=True, mask=mask, segment_ids=segment_ids)[0, 0]
    assert pairs.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
