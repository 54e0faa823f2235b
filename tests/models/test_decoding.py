"""Sampling against what NumPy allows, beam search against all texts there are."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.models import decoding
from ffnlab.models.decoding import beam_search, filter_logits, generate
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.types import Model

CONFIG = DecoderConfig(
    vocabulary=5, features=8, layers=2, heads=2, hidden=12, length=16
)
PROMPT = np.array([[1, 2, 3], [4, 0, 1]])
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    drawn = transformer_model(CONFIG).init(KEY)
    return jax.tree.map(lambda p: 15 * p if p.ndim > 1 else p, drawn)


def log_chances(params, tokens):
    """log p of each token given those before it, without a cache."""
    logits, _ = transformer_model(CONFIG).apply(params, tokens)
    chances = jax.nn.log_softmax(logits[:, :-1])
    following = np.asarray(tokens)[:, 1:, None]
    return np.take_along_axis(np.asarray(chances), following, 2)[..., 0]


def test_greedy_takes_the_likeliest(params):
    found = generate(CONFIG, params, PROMPT, steps=5)
    assert found[:, :3].tolist() == PROMPT.tolist()
    logits, _ = transformer_model(CONFIG).apply(params, found)
    assert found[:, 3:].tolist() == logits[:, 2:-1].argmax(axis=-1).tolist()
    cold = generate(CONFIG, params, PROMPT, steps=5, key=KEY, temperature=0.0)
    one = generate(CONFIG, params, PROMPT, steps=5, key=KEY, top_k=1)
    assert found.tolist() == cold.tolist() == one.tolist()


def test_samples_come_as_often_as_they_should(params):
    many = np.repeat(PROMPT[:1], 4000, axis=0)
    for options in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}):
        found = generate(CONFIG, params, many, steps=1, key=KEY, **options)[:, -1]
        logits = transformer_model(CONFIG).apply(params, PROMPT[:1])[0][0, -1]
        wanted = jax.nn.softmax(filter_logits(logits, **options))
        shares = np.bincount(found, minlength=5) / 4000
        np.testing.assert_allclose(shares, wanted, atol=0.03)
        assert not shares[np.asarray(wanted) == 0].any()


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.87, 0.999, 1.0])
def test_top_p_keeps_the_fewest_that_hold_it(top_p):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(20, 9)) * 2)
    kept = np.isfinite(filter_logits(logits, top_p=top_p))
    for row, chances in zip(kept, np.asarray(jax.nn.softmax(logits)), strict=True):
        order = np.argsort(-chances)
        count = int(np.searchsorted(np.cumsum(chances[order]), top_p - 1e-6)) + 1
        assert sorted(np.flatnonzero(row)) == sorted(order[: min(count, 9)])


def test_a_stop_fills_the_rest(params):
    found = generate(CONFIG, params, np.repeat(PROMPT, 50, 0), 8, key=KEY, stop=2)
    stopped = 0
    for row in np.asarray(found[:, 3:]):
        if 2 in row.tolist():
            stopped += 1
            assert set(row[row.tolist().index(2) :].tolist()) == {2}
    assert stopped > 0


def test_keys_decide_and_one_compilation_serves_all(params):
    chex.clear_trace_counter()
    first, again, other = (
        generate(CONFIG, params, PROMPT, 6, key=jax.random.key(seed), top_p=0.95)
        for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    before = decoding._generated._cache_size()
    generate(CONFIG, params, PROMPT[::-1], 6, key=jax.random.key(3), top_p=0.95)
    assert decoding._generated._cache_size() == before


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(params, stop, penalty):
    steps = 3
    tokens, scores = beam_search(
        CONFIG, params, PROMPT, steps, width=125, stop=stop, length_penalty=penalty
    )
    for row, prompt in enumerate(PROMPT):
        texts = np.array(list(itertools.product(range(5), repeat=steps)))
        whole = np.concatenate([np.repeat(prompt[None], len(texts), 0), texts], axis=1)
        chances = log_chances(params, whole)[:, -steps:]
        found = {}
        for text, chance in zip(texts.tolist(), chances, strict=True):
            length = text.index(stop) + 1 if stop in text else steps
            text = text[:length] + [stop] * (steps - length)
            found[tuple(text)] = chance[:length].sum() / length**penalty
        best = sorted(found.values(), reverse=True)[:10]
        np.testing.assert_allclose(scores[row, :10], best, rtol=1e-4)
        for text, score in zip(tokens[row, :10, 3:].tolist(), best, strict=True):
            assert found[tuple(text)] == pytest.approx(score, rel=1e-4)


def test_a_beam_of_one_is_greedy(params):
    tokens, scores = beam_search(CONFIG, params, PROMPT, 5, width=1, length_penalty=0.0)
    greedy = generate(CONFIG, params, PROMPT, 5)
    assert tokens[:, 0].tolist() == greedy.tolist()
    expected = log_chances(params, greedy)[:, -5:].sum(axis=1)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-4)


def padded(lengths, width, seed):
    """Prompts of some lengths on the right of rows, and noise where padding is."""
    rows = np.random.default_rng(seed).integers(0, 5, (len(lengths), width))
    return rows, np.arange(width) >= width - np.array(lengths)[:, None]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_padded_prompt_goes_on_as_it_does_alone(positions):
    config = dataclasses.replace(CONFIG, positions=positions, key_value_heads=1)
    model = transformer_model(config)
    drawn = jax.tree.map(lambda p: 15 * p if p.ndim > 1 else p, model.init(KEY))
    chances = jax.jit(lambda x: jax.nn.log_softmax(model.apply(drawn, x)[0]))

    def alone(text):  # at the left of a row, no cache, no mask: log p of what follows
        row = jnp.zeros((1, 16), jnp.int32).at[0, : len(text)].set(jnp.array(text))
        return np.asarray(chances(row))[0, : len(text)]

    lengths = [7, 1, 4, 12, 2]
    prompt, mask = padded(lengths, width=14, seed=0)  # 18 places, of 16 positions
    greedy = generate(config, drawn, prompt, 4, mask=mask)
    # As wide as the vocabulary, two steps find the best of all texts.
    many, scores = beam_search(
        config, drawn, prompt, 2, mask=mask, width=5, length_penalty=0
    )
    for row, length in enumerate(lengths):
        text = prompt[row, -length:].tolist()
        found = {}
        for first, second in itertools.product(range(5), repeat=2):
            after = alone([*text, first])[-2:]
            found[first, second] = after[0, first] + after[1, second]
        best = sorted(found, key=found.get, reverse=True)[:5]
        assert many[row, :, 14:].tolist() == [[*each] for each in best]
        np.testing.assert_allclose(scores[row], [found[t] for t in best], rtol=1e-4)
        for token in greedy[row, 14:].tolist():
            assert token == alone(text)[-1].argmax()
            text.append(token)
    assert len({tuple(row) for row in greedy[:, 14:].tolist()}) > 1


def test_prompts_of_any_lengths_in_one_width_are_one_program(params):
    found = []
    for seed, lengths in enumerate([[8, 8], [1, 8], [3, 5]]):
        prompt, mask = padded(lengths, width=8, seed=seed)
        mask = None if seed == 0 else mask
        generate(CONFIG, params, prompt, 3, mask=mask)
        beam_search(CONFIG, params, prompt, 3, mask=mask, width=2)
        found.append([decoding._generated._cache_size(), decoding._beam._cache_size()])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("of", ["generate", "beam"])
def test_it_stops_when_all_texts_have(params, monkeypatch, of):
    calls, compiled = [], decoding._generated if of == "generate" else decoding._beam
    prompt = PROMPT[[0, 0]]
    plain = generate(CONFIG, params, prompt, steps=5)[0, 3:].tolist()
    stop, length = plain[2], plain.index(plain[2]) + 1

    def counted(config):
        model = transformer_model(config)

        def apply(*args, **options):
            jax.debug.callback(lambda: calls.append(1))
            return model.apply(*args, **options)

        return Model(model.init, apply)

    monkeypatch.setattr(decoding, "transformer", counted)
    compiled.clear_cache()
    if of == "generate":
        found = generate(CONFIG, params, prompt, 5, stop=stop)
    else:
        found = beam_search(CONFIG, params, prompt, 5, stop=stop, width=1)[0][:, 0]
    jax.effects_barrier()
    compiled.clear_cache()
    wanted = plain[:length] + [stop] * (5 - length)
    assert found[:, 3:].tolist() == [wanted, wanted]
    assert len(calls) == 1 + length < 6  # the prompt, and each token


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"steps": 14}, "steps=14: the prompt leaves 13 of 16 positions"),
        ({"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_p": 0.0}, r"top_p=0.0 must be in \(0, 1\]"),
        ({"top_p": float("nan")}, "top_p=nan must be in"),
        ({"prompt": PROMPT[0]}, r"a prompt \[3\] must be \[B, T\]"),
        ({"prompt": PROMPT[:, :0]}, r"a prompt \[2, 0\] must be"),
        ({"mask": [[True] * 3]}, r"mask \[1, 3\] must be as the prompt \[2, 3\]"),
        ({"mask": [[True] * 3, [True, True, False]]}, "mask: row 1 .* pad on the left"),
        ({"mask": [[True, False, True], [True] * 3]}, "mask: row 0 must be padding"),
        ({"mask": [[False] * 3, [True] * 3]}, "row 0 .* then tokens, at least one"),
        ({"steps": 15, "mask": [[False, True, True]] * 2}, "steps=15: .* 14 of 16"),
        ({"config": EncoderConfig.tiny()}, "needs a causal model with a head"),
    ],
)
def test_what_cannot_be_asked_for(options, message, params):
    given = {"config": CONFIG, "prompt": PROMPT, "steps": 2, "key": KEY, **options}
    with pytest.raises(InputError, match=message):
        generate(params=params, **given)
    if "steps" in options:
        with pytest.raises(InputError, match=message):
            beam_search(
                CONFIG, params, PROMPT, options["steps"], mask=options.get("mask")
            )
    with pytest.raises(InputError, match="width=0 must be at least 1"):
        beam_search(CONFIG, params, PROMPT, 2, width=0)
