"""The operations that XLA counts, against counts by hand."""

import jax
import numpy as np
import pytest
from flax import nnx

from ffnlab.nn import pure
from ffnlab.nn.ffn import BlockConfig, FeedForward


def count(kind, batch=8):
    config = BlockConfig(kind, 16, 24, norm="none", residual=False)
    model = pure.functional(lambda rngs: FeedForward(config, rngs=rngs))
    return pure.xla_flops(model, jax.ShapeDtypeStruct((batch, 16), "float32"))


@pytest.fixture(scope="module")
def relu():
    return count("mlp:relu")


def test_a_linear_layer_has_a_product_and_a_bias():
    model = pure.functional(lambda rngs: nnx.Linear(5, 3, rngs=rngs))
    assert pure.xla_flops(model, np.zeros((4, 5), np.float32)) == 2 * 5 * 3 + 3
    assert pure.flops(model) == 2 * 5 * 3


def test_biases_and_activations_are_counted(relu):
    """A product and a bias each, and the maximum of each hidden unit with 0."""
    assert relu == 2 * (16 * 24 + 24 * 16) + 24 + 16 + 24
    assert count("mlp:relu", batch=2) == relu


def test_erf_is_counted_as_the_polynomial_that_it_is(relu):
    per_unit = (count("mlp:gelu") - relu) / 24
    assert 30 < per_unit < 200
    assert count("mlp:gelu_tanh") - relu < (count("mlp:gelu") - relu) / 3


@pytest.mark.parametrize(
    "costs", [None, {}, [], [{}], {"flops": -1.0}, {"flops": 44.0}]
)
def test_a_backend_that_does_not_count_products_has_no_number(costs, monkeypatch):
    monkeypatch.setattr(jax.stages.Compiled, "cost_analysis", lambda _: costs)
    model = pure.functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    assert pure.xla_flops(model, np.zeros((4, 2), np.float32)) is None
    monkeypatch.setattr(
        jax.stages.Compiled, "cost_analysis", lambda _: [{"flops": 60.0}]
    )
    assert pure.xla_flops(model, np.zeros((4, 2), np.float32)) == 15
