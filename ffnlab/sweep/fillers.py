"""Members that fill a small part of a sweep, so that it rounds as the whole does.

On a CPU, XLA compiles a program whose devices have one member each in another way than
one with several, and its losses differ in their last digits. A part of a sweep
therefore trains at least two members on each device; the last one is repeated.
"""

from typing import TypeVar

import jax
import numpy as np

from ffnlab.sweep.population import Members, Population
from ffnlab.sweep.spreading import parts
from ffnlab.train.sharding import Layout

Index = TypeVar("Index", np.ndarray, Members)


def fill(members: Index, layout: Layout | None = None) -> Index:
    """Returns members, or the places of some, with the last one repeated.

    Args:
      members: Arrays with a leading axis `[S]`.
      layout: How members are divided; see `spread`.

    >>> len(fill(np.arange(3))) >= max(3, 2 * jax.local_device_count())
    True
    """
    least = 2 * parts(layout) if jax.default_backend() == "cpu" else 0
    size = len(jax.tree.leaves(members)[0])
    index = np.minimum(np.arange(max(size, least)), size - 1)
    return jax.tree.map(lambda array: array[index], members)


def cut(population: Population, size: int) -> Population:
    """Returns the first members of a population, on the host and without their states.

    Args:
      population: From members that `fill` returned.
      size: Their number before.
    """
    fit, record = population.fit, population.fit.record._replace(step=None)
    best, record = jax.tree.map(
        lambda each: jax.device_get(each)[:size], (fit.best, record)
    )
    record = record._replace(step=fit.record.step)
    fit = fit._replace(state=None, best=best, record=record)
    return Population(population.seeds[:size], population.learning_rates[:size], fit)
