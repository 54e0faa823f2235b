"""Masked tokens: how many, which, and what replaces them."""

import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.models.masking import mask_tokens

KEY = jax.random.key(0)


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(mask_tokens, **options))


def masked(words, seed=0, **options):
    """Tokens from 100 on, and what becomes of them; the mask token is 7."""
    words = np.asarray(words)
    tokens = np.arange(words.size).reshape(words.shape) % 50 + 100
    run = compiled(**{"rate": 0.15, "mask_token": 7, "vocabulary": 1000, **options})
    return tokens, *map(np.asarray, run(jax.random.key(seed), tokens, words))


def chosen_of(words, label_positions, label_mask):
    chosen = np.zeros(np.shape(words), bool)
    for row, (positions, mask) in enumerate(
        zip(label_positions, label_mask, strict=True)
    ):
        assert len(set(positions)) == len(positions)
        chosen[row, positions[mask]] = True
    return chosen


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    sizes=st.lists(st.integers(0, 20), min_size=3, max_size=3),
    rate=st.sampled_from([0.05, 0.15, 0.9]),
    seed=st.integers(0, 9),
)
@hypothesis.example(sizes=[0, 1, 2], rate=0.05, seed=0)
@hypothesis.example(sizes=[1, 19, 20], rate=0.15, seed=1)
@hypothesis.example(sizes=[2, 5, 9], rate=0.15, seed=3)
@hypothesis.example(sizes=[20, 20, 20], rate=0.9, seed=2)
def test_the_share_of_the_words_and_nothing_else(sizes, rate, seed):
    place = np.arange(20)
    words = np.stack([np.where(place < size, place, -1) for size in sizes])
    tokens, new, positions, mask = masked(words, seed, rate=rate, mask_share=1.0)
    assert positions.shape == mask.shape == (3, math.ceil(rate * 20 - 1e-6))
    chosen = chosen_of(words, positions, mask)
    shares = np.round(np.float32(rate) * np.float32(sizes))
    expected = np.minimum(np.maximum(shares, 1), sizes)
    assert chosen.sum(axis=1).tolist() == expected.tolist()
    assert (words[chosen] >= 0).all()
    assert (new[chosen] == 7).all() and (new[~chosen] == tokens[~chosen]).all()


def test_at_least_one_token_of_short_rows():
    words = np.zeros((2, 1), int)
    _, new, positions, mask = masked(words, rate=1e-7, mask_share=1.0)
    assert positions.shape == (2, 1) and mask.all() and (new == 7).all()


def test_eighty_ten_ten():
    words = np.tile(np.arange(200), (400, 1))
    tokens, new, positions, mask = masked(words)
    assert mask.all() and positions.shape == (400, 30)
    before, after = (
        np.take_along_axis(each, positions, axis=1) for each in (tokens, new)
    )
    hidden, kept = (after == 7).mean(), (after == before).mean()
    assert abs(hidden - 0.8) < 0.015 and abs(kept - 0.1) < 0.01
    other = after[(after != 7) & (after != before)]
    assert len(set(other)) > 500  # any token, evenly
    counts = np.zeros(200)
    np.add.at(counts, positions.ravel(), 1)
    assert counts.min() > 30 and counts.max() < 95  # every place, about 60 times


def test_random_tokens_are_any_of_the_vocabulary():
    words = np.tile(np.arange(9), (40, 1))
    _, new, positions, mask = masked(
        words, rate=1.0, mask_share=0.0, random_share=1.0, vocabulary=2
    )
    assert mask.all() and positions.shape == (40, 9)
    assert set(new.ravel().tolist()) == {0, 1}
    assert 0.3 < new.mean() < 0.7


@pytest.mark.parametrize(
    ("shares", "border", "random"),
    [
        ((0.0, 0.0), 0.0, False),
        ((0.5, 0.0), 0.5, False),
        ((0.0, 0.5), 0.5, False),
        ((0.5, 0.25), 0.5, True),
    ],
)
def test_a_draw_at_a_border_belongs_to_the_next_share(
    shares, border, random, monkeypatch
):
    """Draws are in [0, 1): one that equals the sum of the shares before is beyond."""
    monkeypatch.setattr(
        jax.random, "uniform", lambda key, shape: jnp.full(shape, border, jnp.float32)
    )
    tokens = np.arange(12).reshape(3, 4) + 1
    words = np.tile(np.arange(4), (3, 1))
    run = functools.partial(
        mask_tokens, rate=0.5, mask_token=99, vocabulary=1,
        mask_share=shares[0], random_share=shares[1],
    )  # fmt: skip
    masks = jax.tree.map(np.asarray, jax.jit(run)(KEY, tokens, words))
    chosen = chosen_of(words, masks.label_positions, masks.label_mask)
    expected = np.where(chosen & random, 0, tokens)  # 0 is the only random token
    assert chosen.any() and (masks.tokens == expected).all()


def test_whole_words_are_masked_together():
    rng = np.random.default_rng(0)
    words = np.sort(rng.integers(0, 30, (50, 60)), axis=1)
    words = np.stack([np.unique(row, return_inverse=True)[1] for row in words])
    words[:, 50:] = -1
    _, new, positions, mask = masked(words, whole_words=True, mask_share=1.0, rate=0.3)
    chosen, most = chosen_of(words, positions, mask), round(0.3 * 50)
    assert 0.2 < chosen.sum() / (words >= 0).sum() <= 0.3
    assert (chosen.sum(axis=1) <= most).all()
    for row in range(50):
        for word in set(words[row, chosen[row]].tolist()):
            assert chosen[row, words[row] == word].all()
    assert (new[words < 0] >= 100).all()
    fits = chosen.sum(axis=1) + 1 <= most  # a word of one token more would fit
    assert fits.any() and not fits.all()


def test_every_word_is_chosen_as_often():
    words = np.tile(np.repeat([0, 1], 2), (400, 1))
    _, _, positions, mask = masked(words, whole_words=True, rate=0.5)
    chosen = chosen_of(words, positions, mask)
    assert (chosen.sum(axis=1) == 2).all()
    assert (chosen[:, 0] == chosen[:, 1]).all() and 0.4 < chosen[:, 0].mean() < 0.6


def test_a_word_that_exceeds_the_share_is_not_masked():
    words = np.tile(np.array([0, 0, 0, 0, -1]), (9, 1))
    tokens, new, _, mask = masked(words, whole_words=True, rate=0.5, mask_share=1.0)
    assert not mask.any() and (new == tokens).all()


def test_it_is_the_same_for_the_same_key_compiled_or_not():
    words = np.tile(np.arange(9), (3, 1))
    options = {"rate": 0.5, "mask_token": 9, "vocabulary": 10, "whole_words": True}
    one = mask_tokens(KEY, words, words, **options)
    two = compiled(**options)(KEY, words, words)
    for a, b in zip(one, two, strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()
