"""Stacks of blocks against NumPy, and their parameter trees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models import mlp
from ffnlab.models.mlp import TowerConfig
from ffnlab.nn import pure
from ffnlab.nn.ffn import BlockConfig
from tests import oracles

BLOCK = BlockConfig("swiglu", 4, 6, norm="pre")


def test_parameter_tree_of_a_byte_model():
    config = TowerConfig(5, 7, BLOCK, layers=1, vocabulary=9, embedding=3)
    model = mlp.tower(config)
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {
        "block_0/down/bias": (4,),
        "block_0/down/kernel": (6, 4),
        "block_0/gate/bias": (6,),
        "block_0/gate/kernel": (4, 6),
        "block_0/norm/bias": (4,),
        "block_0/norm/scale": (4,),
        "block_0/up/bias": (6,),
        "block_0/up/kernel": (4, 6),
        "embed/embedding": (9, 3),
        "head/bias": (7,),
        "head/kernel": (4, 7),
        "norm/bias": (4,),
        "norm/scale": (4,),
        "stem/bias": (4,),
        "stem/kernel": (15, 4),
    }
    assert pure.parameters(model) == sum(x.size for x in shapes.values())
    assert pure.flops(model) == 2 * (15 * 4 + 3 * 4 * 6 + 4 * 7)


def test_tower_against_numpy(x64):
    model = mlp.tower(TowerConfig(5, 7, BLOCK, layers=2))
    p = oracles.random_params(model, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(3, 5))
    y, aux = jax.jit(model.apply)(p, x)
    hidden = oracles.linear(x, p["stem"])
    for layer in ("block_0", "block_1"):
        hidden = oracles.feed_forward(hidden, p[layer], BLOCK)
    expected = oracles.linear(oracles.norm(hidden, p["norm"], 1e-6), p["head"])
    chex.assert_trees_all_close(y, expected, rtol=1e-9)
    chex.assert_shape(aux["block_1"]["hidden"], (3, 6))


def test_bengio_concatenates_in_order():
    """Swapping two context bytes changes the output; the batch around does not."""
    config = TowerConfig(4, 3, BLOCK, layers=1, vocabulary=9, embedding=2)
    model = mlp.tower(config)
    x = np.array([[1, 2, 3, 4], [2, 1, 3, 4], [0, 0, 0, 0]])
    logits, alone = jax.jit(
        lambda params: (model.apply(params, x)[0], model.apply(params, x[:1])[0][0])
    )(oracles.random_params(model))
    assert not np.allclose(logits[0], logits[1])
    chex.assert_trees_all_close(alone, logits[0], atol=1e-5)


def test_params_are_plain_dicts_of_arrays():
    init = jax.jit(mlp.tower(TowerConfig(5, 7, BLOCK)).init)
    params = init(jax.random.key(0))
    assert type(params) is dict and type(params["block_0"]) is dict
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


def test_layers_draw_different_dropout():
    block = BlockConfig("mlp:sigmoid", 4, 64, dropout=0.5)
    model = mlp.tower(TowerConfig(5, 7, block, layers=2))
    params, x = oracles.random_params(model), np.ones((1, 5), np.float32)
    _, aux = jax.jit(model.apply)(params, x, jax.random.key(1))
    first, second = (np.asarray(aux[f"block_{i}"]["hidden"][0]) == 0 for i in (0, 1))
    assert (first != second).any()


def test_bad_config():
    with pytest.raises(InputError, match="layers=0"):
        TowerConfig(5, 7, BLOCK, layers=0)


@pytest.mark.parametrize("kind", ["mlp:sigmoid", "mlp:relu2", "glu", "bilinear"])
def test_blocks_of_any_kind_start_with_equal_output_variances(kind):
    """Against the outputs of the blocks themselves."""
    config = mlp.TowerConfig(5, 3, BlockConfig(kind, 8, 16, residual_scale=0.5), 3)
    plain, x = mlp.tower(config), np.random.default_rng(0).normal(size=(64, 5))
    x = jnp.asarray(x + 1, jnp.float32)
    matched = mlp.with_output_variance(plain, x, 0.7)
    params, before = (model.init(jax.random.key(2)) for model in (matched, plain))
    tower = pure.bind(lambda rngs: mlp.Tower(config, rngs=rngs), params)
    h, variances = tower.stem(x), []
    for layer in range(3):
        y, _ = getattr(tower, f"block_{layer}")(h)
        variances.append(float(((y - h) / 0.5).var(axis=0).mean()))
        h = y
    np.testing.assert_allclose(variances, 0.7, rtol=1e-4)
    found = mlp.output_variances(plain, params, x)
    np.testing.assert_allclose(found, variances, rtol=1e-4)
    chex.assert_trees_all_equal(params["stem"], before["stem"])
    chex.assert_trees_all_equal(params["block_1"]["up"], before["block_1"]["up"])
