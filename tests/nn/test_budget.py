import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import ffn, pure
from ffnlab.nn.budget import match
from ffnlab.nn.ffn import BlockConfig, FeedForward

CONFIGS = st.builds(
    BlockConfig,
    kind=st.sampled_from(["mlp:relu", "mlp:swish_channel", "glu", "swiglu"]),
    features=st.integers(1, 40),
    hidden=st.integers(8, 90),
    bias=st.booleans(),
    norm=st.sampled_from(ffn.PLACES),
    norm_kind=st.sampled_from(sorted(ffn.NORMS)),
)


@given(CONFIGS, CONFIGS, st.sampled_from(["parameters", "flops"]))
def test_no_other_width_is_nearer(config, reference, budget):
    try:
        found = match(config, reference, budget)
    except InputError:
        return
    error = abs(found.value - found.target)
    for hidden in (found.config.hidden - 1, found.config.hidden + 1):
        if hidden >= 1:
            other = ffn.dataclasses.replace(config, hidden=hidden)
            assert abs(getattr(other, budget) - found.target) >= error


@pytest.mark.parametrize("kind", ["mlp:gelu", "mlp:swish", "swiglu"])
def test_counts_are_those_of_the_module(kind):
    found = match(BlockConfig(kind, 24), BlockConfig("mlp", 24, 96))
    model = pure.functional(lambda rngs: FeedForward(found.config, rngs=rngs))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert trees.count(shapes) == found.value
    assert pure.flops(model) == found.config.flops
    assert abs(found.difference) < 0.01


def test_a_gated_block_gets_two_thirds():
    found = match(BlockConfig("geglu", 384), BlockConfig("mlp", 384, 1536), "flops")
    assert found.config.hidden == 1024
    assert found.difference == 0.0


def test_multiple():
    found = match(BlockConfig("glu", 64), BlockConfig("mlp", 64, 256), multiple=32)
    assert found.config.hidden == 160


def test_a_budget_too_small_is_refused():
    with pytest.raises(InputError, match="buy fewer than 64 hidden units"):
        match(BlockConfig("glu", 8), BlockConfig("mlp", 8, 2), multiple=64)
    with pytest.raises(InputError, match="nearest: flops"):
        match(BlockConfig("glu", 8), BlockConfig("mlp", 8, 2), "flop")
