"""Texts in packed rows, and back."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ffnlab.data.dataset import IGNORE
from ffnlab.data.packed_rows import pack
from ffnlab.data.tokenizer import Encoded


@hypothesis.given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    per_word=st.booleans(),
    seed=st.integers(0, 99),
)
def test_everything_comes_back_in_its_order(sizes, per_word, seed):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(5, 50, n) for n in sizes]
    types = [np.zeros(n, int) for n in sizes]
    first, labels = [], rng.integers(-1, 5, len(sizes)).tolist()
    if per_word:  # words of one or two tokens, the last of which was cut off
        first = [np.array([*range(0, n, 2), -1]) for n in sizes]
        labels = [rng.integers(-1, 5, len(row)).tolist() for row in first]
    rows = pack(Encoded(tokens, types, first, 0), labels, width=10)
    x = rows.arrays
    there = rows.example_index >= 0
    assert (there == (x["x/label_positions"] >= 0)).all()
    flat = [k for row in labels for k in row] if per_word else labels
    wanted = np.where(np.array(flat) < 0, IGNORE, flat)
    at_lost = [k < 0 for row in first for k in row] if per_word else []
    lost = np.array(at_lost) if per_word else np.zeros(len(flat), bool)
    found = rows.flat(x["y"], lost=77)
    assert (found[~lost] == wanted[~lost]).all() and (found[lost] == 77).all()
    label_positions = np.take_along_axis(
        x["x/tokens"], np.maximum(x["x/label_positions"], 0), axis=1
    )
    begun = [row[0] for row in tokens]
    if per_word:
        begun = [
            row[k] for row, ks in zip(tokens, first, strict=True) for k in ks if k >= 0
        ]
    assert sorted(label_positions[there]) == sorted(begun)
    assert x["x/mask"].sum() == sum(sizes) and "x/types" not in x


def test_between_the_places_of_two_texts_there_is_an_empty_one():
    rows = pack(
        Encoded([np.arange(3), np.arange(4)], [np.zeros(3), np.ones(4)],
                [np.array([0, 2]), np.array([1, 3])], 0),
        [[1, 2], [3, 4]],
        width=8,
    )  # fmt: skip
    assert rows.arrays["x/label_positions"].tolist() == [[1, 3, -1, 4, 6]]
    assert rows.example_index.tolist() == [[2, 3, -1, 0, 1]]
    assert rows.arrays["x/types"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
