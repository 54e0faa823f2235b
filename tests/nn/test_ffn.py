"""Feed-forward blocks against NumPy: all kinds, activations and placements of norms."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import activations, ffn, initializers, norms
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.pure import functional
from tests import oracles

FORMS = [
    f"{form}:{name}" for form in ("mlp", "glu") for name in activations.ACTIVATIONS
]
KINDS = FORMS + [kind for kind, row in ffn.BLOCKS.items() if row.fixed]


def build(config, dtype=np.float32):
    """The block as pure functions, random parameters, and an input."""
    model = functional(lambda rngs: FeedForward(config, rngs=rngs))
    params = oracles.random_params(model, dtype=dtype)
    if "beta" in params:  # the oracle's swish has β = 1
        params["beta"] = np.ones_like(params["beta"])
    x = np.random.default_rng(2).normal(size=(2, 3, config.features)).astype(dtype)
    return model, params, x


@pytest.mark.parametrize("kind", KINDS)
def test_block_against_numpy_and_its_gradient(kind, x64):
    """All placements of the norm in one program."""
    norm_kind = "rms" if "glu" in kind else "layer"
    configs = [
        BlockConfig(kind, 4, 5, norm=placement, norm_kind=norm_kind)
        for placement in norms.NORM_PLACEMENTS
    ]
    blocks = [build(config, np.float64) for config in configs]

    def loss(params, model, x):
        y, aux = model.apply(params, x)
        return jnp.sin(y).sum(), (y, aux)

    models = [model for model, _, _ in blocks]
    results = jax.jit(
        lambda inputs: [
            jax.grad(loss, has_aux=True)(params, model, x)
            for model, (params, x) in zip(models, inputs, strict=True)
        ]
    )([inputs for _, *inputs in blocks])
    for config, (_, params, x), (grads, (y, aux)) in zip(
        configs, blocks, results, strict=True
    ):
        expected = oracles.feed_forward(x, params, config)
        chex.assert_shape(aux["hidden"], (2, 3, 5))
        chex.assert_trees_all_close(y, expected, rtol=1e-9, atol=1e-12)
        assert trees.count(params) == config.parameters
        check_gradient(config, params, x, grads)


def check_gradient(config, params, x, grads):
    """The derivative along a random direction against a central difference in NumPy."""
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda p: rng.normal(size=np.shape(p)), params)

    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return np.sin(oracles.feed_forward(x, moved, config)).sum()

    slope = jax.tree.map(lambda g, d: (g * d).sum(), grads, direction)
    if "beta" in params:  # the oracle's β does not move
        slope.pop("beta")
    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    found = float(sum(jax.tree.leaves(slope)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["mlp:gelu", "glu:swish"])
def test_both_norms_and_no_bias(kind, x64):
    configs = [
        BlockConfig(
            kind, 4, 5, norm=placement, norm_kind=norm_kind, bias=False, epsilon=1e-12
        )
        for norm_kind in ("layer", "rms")
        for placement in norms.NORM_PLACEMENTS
    ]
    blocks = [build(config, np.float64) for config in configs]
    models = [model for model, _, _ in blocks]
    outputs = jax.jit(
        lambda inputs: [
            model.apply(*args)[0] for model, args in zip(models, inputs, strict=True)
        ]
    )([inputs for _, *inputs in blocks])
    for config, (_, params, x), y in zip(configs, blocks, outputs, strict=True):
        expected = oracles.feed_forward(x, params, config)
        chex.assert_trees_all_close(y, expected, rtol=1e-9)
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
    model, params, x = build(config, np.float64)
    expected = oracles.feed_forward(x, params, config)
    y, _ = jax.jit(model.apply)(params, x)
    chex.assert_trees_all_close(y, expected, rtol=1e-9)


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


@pytest.mark.parametrize("kind", ["mlp:swish", "glu:swish", "glu:swish_channel"])
def test_beta_is_learned(kind, x64):
    """Its gradient is that of finite differences; the oracle knows only β = 1."""
    model, params, x = build(BlockConfig(kind, 4, 5), np.float64)
    shape = params["beta"].shape

    @jax.jit
    @jax.value_and_grad
    def loss(beta):
        return jnp.sum(model.apply({**params, "beta": beta}, x)[0] ** 2)

    beta = np.linspace(0.5, 1.5, 5)[: params["beta"].size].reshape(shape)
    _, slope = loss(beta)
    assert np.all(slope != 0)
    ends = [float(loss(beta + step)[0]) for step in (1e-6, -1e-6)]
    assert float(np.sum(slope)) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(("kind", "kept"), [("mlp:gelu", 1), ("swiglu", 2)])
def test_backward_keeps_no_more_than_gate_and_up(kind, kept):
    config = BlockConfig(kind, 4, 7, norm="hidden", dropout=0.1)
    model, params, _ = build(config)
    x, key = np.ones((5, 4), np.float32), jax.random.key(0)
    pull = jax.eval_shape(
        lambda p, x: jax.vjp(lambda p, x: model.apply(p, x, key)[0], p, x)[1],
        params,
        x,
    )
    hidden = [leaf for leaf in jax.tree.leaves(pull) if leaf.shape == (5, 7)]
    assert len(hidden) == kept


def test_forward_mode_and_second_derivatives_work(x64):
    model, params, x = build(BlockConfig("swiglu", 4, 5), np.float64)

    def loss(x):
        return jnp.sum(model.apply(params, x)[0] ** 3)

    @jax.jit
    def run(x):
        ones = jnp.ones_like(x)
        slope, second = jax.jvp(jax.grad(loss), (x,), (ones,))
        return slope, jax.jvp(loss, (x,), (ones,))[1], second

    slope, forward, second = run(x)
    chex.assert_trees_all_close(forward, slope.sum(), rtol=1e-9)
    step = 1e-6
    expected = (run(x + step)[0] - run(x - step)[0]) / (2 * step)
    chex.assert_trees_all_close(second, expected, rtol=1e-6, atol=1e-6)


def test_dropout_hits_hidden_units_and_only_in_training():
    model, params, x = build(BlockConfig("mlp:softplus", 4, 64, dropout=0.5))
    still, aux = jax.jit(model.apply)(params, x)
    plain = build(BlockConfig("mlp:softplus", 4, 64))[0]
    chex.assert_trees_all_close(still, jax.jit(plain.apply)(params, x)[0], rtol=1e-5)
    assert (np.asarray(aux["hidden"]) > 0).all()
    apply = jax.jit(model.apply)
    dropped, aux = apply(params, x, jax.random.key(0))
    assert 0.3 < (np.asarray(aux["hidden"]) == 0).mean() < 0.7
    chex.assert_trees_all_equal(dropped, apply(params, x, jax.random.key(0))[0])
    assert not np.allclose(dropped, apply(params, x, jax.random.key(1))[0])


@pytest.mark.parametrize("name", sorted(initializers.INITIALIZERS))
def test_initializers_have_their_variance(name):
    rows, columns = 300, 200
    kernel = np.asarray(
        initializers.INITIALIZERS[name](jax.random.key(0), (rows, columns))
    )
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
        x = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)

        def loss(params):
            return jnp.mean((model.apply(params, x)[0] - np.sin(3 * x)) ** 2)

        def step(params, _):
            grads = jax.grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), None

        @jax.jit
        def run(key):
            return jax.lax.scan(step, model.init(key), None, length=20)[0]

        return np.asarray(run(jax.random.key(0))["up"]["kernel"])

    zeros, lecun = trained("zeros"), trained("lecun")
    assert np.abs(zeros).max() > 0  # they do learn,
    alike = zeros[:, :1].repeat(hidden, 1)
    np.testing.assert_allclose(zeros, alike, rtol=1e-5)  # but all alike
    assert np.linalg.matrix_rank(lecun, tol=1e-3) == 3


def test_scan_of_tokens_is_tokenwise():
    model, params, x = build(BlockConfig("geglu", 4, 5, norm="pre"))
    apply = jax.vmap(jax.vmap(lambda v: model.apply(params, v)[0]))
    whole, alone = jax.jit(lambda x: (model.apply(params, x)[0], apply(x)))(x)
    chex.assert_trees_all_close(whole, alone, rtol=1e-5, atol=1e-6)


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
    model, params, x = build(config, np.float64)
    gate = np.tanh(oracles.linear(x, params["gate"])) ** 2
    expected = oracles.linear(gate * oracles.linear(x, params["up"]), params["down"])
    y, _ = jax.jit(model.apply)(params, x)
    chex.assert_trees_all_close(y, expected, rtol=1e-9)


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
    def apply(x):
        block = named(4, 6, rngs=nnx.Rngs(0), norm="none")
        assert block.config == BlockConfig(kind, 4, 6, norm="none")
        assert isinstance(block, named) and isinstance(block, FeedForward)
        return block(x)[0]

    assert jax.eval_shape(apply, np.ones((2, 4), np.float32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "swigul"}, "nearest: swiglu"),
        ({"kind": "swiglu:tanh"}, "or glu:tanh"),
        ({"kind": "mlp:gellu"}, "nearest: gelu"),
        ({"norm": "prenorm"}, "norm: unknown"),
        ({"norm_kind": "group"}, "norm_kind: unknown"),
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
