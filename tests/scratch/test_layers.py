"""The engine's layers and models against those of ffnlab and Flax, in float64."""

import itertools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis.extra import numpy as hnp

from ffnlab import trees as jax_trees
from ffnlab.models.recurrent import Elman
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.scratch import (
    check_gradients,
    grad,
    layers,
    models,
    ops,
    recurrent,
    trees,
    value_and_grad,
    vjp,
)
from tests.scratch.agreement import (
    by_module,
    check_layer,
    check_layers,
    draw_like,
    normal,
)

pytestmark = pytest.mark.usefixtures("x64")


def normalized_by_batch(params, x):
    """Batch norm in JAX, by the batch itself."""
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    wide = {name: p.reshape((1,) * len(axes) + (-1,)) for name, p in params.items()}
    return (x - mean) / jnp.sqrt(var + 1e-5) * wide["scale"] + wide["bias"]


def unrolled(params, x):
    """A feedback layer in JAX, unrolled to its solution."""
    bias = params["up"]["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    drive = x @ params["up"]["kernel"] + bias
    zero = jnp.zeros_like(drive[..., :1, :])

    def update(h, _):
        before = jnp.concatenate([zero, h[..., :-1, :]], axis=-2)
        after = jnp.concatenate([h[..., 1:, :], zero], axis=-2)
        return jnp.tanh(drive + before @ params["left"] + after @ params["right"]), None

    return jax.lax.scan(update, jnp.zeros_like(drive), None, length=300)[0]


def flax_convolution(stride, padding):
    return by_module(
        lambda rngs: nnx.Conv(
            2, 3, (3, 2), strides=stride, padding=padding.upper(), rngs=rngs
        )
    )


# What is ours, what is theirs, and the shape that follows any batch.
LAYERS = {
    "dense": (
        layers.dense(3, 4),
        by_module(lambda rngs: nnx.Linear(3, 4, rngs=rngs)),
        (3,),
    ),
    "dense without bias": (
        layers.dense(3, 4, bias=False),
        by_module(lambda rngs: nnx.Linear(3, 4, use_bias=False, rngs=rngs)),
        (3,),
    ),
    "layer norm": (
        layers.layer_norm(5, epsilon=1e-6),
        by_module(lambda rngs: nnx.LayerNorm(5, use_fast_variance=False, rngs=rngs)),
        (5,),
    ),
    "gated block": (
        layers.feed_forward(4, 6, activation="silu", gated=True, norm="pre"),
        by_module(
            lambda rngs: FeedForward(BlockConfig("swiglu", 4, 6, norm="pre"), rngs=rngs)
        ),
        (4,),
    ),
    "elman": (
        recurrent.elman(3, 4),
        by_module(lambda rngs: Elman(3, 4, rngs=rngs)),
        (5, 3),
    ),
    "feedback": (recurrent.feedback(3, 4, tolerance=1e-14), unrolled, (5, 3)),
}

a_few = hypothesis.settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
batches = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)


@a_few
@hypothesis.example(lead=())
@hypothesis.example(lead=(0, 2))
@hypothesis.given(lead=batches)
def test_layers_of_any_batch(lead):
    cases = {
        name: (layer, theirs, normal(*lead, *shape))
        for name, (layer, theirs, shape) in LAYERS.items()
    }
    if 0 in lead:  # which ffnlab's own refuses
        layer, _, x = cases.pop("elman")
        assert layer.apply(layer.init(0), x)[0].shape[-1] == 4
    check_layers(cases, second=True)


@a_few
@hypothesis.example(shape=())
@hypothesis.example(shape=(0, 2))
@hypothesis.given(shape=batches)
def test_embedding_of_any_batch(shape):
    tokens = np.random.default_rng(0).integers(0, 6, shape)
    check_layer(
        layers.embedding(6, 3),
        lambda params, tokens: params["embedding"][tokens],
        tokens,
        second=True,
    )


def test_embedding_of_a_token_that_there_is_not():
    layer = layers.embedding(6, 3)
    with pytest.raises(IndexError, match="index 6 is out of bounds"):
        layer.apply(layer.init(0), np.array([6]))


@a_few
@hypothesis.given(lead=hnp.array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=4))
def test_batch_norm_of_any_batch(lead):
    layer = layers.batch_norm(3)

    def ours(params, x):
        return layer.apply(params, x, key=0, state=layer.init_state())[0]

    check_layer(layer, normalized_by_batch, normal(*lead, 3), ours, second=True)


@a_few
@hypothesis.given(
    shape=hnp.array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=7)
)
def test_convolution_of_any_picture(shape):
    check_layers(
        {
            f"{stride}, {padding}": (
                layers.convolution(2, 3, (3, 2), stride=stride, padding=padding),
                flax_convolution(stride, padding),
                normal(*shape, 2),
            )
            for stride, padding in itertools.product((1, 2), ("same", "valid"))
        },
        second=True,
    )


def test_layer_norm_of_a_large_mean():
    check_layer(
        layers.layer_norm(5, epsilon=1e-12),
        by_module(
            lambda rngs: nnx.LayerNorm(
                5, epsilon=1e-12, use_fast_variance=False, rngs=rngs
            )
        ),
        10.0 + normal(3, 5),
    )


@pytest.mark.parametrize(
    ("gated", "norm", "residual"),
    [(False, "none", True), (True, "pre", True), (True, "post", False)],
)
def test_feed_forward(gated, norm, residual):
    cases = {}
    for activation in ("relu", "tanh", "sigmoid", "gelu", "silu"):
        kind = f"{'glu' if gated else 'mlp'}:{activation}"
        config = BlockConfig(kind, 4, 6, norm=norm, residual=residual)
        layer = layers.feed_forward(
            4, 6, activation=activation, gated=gated, norm=norm, residual=residual
        )
        theirs = by_module(lambda rngs, config=config: FeedForward(config, rngs=rngs))
        cases[activation] = layer, theirs, normal(2, 3, 4)
    check_layers(cases)


def test_the_feed_forward_layer_with_its_norm_last():
    config = BlockConfig("mlp:swish", 4, 6, norm="post", residual=False)
    theirs = by_module(lambda rngs: FeedForward(config, rngs=rngs))
    check_layer(models.ffn(4, 6), theirs, normal(2, 4))


def test_batch_norm():
    layer = layers.batch_norm(3)
    params, x, state = (
        draw_like(layer.init(0)),
        5.0 + normal(4, 6, 3),
        layer.init_state(),
    )

    def train(params, x):
        module = nnx.BatchNorm(3, use_fast_variance=False, rngs=nnx.Rngs(0))
        module.mean, module.var = (
            nnx.BatchStat(start(3, dtype=float)) for start in (jnp.zeros, jnp.ones)
        )
        nnx.update(module, params)
        y = module(x, use_running_average=False)
        return y, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    g = normal(4, 6, 3, seed=1)

    @jax.jit
    def reference(params, x):
        y, pullback, stats = jax.vjp(train, params, x, has_aux=True)
        return y, pullback(g), stats

    y, pullback, aux = vjp(
        lambda p, x: layer.apply(p, x, key=0, state=state), params, x, has_aux=True
    )
    results = (y, pullback(g), aux["state"])
    chex.assert_trees_all_close(results, reference(params, x), rtol=1e-10, atol=1e-10)
    assert state["mean"].tolist() == [0.0] * 3  # what went in is as it was

    y, same = layer.apply(params, x, state=aux["state"])
    mean, var = aux["state"]["mean"], aux["state"]["var"]
    expected = (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]
    chex.assert_trees_all_close(y.data, expected, rtol=1e-12)
    assert same["state"] is aux["state"]


def test_dropout():
    layer, x = layers.dropout(0.25), np.ones((200, 50))
    assert layer.apply({}, x)[0].data is not x
    assert layer.apply({}, x)[0].data.tolist() == x.tolist()
    kept = layer.apply({}, x, key=(3, 1))[0].data
    assert set(np.unique(kept)) == {0.0, 1 / 0.75}
    assert (kept > 0).mean() == pytest.approx(0.75, abs=0.02)
    assert (kept == layer.apply({}, x, key=(3, 1))[0].data).all()
    assert (kept != layer.apply({}, x, key=(3, 2))[0].data).any()
    gradient = grad(lambda x: layer.apply({}, x, key=(3, 1))[0].sum())(x)
    assert (gradient == kept).all()
    with pytest.raises(ValueError, match="rate 1.0 should be"):
        layers.dropout(1.0)


def test_sequential_hands_out_keys_and_states():
    model = layers.sequential(
        layers.convolution(1, 4, stride=2),
        layers.batch_norm(4),
        ops.relu,
        lambda x: x.reshape(x.shape[0], -1),
        layers.dropout(0.5),
        layers.dense(64, 3),
    )
    params, state, x = model.init(7), model.init_state(), normal(5, 8, 8, 1)
    assert {name: p.shape for name, p in trees.named_leaves(params)} == {
        "layer_0/kernel": (3, 3, 1, 4),
        "layer_0/bias": (4,),
        "layer_1/scale": (4,),
        "layer_1/bias": (4,),
        "layer_5/kernel": (64, 3),
        "layer_5/bias": (3,),
    }
    assert sorted(state) == ["layer_1"]

    def loss(params):
        y, aux = model.apply(params, x, key=1, state=state)
        return (y**2).sum(), aux["state"]

    (_, state_after), gradient = value_and_grad(loss, has_aux=True)(params)
    assert state_after["layer_1"]["mean"].any()
    assert jax_trees.count(gradient) == jax_trees.count(params)
    assert model.apply(params, x, state=state_after)[0].shape == (5, 3)
    check = check_gradients(
        lambda p: (model.apply(p, x, state=state)[0] ** 2).sum(), params
    )
    assert check.passed, check


def test_initial_parameters_depend_on_their_key_alone():
    model = layers.sequential(layers.dense(50, 60, initializer="he"), ops.relu)
    first, again, other = (model.init(key) for key in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    kernel = first["layer_0"]["kernel"]
    assert (kernel != other["layer_0"]["kernel"]).all()
    assert kernel.std() == pytest.approx(np.sqrt(2 / 50), rel=0.05)
    with pytest.raises(ValueError, match="initializer 'hee' should be one of"):
        layers.dense(2, 2, initializer="hee").init(0)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="activation 'rulu' should be one of"):
        layers.feed_forward(2, 2, activation="rulu")
    with pytest.raises(ValueError, match="norm 'last' should be"):
        layers.feed_forward(2, 2, norm="last")
    with pytest.raises(ValueError, match="should be at least two widths"):
        models.perceptron([4])


def test_keys_that_differ_give_other_numbers():
    keys = [0, 1, (0, 0), (0, 1), (0, 0, 0), 3, (3, 0), 2**32]
    numbers = {layers.generator(key).random() for key in keys}
    assert len(numbers) == len(keys)


def test_layers_say_what_is_wrong():
    norm = layers.batch_norm(3)
    with pytest.raises(ValueError, match="batch_norm: state is needed"):
        norm.apply(norm.init(0), np.ones((2, 3)), key=0)
    with pytest.raises(
        ValueError, match=r"a sequence is \[..., T, D\], found .*\(3,\)"
    ):
        recurrent.elman(3, 4).apply(recurrent.elman(3, 4).init(0), np.ones(3))
    with pytest.raises(ValueError, match="widths should be at least 1"):
        layers.dense(0, 4).init(0)
    with pytest.raises(TypeError, match="sequential: expected layers, found list"):
        layers.sequential([ops.relu])
    with pytest.raises(ArithmeticError, match="NaN after 1 iterations"):
        layer = recurrent.feedback(1, 2)
        layer.apply(layer.init(0), np.full((3, 1), np.nan))
    assert layers.dropout(0.5).apply({}, np.arange(6), key=1)[0].dtype == np.float64
