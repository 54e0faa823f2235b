"""Random streams give the keys of NNX."""

import jax
import numpy as np
import pytest
from flax import nnx

from ffnlab.nn.random_streams import random_streams


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
