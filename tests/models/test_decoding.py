"""Sampling against what NumPy allows, beam search against all texts there are."""

import functools
import itertools

import chex
import jax
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.models import decoding
from ffnlab.models.decoding import beam_search, filter_logits, generate
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.nn.precision import cast
from ffnlab.types import Model
from tests import oracles

# The layers are stacked: they are compiled once.
CONFIG = DecoderConfig(
    vocabulary=5, features=8, layers=2, heads=2, hidden=12, length=16, scan=True
)
MODEL = transformer_model(CONFIG)
PARAMS = oracles.random_params(MODEL, 0.3)
PROMPT = np.array([[1, 2, 3], [4, 0, 1]])
KEY = jax.random.key(0)
STEPS = 3  # of the texts that are all listed
TEXTS = np.array(list(itertools.product(range(5), repeat=STEPS)))


@jax.jit
def log_softmax(tokens):
    """log p of every token at every position, without a cache."""
    return jax.nn.log_softmax(MODEL.apply(PARAMS, tokens)[0])


def log_p(tokens):
    """log p of each token given those before it."""
    values = np.asarray(log_softmax(tokens))[:, :-1]
    return np.take_along_axis(values, np.asarray(tokens)[:, 1:, None], 2)[..., 0]


def test_greedy_takes_the_most_likely_token():
    found = np.asarray(generate(CONFIG, PARAMS, PROMPT, steps=5))
    assert found[:, :3].tolist() == PROMPT.tolist()
    best = np.asarray(log_softmax(found)).argmax(axis=-1)
    assert found[:, 3:].tolist() == best[:, 2:-1].tolist()
    cold = generate(CONFIG, PARAMS, PROMPT, steps=5, key=KEY, temperature=0.0)
    one = generate(CONFIG, PARAMS, PROMPT, steps=5, key=KEY, top_k=1)
    assert found.tolist() == cold.tolist() == one.tolist()


def test_parameters_in_bfloat16():
    half = cast(PARAMS, "bfloat16")
    found = np.asarray(generate(CONFIG, half, PROMPT, steps=5))
    best = np.asarray(log_softmax(found)).max(axis=-1)[:, 2:-1]
    np.testing.assert_allclose(log_p(found)[:, 2:], best, atol=0.05)
    beams, scores = beam_search(CONFIG, half, PROMPT, steps=5, width=2)
    for row, score in zip(beams, scores, strict=True):
        wanted = log_p(row)[:, 2:].mean(axis=1)
        np.testing.assert_allclose(score, wanted, atol=0.02)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}]
)
def test_samples_have_their_probabilities(options):
    many = np.repeat(PROMPT[:1], 4000, axis=0)
    found = np.asarray(generate(CONFIG, PARAMS, many, steps=1, key=KEY, **options))
    logits = np.asarray(log_softmax(PROMPT[:1]))[0, -1]
    wanted = np.asarray(
        jax.jit(lambda x: jax.nn.softmax(filter_logits(x, **options)))(logits)
    )
    shares = np.bincount(found[:, -1], minlength=5) / 4000
    np.testing.assert_allclose(shares, wanted, atol=0.03)
    assert not shares[wanted == 0].any()


TOP_P = (0.1, 0.5, 0.87, 0.999, 1.0)


def test_top_p_keeps_the_fewest_tokens_that_hold_it():
    logits = (np.random.default_rng(0).normal(size=(20, 9)) * 2).astype(np.float32)
    results = jax.jit(lambda x: [filter_logits(x, top_p=p) for p in TOP_P])(logits)
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for top_p, filtered in zip(TOP_P, results, strict=True):
        for row, p in zip(np.isfinite(filtered), likely, strict=True):
            order = np.argsort(-p)
            count = int(np.searchsorted(np.cumsum(p[order]), top_p - 1e-6)) + 1
            assert sorted(np.flatnonzero(row)) == sorted(order[: min(count, 9)])


def test_a_stop_fills_the_rest():
    prompts = np.repeat(PROMPT, 50, 0)
    found = np.asarray(generate(CONFIG, PARAMS, prompts, 8, key=KEY, stop=2))
    stopped = 0
    for row in found[:, 3:]:
        if 2 in row.tolist():
            stopped += 1
            assert set(row[row.tolist().index(2) :].tolist()) == {2}
    assert stopped > 0


def test_keys_decide_and_one_compilation_serves_all():
    chex.clear_trace_counter()
    first, again, other = (
        generate(CONFIG, PARAMS, PROMPT, 6, key=jax.random.key(seed), top_p=0.95)
        for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    before = decoding._generate._cache_size()
    generate(CONFIG, PARAMS, PROMPT[::-1], 6, key=jax.random.key(3), top_p=0.95)
    assert decoding._generate._cache_size() == before


@functools.cache
def text_log_p(row):
    """log p of the tokens of all texts after a prompt, `[125, STEPS]`."""
    prompt = np.repeat(PROMPT[row : row + 1], len(TEXTS), 0)
    return log_p(np.concatenate([prompt, TEXTS], axis=1))[:, -STEPS:]


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(stop, penalty):
    tokens, scores = map(
        np.asarray,
        beam_search(
            CONFIG, PARAMS, PROMPT, STEPS, width=125, stop=stop, length_penalty=penalty
        ),
    )
    for row in range(len(PROMPT)):
        found = {}
        for text, gains in zip(TEXTS.tolist(), text_log_p(row), strict=True):
            length = text.index(stop) + 1 if stop in text else STEPS
            text = text[:length] + [stop] * (STEPS - length)
            found[tuple(text)] = gains[:length].sum() / length**penalty
        best = sorted(found.values(), reverse=True)[:10]
        np.testing.assert_allclose(scores[row, :10], best, rtol=1e-4)
        for text, score in zip(tokens[row, :10, 3:].tolist(), best, strict=True):
            assert found[tuple(text)] == pytest.approx(score, rel=1e-4)


def test_a_beam_of_one_is_greedy():
    tokens, scores = beam_search(CONFIG, PARAMS, PROMPT, 5, width=1, length_penalty=0.0)
    greedy = generate(CONFIG, PARAMS, PROMPT, 5)
    assert tokens[:, 0].tolist() == greedy.tolist()
    expected = log_p(greedy)[:, -5:].sum(axis=1)
    np.testing.assert_allclose(np.asarray(scores)[:, 0], expected, rtol=1e-4)


def test_logits_that_are_not_finite_end_a_text_and_score_nan():
    damaged = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), PARAMS)
    texts = np.asarray(generate(CONFIG, damaged, PROMPT, 5, stop=2))
    assert texts[:, 3:].tolist() == [[-1, 2, 2, 2, 2]] * 2
    _, scores = beam_search(CONFIG, damaged, PROMPT, 5, width=1, length_penalty=0.0)
    assert np.isnan(scores).all()


def padded(lengths, width, seed):
    """Prompts of some lengths on the right of rows, and noise at the padding."""
    rows = np.random.default_rng(seed).integers(0, 5, (len(lengths), width))
    return rows, np.arange(width) >= width - np.array(lengths)[:, None]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_padded_prompt_continues_as_it_does_alone(positions):
    config = DecoderConfig(
        vocabulary=5, features=8, layers=2, heads=2, hidden=12, length=16,
        positions=positions, key_value_heads=1,
    )  # fmt: skip
    model = transformer_model(config)
    params = oracles.random_params(model, 0.3)
    run = jax.jit(lambda x: jax.nn.log_softmax(model.apply(params, x)[0]))

    def alone(text):  # on the left of a row, no cache, no mask: log p of what follows
        row = np.zeros((1, 16), np.int32)
        row[0, : len(text)] = text
        return np.asarray(run(row))[0, : len(text)]

    lengths = [7, 1, 4, 12, 2]
    prompt, mask = padded(lengths, width=14, seed=0)  # 18 slots for 16 positions
    greedy = np.asarray(generate(config, params, prompt, 4, mask=mask))
    # As wide as the vocabulary, two steps find the best of all texts.
    many, scores = map(
        np.asarray,
        beam_search(config, params, prompt, 2, mask=mask, width=5, length_penalty=0),
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


def test_prompts_of_any_lengths_in_one_width_are_one_program():
    sizes = []
    for seed, lengths in enumerate([[8, 8], [1, 8], [3, 5]]):
        prompt, mask = padded(lengths, width=8, seed=seed)
        mask = None if seed == 0 else mask
        generate(CONFIG, PARAMS, prompt, 3, mask=mask)
        beam_search(CONFIG, PARAMS, prompt, 3, mask=mask, width=2)
        sizes.append(
            [decoding._generate._cache_size(), decoding._beam_search._cache_size()]
        )
    assert sizes[0] == sizes[1] == sizes[2]


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
        ({"mask": [[True] * 3]}, r"mask \[1, 3\] must have the shape of .*\[2, 3\]"),
        ({"mask": [[True] * 3, [True, True, False]]}, "mask: row 1 .* pad on the left"),
        ({"mask": [[True, False, True], [True] * 3]}, "mask: row 0 must be padding"),
        ({"mask": [[False] * 3, [True] * 3]}, "row 0 .* then tokens, at least one"),
        ({"steps": 15, "mask": [[False, True, True]] * 2}, "steps=15: .* 14 of 16"),
        ({"config": EncoderConfig.tiny()}, "needs a causal model with a head"),
    ],
)
def test_bad_options_are_refused(options, message):
    given = {"config": CONFIG, "prompt": PROMPT, "steps": 2, "key": KEY, **options}
    with pytest.raises(InputError, match=message):
        generate(params=PARAMS, **given)
    if "steps" in options:
        with pytest.raises(InputError, match=message):
            beam_search(
                CONFIG, PARAMS, PROMPT, options["steps"], mask=options.get("mask")
            )
    with pytest.raises(InputError, match="width=0 must be at least 1"):
        beam_search(CONFIG, PARAMS, PROMPT, 2, width=0)


# The last tests of the file: they clear what others have compiled.
@pytest.mark.parametrize("of", ["generate", "beam"])
def test_it_stops_when_all_texts_have(monkeypatch, of):
    calls = []
    compiled = decoding._generate if of == "generate" else decoding._beam_search
    prompt = PROMPT[[0, 0]]
    plain = generate(CONFIG, PARAMS, prompt, steps=5)[0, 3:].tolist()
    stop, length = plain[2], plain.index(plain[2]) + 1

    def counted(config):
        model = transformer_model(config)

        def apply(*args, **options):
            jax.debug.callback(lambda: calls.append(1))
            return model.apply(*args, **options)

        return Model(model.init, apply)

    monkeypatch.setattr(decoding, "transformer_model", counted)
    compiled.clear_cache()
    if of == "generate":
        found = generate(CONFIG, PARAMS, prompt, 5, stop=stop)
    else:
        found = beam_search(CONFIG, PARAMS, prompt, 5, stop=stop, width=1)[0][:, 0]
    jax.effects_barrier()
    compiled.clear_cache()
    wanted = plain[:length] + [stop] * (5 - length)
    assert found[:, 3:].tolist() == [wanted, wanted]
    assert len(calls) == 1 + length < 6  # the prompt, and each token
