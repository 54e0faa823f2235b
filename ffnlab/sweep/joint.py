"""One verdict on several data sets: mean effects, and how much they differ."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ffnlab.report.table import Table
from ffnlab.stats import Interval
from ffnlab.sweep.ranking import Ranking

NOTE = """An effect is the mean difference from the baseline, positive where the block
is better, in standard deviations of the baseline's score over its replicates. The mean
effect is that of data sets like these: each has its own effect, with its own error, and
the spread is the standard deviation of effects between data sets (DerSimonian and Laird
1986). Intervals are those of Hartung and Knapp (2001), never narrower than with equal
effects, and hold for all blocks together (Bonferroni)."""


class MeanEffect(NamedTuple):
    """The mean of the effects of a block on several data sets.

    Attributes:
      mean: The mean effect.
      interval: Its interval.
      spread: The standard deviation of effects between data sets.
    """

    mean: float
    interval: Interval
    spread: float


class Joint(NamedTuple):
    """The joint verdict on several data sets.

    Attributes:
      verdict: What is claimed, in two sentences.
      table: A row for each block, the best mean effect first.
      effects: Block to its mean effect.
      note: How the numbers were computed.
    """

    verdict: str
    table: Table
    effects: dict[str, MeanEffect]
    note: str


def mean_effect(
    effects: ArrayLike, errors: ArrayLike, tests: int = 1, level: float = 0.95
) -> MeanEffect:
    """Returns the mean of effects that differ between data sets.

    Args:
      effects: An estimate for each data set, `[data sets]`, at least two.
      errors: Their standard errors, `[data sets]`.
      tests: The number of means whose intervals are to hold together.
      level: Their nominal coverage.

    Source: DerSimonian and Laird 1986, "Meta-analysis in clinical trials"; Hartung and
    Knapp 2001, "A refined method for the meta-analysis of controlled clinical trials
    with binary outcome", with their factor at least 1.

    >>> result = mean_effect([0.9, 1.1, 1.0], [0.1, 0.1, 0.1])
    >>> round(result.mean, 2), round(result.spread, 2)
    (1.0, 0.0)
    """
    from scipy.special import stdtrit

    y = np.asarray(effects, np.float64)
    v = np.maximum(np.square(np.asarray(errors, np.float64)), 1e-12)
    free, w = y.size - 1, 1 / v
    excess = float((w * np.square(y - np.average(y, weights=w))).sum()) - free
    between = max(0.0, excess / (w.sum() - np.square(w).sum() / w.sum()))
    w = 1 / (v + between)
    mean = float(np.average(y, weights=w))
    factor = max(1.0, float((w * np.square(y - mean)).sum()) / free)
    bound = -stdtrit(free, (1 - level) / (2 * tests))
    half = float(bound * math.sqrt(factor / w.sum()))
    return MeanEffect(mean, Interval(mean - half, mean + half), math.sqrt(between))


def judge_together(rankings: Mapping[str, Ranking], level: float = 0.95) -> Joint:
    """Returns the joint verdict on the same blocks on several data sets.

    A data set on which all scores of the baseline are equal gives no effects, and is
    left out; at least two must remain for a verdict.

    Args:
      rankings: Name of the data set to its ranking.
      level: One minus the accepted probability of any false claim.
    """
    effects = {name: _effects(ranking) for name, ranking in rankings.items()}
    used = {name: rows for name, rows in effects.items() if rows}
    baseline = next(iter(rankings.values())).baseline
    blocks = list(next(iter(used.values()), {}))
    means = {}
    if len(used) > 1:
        means = {
            block: mean_effect(
                *zip(*(rows[block] for rows in used.values()), strict=True),
                len(blocks),
                level,
            )
            for block in blocks
        }
    order = sorted(means, key=lambda block: (-means[block].mean, block))
    columns = ["block", "mean effect", "between data sets", *used, "verdict"]
    rows = [
        [
            block,
            _show(means[block]),
            f"{means[block].spread:.2f}",
            *(_signed(rows[block][0]) for rows in used.values()),
            _verdict(means[block]),
        ]
        for block in order
    ]
    sentence = _sentence(means, order, baseline, list(used), level)
    return Joint(sentence, Table(columns, rows, words=1), means, NOTE)


def _effects(ranking: Ranking) -> dict[str, tuple[float, float]]:
    """Returns the effect of each block and its error; none if the scores are equal."""
    (baseline,) = (row for row in ranking.comparisons if row.verdict is None)
    deviation = np.std(baseline.scores, ddof=1) if len(baseline.scores) > 1 else 0.0
    if deviation < 1e-9:
        return {}
    sign = 1 if ranking.higher_is_better else -1
    return {
        row.name: (
            sign * float(np.mean(row.differences)) / deviation,
            row.error / deviation,
        )
        for row in sorted(ranking.comparisons, key=lambda row: row.name)
        if row.verdict is not None
    }


def _verdict(effect: MeanEffect) -> str:
    if effect.interval.low > 0:
        return "better"
    return "worse" if effect.interval.high < 0 else "undecided"


def _show(effect: MeanEffect) -> str:
    low, high = effect.interval
    return f"{_signed(effect.mean)} [{_signed(low)}, {_signed(high)}]"


def _signed(number: float) -> str:
    """Returns a number with its sign and two decimals, never as -0.00."""
    return f"{round(number, 2) + 0.0:+.2f}"


def _sentence(
    means: Mapping[str, MeanEffect],
    order: Sequence[str],
    baseline: str,
    used: Sequence[str],
    level: float,
) -> str:
    """Returns the joint verdict in two sentences."""
    if not means:
        return (
            "There is no joint verdict: it needs at least two data sets on which the "
            f"scores of {baseline} differ between replicates, and two replicates."
        )
    over = f"Over {len(used)} data sets ({', '.join(used)})"
    claims = []
    for kind in ("better", "worse"):
        names = [block for block in order if _verdict(means[block]) == kind]
        claims += [f"{kind} than {baseline}: {', '.join(names)}"] if names else []
    claim = "; ".join(claims) or f"no block is shown to differ from {baseline}"
    widest = max(each.interval.high - each.mean for each in means.values())
    return (
        f"{over}, {claim}. All claims hold together at {100 * level:.6g} % confidence, "
        f"for data sets like these; mean effects are known to within ±{widest:.2f} "
        "standard deviations."
    )
