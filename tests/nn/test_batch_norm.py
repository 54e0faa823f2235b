"""Batch norm against NumPy and Flax: batch and running statistics, and gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import norms, pure
from ffnlab.nn.batch_norm import BatchNorm
from ffnlab.nn.ffn import BlockConfig, FeedForward
from tests import oracles

X = np.random.default_rng(0).normal(2.0, 3.0, size=(5, 3, 4))
KEY = jax.random.key(0)


def build(placement):
    config = BlockConfig("glu:gelu", 4, 6, norm=placement, norm_kind="batch")
    model = pure.functional(lambda rngs: FeedForward(config, rngs=rngs))
    params = oracles.random_params(model, dtype=np.float64)
    params["stats"] = jax.tree.map(np.abs, params.get("stats", {}))
    return config, model, params if params["stats"] else {**params, "stats": None}


def with_running(params, stats):
    """Parameters in which each norm holds its running statistics."""
    return params | {name: params[name] | stats[name] for name in stats}


@pytest.fixture(scope="module")
def blocks():
    """All placements, in training and in evaluation, from one program."""
    with jax.enable_x64(True):
        built = [build(placement) for placement in norms.NORM_PLACEMENTS[1:]]
        models = [model for _, model, _ in built]
        inputs = [params for _, _, params in built]

        def loss(params, model):
            y, aux = model.apply(params, X, KEY)
            return jnp.sin(y).sum(), (y, aux, model.apply(params, X, None))

        run = jax.jit(
            lambda inputs: [
                jax.grad(loss, has_aux=True)(params, model)
                for params, model in zip(inputs, models, strict=True)
            ]
        )
        return [*zip(built, jax.device_get(run(inputs)), strict=True)]


def test_blocks_of_all_placements_against_numpy(blocks):
    for (config, _, params), (_, (y, aux, (evaluated, rest))) in blocks:
        trained = {n: part for n, part in params.items() if n != "stats"}
        expected = oracles.feed_forward(X, trained, config)
        chex.assert_trees_all_close(y, expected, rtol=1e-9, atol=1e-12)
        running = with_running(trained, params["stats"])
        expected = oracles.feed_forward(X, running, config)
        chex.assert_trees_all_close(evaluated, expected, rtol=1e-9, atol=1e-12)
        assert sorted(rest) == ["hidden"]
        assert trees.count(trained) == config.parameters
        chex.assert_trees_all_equal_shapes(aux["stats"], params["stats"])


def test_gradients_against_finite_differences(blocks):
    """Through the statistics of the batch; running ones have no gradient."""
    for (config, _, params), (grads, _) in blocks:
        trained = {n: part for n, part in params.items() if n != "stats"}
        direction = jax.tree.map(np.random.default_rng(5).normal, trained)

        def along(step):
            moved = jax.tree.map(lambda p, d: p + step * d, trained, direction)  # noqa: B023
            return np.sin(oracles.feed_forward(X, moved, config)).sum()  # noqa: B023

        stats = grads.pop("stats")
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(stats))
        slope = jax.tree.map(lambda g, d: (g * d).sum(), grads, direction)
        expected = (along(1e-6) - along(-1e-6)) / 2e-6
        assert sum(jax.tree.leaves(slope)) == pytest.approx(expected, rel=1e-5)


def test_new_statistics_are_nine_tenths_old(blocks):
    by_placement = {row[0][0].norm: row for row in blocks}
    for placement in ("pre", "hidden"):
        (config, _, params), (_, (_, aux, _)) = by_placement[placement]
        seen = X
        if placement == "hidden":  # the hidden units before the norm
            bare = BlockConfig("glu:gelu", 4, 6, norm="none")
            model = pure.functional(lambda rngs: FeedForward(bare, rngs=rngs))  # noqa: B023
            rest = {n: part for n, part in params.items() if n not in ("stats", "norm")}
            with jax.enable_x64(True):
                seen = np.asarray(model.apply(rest, X)[1]["hidden"])
        old, new = params["stats"]["norm"], aux["stats"]["norm"]
        for name, value in (("mean", seen.mean((0, 1))), ("var", seen.var((0, 1)))):
            expected = 0.9 * old[name] + 0.1 * value
            np.testing.assert_allclose(new[name], expected, rtol=1e-9)


def test_the_norm_is_that_of_flax_and_does_not_overflow():
    x = jnp.asarray(X, jnp.float32) + 1e4  # E[x²] − E[x]² would be far off
    ours = BatchNorm(4, rngs=nnx.Rngs(0))
    theirs = nnx.BatchNorm(
        4, momentum=0.9, epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0)
    )
    with jax.numpy_rank_promotion("allow"):
        expected = theirs(x)
    chex.assert_trees_all_close(ours(x, training=True), expected, atol=1e-2)
    for name in ("mean", "var"):
        own, other = getattr(ours, name)[...], getattr(theirs, name)[...]
        chex.assert_trees_all_close(own, other, rtol=1e-5)


def test_statistics_stay_in_float32():
    norm = BatchNorm(4, rngs=nnx.Rngs(0))
    y = norm(jnp.asarray(X, jnp.bfloat16), training=True)
    assert y.dtype == jnp.bfloat16 and norm.mean[...].dtype == jnp.float32
    np.testing.assert_allclose(norm.mean[...], 0.1 * X.mean((0, 1)), rtol=1e-2)


def test_a_single_row_is_refused():
    norm = BatchNorm(4, rngs=nnx.Rngs(0))
    assert norm(jnp.ones((1, 4))).shape == (1, 4)
    with pytest.raises(InputError, match="norm_kind: batch needs .* single one"):
        norm(jnp.ones((1, 4)), training=True)
