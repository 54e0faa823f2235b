"""What a comparison could have detected, and how many replicates would decide."""

import functools
import math

import numpy as np

from ffnlab.stats.signs import EXACT, largest_statistics

POWER = 0.8  # of the detectable effect, and of the number of replicates that decides
_RANKS = 64  # equally likely standard errors, over which the power is averaged
_SETS = 128  # data sets that show how much the critical statistic varies
_FACTORS = 8  # equally likely ratios of two critical statistics
_MOST = 10**6  # the largest number of replicates that is searched


def detectable_effect(
    critical: float,
    error: float,
    replicates: int,
    blocks: int = 1,
    beyond: int | None = None,
) -> float:
    """Returns the difference that a new run detects with a probability of 0.8.

    Args:
      critical: The statistic from which on a difference counts as detected.
      error: The standard error of the mean difference, as estimated by this run.
      replicates: The number of replicates, of this run and of the new one.
      blocks: The number of blocks that are compared with the baseline.
      beyond: The place of the critical statistic among the draws of the signs, from
        the largest, 1. With few replicates it differs between runs, which is taken
        into account; None does not.

    >>> round(detectable_effect(critical=2.13, error=1.0, replicates=16), 2)
    3.17
    """
    if beyond is None or replicates > EXACT:
        return error * _detectable_shift(critical, replicates)
    return error * _detectable_shift(critical, replicates, blocks, beyond)


@functools.lru_cache(maxsize=64)
def _detectable_shift(
    critical: float, replicates: int, blocks: int = 1, beyond: int = 0
) -> float:
    """Returns the detectable difference in standard errors."""
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr

    # Equally likely ratios of an estimated to the true standard error. This run and the
    # new one have one each. If this run's counted as true, fewer would be detected.
    half, ranks = (replicates - 1) / 2, (np.arange(_RANKS) + 0.5) / _RANKS
    ratios = np.sqrt(gammaincinv(half, ranks) / half)
    # The same for the critical statistic of the new run over that of this one.
    factors = _critical_factors(replicates, blocks, beyond) if beyond else np.ones(1)
    bounds = critical * factors[:, None, None] * ratios

    def missing(shift: float) -> float:
        means = shift * ratios[:, None]
        return float(ndtr(means - bounds).mean()) - POWER

    return float(brentq(missing, 0.0, 4.0 * bounds.max() + 20.0, xtol=1e-6))


@functools.lru_cache(maxsize=64)
def _critical_factors(replicates: int, blocks: int, beyond: int) -> np.ndarray:
    """Returns equally likely ratios of the critical statistics of two runs."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(_SETS, blocks + 1, replicates))
    differences = scores[:, 1:] - scores[:, :1]
    criticals = np.array([largest_statistics(each)[-beyond] for each in differences])
    ratios = (criticals[:, None] / criticals[None]).ravel()
    return np.quantile(ratios, (np.arange(_FACTORS) + 0.5) / _FACTORS)


def replicates_needed(
    mean: float,
    error: float,
    critical: float,
    replicates: int,
    margin: float | None,
    example_error: float = 0.0,
) -> int | None:
    """Returns about how many replicates decide, if mean and spread stay as they are.

    That many decide with a probability of 0.8; None if no number up to a million does.

    Args:
      mean: The mean difference.
      error: Its standard error.
      critical: The statistic from which on a difference counts as detected.
      replicates: The number of replicates so far.
      margin: The margin of equivalence, if there is one.
      example_error: The part of the standard error that does not depend on the number
        of replicates.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    tail = stdtr(replicates - 1, -critical)
    spread = error * math.sqrt(replicates)
    if example_error:
        spread = math.sqrt(max(error**2 - example_error**2, 0.0) * replicates)

    def decides(count: int) -> bool:
        bound = -stdtrit(count - 1, tail)
        error = math.hypot(spread / math.sqrt(count), example_error)
        power = ndtr(abs(mean) / error - bound)
        if margin is not None:
            ends = (margin + np.array([mean, -mean])) / error
            power = max(power, ndtr(ends - bound).sum() - 1)
        return power >= POWER

    if not decides(_MOST):
        return None
    low, high = replicates, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def chance_of_decision(
    mean: float, error: float, critical: float, share: float, margin: float | None
) -> float:
    """Returns the probability that the last stage decides, given the data so far.

    The true difference is taken to be as likely as the data make it, and the mean of
    the replicates to come varies around it.

    Args:
      mean: The mean difference so far.
      error: Its standard error.
      critical: The statistic from which on the last stage decides.
      share: The share of the replicates of the last stage that there are so far.
      margin: The margin of equivalence, if there is one.

    Source: Spiegelhalter, Freedman and Blackburn 1986, "Monitoring clinical trials:
    conditional or predictive power?"

    >>> round(chance_of_decision(0.0, 1.0, 2.5, 0.5, None), 3)
    0.012
    """
    from scipy.special import ndtr

    final = critical * error * math.sqrt(share)  # half the interval of the last stage
    spread = error * math.sqrt(1 - share)  # of the last mean around the one so far
    if spread == 0.0:
        return float(abs(mean) > final)
    chance = ndtr((mean - final) / spread) + ndtr((-mean - final) / spread)
    if margin is not None and margin > final:
        ends = (margin - final + np.array([mean, -mean])) / spread
        chance += max(float(ndtr(ends).sum() - 1), 0.0)
    return float(min(chance, 1.0))
