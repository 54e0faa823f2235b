"""The engine's layers and models against those of ffnlab and Flax, in float64."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis.extra import numpy as hnp

from ffnlab import models as jax_models
from ffnlab import trees as jax_trees
from ffnlab.feedback import FeedbackConfig, FeedbackLayer
from ffnlab.ffn import BlockConfig, FeedForward
from ffnlab.recurrent import Elman
from ffnlab.scratch import (
    check_gradients,
    fixed_point,
    grad,
    layers,
    manual,
    models,
    ops,
    recurrent,
    trees,
    value_and_grad,
    vjp,
)
from ffnlab.solvers import Jacobi

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def drawn(params, seed=0):
    """Returns a tree of the same shapes, but with nothing at 0 or 1."""
    rng = np.random.default_rng(seed)
    return trees.mapped(lambda p: 0.3 * rng.standard_normal(p.shape), params)


def agree(layer, module, x, second=False):
    """Checks parameters' names and shapes, the value, its vjp, and the vjp of that."""
    model = jax_models.functional(module)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = drawn(layer.init(0))
    chex.assert_trees_all_equal_shapes(params, shapes)

    def theirs(params, x):
        y = model.apply(params, x)
        return y[0] if isinstance(y, tuple) else y

    expected, theirs_back = jax.vjp(theirs, params, x)
    found, ours_back = vjp(lambda params, x: layer.apply(params, x)[0], params, x)
    g = normal(*found.shape, seed=1)
    close = {"rtol": 1e-10, "atol": 1e-10}
    chex.assert_trees_all_close(found, expected, **close)
    chex.assert_trees_all_close(ours_back(g), theirs_back(g), **close)
    if second:

        def size(grown):
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(grown))

        again = value_and_grad(
            lambda p: size(vjp(lambda p: layer.apply(p, x)[0], p)[1](g)[0])
        )(params)
        expected = jax.value_and_grad(
            lambda p: size(jax.vjp(lambda p: theirs(p, x), p)[1](g)[0])
        )(params)
        chex.assert_trees_all_close(again, expected, **close)


LAYERS = {
    "dense": (layers.dense(3, 4), lambda rngs: nnx.Linear(3, 4, rngs=rngs), (3,)),
    "dense without bias": (
        layers.dense(3, 4, bias=False),
        lambda rngs: nnx.Linear(3, 4, use_bias=False, rngs=rngs),
        (3,),
    ),
    "layer norm": (
        layers.layer_norm(5, epsilon=1e-6),
        lambda rngs: nnx.LayerNorm(5, use_fast_variance=False, rngs=rngs),
        (5,),
    ),
    "gated block": (
        layers.feed_forward(4, 6, activation="silu", gated=True, norm="pre"),
        lambda rngs: FeedForward(BlockConfig("swiglu", 4, 6, norm="pre"), rngs=rngs),
        (4,),
    ),
    "elman": (recurrent.elman(3, 4), lambda rngs: Elman(3, 4, rngs=rngs), (5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@hypothesis.settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.example(lead=())
@hypothesis.example(lead=(0, 2))
@hypothesis.given(lead=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
def test_layers_of_any_batch(name, lead):
    layer, module, shape = LAYERS[name]
    if name == "elman" and 0 in lead:  # which ffnlab's own refuses
        assert layer.apply(layer.init(0), np.zeros((*lead, 5, 3)))[0].shape[-1] == 4
        return
    agree(layer, module, normal(*lead, *shape), second=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution(padding, stride):
    agree(
        layers.convolution(2, 3, (3, 2), stride=stride, padding=padding),
        lambda rngs: nnx.Conv(
            2, 3, (3, 2), strides=stride, padding=padding.upper(), rngs=rngs
        ),
        normal(2, 7, 6, 2),
        second=True,
    )


def test_layer_norm_of_a_large_mean():
    agree(
        layers.layer_norm(5, epsilon=1e-12),
        lambda rngs: nnx.LayerNorm(
            5, epsilon=1e-12, use_fast_variance=False, rngs=rngs
        ),
        10.0 + normal(3, 5),
    )


def test_embedding():
    layer, tokens = layers.embedding(6, 3), np.array([[1, 1, 5], [0, 1, 5]])
    params = drawn(layer.init(0))
    g = normal(2, 3, 3)
    _, pull = vjp(lambda p: layer.apply(p, tokens)[0], params)
    expected = jax.vjp(lambda p: p["embedding"][tokens], params)[1](jnp.asarray(g))
    chex.assert_trees_all_close(pull(g), expected, rtol=1e-12)
    with pytest.raises(IndexError, match="index 6 is out of bounds"):
        layer.apply(params, np.array([6]))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "silu"])
@pytest.mark.parametrize(
    ("gated", "norm", "residual"),
    [(False, "none", True), (True, "pre", True), (True, "post", False)],
)
def test_feed_forward(activation, gated, norm, residual):
    kind = f"{'glu' if gated else 'mlp'}:{activation}"
    config = BlockConfig(kind, 4, 6, norm=norm, residual=residual)
    layer = layers.feed_forward(
        4, 6, activation=activation, gated=gated, norm=norm, residual=residual
    )
    agree(layer, lambda rngs: FeedForward(config, rngs=rngs), normal(2, 3, 4))


def test_the_feed_forward_layer_with_its_norm_last():
    config = BlockConfig("mlp:swish", 4, 6, norm="post", residual=False)
    layer = models.ffn(4, 6)
    agree(layer, lambda rngs: FeedForward(config, rngs=rngs), normal(2, 4))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_feedback(activation):
    solver = Jacobi(limit=300, tolerance=1e-13)
    config = FeedbackConfig(
        features=3, hidden=4, activation=activation, solver=solver, gradient="implicit"
    )
    agree(
        recurrent.feedback(3, 4, activation=activation, tolerance=1e-14),
        lambda rngs: FeedbackLayer(config, rngs=rngs),
        normal(2, 5, 3),
    )


def test_feedback_hears_both_sides_and_begins_contracting():
    layer = recurrent.feedback(2, 8)
    params, x = layer.init(0), normal(6, 2)
    h = layer.apply(params, x)[0].data
    for place in (0, 5):
        moved = x.copy()
        moved[place] += 1.0
        assert np.abs(layer.apply(params, moved)[0].data - h).min(axis=1).all()
    strength = sum(np.linalg.norm(params[name], 2) for name in ("left", "right"))
    assert strength < 1.0
    strong = {**params, "left": 9.0 * params["left"], "right": -9.0 * params["right"]}
    with pytest.raises(ArithmeticError, match="not solved after 1000 repetitions"):
        layer.apply(strong, x)


def test_fixed_points_have_gradients_of_any_order():
    def f(x, p):
        return ops.tanh(p["w"] @ x + p["b"])

    p = {"w": 0.4 * normal(3, 3), "b": normal(3)}

    def solved(p):
        return (fixed_point(f, np.zeros(3), p, tolerance=1e-15) ** 2).sum()

    found = check_gradients(solved, p)
    assert found.passed, found
    found = check_gradients(
        lambda b: (grad(lambda b: solved({**p, "b": b}))(b) ** 2).sum(), p["b"]
    )
    assert found.passed, found


def test_fixed_points_say_what_is_wrong():
    with pytest.raises(ArithmeticError, match="residual is 0.2"):
        fixed_point(lambda x: x + 1e9, 0.0, limit=5)
    with pytest.raises(ValueError, match=r"makes the shape \(3,\) of \(\)"):
        fixed_point(lambda x: x + np.zeros(3), 0.0)
    with pytest.raises(ValueError, match="give it in args"):
        grad(lambda a: fixed_point(lambda x: 0.5 * x + a, 0.0))(1.0)
    counts = np.array([1, 2])
    whole = grad(lambda a: fixed_point(lambda x, a, n: 0.5 * x + a * n, counts * 0.0, a,
                                       counts).sum())  # fmt: skip
    assert whole(1.0) == pytest.approx(6.0)


def test_batch_norm():
    layer = layers.batch_norm(3)
    params, x, state = drawn(layer.init(0)), 5.0 + normal(4, 6, 3), layer.begin()

    def train(params, x):
        module = nnx.BatchNorm(3, use_fast_variance=False, rngs=nnx.Rngs(0))
        module.mean, module.var = (
            nnx.BatchStat(start(3, dtype=float)) for start in (jnp.zeros, jnp.ones)
        )
        nnx.update(module, params)
        y = module(x, use_running_average=False)
        return y, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    expected, theirs_back, told = jax.vjp(train, params, x, has_aux=True)
    found, ours_back, aux = vjp(
        lambda p, x: layer.apply(p, x, key=0, state=state), params, x, has_aux=True
    )
    g = normal(4, 6, 3, seed=1)
    chex.assert_trees_all_close(found, expected, rtol=1e-10)
    chex.assert_trees_all_close(ours_back(g), theirs_back(g), rtol=1e-10, atol=1e-10)
    chex.assert_trees_all_close(aux["state"], told, rtol=1e-10)
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
    params, state, x = model.init(7), model.begin(), normal(5, 8, 8, 1)
    assert {name: p.shape for name, p in trees.named(params)} == {
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
    found = check_gradients(
        lambda p: (model.apply(p, x, state=state)[0] ** 2).sum(), params
    )
    assert found.passed, found


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


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("sizes", [[5, 3], [5, 7, 3], [5, 7, 6, 4, 3]])
def test_backpropagation_by_hand(activation, sizes):
    """By hand, by the engine and by JAX; with the δ of every layer."""
    from ffnlab.scratch.losses import cross_entropy

    model = models.perceptron(sizes, activation=activation)
    params = trees.mapped(lambda p: p + 0.1, model.init(0))
    x, labels = normal(8, 5), np.arange(8) % 3
    loss, gradient, errors = manual.backpropagate(params, x, labels, activation)

    value, engine = value_and_grad(
        lambda p: cross_entropy(model.apply(p, x)[0], labels)
    )(params)
    chex.assert_trees_all_close((loss, gradient), (value, engine), rtol=1e-12)

    def by_jax(params, nudges):
        a = x
        for number, nudge in enumerate(nudges, 1):
            layer = params[f"layer_{number}"]
            z = a @ layer["kernel"] + layer["bias"].reshape(1, -1) + nudge
            a = getattr(jax.nn, activation)(z)
        rows = jax.nn.log_softmax(z)[jnp.arange(8), labels]
        return -rows.mean()

    nudges = [np.zeros((8, width)) for width in sizes[1:]]
    expected = jax.grad(by_jax, argnums=(0, 1))(params, nudges)
    chex.assert_trees_all_close((gradient, errors), expected, rtol=1e-9, atol=1e-13)
    zs, activations = manual.forward(params, x, activation)
    _, aux = model.apply(params, x)
    for number, z in enumerate(zs, 1):
        np.testing.assert_allclose(aux[f"z_{number}"].data, z, rtol=1e-12)
        if number > 1:
            named = aux[f"a_{number - 1}"].data
            np.testing.assert_allclose(named, activations[number - 1], rtol=1e-12)


def test_descent_by_hand_lowers_the_loss():
    model = models.perceptron([5, 7, 3])
    params, x, labels = model.init(0), normal(8, 5), np.arange(8) % 3
    losses = []
    for _ in range(20):
        loss, gradient, _ = manual.backpropagate(params, x, labels)
        params = manual.descend(params, gradient, 0.5)
        losses.append(loss)
    assert (np.diff(losses) < 0).all()


def test_keys_that_differ_give_other_numbers():
    keys = [0, 1, (0, 0), (0, 1), (0, 0, 0), 3, (3, 0), 2**32]
    drawn = {key: layers.generator(key).random() for key in keys}
    assert len(set(drawn.values())) == len(keys)


def test_float32_is_solved_to_its_own_precision():
    layer = recurrent.feedback(3, 8)
    params = trees.mapped(lambda p: p.astype(np.float32), layer.init(0))
    for seed in range(5):
        x = normal(4, 20, 3, seed=seed).astype(np.float32)
        assert layer.apply(params, x)[0].dtype == np.float32


def test_layers_say_what_is_wrong():
    norm = layers.batch_norm(3)
    with pytest.raises(ValueError, match="batch_norm: give the state"):
        norm.apply(norm.init(0), np.ones((2, 3)), key=0)
    with pytest.raises(
        ValueError, match=r"a sequence is \[..., T, D\], found .*\(3,\)"
    ):
        recurrent.elman(3, 4).apply(recurrent.elman(3, 4).init(0), np.ones(3))
    with pytest.raises(ValueError, match="widths should be at least 1"):
        layers.dense(0, 4).init(0)
    with pytest.raises(TypeError, match="sequential: expected layers, found list"):
        layers.sequential([ops.relu])
    with pytest.raises(ArithmeticError, match="NaN after 1 repetitions"):
        layer = recurrent.feedback(1, 2)
        layer.apply(layer.init(0), np.full((3, 1), np.nan))
    assert layers.dropout(0.5).apply({}, np.arange(6), key=1)[0].dtype == np.float64
