"""Statistics of comparison: which blocks differ from a baseline, and how sure is it?

A replicate is one draw of everything that could have come out otherwise: the split, the
initial parameters, the order of the data and the learning rate that its validation part
chose. Each block has one finite score per replicate, and all blocks share replicates,
so that scores are compared in pairs.

There is one statistic: the mean of the paired differences, divided by its standard
error. It ranks, it is tested, and it is drawn. Its distribution under the hypothesis
that all blocks are equal is that of the largest statistic of all blocks when the signs
of the centred differences are drawn at random, the same sign for all blocks of a
replicate. The intervals are therefore simultaneous, and an interval excludes zero
exactly when its p-value is at most one minus the level.

Sources: Liu 1988, "Bootstrap procedures under some non-i.i.d. models" (random signs);
Westfall and Young 1993, "Resampling-based multiple testing" (the largest statistic);
Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
testing" (studentised). `python -m benchmarks.calibration` measures error, coverage and
power. scipy, which is slow to import, is imported where it is needed.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.errors import InputError, choose

POWER = 0.8  # of the detectable effect, and of the number of replicates that decides
VERDICTS = ("better", "worse", "equivalent", "undecided")
_EXACT = 13  # replicates up to which all signs are counted, 2^12 up to their symmetry
_DRAWS = 2**13 - 1  # random signs for more replicates
_RANKS = 64  # equally likely standard errors, over which the power is averaged
_INFINITE = 1e8  # even times a rounding error, beyond all differences of scores
_MOST = 10**6  # the largest number of replicates that is searched


class Interval(NamedTuple):
    """The ends of a confidence interval, in the units of the score."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of a block with the baseline.

    Attributes:
      name: The block.
      replicates: The number of replicates n.
      score: The mean score.
      interval: The interval of the mean score alone, by `mean_interval`; None for one
        replicate.
      difference: The mean of block minus baseline. This and the following fields are
        None for the baseline.
      difference_interval: Its simultaneous interval; None where there are too few
        replicates for one, see `least_replicates`.
      differences: Block minus baseline in each replicate, n numbers.
      p_value: The p-value, adjusted for the number of blocks; None for one replicate.
      p_new_data: The same for new data of the kind, by the corrected variance of Nadeau
        and Bengio; None where the data were not split again for each replicate.
      improvement: The share of replicates in which the block is better, ties by half.
      detectable: The size of a difference that a run like this one detects with a
        probability of 0.8; None as for the interval.
      needed: About how many replicates would decide, for a block that is undecided;
        None if no number up to a million would.
      verdict: One of `VERDICTS`.
      scores: The score of each replicate, also of the baseline.
    """

    name: str
    replicates: int
    score: float
    interval: Interval | None
    difference: float | None = None
    difference_interval: Interval | None = None
    differences: tuple[float, ...] = ()
    p_value: float | None = None
    p_new_data: float | None = None
    improvement: float | None = None
    detectable: float | None = None
    needed: int | None = None
    verdict: str | None = None
    scores: tuple[float, ...] = ()


def mean_interval(scores: ArrayLike, level: float = 0.95) -> Interval | None:
    """Returns Student's interval of the mean of one score per replicate.

    Args:
      scores: Finite scores, `[replicates]`.
      level: The nominal coverage.

    Returns:
      The interval, for one mean alone; None for a single replicate.

    Raises:
      InputError: A score is not finite, there is none, or the level is not allowed.

    Source: Student 1908, "The probable error of a mean".

    >>> low, high = mean_interval([0.89, 0.90, 0.90, 0.91, 0.91, 0.93])
    >>> print(f"{low:.4f} {high:.4f}")
    0.8923 0.9210
    """
    from scipy.special import stdtrit

    _check_level(level)
    numbers = _as_scores("scores", scores)
    if numbers.size == 1:
        return None
    half = -stdtrit(numbers.size - 1, (1 - level) / 2) * _standard_error(numbers)
    mean = numbers.mean()
    return Interval(float(mean - half), float(mean + half))


def least_replicates(level: float = 0.95) -> int:
    """Returns the number of replicates below which nothing can be claimed.

    With n replicates, at least 3, the least p-value is 1 / (1 + 2^(n - 1)).

    >>> least_replicates(0.95), least_replicates(0.99)
    (6, 8)
    """
    _check_level(level)
    return max(3, 1 + math.ceil(math.log2(level / (1 - level)) - 1e-9))


def largest_statistics(
    differences: ArrayLike, seed: int = 0, rounding: ArrayLike = 0.0
) -> np.ndarray:
    """Returns the largest statistic of all blocks for many draws of the signs.

    The statistic is the absolute mean over its standard error, both of the centred
    differences with the drawn signs. For up to 13 replicates all signs are used, and
    8,191 random ones for more.

    Args:
      differences: Block minus baseline, `[blocks, replicates]`.
      seed: The seed of random signs.
      rounding: The rounding error of a difference, for all blocks or `[blocks]`; a
        block whose differences are equal up to it has the statistic 0.

    Returns:
      The largest statistics, ascending, `[draws]`.

    >>> largest_statistics([[0.1, 0.3, 0.2, 0.4], [0.0, 0.2, -0.2, 0.1]]).shape
    (8,)
    """
    rows = np.atleast_2d(np.asarray(differences, np.float64))
    centred = rows - rows.mean(axis=1, keepdims=True)
    replicates = rows.shape[1]
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    least = np.reshape(rounding, (-1, 1)) * math.sqrt(replicates)
    units = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > least)
    # Signs leave the sum of squares as it is, so that the statistic is a function of
    # the share of it that lies along the mean.
    shares = np.square(_signs(replicates, seed) @ units.T).max(axis=1) / replicates
    # Differences of two values, each in half of the replicates, can lie along it whole:
    # the statistic is then infinite, here a number beyond all others.
    rest = np.maximum(1 - shares, 1e-12)
    statistics = np.sqrt((replicates - 1) * shares / rest)
    return np.sort(np.where(rest > 1e-12, statistics, _INFINITE))


@functools.lru_cache(maxsize=8)
def _signs(replicates: int, seed: int) -> np.ndarray:
    """Returns draws of signs, `[draws, replicates]`; all of them, up to their symmetry,
    for few replicates.
    """
    if replicates <= _EXACT:
        rest = list(itertools.product((1.0, -1.0), repeat=replicates - 1))
        return np.column_stack([np.ones(len(rest)), np.array(rest)])
    draws = np.random.default_rng(seed).integers(0, 2, size=(_DRAWS, replicates))
    return 2.0 * draws - 1.0


def compare(
    scores: Mapping[str, ArrayLike],
    baseline: str,
    higher_is_better: bool,
    *,
    margin: float | None = None,
    test_ratio: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compares every block with the baseline, on the same replicates.

    Args:
      scores: By block, one finite score per replicate, in the same order.
      baseline: The block that the others are compared with.
      higher_is_better: True for an accuracy, False for a loss.
      margin: The largest difference that does not matter; None claims no equivalence.
      test_ratio: Test examples per training example, where every replicate has a split
        of its own; None where all have the same.
      level: One minus the accepted probability of any false claim.
      seed: The seed of random signs. The order of `scores` changes nothing.

    Returns:
      A comparison for each block, the best mean first.

    Raises:
      InputError: The baseline is unknown, blocks differ in their number of replicates,
        a score is not finite, the margin or the test ratio is not above 0, or the
        level is not between 0 and 0.9998.

    >>> losses = {"glu": [.30, .31, .29, .33, .30, .28], "mlp": [.40, .42, .41] * 2}
    >>> best, worst = compare(losses, baseline="mlp", higher_is_better=False)
    >>> best.name, best.verdict, round(best.difference, 3), round(best.p_value, 3)
    ('glu', 'better', -0.108, 0.03)
    """
    choose("baseline", baseline, scores)
    _check_level(level)
    for parameter, value in (("margin", margin), ("test_ratio", test_ratio)):
        if value is not None and not value > 0:
            raise InputError(f"{parameter}: {value:g} must be above 0")
    rows = {name: _as_scores(f"scores of {name}", row) for name, row in scores.items()}
    for name, row in rows.items():
        if row.size != rows[baseline].size:
            raise InputError(
                f"{name} has {row.size} replicates, {baseline} has "
                f"{rows[baseline].size}; they are compared in pairs"
            )
    others = sorted(name for name in rows if name != baseline)
    differences = {name: rows[name] - rows[baseline] for name in others}
    rounding = {name: _rounding(rows[name], rows[baseline]) for name in others}
    largest = np.zeros(0)
    if others and rows[baseline].size > 1:
        largest = largest_statistics(
            list(differences.values()), seed, list(rounding.values())
        )
    judge = functools.partial(
        _judge, largest, level, higher_is_better, margin, test_ratio
    )
    comparisons = [
        Comparison(
            name=name,
            replicates=row.size,
            score=float(row.mean()),
            interval=mean_interval(row, level),
            scores=tuple(map(float, row)),
            **(judge(differences[name], rounding[name]) if name != baseline else {}),
        )
        for name, row in rows.items()
    ]
    sign = -1 if higher_is_better else 1
    return sorted(comparisons, key=lambda row: (sign * row.score, row.name))


def _judge(
    largest: np.ndarray,
    level: float,
    higher_is_better: bool,
    margin: float | None,
    test_ratio: float | None,
    differences: np.ndarray,
    rounding: float,
) -> dict:
    """Returns the fields of a comparison that depend on the differences."""
    mean, count = float(differences.mean()), differences.size
    better = np.sign(differences) * (1 if higher_is_better else -1)
    fields = {
        "difference": mean,
        "differences": tuple(map(float, differences)),
        "improvement": float(((better > 0) + 0.5 * (better == 0)).mean()),
        "verdict": "undecided",
    }
    if count == 1:
        return fields
    # Scores that are equal up to rounding must count as equal, or p is too small. The
    # error and the mean are therefore taken at the unfavourable end of the rounding.
    error = _standard_error(differences) + rounding / math.sqrt(count)
    halves = largest * error + rounding
    fields["p_value"] = _p_value(halves, mean)
    if test_ratio is not None:
        corrected = error * math.sqrt(1 + count * test_ratio)
        fields["p_new_data"] = _p_value(largest * corrected + rounding, mean)
    if count < least_replicates(level):
        return fields
    half, critical = _critical(halves, level), _critical(largest, level)
    interval = Interval(mean - half, mean + half)
    within = margin is not None and -margin <= interval.low <= interval.high <= margin
    if within:
        fields["verdict"] = "equivalent"
    elif fields["p_value"] <= 1 - level + 1e-12:
        fields["verdict"] = "better" if (mean > 0) == higher_is_better else "worse"
    fields["difference_interval"] = interval
    fields["detectable"] = detectable_effect(critical, error, count)
    if fields["verdict"] == "undecided":
        spread = error * math.sqrt(count)
        fields["needed"] = _replicates_needed(mean, spread, critical, count, margin)
    return fields


def _p_value(draws: np.ndarray, mean: float) -> float:
    """Returns the share of draws, the observed one included, that reach a mean."""
    return float((1 + np.count_nonzero(draws >= abs(mean))) / (1 + draws.size))


def _critical(draws: np.ndarray, level: float) -> float:
    """Returns the draw above which the p-value is at most one minus the level."""
    beyond = math.floor((1 - level) * (1 + draws.size) + 1e-9)
    return float(draws[draws.size - beyond])


def detectable_effect(critical: float, error: float, replicates: int) -> float:
    """Returns the difference that a new run detects with a probability of 0.8.

    Args:
      critical: The statistic from which on a difference counts as detected.
      error: The standard error of the mean difference, as estimated by this run.
      replicates: The number of replicates, of this run and of the new one.

    >>> round(detectable_effect(critical=2.13, error=1.0, replicates=16), 2)
    3.17
    """
    return error * _detectable_shift(critical, replicates)


@functools.lru_cache(maxsize=8)
def _detectable_shift(critical: float, replicates: int) -> float:
    """Returns the detectable difference in standard errors."""
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr

    # Equally likely ratios of an estimated to the true standard error. This run and the
    # new one have one each. If this run's counted as true, fewer would be detected.
    half, ranks = (replicates - 1) / 2, (np.arange(_RANKS) + 0.5) / _RANKS
    ratios = np.sqrt(gammaincinv(half, ranks) / half)

    def missing(shift: float) -> float:
        means = shift * ratios[:, None]
        return float(ndtr(means - critical * ratios).mean()) - POWER

    return float(brentq(missing, 0.0, 4.0 * critical + 20.0, xtol=1e-6))


def _replicates_needed(
    mean: float, spread: float, critical: float, replicates: int, margin: float | None
) -> int | None:
    """Returns about how many replicates decide, if mean and spread stay as they are.

    That many decide with a probability of 0.8.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    tail = stdtr(replicates - 1, -critical)

    def decides(count: int) -> bool:
        bound = -stdtrit(count - 1, tail)
        error = spread / math.sqrt(count)
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


def _standard_error(numbers: np.ndarray) -> float:
    return float(numbers.std(ddof=1) / math.sqrt(numbers.size))


def _rounding(*rows: np.ndarray) -> float:
    """Returns the error of a difference of scores that were computed in float32.

    It is above 0, also for scores that are all 0.
    """
    size = max(np.abs(row).max() for row in rows)
    return float(2 * np.finfo(np.float32).eps * size + np.finfo(np.float64).tiny)


def _as_scores(what: str, scores: ArrayLike) -> np.ndarray:
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


def _check_level(level: float) -> None:
    if not 0 < level <= 1 - 1 / (1 + _DRAWS):
        raise InputError(f"level: {level:g} must be above 0 and at most 0.9998")
