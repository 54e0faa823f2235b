"""Tokens hidden to be found again."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from ffnlab.models.masking import mask_tokens

KEY = jax.random.key(0)


def hidden(words, seed=0, **options):
    words = jnp.asarray(words)
    tokens = jnp.arange(words.size).reshape(words.shape) % 50 + 100
    options = {"rate": 0.15, "mask": 7, "vocabulary": 1000, **options}
    run = jax.jit(mask_tokens, static_argnames=tuple(options))
    found = run(jax.random.key(seed), tokens, words, **options)
    return np.asarray(tokens), *map(np.asarray, found)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    sizes=st.lists(st.integers(0, 20), min_size=3, max_size=3),
    rate=st.sampled_from([0.05, 0.15, 0.9]),
    seed=st.integers(0, 9),
)
def test_a_share_of_what_may_be_hidden_and_nothing_else(sizes, rate, seed):
    place = np.arange(20)
    words = np.stack([np.where(place < size, place, -1) for size in sizes])
    tokens, seen, label_positions, live = hidden(words, seed, rate=rate, replaced=1.0)
    chosen = np.zeros(words.shape, bool)
    for row in range(len(sizes)):
        assert len(set(label_positions[row])) == len(label_positions[row])
        chosen[row, label_positions[row][live[row]]] = True
    expected = [min(max(round(rate * size), 1), size) for size in sizes]
    assert (chosen.sum(axis=1) - expected <= 1e-9).all()
    assert (abs(chosen.sum(axis=1) - np.array(expected)) <= 1).all()
    assert (words[chosen] >= 0).all()
    assert (seen[chosen] == 7).all() and (seen[~chosen] == tokens[~chosen]).all()


def test_eighty_ten_ten():
    words = np.tile(np.arange(200), (400, 1))
    tokens, seen, label_positions, live = hidden(words)
    assert live.all() and label_positions.shape == (400, 30)
    old, new = (
        np.take_along_axis(each, label_positions, axis=1) for each in (tokens, seen)
    )
    masked, kept = (new == 7).mean(), (new == old).mean()
    assert abs(masked - 0.8) < 0.015 and abs(kept - 0.1) < 0.01
    other = new[(new != 7) & (new != old)]
    assert len(set(other)) > 500  # any token, evenly
    counts = np.zeros(200)
    np.add.at(counts, label_positions.ravel(), 1)
    assert counts.min() > 30 and counts.max() < 95  # every place, about 60 times


def test_whole_words_are_hidden_whole():
    rng = np.random.default_rng(0)
    words = np.sort(rng.integers(0, 30, (50, 60)), axis=1)
    words = np.stack([np.unique(row, return_inverse=True)[1] for row in words])
    words[:, 50:] = -1
    _, seen, label_positions, live = hidden(words, whole=True, replaced=1.0, rate=0.3)
    share = live.sum() / (words >= 0).sum()
    assert 0.2 < share <= 0.3
    for row in range(50):
        hit = set(label_positions[row][live[row]])
        for word in {int(words[row, place]) for place in hit}:
            assert set(np.flatnonzero(words[row] == word)) <= hit
    assert (seen[words < 0] >= 100).all()


def test_it_is_the_same_for_the_same_key_compiled_or_not():
    words = jnp.tile(jnp.arange(9), (3, 1))
    one = mask_tokens(KEY, words, words, rate=0.5, mask=9, vocabulary=10, whole=True)
    two = jax.jit(mask_tokens, static_argnames=("rate", "mask", "vocabulary", "whole"))(
        KEY, words, words, rate=0.5, mask=9, vocabulary=10, whole=True
    )
    for a, b in zip(one, two, strict=True):
        assert (a == b).all()
