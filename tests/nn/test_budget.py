"""Matched widths against all other widths."""

import dataclasses
import itertools

import jax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import norms, pure
from ffnlab.nn.budget import match, nearest_width
from ffnlab.nn.ffn import BlockConfig, FeedForward

CONFIGS = st.builds(
    BlockConfig,
    kind=st.sampled_from(["mlp:relu", "mlp:swish_channel", "glu", "swiglu"]),
    features=st.integers(1, 40),
    hidden=st.integers(8, 90),
    bias=st.booleans(),
    norm=st.sampled_from(norms.NORM_PLACEMENTS),
    norm_kind=st.sampled_from(sorted(norms.NORMS)),
)


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    target=st.integers(0, 60),
    multiple=st.integers(1, 3),
)
@example(steps=[1, 0, 1, 0], target=2, multiple=1)  # two widths that cost the same
@example(steps=[1, 1, 1, 1, 1, 0, 0, 1], target=5, multiple=1)  # and three of them
@example(steps=[5], target=3, multiple=1)
@example(steps=[4], target=2, multiple=1)  # as near to 0 as to the smallest width
@example(steps=[2, 2], target=3, multiple=2)
@example(steps=[1], target=1, multiple=1)
def test_the_nearest_width(steps, target, multiple):
    """Costs are sums of steps, one a unit; the last step is repeated without end."""
    steps = [*steps, max(steps[-1], 1)]
    costs = [0, *itertools.accumulate(steps)]

    def cost(width):
        assert width > 0 and width % multiple == 0
        units = width // multiple
        beyond = max(units - len(steps), 0)
        return costs[min(units, len(steps))] + steps[-1] * beyond

    above = next(n for n in itertools.count(1) if cost(n * multiple) >= target)
    below = cost((above - 1) * multiple) if above > 1 else 0
    nearest = above - (target - below <= cost(above * multiple) - target)
    if nearest:
        assert nearest_width(cost, target, multiple) == nearest * multiple
    else:
        message = f"a block: {target} bytes are too few for {multiple} hidden units"
        with pytest.raises(InputError, match=message):
            nearest_width(cost, target, multiple, "a block", "bytes")


def test_any_width_by_default():
    assert [nearest_width(lambda n: 2 * n, target) for target in (2, 6, 7)] == [1, 3, 3]


def test_the_search_halves_its_range():
    widths = []

    def cost(width):
        widths.append(width)
        return width

    assert nearest_width(cost, 2**20) == 2**20
    # 21 to double, 19 to halve, and the two nearest.
    assert len(widths) <= 42


@settings(deadline=None)
@given(CONFIGS, CONFIGS, st.sampled_from(["parameters", "flops"]))
def test_no_other_width_is_nearer(config, reference, budget):
    try:
        matched = match(config, reference, budget)
    except InputError:
        return
    assert matched.target == getattr(reference, budget)
    assert matched.value == getattr(matched.config, budget)
    error = abs(matched.value - matched.target)
    assert abs(matched.difference) == pytest.approx(error / matched.target)
    for hidden in (matched.config.hidden - 1, matched.config.hidden + 1):
        if hidden >= 1:
            other = dataclasses.replace(config, hidden=hidden)
            assert abs(getattr(other, budget) - matched.target) >= error


@pytest.mark.parametrize("kind", ["mlp:gelu", "mlp:swish", "swiglu"])
def test_counts_are_those_of_the_module(kind):
    matched = match(BlockConfig(kind, 24), BlockConfig("mlp", 24, 96))
    model = pure.functional(lambda rngs: FeedForward(matched.config, rngs=rngs))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert trees.count(shapes) == matched.value
    assert pure.flops(model) == matched.config.flops
    assert abs(matched.difference) < 0.01


def test_a_gated_block_gets_two_thirds():
    matched = match(BlockConfig("geglu", 384), BlockConfig("mlp", 384, 1536), "flops")
    assert matched.config.hidden == 1024
    assert matched.difference == 0.0


def test_multiple():
    matched = match(BlockConfig("glu", 64), BlockConfig("mlp", 64, 256), multiple=32)
    assert matched.config.hidden == 160


def test_a_budget_too_small_is_refused():
    with pytest.raises(InputError, match="parameters are too few for 64 hidden units"):
        match(BlockConfig("glu", 8), BlockConfig("mlp", 8, 2), multiple=64)
    with pytest.raises(InputError, match="nearest: flops"):
        match(BlockConfig("glu", 8), BlockConfig("mlp", 8, 2), "flop")
