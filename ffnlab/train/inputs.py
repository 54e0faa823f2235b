"""What the steps of a call receive beside the state: arrays, and indices into them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ffnlab import processes
from ffnlab.data.streamed import Streamed
from ffnlab.train.learner import Frozen, Learner, with_frozen
from ffnlab.train.sharding import Layout

Indices = Callable[[int, int], Any]


class Inputs(Protocol):
    """Gives a call of the steps its arguments.

    Attributes:
      streamed: Whether the arrays are of one call alone, which has to be short.
    """

    streamed: bool

    def __call__(self, start: int, stop: int) -> tuple[Any, Any]:
        """Returns the arrays of some steps, and the indices into them, `[steps, B]`.

        Args:
          start: The first step.
          stop: One past the last step.
        """

    def shapes(self, start: int, stop: int) -> tuple[Any, Any]:
        """Returns what a program is lowered with for these steps."""


class _Held(NamedTuple):
    """Arrays that stay on the device, and the examples of each step."""

    arrays: Any
    indices: Indices
    streamed: bool = False

    def __call__(self, start: int, stop: int) -> tuple[Any, Any]:
        return self.arrays, self.indices(start, stop)

    shapes = __call__


class OnDemand(NamedTuple):
    """A training part whose examples are read for each call of the steps.

    Attributes:
      part: The part.
      wrap: `wrap(arrays)` returns the arrays of a program, given those of the part.
      sharding: Where what is read is placed; None is the default device.
    """

    part: Streamed
    wrap: Callable[[Any], Any]
    sharding: jax.sharding.Sharding | None


class _Read(NamedTuple):
    """Arrays of the examples of one call, in the order of its steps."""

    source: OnDemand
    indices: Indices
    streamed: bool = True

    def __call__(self, start: int, stop: int) -> tuple[Any, Any]:
        index = np.asarray(self.indices(start, stop))  # [steps, B]
        arrays = self.source.part.read(index.ravel())  # [steps * B, ...]
        placed = processes.place(arrays, self.source.sharding)
        return self.source.wrap(placed), _numbered(index)

    def shapes(self, start: int, stop: int) -> tuple[Any, Any]:
        index, sharding = np.asarray(self.indices(start, stop)), self.source.sharding
        one = self.source.part.read(index.ravel()[:1])

        def shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
            sizes = (index.size, *array.shape[1:])
            return jax.ShapeDtypeStruct(sizes, array.dtype, sharding=sharding)

        return self.source.wrap(jax.tree.map(shape, one)), _numbered(index)


def _numbered(index: np.ndarray) -> np.ndarray:
    """Returns the places of the examples of each step in their arrays, `[steps, B]`."""
    return np.arange(index.size, dtype=np.int32).reshape(index.shape)


def on_demand(
    learner: Learner | Frozen, part: Streamed, layout: Layout | None
) -> OnDemand:
    """Returns a part that is read call by call, with the frozen arrays if any.

    Args:
      learner: The learner; its frozen arrays are placed once.
      part: The part.
      layout: Every device of it receives what is read; None is one device.
    """
    if isinstance(learner, Frozen):
        place = jax.device_put if layout is None else layout.place
        learner = learner._replace(arrays=place(learner.arrays))

    def wrap(arrays: Any) -> Any:
        return with_frozen(learner, arrays)

    return OnDemand(part, wrap, layout and layout.replicated)


def make_inputs(arrays: Any, indices: Indices) -> Inputs:
    """Returns what gives the steps their arguments.

    Args:
      arrays: A training part, of `placement.place_arrays`.
      indices: `indices(start, stop)` returns the examples of those steps' batches.
    """
    if isinstance(arrays, OnDemand):
        return _Read(arrays, indices)
    return _Held(arrays, indices)
