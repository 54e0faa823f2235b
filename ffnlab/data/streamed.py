"""A part of a data set that is read as it is needed, and not held in memory."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ffnlab.data.shuffle import order


@dataclasses.dataclass(frozen=True)
class Streamed:
    """The training part of a data set that does not fit in memory.

    Training reads the examples of each call of the steps. Their order is that of
    `data.indices`, so that any step is resumed by its number alone.

    Attributes:
      size: The number N of examples.
      read: `read(index)` returns the arrays of the examples at int `[n]`, each with n
        rows, under the names of `data.Dataset`.
      digest: What differs where the examples differ, such as a SHA-256.

    >>> squares = Streamed(10**12, lambda i: {"x": i**2, "y": i % 2}, "squares")
    >>> squares.batch_rows(seed=0, step=7, batch=8, start=2, stop=4)["x"].shape
    (2,)
    """

    size: int
    read: Callable[[np.ndarray], dict[str, np.ndarray]]
    digest: str

    def batch_rows(
        self, seed: int, step: int, batch: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Returns some rows of the batch of a step, and reads no others.

        Args:
          seed: The seed of the order.
          step: The number of the step, from 0.
          batch: The number of rows of a whole batch.
          start: The first row.
          stop: One past the last row, at most `batch`.
        """
        begin = step * batch
        return self.read(order(seed, begin + start, begin + stop, self.size))
