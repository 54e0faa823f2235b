"""Bottleneck adapters against NumPy, in layers with the norm first and last."""

import chex
import jax
import numpy as np
import pytest

from ffnlab import adapt
from ffnlab.models.transformer import transformer_model
from ffnlab.models.transformer_config import DecoderConfig, EncoderConfig
from tests import oracles
from tests.adapt.small import moved

SIZE = {
    "vocabulary": 11,
    "features": 8,
    "heads": 2,
    "hidden": 12,
    "layers": 1,
    "positions": "none",
}
TOKENS = np.array([[2, 7, 5, 9]])
CONFIGS = {
    "post": EncoderConfig(**SIZE, types=0),
    "pre": DecoderConfig(**SIZE, head="none", causal=False),
}


def oracle(params, blocks, placement, scale, transformer, kinds):
    """One layer, with adapters where the papers have them."""
    layer, embed = params["layer_0"], params["embed"]
    x = embed["tokens"]["embedding"][TOKENS]
    pre = transformer.norm == "pre"
    x = x if pre else oracles.norm_by(x, embed["norm"], transformer)
    mask = np.ones((1, 4, 4), bool)
    for part in ("attention", "ffn"):
        norm = layer[f"{part}_norm"]
        inside = oracles.norm_by(x, norm, transformer) if pre else x
        if part == "attention":
            y = oracles.attention(inside, mask, layer[part], transformer)
        else:
            activation = transformer.block.split(":")[1]
            y = oracles.block(inside, layer[part], "mlp", activation)
        if part in blocks:
            source = inside if placement == "parallel" else y
            y = y + scale * oracles.block(source, blocks[part], *kinds)
        x = x + y
        x = x if pre else oracles.norm_by(x, norm, transformer)
    return oracles.norm_by(x, params["norm"], transformer) if pre else x


@pytest.mark.parametrize("norm", CONFIGS)
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_are_where_the_papers_have_them(placement, norm, x64):
    transformer = CONFIGS[norm]
    gated = placement == "pfeiffer"
    config = adapt.Bottleneck(
        placement=placement,
        hidden=3,
        scale=2.5,
        block="swiglu" if gated else "mlp:tanh",
    )
    model = transformer_model(transformer)
    params = oracles.random_params(model, dtype=np.float64)
    trainable, frozen, apply = adapt.apply(params, config, model)
    trainable = moved(trainable)
    y, _ = jax.jit(apply)(trainable, frozen, TOKENS)
    blocks = jax.tree.map(np.asarray, trainable["layer_0"]["bottleneck"])
    kinds = ("glu", "silu") if gated else ("mlp", "tanh")
    expected = oracle(params, blocks, placement, 2.5, transformer, kinds)
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-6)
    assert set(blocks) == ({"attention", "ffn"} if placement == "houlsby" else {"ffn"})
