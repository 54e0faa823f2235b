"""Shapes padded to powers of two, so that few of them are compiled."""

from collections.abc import Sequence

import numpy as np


def next_power(length: int, least: int = 1, most: int | None = None) -> int:
    """Returns the smallest power of two that is at least `length`.

    Args:
      length: A count, at least 0.
      least: The smallest number to return.
      most: The largest number to return, also where `length` exceeds it.

    >>> next_power(40), next_power(3, least=16), next_power(100, most=112)
    (64, 16, 112)
    """
    power = max(1 << max(length - 1, 0).bit_length(), least)
    return power if most is None else min(power, most)


def pad_to(array: np.ndarray, shape: Sequence[int], value: float = 0) -> np.ndarray:
    """Returns an array padded to a shape, with `value` at the end of each axis.

    Args:
      array: An array whose shape is nowhere larger.
      shape: The new size of each axis.
      value: The padding.

    >>> pad_to(np.ones((1, 2), int), (2, 3), -1).tolist()
    [[1, 1, -1], [-1, -1, -1]]
    """
    widths = [(0, new - old) for old, new in zip(array.shape, shape, strict=True)]
    return np.pad(array, widths, constant_values=value)
