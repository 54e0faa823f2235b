"""The data order: permutations, uniform, resumable, the same on every machine."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffnlab.data import indices, order
from ffnlab.errors import InputError

seeds = st.integers(-(2**70), 2**70)
sizes = st.integers(1, 2000)
positions = st.integers(-5000, 10**12)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, size=sizes, epoch=st.integers(-2, 2**40))
def test_every_epoch_is_a_permutation(seed, size, epoch):
    found = order(seed, epoch * size, (epoch + 1) * size, size)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    size=sizes,
    start=positions,
    first=st.integers(0, 700),
    second=st.integers(0, 700),
)
def test_a_stretch_is_the_same_in_one_piece_or_two(seed, size, start, first, second):
    middle, stop = start + first, start + first + second
    pieces = [order(seed, start, middle, size), order(seed, middle, stop, size)]
    np.testing.assert_array_equal(
        np.concatenate(pieces), order(seed, start, stop, size)
    )


def test_pieces_larger_than_a_chunk_agree():
    whole = order(5, 0, 300_000, 1078)
    np.testing.assert_array_equal(
        whole[140_000:150_000], order(5, 140_000, 150_000, 1078)
    )


def test_the_order_never_changes():
    """These numbers are what makes a run of last year resumable: keep them."""
    assert order(0, 0, 10, 10).tolist() == [5, 4, 0, 9, 8, 3, 7, 1, 2, 6]
    later = [1493, 1596, 1792, 64, 1698, 1228, 1064, 525]
    assert order(7, 10**12, 10**12 + 8, 1797).tolist() == later


def test_epochs_and_seeds_differ():
    size = 500
    drawn = [order(seed, 0, 20 * size, size).reshape(20, size) for seed in range(20)]
    rows = np.concatenate(drawn)  # [400, 500]
    same = (rows[:, None] == rows[None]).mean(axis=2)[~np.eye(400, dtype=bool)]
    # Two random permutations agree in one place on average, in 12 hardly ever.
    assert abs(same.mean() * size - 1) < 0.02
    assert same.max() * size < 12


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_small_set_are_equally_likely(size):
    epochs = 30_000
    drawn = order(1, 0, epochs * size, size).reshape(epochs, size)
    codes = drawn @ size ** np.arange(size)
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == math.factorial(size)
    assert _excess(counts) < 4


@pytest.mark.parametrize("size", [17, 64, 100])
def test_each_example_is_equally_likely_everywhere(size):
    epochs = 4000
    drawn = order(3, 0, epochs * size, size).reshape(epochs, size)
    counts = np.zeros((size, size))
    np.add.at(counts, (np.arange(size), drawn), 1)
    assert _excess(counts) < 4
    follows = np.zeros((size, size))
    np.add.at(follows, (drawn[:, :-1], drawn[:, 1:]), 1)
    assert _excess(follows[~np.eye(size, dtype=bool)]) < 4


def _excess(counts):
    """Chi-square above its expectation, in (about) standard deviations."""
    expected, freedom = counts.mean(), counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / (
        2 * freedom
    ) ** 0.5


def test_large_data_take_no_memory_of_their_own():
    tracemalloc.start()
    found = order(0, 0, 1000, 2**40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == np.int64 and found.min() >= 0 and found.max() < 2**40
    assert len(set(found.tolist())) == 1000
    assert peak < 2**20


def test_the_smallest_cases():
    assert order(0, 3, 6, 1).tolist() == [0, 0, 0]
    assert order(0, 5, 5, 9).shape == (0,)
    numbers = (np.int32(3), np.int64(8), np.int64(20), np.int32(7))
    assert order(*numbers).tolist() == order(3, 8, 20, 7).tolist()
    with pytest.raises(InputError, match="size is 0"):
        order(0, 0, 1, 0)


def test_batches_run_on_across_epochs():
    found = indices([4], start=0, stop=21, batch=10, size=30)[:, 0]  # [21, 10]
    epochs = found.reshape(7, 30)
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.tile(np.arange(30), (7, 1))
    )
    odd = indices([4], start=0, stop=3, batch=7, size=5)[:, 0]
    np.testing.assert_array_equal(odd.ravel(), order(4, 0, 21, 5))


def test_batches_of_a_population():
    found = indices([3, 8, 3], start=5, stop=9, batch=6, size=50)
    assert found.shape == (4, 3, 6) and found.dtype == np.int32
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert (found[:, 0] != found[:, 1]).any()
    later = indices([3, 8, 3], start=7, stop=9, batch=6, size=50)
    np.testing.assert_array_equal(found[2:], later)
    assert indices([3], start=4, stop=4, batch=6, size=50).shape == (0, 1, 6)


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="at least 1 example, not 0"):
        indices([0], 0, 1, batch=0, size=5)
