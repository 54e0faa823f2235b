"""Random streams give the keys of NNX, and what is none is refused."""

import jax
import numpy as np
import pytest
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork
from ffnlab.models import EncoderConfig, Tower, TowerConfig, Transformer
from ffnlab.nn import BlockConfig, FeedForward
from ffnlab.nn.random_streams import random_streams

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


def draw(rngs):
    """Returns keys of all ways to take one from random streams."""
    forked = rngs.fork()
    dropout = nnx.Dropout(0.5, rngs=rngs)
    keys = [rngs(), rngs.params(), rngs.dropout(), forked(), forked.noise()]
    return [jax.random.key_data(key) for key in [*keys, dropout.rngs(), rngs()]]


@pytest.mark.parametrize("jit", [lambda function: function, jax.jit])
@pytest.mark.parametrize("seed", [0, 7])
def test_keys_are_those_of_nnx(jit, seed):
    ours, theirs = (
        jit(lambda key, streams=streams: draw(streams(key)))(jax.random.key(seed))
        for streams in (random_streams, nnx.Rngs)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(ours, axis=0)) == len(ours)


def test_a_seed_is_taken_as_its_key():
    assert random_streams(3)() == random_streams(jax.random.key(3))()


def test_no_call_asks_a_traced_array_for_its_sharding(monkeypatch):
    """Such a question is answered by an error that lists all operations so far."""
    asked = []

    def init(key):
        tracer = type(jax.random.key_data(key))
        monkeypatch.setattr(tracer, "_origin_msg", lambda self: asked.append(self))
        rngs = random_streams(key)
        return [rngs() for _ in range(3)]

    jax.eval_shape(init, jax.random.key(0))
    assert not asked
