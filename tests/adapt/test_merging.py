import chex
import jax
import jax.numpy as jnp
import pytest

from ffnlab import adapt, trees
from ffnlab.errors import InputError
from tests.adapt.small import X, build, moved

EVERYWHERE = {"rank": 3, "targets": ("all",), "alpha": 2.0}
MERGED = {
    "lora": adapt.LoRA(**EVERYWHERE),
    "rslora": adapt.LoRA(**EVERYWHERE, rslora=True),
    "dora": adapt.LoRA(**EVERYWHERE, dora=True),
    "adalora": adapt.AdaLoRA(**EVERYWHERE, target_rank=2, total_steps=9),
    "ia3": adapt.IA3(),
    "sum": adapt.IA3(targets=("query", "value"), input_targets=("out", "down"))
    + adapt.LoRA(**EVERYWHERE, dora=True)
    + adapt.AdaLoRA(rank=1, target_rank=1, total_steps=9)
    + adapt.BitFit(),
}


@pytest.mark.parametrize(("name", "scan"), [*((n, False) for n in MERGED), ("sum", 1)])
def test_a_merged_model_is_the_adapted_one(name, scan):
    model, params = build("bert", scan=bool(scan))
    trainable, frozen, apply = adapt.apply(params, MERGED[name], model)
    trainable = moved(trainable)
    merged = adapt.merge(trainable, frozen, MERGED[name])
    chex.assert_trees_all_equal_shapes_and_dtypes(merged, params)

    @jax.jit
    def run(trainable, merged):
        outputs = model.apply(merged, X)[0], apply(trainable, frozen, X)[0]
        return *outputs, model.apply(params, X)[0]

    merged_outputs, expected, before = run(trainable, merged)
    chex.assert_trees_all_close(merged_outputs, expected, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(expected - before).max()) > 0.05
    if name in ("lora", "adalora", "ia3"):
        back = adapt.unmerge(merged, trainable, MERGED[name])
        own = trees.flatten(trainable)
        leaves, given = trees.flatten(back), trees.flatten(params)
        kept = {path: leaf for path, leaf in leaves.items() if path not in own}
        expected = {path: given[path] for path in kept}
        chex.assert_trees_all_close(kept, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_products_are_merged_with_all_bits(name):
    """Which is not the default of JAX on a GPU."""
    model, params = build("bert")
    trainable, frozen, _ = adapt.apply(params, MERGED[name], model)
    merge = jax.make_jaxpr(lambda both: adapt.merge(*both, MERGED[name]))
    text = str(merge((trainable, frozen)))
    assert text.count("dot_general[") == text.count("Precision.HIGHEST, ") > 0


def test_half_precision_merges_to_one_rounding():
    """A merged kernel is within half a unit of the last of its 8 bits."""
    model, params = build("bert")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    config = MERGED["lora"]
    trainable, frozen, _ = adapt.apply(half, config, model)
    trainable = moved(trainable)
    merged = adapt.merge(trainable, frozen, config, dtype=jnp.bfloat16)
    chex.assert_trees_all_equal_dtypes(merged, half)
    wide = adapt.merge(
        trainable, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), frozen), config
    )
    merged = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), merged)
    chex.assert_trees_all_close(merged, wide, rtol=2.0**-8)


@pytest.mark.parametrize("name", ["houlsby", "prefix", "prompt"])
def test_what_cannot_merge_is_refused(name):
    model, params = build("bert")
    config = adapt.parse(name)
    trainable, frozen, _ = adapt.apply(params, config, model)
    with pytest.raises(InputError, match="cannot be merged, since it does not change"):
        adapt.merge(trainable, frozen, config)


def test_what_cannot_be_taken_out_is_refused():
    model, params = build("bert")
    trainable, frozen, _ = adapt.apply(params, MERGED["dora"], model)
    merged = adapt.merge(trainable, frozen, MERGED["dora"])
    with pytest.raises(InputError, match="DoRA cannot be taken out, since it replaces"):
        adapt.unmerge(merged, trainable, MERGED["dora"])
    trainable, frozen, _ = adapt.apply(params, MERGED["ia3"], model)
    trainable = jax.tree.map(jnp.zeros_like, trainable)
    merged = adapt.merge(trainable, frozen, MERGED["ia3"])
    with pytest.raises(InputError, match="out of encoder/layer_1/ffn/down, where a fa"):
        adapt.unmerge(merged, trainable, MERGED["ia3"])
