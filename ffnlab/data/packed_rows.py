"""Texts in packed rows, with the places that are to be labelled.

rows = pack(encoded, labels, width=128)
rows.arrays["x/tokens"]     # [N, 128], several texts a row
rows.arrays["y"]            # [N, K], the labels of their places
rows.flat(predictions)      # back, in the order of the texts
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE, Arrays
from ffnlab.data.packing import gather, pack_sequences
from ffnlab.data.tokenizer import Encoded


class Rows(NamedTuple):
    """Texts in rows.

    Attributes:
      arrays: x/tokens, x/packs int32 and x/mask bool `[N, T]`; x/types `[N, T]` if
        there are any but 0; x/at int32 `[N, K]`, the places to label, −1 for none; y
        int32 `[N, K]`, their labels, −100 where there is none.
      example_index: whose place it is, counted through all texts, int `[N, K]`; −1 for none.
      count: how many there are, with those that were cut off.
    """

    arrays: Arrays
    example_index: np.ndarray
    count: int

    def flat(self, values: np.ndarray, lost: float = 0) -> np.ndarray:
        """Returns values `[N, K, ...]` in the order of the texts, `[count, ...]`.

        Args:
          values: one for each place.
          lost: what stands for places that were cut off.
        """
        found = np.full((self.count, *values.shape[2:]), lost, values.dtype)
        there = self.example_index >= 0
        found[self.example_index[there]] = values[there]
        return found


def pack(
    encoded: Encoded,
    labels: Sequence[int] | Sequence[Sequence[int]] | None,
    width: int,
    mix: int | None = None,
) -> Rows:
    """Packs texts into rows, the first token of each, or of each word, to be labelled.

    Between the places of two texts there is an empty one, so that a head in which
    neighbours hear each other keeps texts apart.

    Args:
      encoded: of `Tokenizer.texts`, for a label a text, or of `.words`, for one a word.
      labels: as many; −1 is a label that there is not. None has none.
      width: T, of a row; no text may be longer.
      mix: what draws which texts share a row, to train on; None fills rows best.

    >>> rows = pack(Encoded([np.array([1, 5, 2]), np.array([1, 2])],
    ...                     [np.zeros(3, int), np.zeros(2, int)], [], 0), [3, 4], 6)
    >>> rows.arrays["x/label_positions"].tolist(), rows.arrays["y"].tolist(), rows.example_index.tolist()
    ([[0, -1, 3]], [[3, -100, 4]], [[0, -1, 1]])
    """
    per_word = bool(encoded.first)
    places = encoded.first or [np.zeros(1, np.int32) for _ in encoded.tokens]
    begins = np.cumsum([0, *map(len, places)])
    flat = _flat(labels, per_word, int(begins[-1]))
    lengths = [len(row) for row in encoded.tokens]
    (layout,) = pack_sequences(lengths, width, rows=max(len(lengths), 1), mix=mix)
    used = int(layout.mask.any(axis=1).sum())
    layout = type(layout)(layout.sequence[:used], layout.place[:used])
    label_positions, example_index = _places(
        layout.sequence, layout.place, places, begins
    )
    arrays = {
        "x/tokens": gather(layout, encoded.tokens),
        "x/mask": layout.mask,
        "x/segment_ids": layout.sequence,
        "x/label_positions": label_positions,
        "y": np.where(example_index >= 0, flat[example_index], IGNORE).astype(np.int32),
    }
    if any(row.any() for row in encoded.types):
        arrays["x/types"] = gather(layout, encoded.types)
    return Rows(arrays, example_index, int(begins[-1]))


def _flat(labels: Sequence | None, per_word: bool, count: int) -> np.ndarray:
    """Returns a label for each place, −100 where it is to be left out of every mean."""
    if labels is None:
        return np.full(max(count, 1), IGNORE)
    rows = labels if per_word else [[label] for label in labels]
    flat = np.array([label for row in rows for label in row], np.int64)
    return np.where(flat < 0, IGNORE, flat)


def _places(
    sequence: np.ndarray,
    place: np.ndarray,
    places: Sequence[np.ndarray],
    begins: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places to label in each row, and whose they are."""
    label_positions, example_index = [], []
    for row, inside in zip(sequence, place, strict=True):
        mine, whose = [], []
        for slot in np.flatnonzero((inside == 0) & (row >= 0)):
            number = row[slot]
            there = np.flatnonzero(places[number] >= 0)
            mine += [*(slot + places[number][there]), -1]
            whose += [*(begins[number] + there), -1]
        label_positions.append(mine[:-1])
        example_index.append(whose[:-1])
    width = max([1, *map(len, label_positions)])
    shape = (len(label_positions), width)
    found = np.full(shape, -1, np.int32), np.full(shape, -1, np.int64)
    for rows, into in zip((label_positions, example_index), found, strict=True):
        for number, row in enumerate(rows):
            into[number, : len(row)] = row
    return found


def next_width(length: int, most: int) -> int:
    """Returns the next power of two, at least 16 and at most `most`.

    >>> next_width(40, 128), next_width(3, 128), next_width(100, 112)
    (64, 16, 112)
    """
    return min(max(1 << (length - 1).bit_length(), 16), most)


def pad_rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs of a model, rows and places up to powers of two."""
    rows, places = arrays["x/label_positions"].shape
    rows, places = (1 << max(n - 1, 0).bit_length() for n in (rows, places))
    found = {}
    for name, array in arrays.items():
        if name.startswith("x/"):
            wide = places if name == "x/label_positions" else array.shape[1]
            grown = [(0, rows - len(array)), (0, wide - array.shape[1])]
            empty = -1 if name in ("x/label_positions", "x/segment_ids") else 0
            found[name[2:]] = np.pad(array, grown, constant_values=empty)
    return found
