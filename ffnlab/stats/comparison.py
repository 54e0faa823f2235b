"""The comparison of blocks with a baseline, in pairs of equal replicates."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.errors import InputError, choose
from ffnlab.stats import intervals, power, signs
from ffnlab.stats.intervals import Interval, mean_interval
from ffnlab.stats.stages import FUTILE, Draws, spending
from ffnlab.stats.two_way import example_covariance

VERDICTS = ("better", "worse", "equivalent", "undecided")


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
      error: The standard error of the mean difference; None for one replicate.
      p_value: The p-value, adjusted for the number of blocks; None for one replicate.
      p_new_data: The same for new data of the kind, by the corrected variance of Nadeau
        and Bengio; None where the data were not split again for each replicate.
      improvement: The share of replicates in which the block is better, ties by half.
      detectable: The size of a difference that a run like this one detects with a
        probability of 0.8; None as for the interval.
      needed: About how many replicates would decide, for a block that is undecided;
        None if no number up to a million would.
      chance: With stages, the probability that the last one decides a block that is
        undecided and has had no fewer replicates than any; None for other blocks.
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
    error: float | None = None
    p_value: float | None = None
    p_new_data: float | None = None
    improvement: float | None = None
    detectable: float | None = None
    needed: int | None = None
    chance: float | None = None
    verdict: str | None = None
    scores: tuple[float, ...] = ()


def compare(
    scores: Mapping[str, ArrayLike],
    baseline: str,
    higher_is_better: bool,
    *,
    margin: float | None = None,
    test_ratio: float | None = None,
    level: float = 0.95,
    seed: int = 0,
    examples: Mapping[str, ArrayLike] | None = None,
    stages: Sequence[int] | None = None,
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
      examples: By block, the score of each replicate on each example,
        `[replicates, examples]`, where all replicates are scored on the same examples;
        the standard errors are then two-way. None where they are not.
      stages: The number of replicates after each stage, ascending, where replicates are
        added until every block is decided; see `stages_for`. A block that was decided
        early has only the replicates of the stages up to then, and stages that are to
        come are given too. None is a single stage.

    Returns:
      A comparison for each block, the best mean first; with stages, the best mean
      difference.

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
    _check_numbers(margin, test_ratio, level, stages)
    rows = {
        name: intervals.as_scores(f"scores of {name}", row)
        for name, row in scores.items()
    }
    _check_sizes(rows, baseline, stages)
    arrays = _check_examples(rows, examples)
    pairs = _Pairs(rows, arrays, baseline, stages or (rows[baseline].size,), seed)
    judge = _Judge(pairs, level, higher_is_better, margin, test_ratio)
    comparisons = [
        Comparison(
            name=name,
            replicates=row.size,
            score=float(row.mean()),
            interval=mean_interval(row, level, _variance(arrays.get(name))),
            scores=tuple(map(float, row)),
            **(judge(name) if name != baseline else {}),
        )
        for name, row in rows.items()
    ]
    return _sorted(comparisons, higher_is_better, stages is not None)


def _sorted(
    comparisons: Sequence[Comparison], higher_is_better: bool, by_difference: bool
) -> list[Comparison]:
    """Returns comparisons, the best first.

    Means of blocks with unequal replicates cannot be compared, their differences can.
    """
    sign = -1 if higher_is_better else 1

    def place(row: Comparison) -> tuple[float, str]:
        size = row.difference or 0.0 if by_difference else row.score
        return sign * size, row.name

    return sorted(comparisons, key=place)


def _check_numbers(
    margin: float | None,
    test_ratio: float | None,
    level: float,
    stages: Sequence[int] | None,
) -> None:
    """Raises if a number is not allowed; see `compare`."""
    first = spending(stages)[0] if stages else 1.0  # of the error that is accepted
    intervals.check_level(1 - (1 - level) * first if level > 0 else level)
    for parameter, value in (("margin", margin), ("test_ratio", test_ratio)):
        if value is not None and not value > 0:
            raise InputError(f"{parameter}: {value:g} must be above 0")
        if value == math.inf:
            raise InputError(f"{parameter}: must be a finite number")


def _check_sizes(
    rows: Mapping[str, np.ndarray], baseline: str, stages: Sequence[int] | None
) -> None:
    """Raises if a block has not the replicates of the baseline, or of a stage."""
    count = rows[baseline].size
    allowed = {count} if stages is None else {n for n in stages if n <= count}
    for name, row in rows.items():
        if stages is None and row.size != count:
            raise InputError(
                f"{name} has {row.size} replicates, {baseline} has {count}; they are "
                "compared in pairs"
            )
        if row.size not in allowed:
            raise InputError(
                f"{name} has {row.size} replicates, which is not the end of a stage; "
                f"stages end after {', '.join(map(str, stages or ()))}"
            )


def _check_examples(
    rows: Mapping[str, np.ndarray], examples: Mapping[str, ArrayLike] | None
) -> dict[str, np.ndarray]:
    """Returns the scores on each example by block; none without examples."""
    if examples is None:
        return {}
    arrays = {name: np.asarray(examples[name], np.float64) for name in rows}
    size = next(iter(arrays.values())).shape[-1]
    for name, array in arrays.items():
        if array.shape != (rows[name].size, size) or size < 2:
            raise InputError(
                f"examples of {name}: {[*array.shape]} must be [replicates, examples], "
                f"{[rows[name].size, size]}, with at least two examples"
            )
    return arrays


def _variance(array: np.ndarray | None) -> float:
    """Returns the variance of a mean that the examples cause; 0 without examples."""
    return 0.0 if array is None else float(example_covariance([array])[0, 0])


class _Pairs:
    """The differences from the baseline, and their distribution under random signs.

    Args:
      rows: The scores of each block.
      arrays: The scores on each example; empty without examples.
      baseline: The baseline.
      stages: The number of replicates after each stage.
      seed: The seed of random signs.
    """

    def __init__(
        self,
        rows: Mapping[str, np.ndarray],
        arrays: Mapping[str, np.ndarray],
        baseline: str,
        stages: Sequence[int],
        seed: int,
    ):
        self.stages, base = tuple(stages), rows[baseline]
        self.names = sorted(name for name in rows if name != baseline)
        self.differences = {
            name: rows[name] - base[: rows[name].size] for name in self.names
        }
        self.rounding = {
            name: intervals.rounding_error(rows[name], base) for name in self.names
        }
        self._examples = [
            arrays[name] - arrays[baseline][: len(arrays[name])]
            for name in self.names
            if arrays
        ]
        done = [count for count in self.stages if count <= base.size]
        self._covariances = [self._covariance(count) for count in done]
        self.draws = Draws([], [], [])
        if self.names and base.size > 1:
            statistics = [self._statistics(*each, seed) for each in enumerate(done)]
            self.draws = Draws(statistics, spending(self.stages)[: len(done)], done)

    def stage(self, name: str) -> int:
        """Returns the number of the stage after which a block was judged."""
        return self.stages.index(self.differences[name].size)

    def example_variance(self, name: str) -> float:
        """Returns the variance of a mean difference that the examples cause."""
        covariance, place = self._covariances[self.stage(name)], self.names.index(name)
        return 0.0 if covariance is None else float(covariance[place, place])

    def _covariance(self, count: int) -> np.ndarray | None:
        if not self._examples:
            return None
        return example_covariance([array[:count] for array in self._examples])

    def _statistics(self, stage: int, count: int, seed: int) -> np.ndarray:
        """Returns the largest statistic of all blocks after a stage, `[draws]`.

        A block that was decided before stays in the family: its centred differences
        are repeated for the replicates that it lacks.
        """
        rows = []
        for name in self.names:
            row = self.differences[name][:count]
            rows.append(np.resize(row - row.mean(), count) if row.size < count else row)
        rounding, covariance = [*self.rounding.values()], self._covariances[stage]
        exact = count <= signs.EXACT and len(self.stages) == 1 and not self._examples
        return signs.statistics(rows, seed, rounding, covariance, exact)


class _Judge(NamedTuple):
    """What is said of each block; see `compare`."""

    pairs: _Pairs
    level: float
    higher_is_better: bool
    margin: float | None
    test_ratio: float | None

    def __call__(self, name: str) -> dict:
        """Returns the fields of a comparison that depend on the differences."""
        differences = self.pairs.differences[name]
        mean, count = float(differences.mean()), differences.size
        better = np.sign(differences) * (1 if self.higher_is_better else -1)
        fields = {
            "difference": mean,
            "differences": tuple(map(float, differences)),
            "improvement": float(((better > 0) + 0.5 * (better == 0)).mean()),
            "verdict": "undecided",
        }
        if count == 1:
            return fields
        # Scores that are equal up to rounding must count as equal, or p is too small.
        # The error and the mean are therefore taken at the unfavourable end of it.
        rounding = self.pairs.rounding[name]
        error = intervals.standard_error(differences) + rounding / math.sqrt(count)
        error = math.hypot(error, math.sqrt(self.pairs.example_variance(name)))
        fields["error"] = error
        fields["p_value"] = self._p_value(name, mean, error)
        if self.test_ratio is not None:
            corrected = error * math.sqrt(1 + count * self.test_ratio)
            fields["p_new_data"] = self._p_value(name, mean, corrected)
        if count >= signs.least_replicates(self.level):
            fields |= self._claim(name, mean, error, fields["p_value"])
        return fields

    def _p_value(self, name: str, mean: float, error: float) -> float:
        statistic = (abs(mean) - self.pairs.rounding[name]) / error
        return self.pairs.draws.p_value(self.pairs.stage(name), statistic)

    def _claim(self, name: str, mean: float, error: float, p_value: float) -> dict:
        """Returns the interval, the verdict, and what could have been detected."""
        pairs, margin, stage = self.pairs, self.margin, self.pairs.stage(name)
        draws, count = pairs.draws, pairs.stages[stage]
        beyond = draws.count(self.level)
        critical = draws.criticals(beyond)[stage]
        half = critical * error + pairs.rounding[name]
        interval, verdict = Interval(mean - half, mean + half), "undecided"
        if margin is not None and -margin <= interval.low <= interval.high <= margin:
            verdict = "equivalent"
        elif p_value <= 1 - self.level + 1e-12:
            verdict = "better" if (mean > 0) == self.higher_is_better else "worse"
        place = beyond if draws.size < intervals.DRAWS else None
        fields = {
            "difference_interval": interval,
            "verdict": verdict,
            "detectable": power.detectable_effect(
                critical, error, count, len(pairs.names), place
            ),
        }
        if verdict == "undecided":
            known = math.sqrt(pairs.example_variance(name))
            fields["needed"] = power.replicates_needed(
                mean, error, critical, count, margin, known
            )
            fields["chance"] = self._chance(name, mean, error, beyond)
        return fields

    def _chance(
        self, name: str, mean: float, error: float, beyond: int
    ) -> float | None:
        """Returns the probability that the last stage decides a block."""
        pairs, stage = self.pairs, self.pairs.stage(name)
        if stage != len(pairs.draws.statistics) - 1 or stage == len(pairs.stages) - 1:
            return None  # it had its turn, or this was the last stage
        critical = float(np.sort(pairs.draws.statistics[stage])[-beyond])
        share = pairs.stages[stage] / pairs.stages[-1]
        known = pairs.example_variance(name)
        part = known + (error**2 - known) * share  # of the variance that is left
        share = part / error**2 if error else 1.0
        return power.chance_of_decision(mean, error, critical, share, self.margin)


def going_on(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns the blocks that get more replicates in the next stage, if any do.

    These are the ones that are undecided and whose decision in the last stage is not
    improbable.

    Args:
      comparisons: From `compare`, with its `stages`.
    """
    return [
        row.name
        for row in comparisons
        if row.chance is not None and row.chance >= FUTILE
    ]
