"""Layouts of many sequences in batches of few shapes, with little padding.

    layouts = pack_sequences([len(row) for row in tokens], width=128, rows=8)
    for layout in layouts:                           # all [8, 128]: compiled once
        x = gather(layout, tokens)
        y, _ = model.apply(params, x, layout.mask, segment_ids=layout.sequence)
        scatter(layout, y, outputs)                  # back to the sequences

`pack_sequences` puts several sequences in a row, `bucket_sequences` puts sequences of
similar length in a batch, and `pad_sequences` pads all to one width. The outputs of a
model are the same with each of them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.shuffle import order
from ffnlab.errors import InputError


class Layout(NamedTuple):
    """The contents of the slots of one batch.

    Attributes:
      sequence: The number of the sequence in each slot, int32 `[B, W]`; −1 for none.
      place: The position of the token in its sequence, int32 `[B, W]`; 0 for none.
    """

    sequence: np.ndarray
    place: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Whether there is a token, bool `[B, W]`."""
        return self.sequence >= 0


def pack_sequences(
    lengths: Sequence[int],
    width: int,
    rows: int,
    seed: int | None = None,
    mix: int | None = None,
) -> list[Layout]:
    """Puts several sequences in a row, as many as fit; all batches have one shape.

    The longest sequences come first, each in the row that it fills best (best-fit
    decreasing, which takes at most 11/9 of the fewest possible rows; Johnson 1974).
    The sequences of a row then have similar lengths and come from the same part of the
    data; in a file sorted by label they share it. Use `mix` for training.

    Args:
      lengths: The lengths of the sequences, in tokens.
      width: W, the slots of a row.
      rows: B, the rows of a batch; the last batch may have empty ones.
      seed: The seed that shuffles the rows; None keeps the fullest first.
      mix: The seed of the order in which sequences are put in rows, which are then a
        little less full; None takes the longest first.

    Raises:
      InputError: A sequence is longer than a row.

    >>> layouts = pack_sequences([2, 3, 1], width=4, rows=2)
    >>> [layout.sequence.tolist() for layout in layouts]
    [[[1, 1, 1, 2], [0, 0, -1, -1]]]
    """
    _check(lengths, width)
    members = _fit(lengths, width, _turns(lengths, mix))
    return _batches(members, lengths, width, rows, seed)


def _turns(lengths: Sequence[int], mix: int | None) -> list[int]:
    """Returns the order in which sequences are put in rows."""
    if mix is not None and len(lengths):
        return order(mix, 0, len(lengths), len(lengths)).tolist()
    return np.argsort(-np.asarray(lengths, int), kind="stable").tolist()


def _fit(lengths: Sequence[int], width: int, turns: Sequence[int]) -> list[list[int]]:
    """Returns the sequences of each row: each goes to the row with the least room."""
    members: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(width + 1)]  # rows by slots left
    known = 0  # bit n is set if a row has n slots left
    for number in turns:
        length = int(lengths[number])
        fitting = known >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = room[left].pop()
            known ^= 0 if room[left] else 1 << left
        else:
            row, left = len(members), width
            members.append([])
        members[row].append(number)
        room[left - length].append(row)
        known |= 1 << (left - length)
    return members


def even_width(lengths: Sequence[int], count: float, most: int) -> int:
    """Returns a width at which a whole number of rows holds about `count` sequences.

    A training step of `count` sequences then has whole rows. Of the widths whose rows
    are full to within 1 % of the best it is the narrowest, because the cost of
    attention is quadratic in the width; it is `most` if there is none.

    Args:
      lengths: The lengths of the sequences, in tokens, at least one.
      count: The number of sequences per step.
      most: The maximum width; no sequence may be longer.

    >>> even_width([6] * 8, count=4, most=128)  # four rows, not one of 24
    6
    """
    lengths = [int(length) for length in lengths]
    tokens = max(min(count, len(lengths)) * np.mean(lengths), max(lengths))
    rows, fills, turns = int(tokens // max(lengths)), {}, _turns(lengths, mix=0)
    while rows * most >= tokens:
        width = math.ceil(tokens / rows)
        fills[width] = sum(lengths) / (width * len(_fit(lengths, width, turns)))
        rows //= 2
    full = max(fills.values(), default=0.0) - 0.01
    return min((w for w, fill in fills.items() if fill > full), default=most)


def bucket_sequences(
    lengths: Sequence[int],
    widths: Sequence[int],
    slots: int,
    seed: int | None = None,
) -> list[Layout]:
    """Puts one sequence in a row, and rows of one width in batches of similar size.

    Args:
      lengths: The lengths of the sequences, in tokens.
      widths: The widths of rows, see `best_widths`; a sequence takes the narrowest that
        it fits in.
      slots: The approximate slots B · W of a batch; B is the same for all batches of
        one width.
      seed: The seed that shuffles rows and batches; None keeps their order.

    Raises:
      InputError: A sequence is longer than the widest row.

    >>> layouts = bucket_sequences([2, 9, 3], widths=[4, 10], slots=10)
    >>> [layout.sequence.shape for layout in layouts]
    [(2, 4), (1, 10)]
    """
    widths = sorted(set(widths))
    _check(lengths, widths[-1])
    which = np.searchsorted(widths, lengths)
    layouts = []
    for bucket, width in enumerate(widths):
        members = [[int(number)] for number in np.flatnonzero(which == bucket)]
        layouts += _batches(members, lengths, width, max(slots // width, 1), seed)
    if seed is None:
        return layouts
    return [layouts[i] for i in order(seed, 0, len(layouts), max(len(layouts), 1))]


def pad_sequences(lengths: Sequence[int], width: int, rows: int) -> list[Layout]:
    """Puts one sequence in a row, in their order: the baseline.

    Args:
      lengths: The lengths of the sequences, in tokens.
      width: W, the slots of a row.
      rows: B, the rows of a batch.

    Raises:
      InputError: A sequence is longer than a row.
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
    """Returns the layouts of rows of sequences, in batches of `rows` rows."""
    if seed is not None and members:
        members = [members[i] for i in order(seed, 0, len(members), len(members))]
    layouts = []
    for begin in range(0, len(members), rows):
        sequence = np.full((rows, width), -1, np.int32)
        place = np.zeros((rows, width), np.int32)
        for row, numbers in enumerate(members[begin : begin + rows]):
            sizes = [int(lengths[number]) for number in numbers]
            total = sum(sizes)
            sequence[row, :total] = np.repeat(numbers, sizes)
            place[row, :total] = np.concatenate([np.arange(n) for n in sizes])
        layouts.append(Layout(sequence, place))
    return layouts


def best_widths(lengths: Sequence[int], count: int) -> list[int]:
    """Returns the widths with the least padding, for one sequence per row.

    Args:
      lengths: The lengths of the sequences, at least one.
      count: The maximum number of widths.

    >>> best_widths([2, 2, 3, 9, 10], count=2)
    [3, 10]
    """
    values, times = np.unique(np.asarray(lengths), return_counts=True)
    times = np.concatenate([[0], np.cumsum(times)])
    # cost[j]: slots for the shortest j lengths, with values[j - 1] as the last width.
    cost = values * times[1:]
    cuts = [np.zeros(len(values), int)]
    for _ in range(min(count, len(values)) - 1):
        # Or the shortest i as before, and the others at the width of the last.
        before = np.concatenate([[0], cost[:-1]])  # [i]
        rest = values[:, None] * (times[1:, None] - times[None, :-1])  # [j, i]
        both = before[None] + rest
        both[np.triu_indices(len(values), 1)] = np.iinfo(np.int64).max
        cuts.append(both.argmin(axis=1))
        cost = both.min(axis=1)
    widths, last = [], len(values)
    for cut in reversed(cuts):
        if last:
            widths.append(int(values[last - 1]))
            last = int(cut[last - 1])
    return sorted(widths)


def fill(layouts: Sequence[Layout]) -> float:
    """Returns the fraction of slots that hold a token.

    >>> fill(pack_sequences([2, 3, 1], width=4, rows=2))
    0.75
    """
    slots = sum(layout.sequence.size for layout in layouts)
    return float(sum(layout.mask.sum() for layout in layouts) / max(slots, 1))


def gather(
    layout: Layout, sequences: Sequence[np.ndarray], empty: int = 0
) -> np.ndarray:
    """Returns the values of sequences, such as tokens or labels, by slot.

    Args:
      layout: The layout of a batch.
      sequences: An array `[T]` for each sequence.
      empty: The value of empty slots: 0, or −100 for labels.

    Returns:
      `[B, W]`.

    >>> layout = pack_sequences([2, 1], width=4, rows=1)[0]
    >>> gather(layout, [np.array([5, 6]), np.array([7])], empty=-100)
    array([[   5,    6,    7, -100]], dtype=int32)
    """
    mask = layout.mask
    values = np.full(layout.sequence.shape, empty, np.int32)
    numbers, which = np.unique(layout.sequence[mask], return_inverse=True)
    if len(numbers):
        present = [np.asarray(sequences[number]) for number in numbers]
        begins = np.cumsum([0, *map(len, present)])
        values[mask] = np.concatenate(present)[begins[which] + layout.place[mask]]
    return values


def scatter(layout: Layout, values: np.ndarray, into: Sequence[np.ndarray]) -> None:
    """Writes the outputs of a model for a batch to the sequences of its slots.

    Args:
      layout: The layout of the batch.
      values: The outputs, `[B, W, ...]`.
      into: An array `[T, ...]` for each sequence, which is changed.
    """
    values = np.asarray(values)
    for number in np.unique(layout.sequence[layout.mask]):
        slots = layout.sequence == number
        into[number][layout.place[slots]] = values[slots]
