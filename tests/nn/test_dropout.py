"""Dropout: the mask bit for bit as JAX draws it, the mean, and the gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.nn.dropout import dropout, keep_mask

RATES = (0.0, 0.1, 0.3, 0.5, 0.9, 0.999)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (33, 17), (2, 3, 5, 64), (181, 183)])
def test_the_bits_are_those_of_jax(shape):
    @jax.jit
    def run(key):
        ours = [keep_mask(key, rate, shape) for rate in RATES]
        return ours, [jax.random.bernoulli(key, 1.0 - rate, shape) for rate in RATES]

    ours, expected = run(jax.random.fold_in(jax.random.key(3), len(shape)))
    chex.assert_trees_all_equal(ours, expected)


def test_the_bits_are_those_of_jax_under_vmap():
    keys = jax.random.split(jax.random.key(1), 5)

    @jax.jit
    def run(keys):
        ours = jax.vmap(lambda key: keep_mask(key, 0.3, (4, 6)))(keys)
        return ours, jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (4, 6)))(keys)

    chex.assert_trees_all_equal(*run(keys))


def test_a_large_mask_is_drawn_once_for_all_its_readers():
    """By a loop, which XLA does not fuse into the forward and the backward pass."""

    def loss(x, key):
        return jnp.square(dropout(x, key, 0.1)).sum()

    def loops(shape):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        compiled = jax.jit(jax.grad(loss)).lower(x, jax.random.key(0)).compile()
        return compiled.as_text().count(" while(")

    assert [loops((16, 16)), loops((256, 256))] == [0, 1]


def test_a_mask_on_a_mesh_is_divided_as_its_values_are():
    """Each device would draw the whole of a loop; in shard_map it draws its own."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    along = jax.sharding.PartitionSpec("data")
    x, key = jnp.ones((256, 256)), jax.random.key(0)

    def each(x):
        return dropout(x, key, 0.1)

    expected = each(x)
    alone = jax.shard_map(each, mesh=mesh, in_specs=along, out_specs=along)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, along))
        whole, own = jax.jit(each).lower(placed), jax.jit(alone).lower(placed)
        chex.assert_trees_all_equal(whole.compile()(placed), expected)
    assert "stablehlo.while" not in whole.as_text()
    assert "stablehlo.while" in own.as_text()


def test_other_generators_fall_back(x64):
    for key in (jax.random.key(0), jax.random.key(0, impl="rbg")):
        expected = jax.random.bernoulli(key, 0.7, (5,))
        chex.assert_trees_all_equal(keep_mask(key, 0.3, (5,)), expected)


def test_mean_is_kept_and_dropped_are_zero():
    x = np.ones((200, 500), np.float32)
    y = np.asarray(jax.jit(lambda key: dropout(x, key, 0.25))(jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1.0, abs=0.01)


def test_gradient_passes_only_what_was_kept():
    x = np.linspace(-1.0, 1.0, 64, dtype=np.float32)

    @jax.jit
    def run(key):
        slope = jax.grad(lambda v: dropout(v, key, 0.5).sum())(x)
        return slope, jnp.where(keep_mask(key, 0.5, x.shape), 2.0, 0.0)

    chex.assert_trees_all_equal(*run(jax.random.key(2)))


def test_evaluation_changes_nothing():
    x = jnp.arange(3.0)
    assert dropout(x, None, 0.9) is x
    assert dropout(x, jax.random.key(0), 0.0) is x
