"""Texts packed into rows, with the positions that have a label.

rows = pack(encoded, labels, width=128)
rows.arrays["x/tokens"]     # [N, 128], several texts per row
rows.arrays["y"]            # [N, K], the labels of the label positions
rows.flat(predictions)      # back in the order of the texts
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE, Arrays
from ffnlab.data.packing import Layout, gather, pack_sequences
from ffnlab.data.padding import next_power, pad_to
from ffnlab.data.tokenizer import Encoded

_LEAST = 16  # tokens of the narrowest rows: fewer shapes, hence fewer programs


class Rows(NamedTuple):
    """Texts in rows, and the labels of their label positions.

    Attributes:
      arrays: x/tokens and x/segment_ids int32 and x/mask bool `[N, T]`; x/types
        `[N, T]` if a type differs from 0; x/label_positions int32 `[N, K]`, −1 for
        none; y int32 `[N, K]`, the labels there, −100 where there is none.
      example_index: The number of each label position, counted through all texts, int
        `[N, K]`; −1 for none.
      count: The number of label positions, including those that were cut off.
    """

    arrays: Arrays
    example_index: np.ndarray
    count: int

    def flat(self, values: np.ndarray, lost: float = 0) -> np.ndarray:
        """Returns values `[N, K, ...]` in the order of the texts, `[count, ...]`.

        Args:
          values: One for each label position.
          lost: The value of positions that were cut off.
        """
        ordered = np.full((self.count, *values.shape[2:]), lost, values.dtype)
        mask = self.example_index >= 0
        ordered[self.example_index[mask]] = values[mask]
        return ordered


def pack(
    encoded: Encoded,
    labels: Sequence[int] | Sequence[Sequence[int]] | None,
    width: int,
    mix: int | None = None,
) -> Rows:
    """Packs texts into rows; the first token of each text or word has the label.

    Between the label positions of two texts there is an empty one, so that a head with
    input from neighbouring positions keeps the texts apart.

    Args:
      encoded: The result of `Tokenizer.texts`, for one label per text, or of `.words`,
        for one per word.
      labels: The labels, −1 for an unknown one; None if there are no labels.
      width: T, the number of tokens of a row; no text may be longer.
      mix: The seed that draws which texts share a row, for training; None fills the
        rows best.

    >>> rows = pack(Encoded([np.array([1, 5, 2]), np.array([1, 2])],
    ...                     [np.zeros(3, int), np.zeros(2, int)], [], 0), [3, 4], 6)
    >>> rows.arrays["x/label_positions"].tolist(), rows.arrays["y"].tolist()
    ([[0, -1, 3]], [[3, -100, 4]])
    >>> rows.example_index.tolist()
    [[0, -1, 1]]
    """
    per_word = bool(encoded.first)
    firsts = encoded.first or [np.zeros(1, np.int32) for _ in encoded.tokens]
    begins = np.cumsum([0, *map(len, firsts)])
    flat = _flat_labels(labels, per_word, int(begins[-1]))
    lengths = [len(row) for row in encoded.tokens]
    (layout,) = pack_sequences(lengths, width, rows=max(len(lengths), 1), mix=mix)
    full = int(layout.mask.any(axis=1).sum())
    layout = Layout(layout.sequence[:full], layout.place[:full])
    label_positions, example_index = _label_positions(layout, firsts, begins)
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


def with_targets(rows: Rows, targets: np.ndarray, empty: float) -> Rows:
    """Returns rows whose y is an array of targets in place of labels.

    Args:
      rows: Packed texts.
      targets: The target of each text, `[count]` or `[count, L]`.
      empty: What stands at positions without a text.

    Returns:
      The rows; y is `[N, K]` or `[N, K, L]` in the dtype of the targets.

    >>> encoded = Encoded([np.array([1, 2])] * 2, [np.zeros(2, int)] * 2, [], 0)
    >>> rows = with_targets(pack(encoded, None, 4), np.array([0.5, 1.5]), np.nan)
    >>> rows.arrays["y"].tolist()
    [[0.5, nan, 1.5]]
    """
    index = rows.example_index
    mask = (index >= 0).reshape(*index.shape, *[1] * (targets.ndim - 1))
    placed = np.where(mask, targets[index], targets.dtype.type(empty))
    return rows._replace(arrays={**rows.arrays, "y": placed})


def _flat_labels(labels: Sequence | None, per_word: bool, count: int) -> np.ndarray:
    """Returns a label for each position; −100, which the loss ignores, for no label."""
    if labels is None:
        return np.full(max(count, 1), IGNORE)
    rows = labels if per_word else [[label] for label in labels]
    flat = np.array([label for row in rows for label in row], np.int64)
    return np.where(flat < 0, IGNORE, flat)


def _label_positions(
    layout: Layout, firsts: Sequence[np.ndarray], begins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the label positions of each row and their numbers, int `[N, K]` each."""
    positions, numbers = [], []
    for row, places in zip(layout.sequence, layout.place, strict=True):
        row_positions, row_numbers = [], []
        for slot in np.flatnonzero((places == 0) & (row >= 0)):
            first = firsts[row[slot]]
            kept = np.flatnonzero(first >= 0)
            row_positions += [*(slot + first[kept]), -1]
            row_numbers += [*(begins[row[slot]] + kept), -1]
        positions.append(row_positions[:-1])
        numbers.append(row_numbers[:-1])
    width = max([1, *map(len, positions)])
    return _stacked(positions, width, np.int32), _stacked(numbers, width, np.int64)


def _stacked(rows: Sequence[list[int]], width: int, dtype: type) -> np.ndarray:
    """Returns rows of numbers as one array, with −1 behind each."""
    stacked = np.full((len(rows), width), -1, dtype)
    for number, row in enumerate(rows):
        stacked[number, : len(row)] = row
    return stacked


def next_width(length: int, most: int) -> int:
    """Returns the next power of two, at least 16 and at most `most`.

    >>> next_width(40, 128), next_width(3, 128), next_width(100, 112)
    (64, 16, 112)
    """
    return next_power(length, _LEAST, most)


def pad_rows(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns the inputs of a model, rows and positions padded to powers of two.

    Args:
      arrays: Those of `Rows`; x/label_positions is `[N, K]`, the others `[N, T]`.

    Returns:
      The arrays under x/, without that prefix.

    >>> rows = {"x/tokens": np.ones((3, 2), int), "x/label_positions": np.zeros((3, 3))}
    >>> {name: array.shape for name, array in pad_rows(rows).items()}
    {'tokens': (4, 2), 'label_positions': (4, 4)}
    """
    padded = {}
    for name, array in arrays.items():
        if name.startswith("x/"):
            rows, width = array.shape
            width = next_power(width) if name == "x/label_positions" else width
            empty = -1 if name in ("x/label_positions", "x/segment_ids") else 0
            padded[name[2:]] = pad_to(array, (next_power(rows), width), empty)
    return padded
