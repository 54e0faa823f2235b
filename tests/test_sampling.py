"""Sampling against what NumPy allows, beam search against all texts there are."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import sampling
from ffnlab.errors import InputError
from ffnlab.sampling import beam, filtered, generate
from ffnlab.transformer import DecoderConfig, EncoderConfig, transformer

CONFIG = DecoderConfig(
    vocabulary=5, features=8, layers=2, heads=2, hidden=12, length=16
)
PROMPT = np.array([[1, 2, 3], [4, 0, 1]])
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    drawn = transformer(CONFIG).init(KEY)
    return jax.tree.map(lambda p: 15 * p if p.ndim > 1 else p, drawn)


def log_chances(params, tokens):
    """log p of each token given those before it, without a cache."""
    logits, _ = transformer(CONFIG).apply(params, tokens)
    chances = jax.nn.log_softmax(logits[:, :-1])
    following = np.asarray(tokens)[:, 1:, None]
    return np.take_along_axis(np.asarray(chances), following, 2)[..., 0]


def test_greedy_takes_the_likeliest(params):
    found = generate(CONFIG, params, PROMPT, steps=5)
    assert found[:, :3].tolist() == PROMPT.tolist()
    logits, _ = transformer(CONFIG).apply(params, found)
    assert found[:, 3:].tolist() == logits[:, 2:-1].argmax(axis=-1).tolist()
    cold = generate(CONFIG, params, PROMPT, steps=5, key=KEY, temperature=0.0)
    one = generate(CONFIG, params, PROMPT, steps=5, key=KEY, top_k=1)
    assert found.tolist() == cold.tolist() == one.tolist()


def test_samples_come_as_often_as_they_should(params):
    many = np.repeat(PROMPT[:1], 4000, axis=0)
    for options in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}):
        found = generate(CONFIG, params, many, steps=1, key=KEY, **options)[:, -1]
        logits = transformer(CONFIG).apply(params, PROMPT[:1])[0][0, -1]
        wanted = jax.nn.softmax(filtered(logits, **options))
        shares = np.bincount(found, minlength=5) / 4000
        np.testing.assert_allclose(shares, wanted, atol=0.03)
        assert not shares[np.asarray(wanted) == 0].any()


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.87, 0.999, 1.0])
def test_top_p_keeps_the_fewest_that_hold_it(top_p):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(20, 9)) * 2)
    kept = np.isfinite(filtered(logits, top_p=top_p))
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
    before = sampling._generated._cache_size()
    generate(CONFIG, params, PROMPT[::-1], 6, key=jax.random.key(3), top_p=0.95)
    assert sampling._generated._cache_size() == before


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(params, stop, penalty):
    steps = 3
    tokens, scores = beam(
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
    tokens, scores = beam(CONFIG, params, PROMPT, 5, width=1, length_penalty=0.0)
    greedy = generate(CONFIG, params, PROMPT, 5)
    assert tokens[:, 0].tolist() == greedy.tolist()
    expected = log_chances(params, greedy)[:, -5:].sum(axis=1)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-4)


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
        ({"config": EncoderConfig.tiny()}, "needs a causal model with a head"),
    ],
)
def test_what_cannot_be_asked_for(options, message, params):
    given = {"config": CONFIG, "prompt": PROMPT, "steps": 2, "key": KEY, **options}
    with pytest.raises(InputError, match=message):
        generate(params=params, **given)
    if "steps" in options:
        with pytest.raises(InputError, match=message):
            beam(CONFIG, params, PROMPT, options["steps"])
    with pytest.raises(InputError, match="width=0 must be at least 1"):
        beam(CONFIG, params, PROMPT, 2, width=0)
