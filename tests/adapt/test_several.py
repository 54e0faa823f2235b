import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import adapt, trees
from ffnlab.errors import InputError
from tests.adapt.small import X, build, moved

MIXED = adapt.parse(
    "lora+ia3+houlsby+prefix+bitfit", rank=2, hidden=3, virtual_tokens=2
)


@functools.cache
def adapted(config, count=3):
    model, params = build("bert")
    trainable, frozen, apply = adapt.apply(params, config, model)
    return [moved(trainable, seed=n) for n in range(count)], frozen, apply, params


def test_rows_of_a_batch_have_adapters_of_their_own():
    """One program for any index, equal to one adapter at a time."""
    adapters, frozen, apply, _ = adapted(MIXED)
    rows = {name: np.concatenate([array, array]) for name, array in X.items()}
    by_row = jax.jit(chex.assert_max_traces(adapt.by_row(apply), n=1))
    stack = adapt.stack(adapters)
    single = jax.jit(apply)
    for index in ([0, 2, 1, 1], [2, 2, 0, 1]):
        outputs, _ = by_row(stack, frozen, jnp.array(index), rows)
        expected = [
            single(adapters[number], frozen, rows)[0][row]
            for row, number in enumerate(index)
        ]
        chex.assert_trees_all_close(outputs, jnp.stack(expected), rtol=1e-4, atol=1e-5)


def test_products_with_frozen_kernels_are_of_the_whole_batch():
    adapters, frozen, apply, _ = adapted(adapt.LoRA(rank=2))
    text = str(
        jax.make_jaxpr(adapt.by_row(apply))(
            adapt.stack(adapters), frozen, jnp.array([0, 1]), X
        )
    )
    # [B, T, D] by one [D, H], not B times
    assert "f32[2,7,20] = dot_general" in text and "f32[2,12,20]" not in text


def test_adapters_switch_by_number_without_compiling():
    adapters, frozen, apply, _ = adapted(MIXED)
    stack = adapt.stack(adapters)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(stack, number):
        return apply(adapt.select(stack, number), frozen, X)[0]

    for number, adapter in enumerate(adapters):
        expected = jax.jit(apply)(adapter, frozen, X)[0]
        chex.assert_trees_all_close(run(stack, number), expected, rtol=1e-4, atol=1e-6)


def kernels(trainable, frozen, config):
    merged = trees.flatten(adapt.merge(trainable, frozen, config))
    return {path: leaf for path, leaf in merged.items() if "attention" in path}


@pytest.mark.parametrize(
    "config",
    [
        adapt.LoRA(rank=2, alpha=3.0),
        adapt.LoRA(rank=2, alpha=3.0, rslora=True) + adapt.BitFit(),
        adapt.AdaLoRA(rank=2, target_rank=1, total_steps=9),
        adapt.IA3(targets=("key",), input_targets=("out",)),
    ],
)
def test_a_combination_changes_kernels_by_the_weighted_sum(config):
    """Of products, not of factors."""
    adapters, frozen, _, params = adapted(config)
    weights = [0.5, -1.0, 2.0]
    both, new = adapt.combine(adapters, weights, config, params=params)
    found = kernels(both, frozen, new)
    base = trees.flatten(params)
    parts = [kernels(adapter, frozen, config) for adapter in adapters]
    if isinstance(config, adapt.IA3):  # its factors add up, not what biases become
        parts, found = ([strip(each) for each in parts], strip(found))
    for path, leaf in found.items():
        pairs = zip(weights, parts, strict=True)
        change = sum(weight * (part[path] - base[path]) for weight, part in pairs)
        chex.assert_trees_all_close(leaf, base[path] + change, rtol=1e-4, atol=1e-4)


def strip(arrays):
    return {path: leaf for path, leaf in arrays.items() if path.endswith("kernel")}


def test_a_combination_is_reduced_with_all_bits():
    """Which is not the default of JAX on a GPU."""
    config = adapt.LoRA(rank=2, targets=("query",))
    adapters, *_ = adapted(config)

    def combined(adapters):
        return adapt.combine(adapters, [0.3, 0.3, 0.4], config, rank=3)[0]

    text = str(jax.make_jaxpr(combined)(adapters))
    assert text.count("dot_general[") == text.count("Precision.HIGHEST, ") > 0


def test_a_combination_of_a_lower_rank_is_the_best_one():
    config = adapt.LoRA(rank=2, targets=("query",))
    adapters, frozen, _, params = adapted(config)
    full, _ = adapt.combine(adapters, [0.3, 0.3, 0.4], config)
    lower, new = adapt.combine(adapters, [0.3, 0.3, 0.4], config, rank=3)
    assert new[0].rank == 3 and new[0].scale == config.scale
    path = "encoder/layer_0/attention/query/kernel"
    base = trees.flatten(params)[path]
    wide, _ = adapt.combine(adapters, [0.3, 0.3, 0.4], config)
    wide_config = adapt.LoRA(rank=6, alpha=6 * config.scale, targets=("query",))
    change = np.asarray(kernels(full, frozen, wide_config)[path] - base)
    found = np.asarray(kernels(lower, frozen, new)[path] - base)
    u, s, vt = np.linalg.svd(change)
    chex.assert_trees_all_close(found, (u[:, :3] * s[:3]) @ vt[:3], atol=1e-4)
    with pytest.raises(InputError, match="rank: 7 must be at most 6, all of them"):
        adapt.combine(adapters, [0.3, 0.3, 0.4], config, rank=7)


def test_averages_need_no_base():
    adapters, _, _, _ = adapted(MIXED)
    both, _ = adapt.combine(adapters, [0.25, 0.25, 0.5], MIXED)
    leaves = [trees.flatten(adapter) for adapter in adapters]
    for path, leaf in trees.flatten(both).items():
        if "/lora/" not in path:
            one, two, three = (each[path] for each in leaves)
            expected = 0.25 * one + 0.25 * two + 0.5 * three
            chex.assert_trees_all_close(leaf, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        (
            adapt.Bottleneck(),
            [1.0] * 3,
            "sum to 3, but of .*bottleneck.* only averages",
        ),
        (adapt.BitFit(), [1.0, 1.0, 1.0], "give params for other sums"),
        (
            adapt.LoRA(dora=True, rank=1),
            [1.0, 0.0, 0.0],
            "DoRA changes norms, which do not add up",
        ),
        (adapt.LoRA(), [1.0], "weights: 1 for 3 adapters; give one for each"),
    ],
)
def test_what_cannot_be_combined_is_refused(config, weights, message):
    adapters, *_ = adapted(config)
    with pytest.raises(InputError, match=message):
        adapt.combine(adapters, weights, config)


def test_only_adapters_of_the_same_shapes_are_stacked():
    one, *_ = adapted(adapt.LoRA(rank=2))
    two, *_ = adapted(adapt.LoRA(rank=3))
    with pytest.raises(InputError, match=r"lora/a is \[12, 2\] in the first and \[12"):
        adapt.stack([one[0], two[0]])
    with pytest.raises(InputError, match="adapters: at least one is needed"):
        adapt.stack([])
