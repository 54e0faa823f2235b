"""The interval of one mean, and the checks of scores and levels."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.errors import InputError

DRAWS = 2**13 - 1  # random signs, where not all of them are counted


class Interval(NamedTuple):
    """The ends of a confidence interval, in the units of the score."""

    low: float
    high: float

    def clip(self, lowest: float, highest: float) -> "Interval":
        """Returns the part of the interval that is within the range of the score.

        Args:
          lowest: The lowest value that the score can have; -inf if there is none.
          highest: The highest; inf if there is none.

        >>> Interval(0.97, 1.01).clip(0.0, 1.0)
        Interval(low=0.97, high=1.0)
        """
        return Interval(*(min(max(end, lowest), highest) for end in self))


def mean_interval(
    scores: ArrayLike, level: float = 0.95, example_variance: float = 0.0
) -> Interval | None:
    """Returns Student's interval of the mean of one score per replicate.

    Args:
      scores: Finite scores, `[replicates]`.
      level: The nominal coverage.
      example_variance: The variance of the mean that the examples cause, where all
        replicates are scored on the same ones; see `two_way.example_covariance`. They
        are taken to be many, so that it is known.

    Returns:
      The interval, for one mean alone; None for a single replicate.

    Raises:
      InputError: A score is not finite, there is none, or the level is not allowed.

    Source: Student 1908, "The probable error of a mean"; with a variance of the
    examples, the degrees of freedom of Satterthwaite 1946, "An approximate distribution
    of estimates of variance components".

    >>> low, high = mean_interval([0.89, 0.90, 0.90, 0.91, 0.91, 0.93])
    >>> print(f"{low:.4f} {high:.4f}")
    0.8923 0.9210
    """
    from scipy.special import stdtrit

    check_level(level)
    numbers = as_scores("scores", scores)
    if numbers.size == 1:
        return None
    variance = standard_error(numbers) ** 2
    total = variance + example_variance
    degrees = float(numbers.size - 1)
    if example_variance and variance:
        degrees *= (total / variance) ** 2
    half = -stdtrit(min(degrees, 1e9), (1 - level) / 2) * math.sqrt(total)
    mean = numbers.mean()
    return Interval(float(mean - half), float(mean + half))


def standard_error(numbers: np.ndarray) -> float:
    """Returns the standard error of a mean."""
    return float(numbers.std(ddof=1) / math.sqrt(numbers.size))


def rounding_error(*rows: np.ndarray) -> float:
    """Returns the error of a difference of scores that were computed in float32.

    It is above 0, also for scores that are all 0.
    """
    size = max(np.abs(row).max() for row in rows)
    return float(2 * np.finfo(np.float32).eps * size + np.finfo(np.float64).tiny)


def as_scores(what: str, scores: ArrayLike) -> np.ndarray:
    """Returns scores as float64; there must be some, in one row, all finite."""
    try:
        numbers = np.asarray(scores).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers ({error})") from error
    if numbers.ndim != 1 or numbers.size == 0:
        raise InputError(f"{what}: expected one score per replicate, {numbers.shape}")
    if not np.isfinite(numbers).all():
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InputError(
            f"{what}: {numbers[place]} in replicate {place}; give a run that diverged "
            "the score of a trivial predictor"
        )
    return numbers


def check_level(level: float) -> None:
    """Raises if a level is not above 0, or is nearer to 1 than random signs tell."""
    if not 0 < level <= 1 - 1 / (1 + DRAWS):
        raise InputError(f"level: {level:g} must be above 0 and at most 0.9998")
