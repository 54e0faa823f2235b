"""Where a GPU is, cuDNN gets what it can take; here XLA computes in its place."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.models.key_value_cache import empty_cache
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.nn import attention_kernel
from ffnlab.nn.attention_kernel import XLA, Kernel, choose_kernel, only_xla
from ffnlab.nn.linear import Linear
from ffnlab.nn.precision import cast
from ffnlab.nn.pure import functional
from ffnlab.sweep.spreading import spread
from tests.conftest import draw

SIZES = {"vocabulary": 11, "features": 16, "heads": 2, "hidden": 8, "layers": 1}
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 6))
SEGMENTS = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 2, 2]])
MASK = np.arange(6)[None] < np.array([[6], [4]])
HALF = jax.ShapeDtypeStruct((2, 6, 2, 8), jnp.bfloat16)
FULL = jax.ShapeDtypeStruct((2, 6, 2, 8), jnp.float32)


@pytest.fixture
def calls(monkeypatch):
    """What cuDNN is given, on a machine that pretends to have it; XLA computes."""
    attention, given = jax.nn.dot_product_attention, []

    def record(query, key, value, *, implementation=None, **options):
        if implementation == "cudnn":
            mask = options["mask"]
            given.append((options["is_causal"], None if mask is None else mask.shape))
        return attention(query, key, value, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    monkeypatch.setattr(attention_kernel, "uses_gpu", lambda: True)
    attention_kernel._refusal.cache_clear()
    yield given
    attention_kernel._refusal.cache_clear()


def outputs(config, calls, **options):
    """Returns the outputs in bfloat16, and what cuDNN got in each of the layers."""
    model = transformer_model(config)
    params = cast(draw(model, 0.3), "bfloat16")
    jax.eval_shape(lambda: model.apply(params, TOKENS, **options))
    calls.clear()  # without what JAX was asked before
    y, _ = jax.jit(lambda params: model.apply(params, TOKENS, **options))(params)
    return np.asarray(y, np.float32), [*calls]


@pytest.mark.parametrize(
    "config, options, expected",
    [
        (DecoderConfig(**SIZES), {}, (True, None)),
        (DecoderConfig(**SIZES), {"segment_ids": SEGMENTS}, (True, (2, 1, 6, 6))),
        (DecoderConfig(**SIZES, scan=True, remat=True), {}, (True, None)),
        (EncoderConfig(**SIZES), {}, (False, None)),
        (EncoderConfig(**SIZES), {"mask": MASK}, (False, (2, 1, 1, 6))),
        (
            EncoderConfig(**SIZES),
            {"mask": MASK, "segment_ids": SEGMENTS},
            (False, (2, 1, 6, 6)),
        ),
    ],
)
def test_masks_of_cudnn_are_those_of_xla(calls, config, options, expected):
    found, given = outputs(config, calls, **options)
    assert given == [expected]
    plain = dataclasses.replace(config, attention_implementation="xla")
    wanted, none = outputs(plain, calls, **options)
    assert none == []
    chex.assert_trees_all_close(found, wanted, rtol=1e-2, atol=1e-2)


PADDING = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], bool)  # at either end


@pytest.mark.parametrize("shape", [DecoderConfig, EncoderConfig])
def test_every_row_of_cudnn_attends_to_something(calls, monkeypatch, shape):
    """Otherwise training in bfloat16 beside padding ended with NaN on a GPU."""
    attention, rows = jax.nn.dot_product_attention, []

    def record(*args, mask=None, is_causal=False, implementation=None):
        if implementation == "cudnn" and mask is not None:
            seen = jnp.broadcast_to(mask, (2, 1, 6, 6))
            seen = jnp.tril(seen) if is_causal else seen
            jax.debug.callback(rows.append, seen.any(axis=-1))
        options = {"is_causal": is_causal, "implementation": implementation}
        return attention(*args, mask=mask, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    segments = np.where(PADDING, SEGMENTS, -1)
    for given in ({"mask": PADDING}, {"mask": PADDING, "segment_ids": segments}):
        config = shape(**SIZES)
        found, given_masks = outputs(config, calls, **given)
        assert len(given_masks) == 1
        plain = dataclasses.replace(config, attention_implementation="xla")
        wanted, _ = outputs(plain, calls, **given)
        text = (found[PADDING], wanted[PADDING])
        chex.assert_trees_all_close(*text, rtol=1e-2, atol=1e-2)
        assert rows and all(np.all(row) for row in rows)
        rows.clear()


def test_xla_decodes_and_drops_out(calls):
    config = DecoderConfig(**SIZES, attention_dropout=0.1)
    cache = cast(empty_cache(config, 2, 8), "bfloat16")
    assert outputs(config, calls, cache=cache)[1] == []
    assert outputs(config, calls, key=jax.random.key(0))[1] == []
    assert len(outputs(config, calls)[1]) == 1  # evaluation drops nothing
    asked = dataclasses.replace(config, attention_implementation="cudnn")
    with pytest.raises(InputError, match="^attention_implementation: cudnn .* dropout"):
        outputs(asked, calls, key=jax.random.key(0))


def test_what_cudnn_refuses_is_for_xla(calls, monkeypatch):
    assert choose_kernel("auto", HALF, HALF, causal=True) == Kernel("cudnn", True)
    assert choose_kernel("auto", FULL, FULL) == XLA
    assert choose_kernel("xla", HALF, HALF) == XLA

    def refuse(*_, **__):
        raise NotImplementedError("The head dim must be a multiple of 8.\nmore")

    attention_kernel._refusal.cache_clear()
    monkeypatch.setattr(jax.nn, "dot_product_attention", refuse)
    assert choose_kernel("auto", HALF, HALF) == XLA
    with pytest.raises(InputError, match="used: The head dim .* of 8; use auto$"):
        choose_kernel("cudnn", HALF, HALF)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("--xla_gpu_deterministic_ops=true", "xla"),
        ("--a=b --xla_gpu_exclude_nondeterministic_ops", "xla"),
        ("--xla_gpu_deterministic_ops=false", "cudnn"),
        ("--xla_gpu_autotune_level=0", "cudnn"),
    ],
)
def test_deterministic_operations_are_those_of_xla(calls, monkeypatch, flags, name):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert choose_kernel("auto", HALF, HALF).name == name


def test_masks_of_members_that_train_together_are_for_xla(calls):
    with only_xla("a reason", masked=True):
        assert choose_kernel("auto", HALF, HALF, masked=True) == XLA
        assert choose_kernel("auto", HALF, HALF, causal=True).name == "cudnn"
    names = []

    def member(x, _):
        names.append(choose_kernel("auto", HALF, HALF, masked=True).name)
        return x

    for batching in ("vmap", "map"):
        jax.eval_shape(spread(member, batching), jnp.ones((2, 1)), 0.0)
    assert names == ["xla", "cudnn"]
    with (
        only_xla("it is for a TPU"),
        pytest.raises(InputError, match="used: it is for a TPU; use auto$"),
    ):
        choose_kernel("cudnn", HALF, HALF)


def test_a_cpu_has_no_cudnn():
    assert choose_kernel("auto", HALF, HALF) == XLA
    with pytest.raises(InputError, match="^attention: cudnn .* does not use a GPU"):
        attention_kernel.require("cudnn", "bfloat16")
    with pytest.raises(InputError, match="^attention_implementation: unknown 'flash'"):
        EncoderConfig(attention_implementation="flash")
    with jax.default_device("cpu"):
        assert not attention_kernel.uses_gpu()


def test_products_of_bfloat16_are_summed_in_float32():
    """A sum of ones in bfloat16 would stay at 256; forward and in both gradients."""
    count = 1024
    model = functional(lambda r: Linear(count, count, use_bias=False, rngs=r))
    params = {"kernel": jnp.ones((count, count), jnp.bfloat16)}

    @jax.jit
    def run(params, x):
        y, pullback = jax.vjp(lambda *args: model.apply(*args)[0], params, x)
        return y, pullback(jnp.ones_like(y))

    for leaf in jax.tree.leaves(run(params, jnp.ones((count, count), jnp.bfloat16))):
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(leaf, np.float32), count)
