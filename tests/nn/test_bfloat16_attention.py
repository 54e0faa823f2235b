"""Attention in bfloat16, by products for the matrix units of a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.nn import bfloat16_attention, bfloat16_linear
from ffnlab.nn.attention import attend, attention_mask
from ffnlab.nn.attention_kernel import Kernel
from ffnlab.nn.dropout import dropout
from tests.nn.matrix_units import draw, needs_units, operands_of_products

B, T, S, N, WIDTH = 2, 24, 32, 4, 16
KEY = jax.random.key(0)


def arrays(heads=N, queries=T):
    query, slope = (draw(B, queries, N, WIDTH, seed=seed) for seed in (0, 3))
    key, value = (draw(B, S, heads, WIDTH, seed=seed) for seed in (1, 2))
    return query, key, value, slope


def segments():
    """A mask of two texts; the first query of the first row attends to nothing."""
    queries, keys = jnp.arange(T) // 12, jnp.arange(S) // 16
    mask = (queries[:, None] == keys[None])[None, None]
    return jnp.tile(mask, (B, 1, 1, 1)).at[0, :, 0].set(False)


def oracle(query, key, value, slope, mask, kept):
    """Returns the sums and the slopes of queries, keys and values, in float64.

    Args:
      query: `[B, T, N, h]`.
      key: `[B, S, N, h]`.
      value: `[B, S, N, h]`.
      slope: `[B, T, N, h]`.
      mask: Bool `[B, 1, T, S]`.
      kept: What the weights are multiplied with, `[B, N, T, S]`.
    """
    query, key, value, slope, kept = (
        np.asarray(each, np.float64) for each in (query, key, value, slope, kept)
    )
    scale = 1 / np.sqrt(query.shape[-1])
    scores = scale * np.einsum("btnh,bsnh->bnts", query, key)
    scores = np.where(mask, scores, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    dropped = weights * kept
    y = np.einsum("bnts,bsnh->btnh", dropped, value)
    weight_slope = kept * np.einsum("btnh,bsnh->bnts", slope, value)
    score_slope = weight_slope - (weight_slope * weights).sum(-1, keepdims=True)
    score_slope = np.where(mask, scale * weights * score_slope, 0.0)
    return (
        y,
        np.einsum("bnts,bsnh->btnh", score_slope, key),
        np.einsum("bnts,btnh->bsnh", score_slope, query),
        np.einsum("bnts,btnh->bsnh", dropped, slope),
    )


def pull(query, key, value, slope, mask=None, dropout_key=None, rate=0.0):
    def run(*args):
        return attend(*args, mask, dropout_key, rate)

    y, pullback = jax.vjp(run, query, key, value)
    return y, *pullback(slope)


def assert_near(found, expected):
    """Each to the rounding of a few bfloat16, of their norm."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.bfloat16 and one.shape == other.shape
        one, other = (np.asarray(each, np.float64) for each in (one, other))
        assert np.linalg.norm(one - other) < 2**-7 * np.linalg.norm(other)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("masked", [True, False])
def test_sums_and_their_gradients(units, compiled, rate, masked):
    mask = segments() if masked else None
    args = (*arrays(), mask, KEY if rate else None)
    run = functools.partial(pull, rate=rate)
    found = (jax.jit(run) if compiled else run)(*args)
    kept = jnp.ones((B, N, T, S))
    kept = dropout(kept, KEY, rate) if rate else kept
    mask = np.ones((1, 1, T, S), bool) if mask is None else np.asarray(mask)
    assert_near(found, oracle(*arrays(), mask, kept))


def test_queries_that_share_keys_in_groups(units):
    query, key, value, slope = arrays(heads=2)
    found = jax.jit(pull)(query, key, value, slope)
    wide = (jnp.repeat(each, 2, axis=2) for each in (key, value))
    y, slope_q, *slopes = oracle(query, *wide, slope, True, np.ones((1, 1, 1, 1)))
    summed = (each.reshape(B, S, 2, 2, WIDTH).sum(3) for each in slopes)
    assert_near(found, (y, slope_q, *summed))


def test_it_is_what_xla_computes_elsewhere(monkeypatch):
    args = (*arrays(), segments(), KEY)
    for rate in (0.0, 0.25):
        found = []
        for has_units in (True, False):
            monkeypatch.setattr(
                bfloat16_linear,
                "has_matrix_units",
                lambda: has_units,  # noqa: B023
            )
            run = functools.partial(pull, rate=rate)
            found.append(jax.jit(run)(*args))
            graph = str(jax.make_jaxpr(functools.partial(attend))(*args[:3]))
            assert ("custom_vjp" in graph) == has_units
        assert_near(*found)


def test_which_arrays_are_taken(units, monkeypatch):
    query, key, value, _ = arrays()
    takes = bfloat16_attention.takes
    assert takes(query, key, value) and takes(query, key[:, :, :2], value[:, :, :2])
    assert not takes(query[:, :15], key, value)  # a step of decoding has one query
    assert not takes(query, key[:, :15], value[:, :15])
    assert not takes(*(each[..., :15] for each in (query, key, value)))
    assert not takes(*(each.astype("float32") for each in (query, key, value)))
    assert not takes(query, key, value.astype("float32"))
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not takes(query, key, value)
    with pytest.raises(Exception, match="cudnn|cuDNN|GPU|gpu"):  # what is asked for
        attend(query, key, value, kernel=Kernel("cudnn"))
    monkeypatch.setattr(bfloat16_linear, "has_matrix_units", lambda: False)
    assert not takes(query, key, value)


def test_a_population_computes_what_each_of_its_members_does(units):
    query, key, value, slope = arrays()
    several = [jnp.stack([each, -each]) for each in (query, key, value, slope)]
    found = jax.jit(jax.vmap(pull))(*several)
    for i in range(2):
        expected = pull(*(each[i] for each in several))
        assert_near([each[i] for each in found], expected)


@pytest.mark.parametrize("recompute", [True, False])
def test_layers_in_a_scan(units, recompute):
    x, mask = draw(B, T, N, WIDTH), attention_mask(T, causal=True)

    def layer(x, scale):
        return attend(x, scale * x, x, mask) + x, None

    def loss(x, scales):
        step = jax.checkpoint(layer) if recompute else layer
        return jnp.sum(jax.lax.scan(step, x, scales)[0].astype(jnp.float32))

    def unrolled(x, scales):
        for scale in scales:
            x, _ = layer(x, scale)
        return jnp.sum(x.astype(jnp.float32))

    scales = jnp.asarray([1.0, 0.5], jnp.bfloat16)
    found = jax.jit(jax.grad(loss))(x, scales)
    assert_near([found], [jax.grad(unrolled)(x, scales)])


@needs_units
def test_xla_multiplies_bfloat16():
    """Where it does not like the form of a product, it converts to float32 first."""
    # Two forward, and two backward for each.
    assert operands_of_products(pull, *arrays()) == [("bf16", "bf16")] * 6
