"""Look-ups out of range are refused where the values are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.models import decoding
from ffnlab.models.mlp import TowerConfig, tower
from ffnlab.models.sequence import SequenceConfig, sequence_model
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.nn.ffn import BlockConfig
from ffnlab.nn.indices import check_indices
from ffnlab.train import layerwise

SMALL = {"vocabulary": 5, "features": 4, "heads": 1, "hidden": 4, "layers": 1}


def test_indices_in_range_and_traced_ones_pass():
    check_indices("x", np.zeros((0, 3), int), 1)
    check_indices("x", [[0, 4]], 5)
    jax.jit(lambda x: check_indices("x", x, 5))(jnp.array([9]))
    for value in (-1, 5):
        with pytest.raises(InputError, match=f"x: {value} is not one of the 5 rows"):
            check_indices("x", jnp.array([0, value]), 5)


def test_models_refuse_tokens_types_and_positions_out_of_range():
    """Inside of jit they would give NaN; the tables are those of the model."""
    model = transformer_model(EncoderConfig(**SMALL, length=3))
    params = model.init(jax.random.key(0))
    tokens = np.array([[1, 4]])
    cases = {
        "tokens: 5": (tokens + 1, {}),
        "types: 2": (tokens, {"types": tokens * 0 + 2}),
        "positions: 3": (tokens, {"positions": np.array([[0, 3]])}),
    }
    for message, (x, options) in cases.items():
        with pytest.raises(InputError, match=message):
            model.apply(params, x, **options)
    jax.eval_shape(model.apply, params, tokens + 1)
    with pytest.raises(InputError, match="vocab_ids: 5 is not one of the 5 embeddings"):
        layerwise.prune_embeddings(params, np.array([0, 5]))
    decoder = DecoderConfig(**SMALL, length=8)
    with pytest.raises(InputError, match="prompt: 7 is not one of the 5 embeddings"):
        decoding.generate(decoder, {}, [[7]], steps=2, key=jax.random.key(0))
    headed = dataclasses.replace(decoder, head="tied")
    model = transformer_model(headed)
    with pytest.raises(InputError, match="label_positions: 2 is not one of the 2"):
        model.apply(
            model.init(jax.random.key(0)), tokens, label_positions=np.array([[2]])
        )


def test_other_models_of_tokens():
    sequence = sequence_model(
        SequenceConfig(outputs=2, vocabulary=5, per="sequence", hidden=3)
    )
    with pytest.raises(InputError, match="tokens: 5 is not one of the 5 embeddings"):
        sequence.apply(sequence.init(jax.random.key(0)), {"tokens": np.array([[5]])})
    model = tower(TowerConfig(2, 3, BlockConfig("mlp", 4, 4), vocabulary=5))
    with pytest.raises(InputError, match="x: 6 is not one of the 5 embeddings"):
        model.apply(model.init(jax.random.key(0)), np.array([[6, 0]]))
