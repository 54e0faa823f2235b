"""Adapters are attached to the modules beside whose arrays they are."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab.nn.adapters import attached, detach, fold_name
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.linear import Linear, dense, weights
from ffnlab.nn.pure import bind, functional


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shift:
    """Adds a vector to an input."""

    vector: jax.Array

    def __call__(self, call, x, weights):
        return call(x + self.vector.reshape((1,) * (x.ndim - 1) + (-1,)))


def build(rngs):
    return FeedForward(BlockConfig("glu", 3, 4, norm="none", residual=False), rngs=rngs)


def test_adapters_are_called_where_they_are():
    model = functional(build)
    params = model.init(jax.random.key(0))
    x = jnp.ones((2, 3))
    vector = jnp.array([1.0, -2.0, 0.5])
    adapted = {name: dict(part) for name, part in params.items()}
    for name in ("gate", "up"):  # of all inputs, which moves the input of the block
        adapted[name]["adapter"] = (Shift(vector),)
    found, expected = jax.jit(
        lambda adapted: (
            model.apply(adapted, x)[0],
            model.apply(params, x + vector[None])[0],
        )
    )(adapted)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    assert attached(bind(build, adapted).gate) and not attached(bind(build, params).up)
    assert detach(params) == (params, {})
    # Other entries are still refused.
    with pytest.raises(ValueError, match="expected 6 leaves, but got 7"):
        model.apply({**params, "lora": vector}, x)


def test_adapters_wrap_each_other_in_order():
    kernel, first, second = np.eye(2), np.array([1.0, 0.0]), np.array([0.0, 2.0])

    def double(call, x, weights):
        return 2.0 * call(x)

    x = jnp.zeros((1, 2))
    arrays = {"kernel": kernel, "adapters": (Shift(first), double, Shift(second))}
    assert dense(x, arrays).tolist() == [[2.0, 4.0]]


def test_layers_with_the_same_key_draw_differently():
    linear, key = Linear(2, 3, rngs=nnx.Rngs(0)), jax.random.key(0)
    assert "key" not in weights(linear, key, "query")
    linear.adapter = nnx.Param((Shift(jnp.ones(2)),))
    query, value = (weights(linear, key, name)["key"] for name in ("query", "value"))
    assert query != value and query == fold_name(key, "query")
    assert weights(linear, None, "query")["key"] is None
    assert linear(jnp.zeros((1, 2))).tolist() == [linear.kernel.sum(axis=0).tolist()]
