"""The order of the examples of a run, as a function of seed and position.

The examples form one endless stream: epoch after epoch, each a new permutation of all
examples. Any part of the stream is computed from its position alone, so that a run
resumes at any step by number, and no permutation is held in memory.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ffnlab.errors import InputError

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the step of splitmix64
_WORD = 2**64
_ROUNDS = 8
_LEAST_BITS = 8  # with fewer, some orders of a small set are far too frequent
_CHUNK = 2**16  # positions whose intermediate arrays fit in the cache of a core


def order(seed: int, start: int, stop: int, size: int) -> np.ndarray:
    """Returns the examples at positions `start` to `stop - 1` of the stream.

    Position p is in epoch p // size. Each epoch is a pseudo-random permutation of
    `range(size)` that depends on seed and epoch: a Feistel network with keys from both
    over the next power of two, applied again until the result is in `range(size)`.
    Time and memory are O(stop - start).

    Args:
      seed: Any integer, taken modulo 2**64.
      start: The first position. It may be negative: epoch -1 comes before epoch 0.
      stop: One past the last position; there are none if it is not above `start`.
      size: The number of examples, at least 1.

    Returns:
      int32 [stop - start], each in `range(size)`; int64 if size exceeds 2**31 - 1.

    Raises:
      InputError: `size` is below 1.

    Source: Luby and Rackoff 1988 (Feistel networks as permutations); Black and Rogaway
    2002, "Ciphers with Arbitrary Finite Domains" (cycle walking); Steele, Lea and Flood
    2014 (the finaliser of splitmix64, for the keys); Wellons 2018, "Prospecting for
    Hash Functions" (lowbias32, the round function).

    >>> sorted(order(seed=0, start=0, stop=5, size=5).tolist())
    [0, 1, 2, 3, 4]
    >>> whole = order(seed=0, start=0, stop=12, size=5)
    >>> bool((order(seed=0, start=7, stop=12, size=5) == whole[7:]).all())
    True
    """
    return _orders([seed], start, stop, size)[0]


def indices(
    seeds: Sequence[int], start: int, stop: int, batch: int, size: int
) -> np.ndarray:
    """Returns the batches of steps `start` to `stop - 1`, for each of several seeds.

    Step t of a seed takes positions t * batch to (t + 1) * batch - 1 of its stream. A
    batch may therefore contain the end of one epoch and the beginning of the next, and
    no example is left out.

    Args:
      seeds: S seeds, at least 1; the batches of equal seeds are computed once.
      start: The first step, from 0.
      stop: One past the last step.
      batch: Examples in a batch, at least 1.
      size: Examples in the data, at least 1.

    Returns:
      Integers in `range(size)`, [stop - start, S, batch], of the type of `order`. For
      one seed alone, `indices([seed], ...)[:, 0]` is [stop - start, batch].

    Raises:
      InputError: `batch` or `size` is below 1.

    >>> indices([0, 1, 0], start=10, stop=14, batch=2, size=5).shape
    (4, 3, 2)
    """
    if batch < 1:
        raise InputError(f"a batch holds at least 1 example, not {batch}")
    rows = {seed: row for row, seed in enumerate(dict.fromkeys(seeds))}
    streams = _orders([*rows], start * batch, stop * batch, size)
    streams = streams.reshape(len(rows), -1, batch).swapaxes(0, 1)
    return streams[:, [rows[seed] for seed in seeds]]  # [steps, S, batch]


def _orders(seeds: Sequence[int], start: int, stop: int, size: int) -> np.ndarray:
    """Returns the streams of S seeds, [S, stop - start]; see `order`."""
    if size < 1:
        raise InputError(f"no examples to put in order: size is {size}, at least 1")
    # Python's integers: those of NumPy would overflow with 64-bit constants.
    start, stop, size = int(start), int(stop), int(size)
    kind = np.int32 if size < 2**31 else np.int64
    result = np.empty((len(seeds), max(stop - start, 0)), kind)
    step = max(_CHUNK // len(seeds), 1)
    for begin in range(0, result.shape[1], step):
        piece = result[:, begin : begin + step]
        piece[:] = _permuted(seeds, start + begin, piece.shape[1], size)
    return result


def _permuted(seeds: Sequence[int], start: int, count: int, size: int) -> np.ndarray:
    """Returns the examples at `count` positions from `start`, int64 [S, count]."""
    first_epoch, first_place = divmod(start, size)
    last = (first_place + count - 1) // size
    sizes = np.full(last + 1, size)
    sizes[-1] -= (last + 1) * size - first_place - count
    sizes[0] -= first_place
    epochs = np.repeat(np.arange(last + 1), sizes)
    places = np.arange(first_place, first_place + count) - epochs * size
    firsts = (last + 1) * np.arange(len(seeds))  # the first epoch of each seed
    epochs = (firsts[:, None] + epochs).ravel()
    keys = _round_keys(seeds, first_epoch, last + 1)
    bits = max((size - 1).bit_length(), _LEAST_BITS)
    apply = _permutation(keys, bits)
    values = apply(np.tile(places, len(seeds)), epochs)
    while (outside := np.flatnonzero(values >= size)).size:
        values[outside] = apply(values[outside], epochs[outside])
    return values.reshape(len(seeds), count)


def _permutation(keys: np.ndarray, bits: int) -> Callable[..., np.ndarray]:
    """Returns a function of values and epochs, the permutation of each epoch.

    A small set applies it many times, so that all values are computed once.
    """
    epochs = np.arange(keys.shape[1])
    if bits > _LEAST_BITS or len(epochs) << bits > _CHUNK:
        return lambda values, epochs: _enciphered(values, epochs, keys, bits)
    domain = np.tile(np.arange(2**bits), len(epochs))
    table = _enciphered(domain, np.repeat(epochs, 2**bits), keys, bits)
    table = table.reshape(len(epochs), -1)  # [epochs, 2**bits]
    return lambda values, epochs: table[epochs, values]


def _round_keys(seeds: Sequence[int], first_epoch: int, epochs: int) -> np.ndarray:
    """Returns a key for each round of each seed's epochs, uint32 [rounds, S * epochs].

    Args:
      seeds: S seeds.
      first_epoch: The number of the first epoch.
      epochs: The number of epochs.
    """
    starts = [(int(seed) + _GOLDEN) % _WORD for seed in seeds]
    roots = _mixed64(np.array(starts, np.uint64))[:, None]
    numbers = np.arange(epochs, dtype=np.uint64) + np.uint64(first_epoch % _WORD)
    epoch_keys = _mixed64(roots + numbers * _GOLDEN).ravel()
    turns = np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None] * _GOLDEN
    return (_mixed64(epoch_keys + turns) >> 32).astype(np.uint32)


def _enciphered(
    values: np.ndarray, epochs: np.ndarray, keys: np.ndarray, bits: int
) -> np.ndarray:
    """Returns the permutation of `range(2 ** bits)` at values, by epoch."""
    low = bits // 2
    masks = np.uint32(2 ** (bits - low) - 1), np.uint32(2**low - 1)
    halves = [(values >> low).astype(np.uint32), values.astype(np.uint32) & masks[1]]
    for turn in range(_ROUNDS):
        scrambled = _mixed32(halves[1 - turn % 2] + keys[turn].take(epochs))
        halves[turn % 2] ^= scrambled & masks[turn % 2]
    return (halves[0].astype(np.int64) << low) | halves[1]


def _mixed32(values: np.ndarray) -> np.ndarray:
    """Applies lowbias32 in place: every bit of the result depends on every bit."""
    values ^= values >> 16
    values *= np.uint32(0x7FEB352D)
    values ^= values >> 15
    values *= np.uint32(0x846CA68B)
    values ^= values >> 16
    return values


def _mixed64(values: np.ndarray) -> np.ndarray:
    """Applies the finaliser of splitmix64, in which every bit depends on every bit."""
    values = (values ^ (values >> 30)) * 0xBF58476D1CE4E5B9
    values = (values ^ (values >> 27)) * 0x94D049BB133111EB
    return values ^ (values >> 31)
