"""Where the tokens of many sequences lie in rows of few shapes, with little padding.

    layouts = packed([len(row) for row in tokens], width=128, rows=8)
    for layout in layouts:                           # all [8, 128]: compiled once
        x = gather(layout, tokens)
        y, _ = model.apply(params, x, layout.mask, packs=layout.sequence)
        scatter(layout, y, outputs)                  # back to the sequences

`pack_sequences` puts several sequences in a row, `bucket_sequences` those of like length in one batch,
`pad_sequences` any; all give the same `Layout`, and a model the same outputs by any of them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.shuffle import order
from ffnlab.errors import InputError


class Layout(NamedTuple):
    """What lies in the slots of one batch.

    Attributes:
      sequence: the number of the sequence in each slot, int32 `[B, W]`; −1 for none.
      place: the place of the token in it, int32 `[B, W]`; 0 where there is none.
    """

    sequence: np.ndarray
    place: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Where there is a token, bool `[B, W]`."""
        return self.sequence >= 0


def pack_sequences(
    lengths: Sequence[int],
    width: int,
    rows: int,
    seed: int | None = None,
    mix: int | None = None,
) -> list[Layout]:
    """Puts several sequences in a row, as many as fit; all batches have one shape.

    The longest come first, each in the row that it fills best (best-fit decreasing,
    which takes at most 11/9 of the fewest possible rows; Johnson 1974). So rows are of
    sequences of like length that stood near each other, in a file sorted by label of
    one label, and no random sample: train on sequences that were mixed.

    Args:
      lengths: of the sequences, in tokens.
      width: W, slots in a row.
      rows: B, rows in a batch; the last batch may have empty ones.
      seed: what the rows are shuffled by; None leaves the fullest first.
      mix: what draws the order in which sequences find their rows, a little less full
        then; None takes the longest first.

    Raises:
      InputError: a sequence is longer than a row.

    >>> [layout.sequence.tolist() for layout in pack_sequences([2, 3, 1], width=4, rows=2)]
    [[[1, 1, 1, 2], [0, 0, -1, -1]]]
    """
    _check(lengths, width)
    members: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(width + 1)]  # rows by slots left
    turns = np.argsort(-np.asarray(lengths, int), kind="stable")
    if mix is not None and len(lengths):
        turns = order(mix, 0, len(lengths), len(lengths))
    for number in turns.tolist():
        length = int(lengths[number])
        left = next((n for n in range(length, width + 1) if room[n]), None)
        if left is None:
            row, left = len(members), width
            members.append([])
        else:
            row = room[left].pop()
        members[row].append(number)
        room[left - length].append(row)
    return _batches(members, lengths, width, rows, seed)


def even_width(lengths: Sequence[int], count: float, most: int) -> int:
    """Returns a width of rows, a whole number of which holds about `count` sequences.

    A step of so many sequences is then a step of whole rows. It is the narrowest that
    is nearly as full as the fullest, since attention costs a row its square; `most` if
    there is none.

    Args:
      lengths: of the sequences, in tokens, at least one.
      count: how many sequences a step is to have.
      most: the widest that rows may be; no sequence may be longer.

    >>> even_width([6] * 8, count=4, most=128)  # four rows, not one of 24
    6
    """
    tokens = max(min(count, len(lengths)) * np.mean(lengths), max(lengths))
    rows, fills = int(tokens // max(lengths)), {}
    while rows * most >= tokens:
        width = math.ceil(tokens / rows)
        (layout,) = pack_sequences(lengths, width, rows=len(lengths), mix=0)
        fills[width] = sum(lengths) / (width * layout.mask.any(axis=1).sum())
        rows //= 2
    full = max(fills.values(), default=0.0) - 0.01
    return min((w for w, fill in fills.items() if fill > full), default=most)


def bucket_sequences(
    lengths: Sequence[int],
    widths: Sequence[int],
    slots: int,
    seed: int | None = None,
) -> list[Layout]:
    """Puts a sequence in a row, and rows of like width in a batch of about equal size.

    Args:
      lengths: of the sequences, in tokens.
      widths: of the rows, from `best_widths`; a sequence takes the narrowest it fits.
      slots: B · W of a batch, about: B is the same for all batches of one width.
      seed: what rows and batches are shuffled by; None leaves them in order.

    Raises:
      InputError: a sequence is longer than the widest row.

    >>> [b.sequence.shape for b in bucket_sequences([2, 9, 3], widths=[4, 10], slots=10)]
    [(2, 4), (1, 10)]
    """
    widths = sorted(set(widths))
    _check(lengths, widths[-1])
    which = np.searchsorted(widths, lengths)
    found = []
    for bucket, width in enumerate(widths):
        members = [[int(number)] for number in np.flatnonzero(which == bucket)]
        found += _batches(members, lengths, width, max(slots // width, 1), seed)
    if seed is not None:
        found = [found[i] for i in order(seed, 0, len(found), max(len(found), 1))]
    return found


def pad_sequences(lengths: Sequence[int], width: int, rows: int) -> list[Layout]:
    """Puts a sequence in a row, as they come: the plain way, to compare with.

    Args:
      lengths: of the sequences, in tokens.
      width: W, slots in a row.
      rows: B, rows in a batch.

    Raises:
      InputError: a sequence is longer than a row.
    """
    _check(lengths, width)
    members = [[number] for number in range(len(lengths))]
    return _batches(members, lengths, width, rows, None)


def _check(lengths: Sequence[int], width: int) -> None:
    if len(lengths) and max(lengths) > width:
        number = int(np.argmax(lengths))
        raise InputError(
            f"sequence {number} has {max(lengths)} tokens, a row {width}; cut it, or "
            "take wider rows"
        )


def _batches(
    members: list[list[int]],
    lengths: Sequence[int],
    width: int,
    rows: int,
    seed: int | None,
) -> list[Layout]:
    """Returns the layouts of rows of sequences, so many rows a batch."""
    if seed is not None and members:
        members = [members[i] for i in order(seed, 0, len(members), len(members))]
    found = []
    for begin in range(0, len(members), rows):
        sequence = np.full((rows, width), -1, np.int32)
        place = np.zeros((rows, width), np.int32)
        for row, numbers in enumerate(members[begin : begin + rows]):
            sizes = [int(lengths[number]) for number in numbers]
            total = sum(sizes)
            sequence[row, :total] = np.repeat(numbers, sizes)
            place[row, :total] = np.concatenate([np.arange(n) for n in sizes])
        found.append(Layout(sequence, place))
    return found


def best_widths(lengths: Sequence[int], count: int) -> list[int]:
    """Returns the few widths at which sequences in rows of their own pad least.

    Args:
      lengths: of the sequences, at least one.
      count: the most widths.

    >>> best_widths([2, 2, 3, 9, 10], count=2)
    [3, 10]
    """
    values, times = np.unique(np.asarray(lengths), return_counts=True)
    times = np.concatenate([[0], np.cumsum(times)])
    # cost[j]: slots for the shortest j lengths, the last width being values[j - 1].
    cost = values * times[1:]
    cuts = [np.zeros(len(values), int)]
    for _ in range(min(count, len(values)) - 1):
        # Or the shortest i as before, and the rest of them at the width of the last.
        before = np.concatenate([[0], cost[:-1]])  # [i]
        rest = values[:, None] * (times[1:, None] - times[None, :-1])  # [j, i]
        both = before[None] + rest
        both[np.triu_indices(len(values), 1)] = np.iinfo(np.int64).max
        cuts.append(both.argmin(axis=1))
        cost = both.min(axis=1)
    found, last = [], len(values)
    for cut in reversed(cuts):
        if last:
            found.append(int(values[last - 1]))
            last = int(cut[last - 1])
    return sorted(found)


def fill(layouts: Sequence[Layout]) -> float:
    """Returns the share of slots that hold a token.

    >>> fill(pack_sequences([2, 3, 1], width=4, rows=2))
    0.75
    """
    slots = sum(layout.sequence.size for layout in layouts)
    return float(sum(layout.mask.sum() for layout in layouts) / max(slots, 1))


def gather(
    layout: Layout, sequences: Sequence[np.ndarray], empty: int = 0
) -> np.ndarray:
    """Returns what lies in the slots: tokens, types or labels.

    Args:
      layout: of one batch.
      sequences: an array `[T]` for each sequence.
      empty: what stands where there is none: 0, or −100 for labels.

    Returns:
      `[B, W]`.

    >>> layout = pack_sequences([2, 1], width=4, rows=1)[0]
    >>> gather(layout, [np.array([5, 6]), np.array([7])], empty=-100)
    array([[   5,    6,    7, -100]], dtype=int32)
    """
    mask = layout.mask
    found = np.full(layout.sequence.shape, empty, np.int32)
    numbers, which = np.unique(layout.sequence[mask], return_inverse=True)
    if len(numbers):
        held = [np.asarray(sequences[number]) for number in numbers]
        begins = np.cumsum([0, *map(len, held)])
        found[mask] = np.concatenate(held)[begins[which] + layout.place[mask]]
    return found


def scatter(layout: Layout, values: np.ndarray, into: Sequence[np.ndarray]) -> None:
    """Writes what a model made of a batch to the sequences it came from.

    Args:
      layout: of the batch.
      values: `[B, W, ...]`.
      into: an array `[T, ...]` for each sequence, written to.
    """
    values = np.asarray(values)
    for number in np.unique(layout.sequence[layout.mask]):
        here = layout.sequence == number
        into[number][layout.place[here]] = values[here]
