"""The check of the random streams that modules are built with."""

import jax
import numpy as np
import pytest
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork
from ffnlab.models import EncoderConfig, Tower, TowerConfig, Transformer
from ffnlab.nn import BlockConfig, FeedForward

BUILDS = {
    "block": lambda rngs: FeedForward(BlockConfig("mlp", 4), rngs=rngs),
    "tower": lambda rngs: Tower(TowerConfig(3, 2, BlockConfig("mlp", 4)), rngs=rngs),
    "transformer": lambda rngs: Transformer(EncoderConfig.tiny(), rngs=rngs),
    "layer": lambda rngs: FeedbackLayer(FeedbackConfig(3, 4), rngs=rngs),
    "network": lambda rngs: FeedbackNetwork(FeedbackConfig(3, 4), rngs=rngs),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_seed_is_no_random_stream(build):
    message = r"^rngs: int given; give random streams, nnx\.Rngs\(7\)$"
    with pytest.raises(InputError, match=message):
        build(7)


@pytest.mark.parametrize(
    "given,message",
    [
        (None, r"rngs: None given; .*, nnx\.Rngs\(0\)$"),
        (True, r"rngs: bool given; .*, nnx\.Rngs\(0\)$"),
        (np.random.default_rng(0), r"rngs: Generator given; .*, nnx\.Rngs\(0\)$"),
        (jax.random.key(0), r"rngs: .* given; .*, nnx\.Rngs\(key\)$"),
        (nnx.Rngs, r"rngs: .* given; .*, nnx\.Rngs\(0\)$"),
    ],
    ids=["nothing", "bool", "numpy", "key", "class"],
)
def test_what_is_no_random_stream_is_named(given, message):
    with pytest.raises(InputError, match=message):
        BUILDS["layer"](given)


def test_streams_of_a_key_are_taken():
    layer = FeedForward(BlockConfig("mlp", 2, 3), rngs=nnx.Rngs(jax.random.key(0)))
    assert layer.up.kernel.shape == (2, 3)
