"""Prefix and prompt tuning against the equations, for packed rows and in decoding."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffnlab import adapt
from ffnlab.errors import InputError
from ffnlab.models.decoding import generate
from ffnlab.models.transformer import transformer_model
from ffnlab.models.transformer_config import DecoderConfig, EncoderConfig
from tests import oracles
from tests.adapt.small import moved

SIZE = {
    "vocabulary": 11,
    "features": 8,
    "heads": 2,
    "hidden": 12,
    "layers": 2,
    "length": 12,
}
TOKENS = np.array([[2, 7, 5, 9, 3, 10], [1, 8, 4, 6, 1, 2]])
ENCODER = EncoderConfig(**SIZE, types=0)
DECODER = DecoderConfig(**SIZE)


def adapted(transformer, config, dtype=np.float32):
    model = transformer_model(transformer)
    params = oracles.random_params(model, dtype=dtype)
    trainable, frozen, apply = adapt.apply(params, config, model)
    return moved(trainable), frozen, apply, params


def with_prefix(query, key, value, prefix):
    """One head with keys and values before those of the text, for one text."""
    keys, values = (
        np.concatenate(pair) for pair in zip(prefix, (key, value), strict=True)
    )
    scores = query @ keys.T / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


def test_a_prefix_is_attended_to(x64):
    """One layer, against NumPy; the positions of the text stay or shift."""
    transformer = EncoderConfig(**{**SIZE, "layers": 1}, types=0)
    for shift in (False, True):
        config = adapt.Prefix(virtual_tokens=3, shift_positions=shift)
        trainable, frozen, apply, params = adapted(transformer, config, np.float64)
        y, _ = jax.jit(apply)(trainable, frozen, TOKENS)
        layer, embed = params["layer_0"], params["embed"]
        start = 3 if shift else 0
        positions = embed["positions"]["embedding"][start : start + 6]
        for row in range(2):
            x = embed["tokens"]["embedding"][TOKENS[row]] + positions
            x = oracles.norm_by(x, embed["norm"], transformer)
            parts = {
                n: np.split(oracles.linear(x, layer["attention"][n]), 2, axis=-1)
                for n in ("query", "key", "value")
            }
            prefix = [
                np.split(np.asarray(trainable["prefix"][n][0]), 2, axis=-1)
                for n in ("key", "value")
            ]
            heads = [
                with_prefix(
                    *(parts[n][i] for n in ("query", "key", "value")),
                    (prefix[0][i], prefix[1][i]),
                )
                for i in range(2)
            ]
            out = oracles.linear(np.concatenate(heads, -1), layer["attention"]["out"])
            x = oracles.norm_by(x + out, layer["attention_norm"], transformer)
            inside = oracles.block(x, layer["ffn"], "mlp", "gelu")
            expected = oracles.norm_by(x + inside, layer["ffn_norm"], transformer)
            chex.assert_trees_all_close(y[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("projection", [0, 4])
def test_gradients_of_a_prefix(projection, x64):
    config = adapt.Prefix(virtual_tokens=2, projection=projection)
    trainable, frozen, apply, _ = adapted(ENCODER, config, np.float64)
    check_grads(
        jax.jit(lambda t: jnp.sin(apply(t, frozen, TOKENS)[0]).mean()),
        (trainable,),
        order=1,
        modes=["rev"],
        eps=1e-3,  # coarse, since the softmax is in float32
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("scan", [False, True])
def test_a_prompt_in_a_causal_model_is_a_longer_text(scan):
    """With tokens whose embeddings are the vectors of the prompt."""
    config = adapt.Prompt(virtual_tokens=3)
    transformer = DecoderConfig(**SIZE, scan=scan)
    trainable, frozen, apply, params = adapted(transformer, config)
    table = params["embed"]["tokens"]["embedding"]
    longer = {**params, "embed": {**params["embed"]}}
    prompt = trainable["prompt"]["embedding"]
    longer["embed"]["tokens"] = {"embedding": jnp.concatenate([table, prompt])}
    wide = transformer_model(DecoderConfig(**{**SIZE, "vocabulary": 14}, scan=scan))
    tokens = np.concatenate([np.tile([11, 12, 13], (2, 1)), TOKENS], axis=1)

    @jax.jit
    def run(trainable, longer):
        return apply(trainable, frozen, TOKENS)[0], wide.apply(longer, tokens)[0]

    found, expected = run(trainable, longer)
    chex.assert_trees_all_close(found, expected[:, 3:, :11], rtol=1e-4, atol=1e-5)


BOTH = adapt.Prefix(virtual_tokens=2) + adapt.Prompt(virtual_tokens=3)


@pytest.mark.parametrize("transformer", [ENCODER, DECODER], ids=["bert", "gpt2"])
def test_texts_that_share_a_row_are_as_texts_alone(transformer):
    """And padding changes nothing."""
    config = BOTH + adapt.LoRA(rank=2)
    trainable, frozen, apply, _ = adapted(transformer, config)
    segment_ids = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, -1, -1, -1]])
    mask = segment_ids >= 0

    @jax.jit
    def run(trainable):
        packed, _ = apply(trainable, frozen, TOKENS, mask, segment_ids=segment_ids)
        alone = [
            apply(trainable, frozen, text)[0][0]
            for text in (TOKENS[:1, :2], TOKENS[:1, 2:], TOKENS[1:, :3])
        ]
        return packed, alone

    packed, alone = run(trainable)
    chex.assert_trees_all_close(
        packed[0], jnp.concatenate(alone[:2]), rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_close(packed[1, :3], alone[2], rtol=1e-4, atol=1e-5)


def test_text_is_generated_with_virtual_tokens():
    """With a cache, token by token, as without one."""
    trainable, frozen, apply, _ = adapted(DECODER, BOTH)
    joined = adapt.join(trainable, frozen, BOTH)
    tokens = np.asarray(generate(DECODER, joined, TOKENS[:, :3], 3))
    logits, _ = jax.jit(apply)(trainable, frozen, tokens)
    assert logits[:, 2:5].argmax(axis=-1).tolist() == tokens[:, 3:].tolist()


def test_virtual_tokens_take_positions():
    config = adapt.Prompt(virtual_tokens=8)
    trainable, frozen, apply, _ = adapted(ENCODER, config)
    with pytest.raises(InputError, match="6 tokens and 8 virtual ones are more"):
        apply(trainable, frozen, TOKENS)
    config = adapt.Prompt(virtual_tokens=8, shift_positions=False)
    trainable, frozen, apply, _ = adapted(ENCODER, config)
    assert jax.eval_shape(apply, trainable, frozen, TOKENS)[0].shape == (2, 6, 8)
