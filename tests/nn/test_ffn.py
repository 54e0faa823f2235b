import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import activations, ffn
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.pure import functional
from tests import oracles

FORMS = [
    f"{form}:{name}" for form in ("mlp", "glu") for name in activations.ACTIVATIONS
]
KINDS = FORMS + [kind for kind, row in ffn.BLOCKS.items() if row.fixed]


def build(config):
    """The block as pure functions, parameters moved off their start, and an input."""
    model = functional(lambda rngs: FeedForward(config, rngs=rngs))
    params = model.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    params = jax.tree.unflatten(tree, moved)
    if "beta" in params:  # the oracle's swish has β = 1
        params["beta"] = jnp.ones_like(params["beta"])
    x = jax.random.normal(jax.random.key(2), (2, 3, config.features))
    return model, params, x


@pytest.mark.parametrize("place", ffn.PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_block_against_numpy_and_its_gradient(kind, place, x64):
    norm_kind = "rms" if "glu" in kind else "layer"
    config = BlockConfig(kind, 4, 5, norm=place, norm_kind=norm_kind)
    model, params, x = build(config)
    y, aux = model.apply(params, x)
    expected = oracles.feed_forward(*jax.tree.map(np.asarray, (x, params)), config)
    chex.assert_shape(aux["hidden"], (2, 3, 5))
    chex.assert_trees_all_close(y, expected, rtol=1e-9, atol=1e-12)
    assert trees.count(params) == config.parameters
    check_gradient(model, params, x)


def check_gradient(model, params, x):
    """The derivative along one random direction, against a central difference."""

    def loss(params):
        return jnp.sin(model.apply(params, x)[0]).sum()

    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    direction = jax.tree.unflatten(
        tree,
        [
            jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )

    def along(step):
        return float(loss(jax.tree.map(lambda p, d: p + step * d, params, direction)))

    slope = jax.tree.map(lambda g, d: (g * d).sum(), jax.grad(loss)(params), direction)
    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    got = float(sum(jax.tree.leaves(slope)))
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["mlp:gelu", "glu:swish"])
@pytest.mark.parametrize("place", ffn.PLACES)
def test_both_norms_and_no_bias(kind, place, x64):
    for norm_kind in ffn.NORMS:
        config = BlockConfig(
            kind, 4, 5, norm=place, norm_kind=norm_kind, bias=False, epsilon=1e-12
        )
        model, params, x = build(config)
        expected = oracles.feed_forward(*jax.tree.map(np.asarray, (x, params)), config)
        chex.assert_trees_all_close(model.apply(params, x)[0], expected, rtol=1e-9)
        assert trees.count(params) == config.parameters


def test_article_dense_layer():
    kernel = jnp.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
    got = ffn.dense(
        jnp.array([1.0, 2.0, 3.0]), {"kernel": kernel, "bias": jnp.array([0.0, 1.0])}
    )
    assert got.tolist() == [14.0, 33.0]


def test_article_layer_norm():
    block = FeedForward(BlockConfig("mlp", 2, 2, norm="post"), rngs=nnx.Rngs(0))
    assert block.norm(jnp.array([14.0, 32.0])).tolist() == pytest.approx([-1.0, 1.0])


def test_article_block_is_one_configuration(x64):
    """Feed-forward with the norm last, the layer that the seeds start from."""
    config = BlockConfig("mlp:swish", 4, 5, norm="post", residual=False)
    model, params, x = build(config)
    expected = oracles.feed_forward(*jax.tree.map(np.asarray, (x, params)), config)
    chex.assert_trees_all_close(model.apply(params, x)[0], expected, rtol=1e-9)


def test_parameter_tree_of_a_gated_block():
    config = BlockConfig("glu:swish_channel", 4, 6, norm="sandwich", norm_kind="rms")
    params = jax.eval_shape(
        functional(lambda rngs: FeedForward(config, rngs=rngs)).init, jax.random.key(0)
    )
    assert {name: leaf.shape for name, leaf in trees.flatten(params).items()} == {
        "beta": (6,),
        "down/bias": (4,),
        "down/kernel": (6, 4),
        "gate/bias": (6,),
        "gate/kernel": (4, 6),
        "norm/scale": (4,),
        "norm_out/scale": (4,),
        "up/bias": (6,),
        "up/kernel": (4, 6),
    }


def test_the_gate_is_the_activated_half():
    """Where relu closes the gate nothing passes, however large the other half."""
    eye = {"kernel": jnp.eye(1)}
    y, _ = ffn.glu(
        jnp.array([-3.0]), eye, {"kernel": -jnp.eye(1)}, eye, activation=jax.nn.relu
    )
    assert float(y[0]) == 0.0
    y, _ = ffn.glu(
        jnp.array([3.0]), eye, {"kernel": -jnp.eye(1)}, eye, activation=jax.nn.relu
    )
    assert float(y[0]) == -9.0


def test_beta_is_learned():
    for kind in ("mlp:swish", "glu:swish_channel"):
        model, params, x = build(BlockConfig(kind, 4, 5))
        slope = jax.grad(lambda p: jnp.sum(model.apply(p, x)[0] ** 2))(params)["beta"]  # noqa: B023
        assert jnp.all(slope != 0)


@pytest.mark.parametrize(("kind", "kept"), [("mlp:gelu", 1), ("swiglu", 2)])
def test_backward_keeps_no_more_than_gate_and_up(kind, kept):
    config = BlockConfig(kind, 4, 7, norm="hidden", dropout=0.1)
    model, params, _ = build(config)
    x, key = jnp.ones((5, 4)), jax.random.key(0)
    _, pull = jax.vjp(lambda p, x: model.apply(p, x, key)[0], params, x)
    hidden = [leaf for leaf in jax.tree.leaves(pull) if leaf.shape == (5, 7)]
    assert len(hidden) == kept


def test_forward_mode_and_second_derivatives_work(x64):
    model, params, x = build(BlockConfig("swiglu", 4, 5))

    def loss(x):
        return jnp.sum(model.apply(params, x)[0] ** 3)

    forward = jax.jvp(loss, (x,), (jnp.ones_like(x),))[1]
    chex.assert_trees_all_close(forward, jax.grad(loss)(x).sum(), rtol=1e-9)
    second = jax.jvp(jax.grad(loss), (x,), (jnp.ones_like(x),))[1]
    step = 1e-6
    expected = (jax.grad(loss)(x + step) - jax.grad(loss)(x - step)) / (2 * step)
    chex.assert_trees_all_close(second, expected, rtol=1e-6, atol=1e-6)


def test_dropout_hits_hidden_units_and_only_in_training():
    model, params, x = build(BlockConfig("mlp:softplus", 4, 64, dropout=0.5))
    still, aux = model.apply(params, x)
    again, _ = model.apply(params, x)
    chex.assert_trees_all_equal(still, again)
    assert bool(jnp.all(aux["hidden"] > 0))
    key = jax.random.key(0)
    dropped, aux = model.apply(params, x, key)
    assert 0.3 < float(jnp.mean(aux["hidden"] == 0)) < 0.7
    chex.assert_trees_all_equal(dropped, model.apply(params, x, key)[0])
    assert not jnp.allclose(dropped, model.apply(params, x, jax.random.key(1))[0])


@pytest.mark.parametrize("name", sorted(ffn.INITIALIZERS))
def test_initializers_have_their_variance(name):
    rows, columns = 300, 200
    kernel = np.asarray(ffn.INITIALIZERS[name](jax.random.key(0), (rows, columns)))
    variance = {
        "zeros": 0.0,
        "normal": 0.02**2,
        "uniform": 1 / 3 / rows,
        "xavier": 2 / (rows + columns),
        "xavier_normal": 2 / (rows + columns),
        "he": 2 / rows,
        "he_uniform": 2 / rows,
        "lecun": 1 / rows,
        "lecun_uniform": 1 / rows,
        "orthogonal": 1 / rows,
    }[name]
    assert kernel.var() == pytest.approx(variance, rel=0.05)
    assert abs(kernel.mean()) < 0.002
    if name == "orthogonal":
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(columns), atol=1e-5)


def test_zeros_fail_to_break_symmetry():
    """From zeros all hidden units stay equal, so a block learns as if it had one."""
    hidden = 5

    def trained(initializer):
        config = BlockConfig(
            "mlp:sigmoid", 3, hidden, norm="none", initializer=initializer
        )
        model = functional(lambda rngs: FeedForward(config, rngs=rngs))
        params = model.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (16, 3))

        def loss(params):
            return jnp.mean((model.apply(params, x)[0] - jnp.sin(3 * x)) ** 2)

        for _ in range(20):
            step = jax.grad(loss)(params)
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, step)
        return np.asarray(params["up"]["kernel"])

    zeros, lecun = trained("zeros"), trained("lecun")
    assert np.abs(zeros).max() > 0  # they do learn,
    alike = zeros[:, :1].repeat(hidden, 1)
    np.testing.assert_allclose(zeros, alike, rtol=1e-5)  # but all alike
    assert np.linalg.matrix_rank(lecun, tol=1e-3) == 3


def test_scan_of_tokens_is_tokenwise():
    model, params, x = build(BlockConfig("geglu", 4, 5, norm="pre"))
    whole, _ = model.apply(params, x)
    each = jax.vmap(jax.vmap(lambda v: model.apply(params, v)[0]))(x)
    chex.assert_trees_all_close(whole, each, rtol=1e-5, atol=1e-6)


def test_compiles_once():
    model, params, x = build(BlockConfig("swiglu", 4, 5))
    chex.clear_trace_counter()
    apply = jax.jit(chex.assert_max_traces(lambda p, x: model.apply(p, x)[0], n=1))
    for _ in range(3):
        apply(params, x)


def test_a_new_block_is_one_equation_and_one_row(monkeypatch, x64):
    def squared_gate(x, gate, up, down, *, activation, between=None):
        """down(σ(gate(x))² ⊙ up(x))"""
        return ffn.glu(
            x,
            gate,
            up,
            down,
            activation=lambda v: activation(v) ** 2,
            between=between,
        )

    row = ffn.Block(squared_gate, ("gate", "up"), "tanh")
    monkeypatch.setitem(ffn.BLOCKS, "squared", row)
    config = BlockConfig("squared", 4, 5, norm="none", residual=False)
    model, params, x = build(config)
    p, v = jax.tree.map(np.asarray, (params, x))
    gate = np.tanh(oracles.linear(v, p["gate"])) ** 2
    expected = oracles.linear(gate * oracles.linear(v, p["up"]), p["down"])
    chex.assert_trees_all_close(model.apply(params, x)[0], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        (ffn.MLP, "mlp"),
        (ffn.GLU, "glu"),
        (ffn.Bilinear, "bilinear"),
        (ffn.ReGLU, "reglu"),
        (ffn.GEGLU, "geglu"),
        (ffn.SwiGLU, "swiglu"),
        (ffn.MiGLU, "miglu"),
    ],
)
def test_named_modules(named, kind):
    block = named(4, 6, rngs=nnx.Rngs(0), norm="none")
    assert block.config == BlockConfig(kind, 4, 6, norm="none")
    assert isinstance(block, named) and isinstance(block, FeedForward)
    assert block(jnp.ones((2, 4)))[0].shape == (2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "swigul"}, "nearest: swiglu"),
        ({"kind": "swiglu:tanh"}, "or glu:tanh"),
        ({"kind": "mlp:gellu"}, "nearest: gelu"),
        ({"norm": "prenorm"}, "norm: unknown"),
        ({"norm_kind": "batch"}, "norm_kind: unknown"),
        ({"initializer": "xavir"}, "nearest: xavier"),
        ({"hidden": 0}, "must be at least 1"),
        ({"dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"dropout": float("nan")}, r"must be in \[0, 1\)"),
        ({"epsilon": float("nan")}, r"must be in \(0, 1\)"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(BlockConfig(), **change)
