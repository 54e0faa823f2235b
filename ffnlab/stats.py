"""Statistics of comparison: is one block better than another, over few seeds?

A score is one number per training run. The score of a run that diverged is infinite on
the worse side: -inf if higher is better, +inf if lower is better. All functions are
defined for such runs, so that none has to be dropped; NaN is an error. All results are
float64 and repeatable. scipy.stats, which is slow to import, is imported where needed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.errors import InputError, choose

# With this many, (R + 1)(1 - level) / 2 is an integer at every usual level, so the ends
# of an interval are two of the estimates, and nothing is interpolated next to infinity.
RESAMPLES = 9_999
EXACT_SEEDS = 20  # the 2^20 sums of an exact test take tens of milliseconds
_BATCH = 2**21  # numbers per batch of draws: tens of megabytes


class Interval(NamedTuple):
    """The ends of a confidence interval, in the units of the statistic."""

    low: float
    high: float


def _as_scores(what: str, scores: ArrayLike, most_axes: int = 1) -> np.ndarray:
    """Returns scores as float64; they must not be empty, NaN or of another rank."""
    try:
        numbers = np.asarray(scores).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers ({error})") from error
    if not 1 <= numbers.ndim <= most_axes or numbers.size == 0:
        raise InputError(f"{what}: expected one score per run, not {numbers.shape}")
    if np.isnan(numbers).any():
        raise InputError(f"{what}: NaN; score a diverged run inf on its worse side")
    return numbers


def iqm(scores: ArrayLike, axis: int = -1) -> np.float64 | np.ndarray:
    """Returns the interquartile mean: the mean without the lowest and highest quarter.

    Of n runs, floor(n / 4) are trimmed at each end. Up to that many diverged runs leave
    the result finite, more make it infinite.

    Args:
      scores: One score per run, of any shape with at least one axis.
      axis: The axis over runs.

    Returns:
      The interquartile means, in the shape of `scores` without `axis`.

    Raises:
      InputError: A score is NaN, there is none, or the middle has both inf and -inf.

    Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the
    statistical precipice", section 4.3, https://arxiv.org/abs/2108.13264.

    >>> float(iqm([0.70, 0.90, 0.92, float("-inf")]))
    0.8
    """
    from scipy.stats import trim_mean

    numbers = _as_scores("iqm", scores, most_axes=32)
    with np.errstate(invalid="ignore"):  # inf - inf is reported below, by name
        middle = trim_mean(numbers, 0.25, axis=axis)
    if np.isnan(middle).any():
        raise InputError("iqm: inf and -inf in the middle half have no mean")
    return middle


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[..., np.ndarray] = iqm,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns the stratified percentile bootstrap interval of a statistic of runs.

    Runs are drawn with replacement within each stratum (a task, a data set); the
    statistic is that of all strata together. With fewer than about ten runs the
    interval is too narrow; with one run it is a point.

    Args:
      scores: One score per run, [seeds] or [strata, seeds].
      statistic: Function of runs [resamples, strata · seeds] and axis, like `np.mean`.
      level: The nominal coverage, between 0 and 1.
      resamples: The number of resamples.
      seed: The seed of the resampling.

    Returns:
      The interval; an end that diverged runs reach is infinite.

    Raises:
      InputError: A score or statistic is NaN, or there are too few resamples.

    Source: Agarwal et al. 2021, section 4.1.

    >>> low, high = bootstrap_interval([0.89, 0.90, 0.90, 0.91, 0.91, 0.93])
    >>> print(f"{low:.4f} {high:.4f}")
    0.8950 0.9200
    """
    # Not scipy.stats.bootstrap: it refuses a single run, and its interpolated
    # percentiles and standard error turn infinite scores into NaN.
    strata = np.atleast_2d(_as_scores("bootstrap_interval", scores, most_axes=2))
    tail = (resamples + 1) * (1 - level) / 2 + 1e-9  # so that 499.99… is 500
    if not (0 < level < 1 and tail >= 1):
        raise InputError(f"{level=}: expected a fraction that {resamples=} can resolve")
    generator = np.random.default_rng(seed)
    batch = max(1, _BATCH // strata.size)
    estimates = []
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        draws = generator.integers(strata.shape[1], size=(count, *strata.shape))
        runs = np.take_along_axis(strata[None], draws, axis=-1)
        with np.errstate(invalid="ignore"):  # inf - inf is reported below, by name
            estimates.append(statistic(runs.reshape(count, -1), axis=-1))
    ordered = np.sort(np.concatenate(estimates))  # [resamples]
    if np.isnan(ordered[-1]):
        raise InputError("bootstrap: NaN statistic; do scores hold inf and -inf?")
    return Interval(float(ordered[int(tail) - 1]), float(ordered[-int(tail)]))


def paired_permutation_test(
    a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Returns the two-sided p-value of the hypothesis that paired runs are equal.

    If blocks are exchangeable, the sign of each difference is random: p is the fraction
    of sign assignments whose sum is at least as far from zero as the observed sum. For
    up to 20 pairs all assignments are counted; for more, random ones and the observed
    one.

    If both runs of a pair diverged, they differ by 0. If only one did, the test sums
    the signed ranks of all differences (Wilcoxon's statistic, zeros and ties as in
    Pratt), so that this pair counts as the largest difference. The test is exact then
    too, since ranks depend on absolute differences only.

    Args:
      a, b: Scores of two blocks on the same seeds in the same order, both [seeds].
      resamples: The number of random assignments for more than 20 pairs.
      seed: The seed of the random assignments.

    Returns:
      The p-value; 1 for a single pair and for equal scores.

    Raises:
      InputError: A score is NaN, or the numbers of seeds differ.

    Source: Fisher 1935, "The design of experiments", section 21; Pratt 1959, "Remarks
    on zeros and ties"; Phipson and Smyth 2010, "p-values should never be zero".

    >>> paired_permutation_test([0.92, 0.93, 0.95, 0.94], [0.90, 0.92, 0.92, 0.90])
    0.125
    """
    # Not scipy.stats.permutation_test: it is hundreds of times slower for 16 pairs, and
    # its tolerance for tied sums is relative to the observed sum, so 0 at 0.
    _, terms, rounding = _test_terms(a, b)
    threshold = abs(terms.sum()) - rounding
    if terms.size <= EXACT_SEEDS:
        sums = np.zeros(1)
        for term in terms:
            sums = np.concatenate([sums + term, sums - term])
        return float(np.mean(np.abs(sums) >= threshold))
    generator = np.random.default_rng(seed)
    flips = generator.integers(0, 2, size=(resamples, terms.size), dtype=bool)
    sums = terms.sum() - 2 * (flips @ terms)  # [resamples]
    return float((1 + np.sum(np.abs(sums) >= threshold)) / (1 + resamples))


def _test_terms(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns a - b, the terms of the tested sum, and the rounding error of the sum."""
    first, second = _as_scores("first scores", a), _as_scores("second scores", b)
    if first.size != second.size:
        raise InputError(f"paired scores: {first.size} seeds against {second.size}")
    zeros = np.zeros_like(first)  # also for two runs that diverged alike
    differences = np.subtract(
        first, second, out=zeros, where=first != second
    )  # [seeds]
    if np.isinf(differences).any():
        from scipy.stats import rankdata

        return differences, np.sign(differences) * rankdata(np.abs(differences)), 0.0
    # Differences of float32 scores have errors of float32, in whatever dtype they are
    # now. Sums that are equal up to rounding must count as equal, or p is too small.
    rounding = 0.0
    for original, scores in ((a, first), (b, second)):
        precision = np.result_type(np.asarray(original).dtype, np.float32)
        size = np.abs(scores[np.isfinite(scores)]).sum()
        rounding += float(16 * np.finfo(precision).eps * size)
    return differences, differences, rounding


def holm(p_values: ArrayLike) -> np.ndarray:
    """Returns Holm-Bonferroni adjusted p-values, to be compared with alpha directly.

    The i-th smallest of m becomes the running maximum of (m - i + 1) p, at most 1. The
    probability of any false rejection is then at most alpha, for any dependence.

    Args:
      p_values: One per test, [tests], in any order, possibly none.

    Returns:
      The adjusted p-values in the same order, [tests].

    Raises:
      InputError: A p-value is NaN or outside [0, 1].

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("holm: expected one p-value per test, each between 0 and 1")
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted  # [tests]


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> np.float64 | np.ndarray:
    """Returns the probability that a run of `a` scores above a run of `b`.

    P(A > B) + P(A = B) / 2 over all pairs of runs, which is Mann-Whitney's U divided by
    the number of pairs.

    Args:
      a, b: Scores of the two blocks, [..., runs of a] and [..., runs of b].

    Returns:
      The probabilities, [...].

    Raises:
      InputError: A score is NaN, or there is none.

    Source: Agarwal et al. 2021, section 4.3.

    >>> float(probability_of_improvement([0.91, 0.93], [0.90, 0.93]))
    0.625

    For equally many runs, the two blocks are the strata of its bootstrap interval:

    >>> def improvement(runs, axis):
    ...     return probability_of_improvement(*np.split(runs, 2, axis))
    >>> bootstrap_interval([[0.91, 0.92], [0.88, 0.90]], improvement)
    Interval(low=1.0, high=1.0)
    """
    from scipy.stats import rankdata

    first, second = (_as_scores("scores", runs, most_axes=32) for runs in (a, b))
    n, m = first.shape[-1], second.shape[-1]
    ranks = rankdata(np.concatenate([first, second], axis=-1), axis=-1)
    return (ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2) / (n * m)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of a block with the baseline.

    Attributes:
      name: The block.
      seeds: The number of runs.
      diverged: How many of them diverged.
      iqm: The interquartile mean of the scores.
      interval: Its bootstrap interval.
      difference: The mean of block minus baseline over equal seeds; None if both have
        diverged runs on different seeds. This and the following fields are None for
        the baseline.
      difference_interval: Its bootstrap interval.
      p_value: The p-value of the paired permutation test.
      p_corrected: The same after Holm's correction.
      improvement: The probability that a run is better than a run of the baseline.
      direction: The sign of the tested statistic: 1 better, -1 worse, 0 even.
    """

    name: str
    seeds: int
    diverged: int
    iqm: float
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    improvement: float | None = None
    direction: int | None = None

    def significant(self, alpha: float = 0.05) -> bool:
        """Returns whether the corrected p-value is at most `alpha`."""
        return self.p_corrected is not None and self.p_corrected <= alpha


def compare(
    scores: Mapping[str, ArrayLike],
    baseline: str,
    higher_is_better: bool,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compares every block with the baseline.

    Args:
      scores: By block, one score per seed, [seeds]; the same seeds in the same order.
      baseline: The block that the others are tested against.
      higher_is_better: True for an accuracy, False for a loss.
      level: The nominal coverage of the intervals.
      seed: The seed of the resampling. The order of `scores` changes nothing.

    Returns:
      A comparison for each block, the best interquartile mean first. Intervals are by
      `bootstrap_interval`, p-values by `paired_permutation_test`, corrected by `holm`
      over all blocks but the baseline. For a single seed every interval is a point and
      every p-value is 1.

    Raises:
      InputError: The baseline is unknown, blocks differ in their number of seeds, or a
        score is NaN or infinite on the better side.

    >>> losses = {"glu": [0.30, 0.31, 0.29], "mlp": [0.40, 0.42, 0.41]}
    >>> best, worst = compare(losses, baseline="mlp", higher_is_better=False)
    >>> best.name, round(best.difference, 2), best.p_value, best.improvement
    ('glu', -0.11, 0.25, 1.0)
    """
    choose("baseline", baseline, scores)
    runs = {name: _as_scores(f"scores of {name}", raw) for name, raw in scores.items()}
    better = np.inf if higher_is_better else -np.inf
    seeds = runs[baseline].size
    for name, row in runs.items():
        if row.size != seeds:
            raise InputError(f"{name} has {row.size} seeds, {baseline} has {seeds}")
        if (row == better).any():
            raise InputError(f"{name}: a score is {better}; diverged is {-better}")
    paired = {
        name: _pair(raw, scores[baseline], higher_is_better, level, seed)
        for name, raw in scores.items()
        if name != baseline
    }
    corrected = holm([fields["p_value"] for fields in paired.values()])
    for fields, p in zip(paired.values(), corrected, strict=True):
        fields["p_corrected"] = float(p)
    rows = [
        Comparison(
            name=name,
            seeds=seeds,
            diverged=int(np.isinf(row).sum()),
            iqm=float(iqm(row)),
            interval=bootstrap_interval(row, level=level, seed=seed),
            **paired.get(name, {}),
        )
        for name, row in runs.items()
    ]
    return sorted(rows, key=lambda r: (-r.iqm if higher_is_better else r.iqm, r.name))


def _pair(
    a: ArrayLike, b: ArrayLike, higher_is_better: bool, level: float, seed: int
) -> dict[str, float | Interval | None]:
    """Returns the fields of a Comparison that depend on both block and baseline."""
    differences, terms, _ = _test_terms(a, b)
    improvement = float(probability_of_improvement(a, b))
    fields = {
        "p_value": paired_permutation_test(a, b, seed=seed),
        "improvement": improvement if higher_is_better else 1 - improvement,
        "direction": int(np.sign(terms.sum())) * (1 if higher_is_better else -1),
    }
    if not {np.inf, -np.inf} <= set(differences):
        interval = bootstrap_interval(differences, np.mean, level, seed=seed)
        mean = float(differences.mean())
        fields |= {"difference": mean, "difference_interval": interval}
    return fields


def verdict(comparisons: Sequence[Comparison], alpha: float = 0.05) -> str:
    """Returns one sentence for a report: which blocks differ, and in which direction.

    It states whether there are too few seeds for a significant difference, and which
    blocks have diverged runs.

    Args:
      comparisons: From `compare`.
      alpha: The accepted probability of any false claim.

    >>> rows = compare({"glu": [0.3] * 6, "mlp": [0.4] * 6}, "mlp", False)
    >>> print(verdict(rows).replace(" after", "\\nafter"))
    Significantly different from mlp at α = 0.05
    after Holm correction over 1 test with 6 seeds: glu (better).
    """
    (baseline,) = (row.name for row in comparisons if row.p_value is None)
    tests, seeds = len(comparisons) - 1, comparisons[0].seeds
    scale = f"from {baseline} at α = {alpha:g} after Holm correction over {tests} "
    scale += f"test{'s' * (tests != 1)} with {seeds} seed{'s' * (seeds != 1)}"
    claims = []
    for direction, word in ((1, "better"), (-1, "worse")):
        names = ", ".join(
            row.name
            for row in comparisons
            if row.direction == direction and row.significant(alpha)
        )
        claims += [f"{names} ({word})"] if names else []
    sentence = f"No significant difference {scale}"
    if claims:
        sentence = f"Significantly different {scale}: {'; '.join(claims)}"
    least = min(1.0, tests * 2.0 ** (1 - seeds))
    if least > alpha:
        sentence += f"; with so few seeds the smallest corrected p is {least:g}"
    diverged = [f"{row.diverged} of {row.name}" for row in comparisons if row.diverged]
    if diverged:
        sentence += f" (diverged runs: {', '.join(diverged)})"
    return f"{sentence}."
