"""Learning rates that are extended until the best of each replicate is inside."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ffnlab.sweep.population import Members, Population
from ffnlab.sweep.result_lines import choose_members
from ffnlab.train.record import Plan, Record


class Extension(NamedTuple):
    """Members to train beside a population.

    Attributes:
      number: The number of the extension, from 1.
      members: As many as there are replicates, so that all extensions have one compiled
        program; the last one is repeated.
      count: How many of them count.
    """

    number: int
    members: Members
    count: int


def extend(
    population: Population,
    plan: Plan,
    most: int,
    fit: Callable[[Extension], Population],
) -> Population:
    """Trains replicates at further learning rates until their best is not at an edge.

    What is trained for a replicate depends on its own scores alone, so that any part of
    a sweep has the same runs.

    Args:
      population: Replicates at each rate of a grid, from `fit_population`.
      plan: The plan it was trained by.
      most: The largest number of further rates for a replicate.
      fit: Trains the members of an extension.

    Returns:
      The population with the further members at its end.
    """
    for number in range(1, most + 1):
        extension = _next(population, plan, number)
        if extension is None:
            break
        further = fit(extension)
        population = joined(population, further, extension.count)
    return population


def next_rate(rates: list[float], best: float) -> float | None:
    """Returns the rate to try beyond the best one; None if the best one is inside.

    The pattern of the grid goes on: 0.03 follows 0.001, 0.003 and 0.01. Of a single
    rate nothing follows.

    Args:
      rates: At least one rate, ascending.
      best: One of them.

    >>> next_rate([0.001, 0.003, 0.01], 0.01), next_rate([0.001, 0.003, 0.01], 0.001)
    (0.03, 0.0003)
    """
    if len(rates) < 2 or best not in (rates[0], rates[-1]):
        return None
    near, *further = rates if best == rates[0] else rates[::-1]
    second, third = further[0], further[1] if len(further) > 1 else None
    rate = near * near / second if third is None else near * second / third
    return float(f"{rate:.6g}")


def _next(population: Population, plan: Plan, number: int) -> Extension | None:
    """Returns the members that extend the rates of replicates by one."""
    splits = {seed: place for place, seed in enumerate(dict.fromkeys(population.seeds))}
    rows = []
    for member in choose_members(population, plan):
        seed = population.seeds[member]
        own = population.learning_rates[population.seeds == seed]
        rates = sorted(float(f"{rate:.6g}") for rate in own)
        rate = next_rate(rates, float(f"{population.learning_rates[member]:.6g}"))
        if rate is not None:
            rows.append((seed, rate, splits[seed]))
    if not rows:
        return None
    filled = rows + rows[-1:] * (len(splits) - len(rows))
    seeds, rates, places = map(np.array, zip(*filled, strict=True))
    return Extension(
        number, Members(seeds, rates.astype(np.float32), places), len(rows)
    )


def joined(
    first: Population, second: Population, count: int | None = None
) -> Population:
    """Returns a population and the first members of another as one, on the host.

    The time of a step is that of all members, at the pace of the first population.

    Args:
      first: The population whose members come first.
      second: A population of the same model and plan.
      count: How many of its members count; None is all.
    """
    count = len(second.seeds) if count is None else count

    def join(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.concatenate([jax.device_get(one), jax.device_get(other)[:count]])

    fit, further = first.fit, second.fit
    one, other = (each.record._replace(step=None) for each in (fit, further))
    record: Record = jax.tree.map(join, one, other)
    size = len(first.seeds)
    return Population(
        join(first.seeds, second.seeds),
        join(first.learning_rates, second.learning_rates),
        fit._replace(
            state=None,
            best=jax.tree.map(join, fit.best, further.best),
            record=record._replace(step=fit.record.step),
            seconds_per_step=fit.seconds_per_step * (size + count) / size,
        ),
    )
