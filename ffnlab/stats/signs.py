"""The largest studentised difference of all blocks, under random signs."""

import functools
import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.stats.intervals import DRAWS, check_level

EXACT = 13  # replicates up to which all signs are counted, 2^12 up to their symmetry
_INFINITE = 1e8  # even times a rounding error, beyond all differences of scores


def least_replicates(level: float = 0.95) -> int:
    """Returns the number of replicates below which nothing can be claimed.

    With n replicates, at least 3, the least p-value is 1 / (1 + 2^(n - 1)).

    >>> least_replicates(0.95), least_replicates(0.99)
    (6, 8)
    """
    check_level(level)
    return max(3, 1 + math.ceil(math.log2(level / (1 - level)) - 1e-9))


def largest_statistics(
    differences: ArrayLike,
    seed: int = 0,
    rounding: ArrayLike = 0.0,
    covariance: ArrayLike | None = None,
) -> np.ndarray:
    """Returns the largest statistic of all blocks for many draws of the signs.

    The statistic is the absolute mean over its standard error, both of the centred
    differences with the drawn signs. For up to 13 replicates all signs are used, and
    8,191 random ones for more, or where examples are drawn too.

    Args:
      differences: Block minus baseline, `[blocks, replicates]`.
      seed: The seed of random signs.
      rounding: The rounding error of a difference, for all blocks or `[blocks]`; a
        block whose differences are equal up to it has the statistic 0.
      covariance: The covariance of the means that the examples cause, as of
        `two_way.example_covariance`, `[blocks, blocks]`; None where every replicate has
        examples of its own.

    Returns:
      The largest statistics, ascending, `[draws]`.

    >>> largest_statistics([[0.1, 0.3, 0.2, 0.4], [0.0, 0.2, -0.2, 0.1]]).shape
    (8,)
    """
    replicates = np.shape(np.atleast_2d(differences))[1]
    exact = replicates <= EXACT and covariance is None
    return np.sort(statistics(differences, seed, rounding, covariance, exact))


def statistics(
    differences: ArrayLike,
    seed: int,
    rounding: ArrayLike,
    covariance: ArrayLike | None,
    exact: bool,
) -> np.ndarray:
    """Returns the largest statistic of each draw, `[draws]`; see `largest_statistics`.

    Random draws for more replicates continue those for fewer ones, so that a draw is
    one history of all stages.
    """
    rows = np.atleast_2d(np.asarray(differences, np.float64))
    centred = rows - rows.mean(axis=1, keepdims=True)
    replicates = rows.shape[1]
    norms = np.linalg.norm(centred, axis=1)
    least = np.asarray(rounding) * math.sqrt(replicates)
    centred = np.where((norms > least)[:, None], centred, 0.0)
    sums = _signs(replicates, seed, exact) @ centred.T  # [draws, blocks]
    # Signs leave the sum of squares as it is, so the variance follows from the mean.
    squares = np.square(centred).sum(axis=1)
    rest = np.maximum(squares - np.square(sums) / replicates, 0.0)
    variances = rest / (replicates * (replicates - 1))
    means = sums / replicates
    if covariance is not None:
        means = means + _example_means(np.asarray(covariance), len(sums), seed)
        variances = variances + np.diagonal(covariance)
    # Differences of two values, each in half of the replicates, can lie along the mean
    # whole: the statistic is then infinite, here a number beyond all others.
    tiny = 1e-12 * squares / (replicates * (replicates - 1))
    divisible = variances > tiny
    results = np.full_like(means, _INFINITE**2)
    np.divide(np.square(means), variances, out=results, where=divisible)
    results[:, (squares == 0) & (np.abs(means).max(axis=0) == 0)] = 0.0
    return np.sqrt(results.max(axis=1)) if results.size else np.zeros(len(sums))


def _example_means(covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Returns draws of the means that the examples cause, `[draws, blocks]`."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng([seed, 1]).normal(size=(draws, len(covariance)))
    return normal @ root.T


@functools.lru_cache(maxsize=8)
def _signs(replicates: int, seed: int, exact: bool) -> np.ndarray:
    """Returns draws of signs, `[draws, replicates]`; with `exact` all of them, up to
    their symmetry.
    """
    if exact:
        rest = list(itertools.product((1.0, -1.0), repeat=replicates - 1))
        return np.column_stack([np.ones(len(rest)), np.array(rest)])
    draws = np.random.default_rng(seed).integers(0, 2, size=(replicates, DRAWS))
    return np.ascontiguousarray(2.0 * draws.T - 1.0)
