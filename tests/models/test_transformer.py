"""Transformers: oracles, and what must not matter: padding, packing, caches, stacks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models.transformer import (
    DecoderConfig,
    EncoderConfig,
    empty_cache,
    stack_layers,
    transformer_model,
    unstack_layers,
)
from ffnlab.nn import ffn, pure
from ffnlab.nn.attention import attend, visible
from ffnlab.nn.positions import rotary, sinusoids
from tests import oracles

SMALL = {"vocabulary": 11, "features": 8, "layers": 2, "heads": 2, "hidden": 12}
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 6))
KEY = jax.random.key(0)


def encoder(**options):
    return EncoderConfig(**{**SMALL, **options})


def decoder(**options):
    return DecoderConfig(**{**SMALL, **options})


def wide(params, scale=20.0):
    """Parameters large enough that nothing is nearly 0."""
    return jax.tree.map(lambda p: p * scale if p.ndim > 1 else p, params)


def made(config):
    model = transformer_model(config)
    return model._replace(apply=jax.jit(model.apply)), wide(model.init(KEY))


def close(found, expected, **options):
    chex.assert_trees_all_close(
        found, expected, **{"rtol": 2e-5, "atol": 2e-5, **options}
    )


CONFIGS = {
    "bert": encoder(pooler=True),
    "bert with a head": encoder(head="tied", types=0),
    "gpt2": decoder(),
    "rotary": decoder(positions="rotary", norm_kind="rms", block="swiglu", bias=False),
    "sinusoidal": encoder(positions="sinusoidal", norm="pre"),
    "grouped": decoder(heads=4, key_value_heads=2, block=("geglu", "mlp:relu2")),
    "no positions": decoder(positions="none", key_value_heads=1),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_against_numpy(name, x64):
    config = CONFIGS[name]
    model, params = made(config)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    mask = np.ones_like(TOKENS, bool)
    mask[1, 4:] = False
    y, aux = model.apply(params, TOKENS, mask)
    expected = oracles.transformer(
        TOKENS, mask, jax.tree.map(np.asarray, params), config
    )
    close(np.asarray(y)[mask], expected["y"][mask], rtol=1e-4, atol=1e-4)
    if config.pooler:
        close(aux["pooled"], expected["pooled"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_touches_nobody(name):
    model, params = made(CONFIGS[name])
    alone, _ = model.apply(params, TOKENS[1:, :4])
    mask = np.arange(6)[None] < np.array([[6], [4]])
    for padding in (0, 7):
        tokens = np.where(mask, TOKENS, padding)
        padded, _ = model.apply(params, tokens, mask)
        close(padded[1:, :4], alone)


def test_a_causal_model_does_not_see_what_follows():
    model, params = made(decoder())
    before, _ = model.apply(params, TOKENS)
    changed = TOKENS.copy()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    after, _ = model.apply(params, changed)
    close(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_sequences_that_share_a_row_do_not_meet(name):
    """Packed and unpacked, every token has equal outputs."""
    model, params = made(CONFIGS[name])
    lengths = (3, 1, 2)
    parts = np.split(TOKENS[0], np.cumsum(lengths)[:-1])
    segment_ids = np.repeat([1, 2, 3], lengths)[None]
    packed, _ = model.apply(params, TOKENS[:1], segment_ids=segment_ids)
    alone = [model.apply(params, part[None])[0][0] for part in parts]
    close(packed[0], np.concatenate(alone))


@pytest.mark.parametrize("name", ["gpt2", "rotary", "grouped", "no positions"])
@pytest.mark.parametrize("scan", [False, True])
def test_decoding_with_a_cache(name, scan):
    """Three tokens at once, then one by one, in one compilation."""
    config = CONFIGS[name]
    if scan and len(set(config.blocks)) > 1:
        config = decoder(key_value_heads=1, scan=True)
    elif scan:
        config = type(config)(**{**vars(config), "scan": True})
    model, params = made(config)
    whole, _ = model.apply(params, TOKENS)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def one(tokens, cache):
        logits, aux = model.apply(params, tokens, cache=cache)
        return logits, aux["cache"]

    logits, aux = model.apply(params, TOKENS[:, :3], cache=empty_cache(config, 2, 8))
    found, cache = [logits], aux["cache"]
    for place in range(3, 6):
        logits, cache = one(TOKENS[:, place : place + 1], cache)
        found.append(logits)
    close(jnp.concatenate(found, axis=1), whole)


@pytest.mark.parametrize("name", ["bert", "rotary"])
def test_a_stack_is_the_same_model(name):
    config = CONFIGS[name]
    model, params = made(config)
    stack = transformer_model(type(config)(**{**vars(config), "scan": True}))
    y, aux = model.apply(params, TOKENS)
    found, other = stack.apply(stack_layers(params), TOKENS)
    close((found, other["states"]), (y, aux["states"]))
    close(unstack_layers(stack_layers(params)), params, rtol=0, atol=0)
    shapes = jax.eval_shape(stack.init, KEY)
    chex.assert_trees_all_equal_shapes(stack_layers(params), shapes)
    dropped = stack.apply(stack_layers(params), TOKENS, key=KEY)[0]
    assert dropped.shape == y.shape


def test_a_stack_is_compiled_once_for_any_depth():
    def lines(layers, scan):
        model = transformer_model(encoder(layers=layers, scan=scan))
        shapes = jax.eval_shape(model.init, KEY)
        return len(jax.jit(model.apply).lower(shapes, TOKENS).as_text().splitlines())

    assert lines(3, True) == lines(9, True)
    assert lines(9, False) > 2 * lines(3, False)


@pytest.mark.parametrize("scan", [False, True])
def test_recomputing_changes_no_gradient(scan):
    plain, again = (
        transformer_model(decoder(remat=remat, scan=scan)) for remat in (False, True)
    )
    params = wide(plain.init(KEY))

    def loss(model):
        return lambda params: jnp.square(model.apply(params, TOKENS)[0]).mean()

    close(jax.grad(loss(plain))(params), jax.grad(loss(again))(params))
    text = str(jax.make_jaxpr(jax.grad(loss(again)))(params))
    assert "remat" in text


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_dropped_out_weights_are_unbiased_and_others_are_the_librarys(heads):
    query, few = (
        jax.random.normal(jax.random.key(n), (2, 5, h, 3))
        for n, h in ((0, 4), (1, heads))
    )
    mask = jnp.tril(jnp.ones((1, 1, 5, 5), bool))
    expected = attend(query, few, few + 1.0, mask)
    none = attend(query, few, few + 1.0, mask, KEY, 1e-9)
    chex.assert_trees_all_close(none, expected, rtol=1e-5, atol=1e-6)
    keys = jax.random.split(KEY, 4000)
    some = jax.vmap(lambda k: attend(query, few, few + 1.0, mask, k, 0.4))(keys)
    assert float(some.std(axis=0).min()) > 0.0
    chex.assert_trees_all_close(some.mean(axis=0), expected, atol=0.12)


def test_attention_weights_are_dropped_in_training_alone():
    config = encoder(attention_dropout=0.5)
    model = transformer_model(config)
    params = wide(model.init(KEY), 5.0)
    plain, _ = model.apply(params, TOKENS)
    without, _ = transformer_model(encoder()).apply(params, TOKENS, key=KEY)
    dropped, _ = model.apply(params, TOKENS, key=KEY)
    chex.assert_trees_all_equal(plain, without)
    assert bool((dropped != plain).any())
    with pytest.raises(InputError, match=r"attention_dropout=1.0 must be in \[0, 1\)"):
        encoder(attention_dropout=1.0)


def test_gradients_are_those_of_finite_differences(x64):
    model = transformer_model(decoder(positions="rotary", block="swiglu", layers=1))
    params = wide(model.init(KEY), 5.0)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    check_grads(
        jax.jit(lambda p: jnp.sin(model.apply(p, TOKENS)[0]).mean()),
        (params,),
        order=1,
        modes=["rev"],
        eps=1e-3,  # coarse, since the softmax is in float32
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("block", [*ffn.BLOCKS, "mlp:tanh", "glu:mish"])
def test_any_block_sits_in_a_layer(block):
    config = encoder(block=block)
    model = transformer_model(config)
    y, _ = model.apply(model.init(KEY), TOKENS)
    assert y.shape == (2, 6, 8)
    names = trees.flatten(jax.eval_shape(model.init, KEY))
    inside = [n for n in names if n.startswith("layer_1/ffn/") and "kernel" in n]
    assert len(inside) == len(ffn.BLOCKS[block.split(":")[0]].inputs) + 1


def test_parameter_trees():
    shapes = jax.eval_shape(
        transformer_model(encoder(head="tied", pooler=True)).init, KEY
    )
    names = {name: leaf.shape for name, leaf in trees.flatten(shapes).items()}
    assert {n: s for n, s in names.items() if not n.startswith("layer_")} == {
        "embed/norm/bias": (8,),
        "embed/norm/scale": (8,),
        "embed/positions/embedding": (512, 8),
        "embed/tokens/embedding": (11, 8),
        "embed/types/embedding": (2, 8),
        "head/bias": (11,),
        "head/dense/bias": (8,),
        "head/dense/kernel": (8, 8),
        "head/norm/bias": (8,),
        "head/norm/scale": (8,),
        "pooler/bias": (8,),
        "pooler/kernel": (8, 8),
    }
    bare = trees.flatten(
        jax.eval_shape(
            transformer_model(decoder(bias=False, norm_kind="rms")).init, KEY
        )
    )
    assert not [name for name in bare if name.endswith("bias")]


def test_sizes_of_the_well_known():
    sizes = {
        EncoderConfig.bert_base(): 109_482_240,
        EncoderConfig.minilm_l6(): 22_713_216,
        DecoderConfig.gpt2(): 124_439_808,
    }
    for config, size in sizes.items():
        assert pure.parameters(transformer_model(config)) == size


def test_dropout_needs_a_key():
    model, params = made(encoder(dropout=0.5))
    calm = model.apply(params, TOKENS)[0]
    first, again, other = (
        model.apply(params, TOKENS, key=jax.random.key(seed))[0] for seed in (1, 1, 2)
    )
    close(first, again, rtol=0, atol=0)
    assert (first != other).any() and (first != calm).any()
    none = transformer_model(encoder()).apply(params, TOKENS, key=KEY)[0]
    close(none, calm)


def test_products_of_rotated_vectors_depend_on_distance():
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 6))) for _ in range(2))

    def product(label_positions, other):
        turned = (
            rotary(v, jnp.array([[p]]))
            for v, p in ((query, label_positions), (key, other))
        )
        return jnp.vdot(*turned)

    np.testing.assert_allclose(product(7, 3), product(104, 100), rtol=1e-4)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3
    assert sinusoids(jnp.arange(5)[None], 6).shape == (1, 5, 6)


def test_who_sees_whom():
    assert visible(3) is None
    segment_ids, mask = jnp.array([[1, 1, 2]]), jnp.array([[True, True, False]])
    seen = visible(3, causal=True, mask=mask, segment_ids=segment_ids)[0, 0]
    assert seen.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "features=8 must be divisible by heads=3"),
        ({"key_value_heads": 4}, "by key_value_heads=4"),
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"positions": "rotory"}, "positions: unknown 'rotory'; nearest: rotary"),
        ({"positions": "rotary", "heads": 8}, "heads of even width"),
        ({"block": "swiglo"}, "block: unknown 'swiglo'; nearest: swiglu"),
        ({"block": ("mlp",)}, "block names 1 for 2 layers"),
        ({"block": ("mlp", "glu"), "scan": True}, "needs one kind of block"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"norm": "last"}, "norm: unknown 'last'"),
    ],
)
def test_configs_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        encoder(**options)


def test_inputs_that_cannot_be():
    model, params = made(encoder(length=5))
    with pytest.raises(InputError, match="6 tokens are more than the 5 positions"):
        model.apply(params, TOKENS)
    with pytest.raises(InputError, match=r"tokens \[4\] must be \[B, T\]"):
        model.apply(params, TOKENS[0, :4])
    with pytest.raises(InputError, match=r"mask \[2, 3\] must be as tokens \[2, 4\]"):
        model.apply(params, TOKENS[:, :4], TOKENS[:, :3] > 0)
    with pytest.raises(InputError, match="a cache needs a causal model"):
        empty_cache(encoder(), 1, 4)
