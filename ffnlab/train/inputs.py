"""What the steps of a call receive beside the state: arrays, and indices into them."""

import math
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
        """Returns the arrays of some steps, and the indices into them.

        An index is that of an example, `[steps, B]`, or of a whole batch, `[steps]`.

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
      layout: The devices that divide each batch; None is the default device.
    """

    part: Streamed
    wrap: Callable[[Any], Any]
    layout: Layout | None


class _Read(NamedTuple):
    """Arrays of the batches of one call, `[steps, B, ...]`, and their numbers.

    The batch of a step is thus taken whole, and its rows stay on the devices that they
    were read for.
    """

    source: OnDemand
    indices: Indices
    streamed: bool = True

    def __call__(self, start: int, stop: int) -> tuple[Any, Any]:
        index = np.asarray(self.indices(start, stop))  # [steps, B]
        steps, batch = index.shape[:-1], index.shape[-1]
        sharding = _of_batches(self.source.layout, batch)
        own = processes.own_rows(sharding, batch)
        chosen = index.reshape(-1, batch)[:, own]  # [steps, own]
        arrays = self.source.part.read(chosen.ravel())  # [steps * own, ...]
        arrays = jax.tree.map(
            lambda array: array.reshape(*chosen.shape, *array.shape[1:]), arrays
        )
        placed = processes.place_rows(arrays, sharding, batch)
        return self.source.wrap(placed), _numbers(steps)

    def shapes(self, start: int, stop: int) -> tuple[Any, Any]:
        index = np.asarray(self.indices(start, stop))
        steps, batch = index.shape[:-1], index.shape[-1]
        sharding = _of_batches(self.source.layout, batch)
        one = self.source.part.read(index.ravel()[:1])

        def shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
            sizes = (math.prod(steps), batch, *array.shape[1:])
            return jax.ShapeDtypeStruct(sizes, array.dtype, sharding=sharding)

        return self.source.wrap(jax.tree.map(shape, one)), _numbers(steps)


def _of_batches(layout: Layout | None, batch: int) -> jax.sharding.Sharding | None:
    """Returns the sharding of batches `[steps, B, ...]`, as `constrain` divides them.

    Arrays that are divided by their positions, or not at all, are held by every device.
    """
    if layout is None:
        return None
    if layout.positions or batch % layout.sizes["data"]:
        return layout.replicated
    return layout.along(None, "data")


def _numbers(steps: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers of the batches of a call, `[steps]`."""
    return np.arange(math.prod(steps), dtype=np.int32).reshape(steps)


def on_demand(
    learner: Learner | Frozen, part: Streamed, layout: Layout | None
) -> OnDemand:
    """Returns a part that is read call by call, with the frozen arrays if any.

    Args:
      learner: The learner; its frozen arrays are placed once.
      part: The part.
      layout: Its devices divide each batch that is read; None is one device.
    """
    if isinstance(learner, Frozen):
        place = jax.device_put if layout is None else layout.place
        learner = learner._replace(arrays=place(learner.arrays))

    def wrap(arrays: Any) -> Any:
        return with_frozen(learner, arrays)

    return OnDemand(part, wrap, layout)


def make_inputs(arrays: Any, indices: Indices) -> Inputs:
    """Returns what gives the steps their arguments.

    Args:
      arrays: A training part, of `placement.place_arrays`.
      indices: `indices(start, stop)` returns the examples of those steps' batches.
    """
    if isinstance(arrays, OnDemand):
        return _Read(arrays, indices)
    return _Held(arrays, indices)
