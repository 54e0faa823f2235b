"""Transformers against NumPy; padding, packing, caches and stacking change nothing."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models.key_value_cache import empty_cache
from ffnlab.models.layer_stack import stack_layers, unstack_layers
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.nn import ffn, pure
from ffnlab.nn.attention import attend
from tests import oracles

SMALL = {"vocabulary": 11, "features": 8, "layers": 2, "heads": 2, "hidden": 12}
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 6))
CHANGED = np.where(np.arange(6) < 4, TOKENS, (TOKENS + 1) % 11)
MASK = np.arange(6)[None] < np.array([[6], [4]])
LENGTHS = (3, 1, 2)  # of the sequences that share a row
SEGMENTS = np.repeat([1, 2, 3], LENGTHS)[None]
KEY = jax.random.key(0)


def encoder(**options):
    return EncoderConfig(**{**SMALL, **options})


def decoder(**options):
    return DecoderConfig(**{**SMALL, **options})


def draw(model, dtype=np.float32, scale=0.4):
    """Returns random parameters, large enough that none of them is negligible."""
    return oracles.random_params(model, scale, dtype)


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
def test_outputs_against_numpy_with_padding_and_packing(name, x64):
    """Every sequence has the outputs that it has alone, whatever stands beside it."""
    config = CONFIGS[name]
    model = transformer_model(config)
    params = draw(model, np.float64)

    @jax.jit
    def run(params):
        rows = np.concatenate([TOKENS, CHANGED, TOKENS[1:, ::-1]])
        plain = model.apply(params, rows)
        padded = model.apply(
            params,
            np.concatenate([np.where(MASK, TOKENS, filler) for filler in (0, 7)]),
            np.concatenate([MASK, MASK]),
        )
        packed = model.apply(params, TOKENS[:1], segment_ids=SEGMENTS)
        return plain, padded, packed

    (plain, aux), (padded, _), (packed, _) = jax.tree.map(np.asarray, run(params))

    def alone(tokens):
        mask = np.ones_like(tokens[None], bool)
        return oracles.transformer(tokens[None], mask, params, config)

    expected = [alone(row) for row in (*TOKENS, *CHANGED, TOKENS[1, ::-1])]
    for row, one in enumerate(expected):
        close(plain[row], one["y"][0])
        if config.pooler:
            close(aux["pooled"][row], one["pooled"][0])
    for row in (0, 2):
        close(padded[row], expected[0]["y"][0])
    short = alone(TOKENS[1, :4])["y"][0]
    for row in (1, 3):
        close(padded[row, :4], short)
    pieces = np.split(TOKENS[0], np.cumsum(LENGTHS)[:-1])
    close(packed[0], np.concatenate([alone(piece)["y"][0] for piece in pieces]))
    if config.causal:
        close(plain[2:4, :4], plain[:2, :4])
    assert np.abs(plain[2:4, 4:] - plain[:2, 4:]).max() > 0.1


CACHED = {
    "gpt2": [False, True],
    "rotary": [False, True],
    "grouped": [False],  # its blocks differ, so that they cannot be stacked
    "shared heads": [True],
    "no positions": [False, True],
}


@pytest.mark.parametrize("name", CACHED)
def test_decoding_with_a_cache(name):
    """Three tokens at once, then one by one, with layers stacked and not."""
    config = {**CONFIGS, "shared heads": decoder(key_value_heads=1)}[name]
    model = transformer_model(config)
    params = draw(model)

    def decode(config, params):
        apply = functools.partial(transformer_model(config).apply, params)
        logits, aux = apply(TOKENS[:, :3], cache=empty_cache(config, 2, 8))

        def step(cache, tokens):  # a scan: the cache keeps its shapes
            logits, aux = apply(tokens[:, None], cache=cache)
            return aux["cache"], logits[:, 0]

        _, rest = jax.lax.scan(step, aux["cache"], TOKENS.T[3:])
        return jnp.concatenate([logits, rest.swapaxes(0, 1)], axis=1)

    @jax.jit
    def run(params):
        decoded = [
            decode(
                dataclasses.replace(config, scan=scan),
                stack_layers(params) if scan else params,
            )
            for scan in CACHED[name]
        ]
        return model.apply(params, TOKENS)[0], decoded

    expected, decoded = run(params)
    for logits in decoded:
        close(logits, expected)


@pytest.mark.parametrize("name", ["bert", "rotary"])
def test_stacked_layers_are_the_same_model(name):
    model = transformer_model(CONFIGS[name])
    params = draw(model)
    stack = transformer_model(dataclasses.replace(CONFIGS[name], scan=True))
    (y, aux), (found, other) = jax.jit(
        lambda params: (
            model.apply(params, TOKENS),
            stack.apply(stack_layers(params), TOKENS),
        )
    )(params)
    close((found, other["states"]), (y, aux["states"]))
    close(unstack_layers(stack_layers(params)), params, rtol=0, atol=0)
    shapes = jax.eval_shape(stack.init, KEY)
    chex.assert_trees_all_equal_shapes(stack_layers(params), shapes)
    drawn, again = jax.jit(lambda key: (model.init(key), stack.init(key)))(KEY)
    chex.assert_trees_all_equal(stack_layers(drawn), again)
    dropped, _ = jax.eval_shape(lambda p: stack.apply(p, TOKENS, key=KEY), shapes)
    assert dropped.shape == y.shape


def test_a_stack_is_compiled_once_for_any_depth():
    def lines(layers, scan):
        model = transformer_model(encoder(layers=layers, scan=scan))
        shapes = jax.eval_shape(model.init, KEY)
        return len(jax.jit(model.apply).lower(shapes, TOKENS).as_text().splitlines())

    assert lines(2, True) == lines(6, True)
    assert lines(6, False) > 2 * lines(2, False)


@pytest.mark.parametrize("scan, policy", [(False, "full"), (True, "dots")])
def test_recomputing_changes_no_gradient(scan, policy):
    options = {"layers": 1 + scan, "scan": scan, "remat_policy": policy}
    plain, again = (
        transformer_model(decoder(**options, remat=remat)) for remat in (False, True)
    )
    params = draw(plain)

    def loss(model):
        return lambda params: jnp.square(model.apply(params, TOKENS)[0]).mean()

    expected, found = jax.jit(
        lambda params: [jax.grad(loss(model))(params) for model in (plain, again)]
    )(params)
    close(found, expected)
    text = str(jax.make_jaxpr(jax.grad(loss(again)))(params))
    assert "remat" in text


def test_a_policy_recomputes_fewer_products():
    def products(**options):
        model = transformer_model(decoder(layers=1, **options))
        params = jax.eval_shape(model.init, KEY)

        def loss(params):
            return jnp.square(model.apply(params, TOKENS)[0]).mean()

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    none, dots, full = (
        products(remat=False),
        products(remat=True, remat_policy="dots"),
        products(remat=True),
    )
    assert none < dots < full
    with pytest.raises(InputError, match="^remat_policy: unknown 'half'"):
        decoder(remat_policy="half")


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_dropped_out_weights_are_unbiased_and_others_are_the_librarys(heads):
    query, few = (
        np.random.default_rng(n).normal(size=(2, 5, h, 3)).astype(np.float32)
        for n, h in ((0, 4), (1, heads))
    )
    mask = np.tril(np.ones((1, 1, 5, 5), bool))

    @jax.jit
    def run(keys):
        some = jax.vmap(lambda k: attend(query, few, few + 1, mask, k, 0.4))(keys)
        return (
            attend(query, few, few + 1, mask),
            attend(query, few, few + 1, mask, KEY, 1e-9),
            some.mean(axis=0),
            some.std(axis=0),
        )

    expected, none, mean, spread = run(jax.random.split(KEY, 4000))
    chex.assert_trees_all_close(none, expected, rtol=1e-5, atol=1e-6)
    assert float(spread.min()) > 0.0
    chex.assert_trees_all_close(mean, expected, atol=0.12)


def test_attention_weights_are_dropped_in_training_alone():
    dropping = transformer_model(encoder(attention_dropout=0.5, layers=1))
    other = transformer_model(encoder(layers=1))

    @jax.jit
    def run(params):
        return (
            dropping.apply(params, TOKENS)[0],
            other.apply(params, TOKENS, key=KEY)[0],
            dropping.apply(params, TOKENS, key=KEY)[0],
        )

    plain, without, dropped = run(draw(other))
    chex.assert_trees_all_equal(plain, without)
    assert bool((dropped != plain).any())
    with pytest.raises(InputError, match=r"attention_dropout=1.0 must be in \[0, 1\)"):
        encoder(attention_dropout=1.0)


def test_gradients_are_those_of_finite_differences(x64):
    model = transformer_model(decoder(positions="rotary", block="swiglu", layers=1))
    check_grads(
        jax.jit(lambda p: jnp.sin(model.apply(p, TOKENS)[0]).mean()),
        (draw(model, np.float64, 0.1),),
        order=1,
        modes=["rev"],
        eps=1e-3,  # coarse, since the softmax is in float32
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("block", [*ffn.BLOCKS, "mlp:tanh", "glu:mish"])
def test_a_layer_takes_any_block(block):
    model = transformer_model(encoder(block=block))
    params = jax.eval_shape(model.init, KEY)
    y, _ = jax.eval_shape(model.apply, params, TOKENS)
    assert y.shape == (2, 6, 8)
    inside = [
        name
        for name in trees.flatten(params)
        if name.startswith("layer_1/ffn/") and "kernel" in name
    ]
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


def test_sizes_of_well_known_models():
    sizes = {
        EncoderConfig.bert_base(): 109_482_240,
        EncoderConfig.minilm_l6(): 22_713_216,
        DecoderConfig.gpt2(): 124_439_808,
    }
    for config, size in sizes.items():
        one, two = (
            pure.parameters(transformer_model(dataclasses.replace(config, layers=n)))
            for n in (1, 2)
        )
        assert one + (config.layers - 1) * (two - one) == size


def test_dropout_needs_a_key():
    dropping, other = (
        transformer_model(encoder(dropout=rate, layers=1)) for rate in (0.5, 0.0)
    )

    @jax.jit
    def run(params, first, second):
        outputs = [
            dropping.apply(params, TOKENS, key=key)[0]
            for key in (None, first, first, second)
        ]
        return *outputs, other.apply(params, TOKENS, key=first)[0]

    plain, first, again, second, none = run(draw(other), *jax.random.split(KEY))
    close(first, again, rtol=0, atol=0)
    assert (first != second).any() and (first != plain).any()
    close(none, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "features=8 must be divisible by heads=3"),
        ({"key_value_heads": 4}, "by key_value_heads=4"),
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"positions": "rotory"}, "positions: unknown 'rotory'; nearest: rotary"),
        ({"positions": "rotary", "heads": 8}, "heads of even width"),
        ({"block": "swiglo"}, "block: unknown 'swiglo'; nearest: swiglu"),
        ({"block": ("mlp",)}, "block has 1 names for 2 layers"),
        ({"block": ("mlp", "glu"), "scan": True}, "all layers need the same block"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"norm": "last"}, "norm: unknown 'last'"),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        encoder(**options)


def test_bad_inputs_are_refused():
    model = transformer_model(encoder(length=5))
    params = jax.eval_shape(model.init, KEY)

    def apply(*inputs):
        return jax.eval_shape(model.apply, params, *inputs)

    with pytest.raises(InputError, match="6 tokens are more than the 5 positions"):
        apply(TOKENS)
    with pytest.raises(InputError, match=r"tokens \[4\] must be \[B, T\]"):
        apply(TOKENS[0, :4])
    with pytest.raises(InputError, match=r"mask \[2, 3\] must have .* \[2, 4\]"):
        apply(TOKENS[:, :4], TOKENS[:, :3] > 0)
    with pytest.raises(InputError, match="a cache needs a causal model"):
        empty_cache(encoder(), 1, 4)
