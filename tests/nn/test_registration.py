"""Blocks of a user's own: what they compute, what they count, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models import DecoderConfig, transformer_model
from ffnlab.nn import ffn, jaxprs, pure
from ffnlab.nn.block_parameters import BlockParameter
from ffnlab.nn.budget import match
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.linear import dense
from ffnlab.nn.registration import register
from tests import oracles

KEY = jax.random.key(0)


def softmax(hidden):
    """An activation that is not elementwise."""
    return jax.nn.softmax(hidden) * hidden.shape[-1]


def gated_sq(x, gate, up, down, *, alpha, mix_kernel, activation, between):
    h = activation(dense(x, gate)) @ mix_kernel
    scale = alpha.reshape((1,) * (h.ndim - 1) + (-1,))
    hidden = between(scale * jnp.square(h) * dense(x, up))
    return dense(hidden, down), {"hidden": hidden}


def plain(x, up, down, *, activation, between):
    hidden = between(activation(dense(x, up)))
    return dense(hidden, down), {"hidden": hidden}


PARAMETERS = {"alpha": BlockParameter(("H",), 0.5), "mix_kernel": ("H", "H")}


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """The table of blocks, with what a test adds removed."""
    monkeypatch.setattr(ffn, "BLOCKS", ffn.BLOCKS)
    before = dict(ffn.BLOCKS)
    yield ffn.BLOCKS
    ffn.BLOCKS.clear()
    ffn.BLOCKS.update(before)


def register_sq(activation="gelu", **options):
    return register(
        "gated_sq",
        gated_sq,
        ("gate", "up"),
        PARAMETERS,
        activation=activation,
        **options,
    )


def block_of(**options):
    config = BlockConfig("gated_sq", 4, 6, **options)
    return config, pure.functional(lambda rngs: FeedForward(config, rngs=rngs))


@pytest.mark.parametrize("activation", ["gelu", softmax])
def test_a_block_against_numpy_and_its_gradient(activation, x64):
    register_sq(activation)
    config, model = block_of(norm="none")
    params = oracles.random_params(model, dtype=np.float64)
    x = np.random.default_rng(1).normal(size=(2, 3, 4))

    def by_numpy(params):
        h = oracles.linear(x, params["gate"])
        if activation == "gelu":
            h = oracles.ACTIVATIONS["gelu"](h)
        else:
            powers = np.exp(h - h.max(-1, keepdims=True))
            h = 6 * powers / powers.sum(-1, keepdims=True)
        h = params["alpha"] * (h @ params["mix_kernel"]) ** 2
        return x + oracles.linear(h * oracles.linear(x, params["up"]), params["down"])

    def loss(params):
        y, aux = model.apply(params, x)
        return jnp.sin(y).sum(), (y, aux)

    grads, (y, aux) = jax.jit(jax.grad(loss, has_aux=True))(params)
    chex.assert_shape(aux["hidden"], (2, 3, 6))
    chex.assert_trees_all_close(y, by_numpy(params), rtol=1e-9)
    direction = jax.tree.map(np.random.default_rng(2).normal, params)
    moved = [
        jax.tree.map(lambda p, d: p + step * d, params, direction)  # noqa: B023
        for step in (1e-6, -1e-6)
    ]
    above, below = (np.sin(by_numpy(each)).sum() for each in moved)
    slope = sum(
        jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), grads, direction))
    )
    assert slope == pytest.approx((above - below) / 2e-6, rel=1e-5)
    assert trees.count(params) == config.parameters


def test_tree_of_parameters_and_initial_values():
    row = register_sq()
    assert row is ffn.BLOCKS["gated_sq"]
    config, model = block_of(norm="hidden", initializer="zeros")
    params = model.init(KEY)
    assert {name: leaf.shape for name, leaf in trees.flatten(params).items()} == {
        "alpha": (6,),
        "down/bias": (4,),
        "down/kernel": (6, 4),
        "gate/bias": (6,),
        "gate/kernel": (4, 6),
        "mix_kernel": (6, 6),
        "norm/bias": (6,),
        "norm/scale": (6,),
        "up/bias": (6,),
        "up/kernel": (4, 6),
    }
    assert (params["alpha"] == 0.5).all() and (params["mix_kernel"] == 0).all()
    assert pure.parameters(model) == config.parameters
    assert pure.flops(model) == config.flops == 2 * (3 * 4 * 6 + 6 * 6)


def test_specs_of_parameters():
    def several(x, up, down, *, a, b, c, d, activation, between):
        scale = (a + c[0, 0]) * b.reshape((1,) * (x.ndim - 1) + (-1,))
        hidden = between(activation(dense(x, up)) * scale * d[1])
        return dense(hidden, down), {"hidden": hidden}

    def draw(key, shape):
        return jax.random.uniform(key, shape)

    specs = {"a": 3, "b": "H", "c": ("D", 2), "d": np.array([1.0, 2.0])}
    register("several", several, parameters=specs)
    config = BlockConfig("several", 4, 6, norm="none")
    model = pure.functional(lambda rngs: FeedForward(config, rngs=rngs))
    params = model.init(KEY)
    assert float(params["a"]) == 3.0 and params["d"].tolist() == [1.0, 2.0]
    assert (params["b"] == np.ones(6)).all() and (params["c"] == np.ones((4, 2))).all()
    assert config.parameters == pure.parameters(model)
    register(
        "several",
        several,
        parameters={**specs, "a": BlockParameter((), draw)},
        replace=True,
    )
    assert config != BlockConfig("several", 4, 6, norm="none")
    again = pure.functional(
        lambda rngs: FeedForward(BlockConfig("several", 4, 6), rngs=rngs)
    )
    assert 0 < float(again.init(KEY)["a"]) < 1
    assert float(model.init(KEY)["a"]) == 3.0  # made before


def test_dropout_and_norm_reach_the_hidden_units():
    register_sq()
    _, model = block_of(norm="hidden", norm_kind="batch", dropout=0.5)
    params = oracles.random_params(model)
    params["stats"]["norm"]["var"] = np.ones(6, np.float32)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    _, aux = jax.jit(model.apply)(params, x, KEY)
    assert 0 < (aux["hidden"] == 0).mean() < 1
    assert sorted(aux["stats"]["norm"]) == ["mean", "var"]


def test_names_with_an_activation():
    register("open", plain, activation="swish_channel", fixed=False)
    register("own", plain, activation=lambda hidden: jax.nn.softmax(hidden))
    register("closed", plain, activation=softmax)
    assert BlockConfig("open:gelu").activation_name == "gelu"
    assert BlockConfig("open").activation.beta == "channel"
    config = BlockConfig("open", 4, 6)
    model = pure.functional(lambda rngs: FeedForward(config, rngs=rngs))
    assert pure.parameters(model) == config.parameters
    assert BlockConfig("own").activation_name == "own"
    assert BlockConfig("closed").activation.function is softmax
    with pytest.raises(InputError, match="closed always has the activation softmax"):
        BlockConfig("closed:gelu")


def test_a_block_is_matched_and_is_part_of_a_transformer():
    register_sq(softmax)
    result = match(BlockConfig("gated_sq", 64), BlockConfig("mlp", 64, 256))
    assert abs(result.difference) < 0.01
    config = DecoderConfig.tiny(block="gated_sq", hidden=8, scan=True, head_dense=True)
    model = transformer_model(config)
    shapes = jax.eval_shape(model.init, KEY)
    assert shapes["layers"]["ffn"]["alpha"].shape == (2, 8)
    logits, _ = jax.eval_shape(model.apply, shapes, jnp.ones((1, 3), int))
    assert logits.shape == (1, 3, 256)
    with pytest.raises(InputError, match="norm_kind: batch would take"):
        DecoderConfig.tiny(norm_kind="batch")


def unused(x, gate, up, down, *, activation, between):
    return plain(x, gate, down, activation=activation, between=between)


def unused_in_jit(x, gate, up, down, *, activation, between):
    @jax.jit
    def combine(one, two):
        return activation(one)

    hidden = between(combine(dense(x, gate), dense(x, up)))
    return dense(hidden, down), {"hidden": hidden}


def no_between(x, up, down, *, activation, between):
    hidden = activation(dense(x, up))
    return dense(hidden, down), {"hidden": hidden}


def lost_between(x, up, down, *, activation, between):
    hidden = activation(dense(x, up))
    between(hidden)
    return dense(hidden, down), {"hidden": hidden}


def before_between(x, up, down, *, activation, between):
    hidden = activation(dense(x, up))
    return dense(between(hidden), down), {"hidden": hidden}


def between_of_x(x, up, down, *, activation, between):
    hidden = activation(dense(between(x), up))
    return dense(hidden, down), {"hidden": hidden}


def y_alone(x, up, down, *, activation, between):
    return dense(between(activation(dense(x, up))), down)


def no_aux(x, up, down, *, activation, between):
    return y_alone(x, up, down, activation=activation, between=between), {}


def by_hand(x, up, down, *, activation, between):
    hidden = between(activation(x @ up["kernel"]))
    return dense(hidden, down), {"hidden": hidden}


def with_bias(x, up, down, *, activation, between):
    bias = up["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    hidden = between(activation(x @ up["kernel"] + bias))
    return dense(hidden, down), {"hidden": hidden}


def without_adapters(x, up, down, *, activation, between):
    hidden = between(activation(x @ up["kernel"] + up.get("bias", 0.0)))
    return dense(hidden, down), {"hidden": hidden}


def no_activation(x, up, down, between):
    return plain(x, up, down, activation=jax.nn.relu, between=between)


def float32(x, up, down, *, activation, between):
    hidden = between(activation(dense(x, up)) * jnp.ones(1, jnp.float32))
    return dense(hidden, down), {"hidden": hidden}


def narrow(x, up, down, *, activation, between):
    y, aux = plain(x, up, down, activation=activation, between=between)
    return y.sum(axis=-1), aux


def twice(x, up, down, *, activation, between):
    hidden = between(activation(dense(x, up)) + dense(2 * x, up))
    return dense(hidden, down), {"hidden": hidden}


def fails(x, up, down, *, activation, between):
    raise RuntimeError("some\nthing")


def mixed(x, up, down, *, mix, activation, between):
    hidden = between(activation(dense(x, up)) @ mix)
    return dense(hidden, down), {"hidden": hidden}


def idle(x, up, down, *, mix, activation, between):
    return plain(x, up, down, activation=activation, between=between)


TWO, MIX = {"inputs": ("gate", "up")}, {"parameters": {"mix": ("H", "H")}}


@pytest.mark.parametrize(
    ("equation", "options", "message"),
    [
        (unused, TWO, r"depend on up/bias, up/kernel: 20 parameters .* dense\(x, up\)"),
        (unused_in_jit, TWO, "depend on up/bias, up/kernel: 20 parameters"),
        (idle, MIX, "depend on mix: 25 parameters of a block"),
        (no_between, {}, "between is not called, so dropout and norm=hidden"),
        (lost_between, {}, "y does not depend on what between returns"),
        (before_between, {}, "hidden does not depend on what between returns"),
        (between_of_x, {}, r"between is called with the shape \[7, 3\]"),
        (y_alone, {}, r"returns an array; it is called as block\(x, up, down, act"),
        (no_aux, {}, r"returns \(an array, a dict with nothing\); .* should return"),
        (by_hand, {}, r"does not depend on up/bias: 5 parameters"),
        (with_bias, {}, "fails with bias=False: KeyError: 'bias'"),
        (without_adapters, {}, r"uses the arrays of up itself.*\.dense\(x, up\)"),
        (no_activation, {}, "fails: TypeError: no_activation.* it is called as"),
        (float32, {}, "y is float32 where all arrays are bfloat16"),
        (narrow, {}, r"y has the shape \[2, 7\] for x \[2, 7, 3\]"),
        (twice, {}, "take 90 operations for a row .* would count 60; use each"),
        (fails, {}, "fails: RuntimeError: some thing; it is called"),
        (mixed, MIX, "a name that ends in kernel"),
        (plain, {"inputs": "up"}, "inputs: 'up' should be a tuple"),
        (plain, {"inputs": ()}, "inputs: at least one"),
        (plain, {"inputs": ("up", "up")}, "inputs: up, up has a name twice"),
        (plain, {"inputs": ("down",)}, "inputs: 'down' has a meaning"),
        (plain, {"inputs": ("a b",)}, "inputs: 'a b' should be a name"),
        (plain, {"inputs": (1,)}, "inputs: 1 should be a name"),
        (plain, {"parameters": ["alpha"]}, "parameters: .* should be a dict"),
        (plain, {"parameters": {"up": 1.0}}, "'up' is the name of a projection"),
        (plain, {"parameters": {"beta": 1.0}}, "parameters: 'beta' has a meaning"),
        (plain, {"parameters": {"alpha": "K"}}, "alpha: 'K' is no size"),
        (plain, {"parameters": {"alpha": ("H", 0)}}, "alpha: 0 is no size"),
        (plain, {"parameters": {"alpha": np.nan}}, "alpha: nan should be a finite"),
        (plain, {"parameters": {"alpha": None}}, "alpha: None should be a finite"),
        (plain, {"parameters": {"kernel": "H"}}, "kernel: a name that ends in kernel"),
        (plain, {"activation": "gellu"}, "activation: unknown 'gellu'; nearest: gelu"),
        (plain, {"activation": 3}, "activation: 3 should be the name"),
        (None, {}, "equation: None should be a function"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused(equation, options, message, blocks):
    with pytest.raises(InputError, match=message):
        register("block", equation, **options)
    assert "block" not in blocks


def test_a_known_name_is_refused_unless_it_is_to_be_replaced():
    with pytest.raises(InputError, match="there is a block 'swiglu'.*replace=True"):
        register("swiglu", plain)
    for name in ("", "a:b", "a,b", 3):
        with pytest.raises(InputError, match="name: .* letters, digits and _"):
            register(name, plain)
    row = register("swiglu", plain, replace=True)
    assert BlockConfig("swiglu").block is row


def test_all_blocks_of_the_table_pass_the_check(blocks):
    for name, row in list(blocks.items()):
        options = {"activation": row.activation, "fixed": row.fixed}
        register(f"{name}_again", row.equation, row.inputs, **options)


def test_products_in_loops_are_counted():
    def loop(x, kernel):
        return jax.lax.scan(lambda x, _: (x @ kernel, None), x, length=4)[0]

    traced = jax.make_jaxpr(loop)(jnp.ones((2, 3)), jnp.ones((3, 3)))
    assert jaxprs.product_flops(traced.jaxpr) == 4 * 2 * 2 * 3 * 3
    assert jaxprs.used_inputs(traced.jaxpr, [0]) == [True, True]
