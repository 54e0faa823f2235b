"""Stages: replicates are added until every block is decided."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ffnlab.errors import InputError
from ffnlab.stats.signs import least_replicates

FUTILE = 0.1  # a block that the last stage decides less probably gets no more runs


def stages_for(first: int, most: int, level: float = 0.95) -> tuple[int, ...]:
    """Returns the number of replicates after each stage.

    Args:
      first: The replicates of each stage; the last one may have fewer.
      most: The replicates after the last stage.
      level: One minus the accepted probability of any false claim.

    Raises:
      InputError: The first stage cannot claim anything.

    >>> stages_for(16, 40)
    (16, 32, 40)
    """
    stages = (*range(first, most, first), most)
    spent = (1 - level) * spending(stages)[0]
    least = least_replicates(1 - spent)
    if first < least:
        raise InputError(
            f"{first} replicates in each of {len(stages)} stages: a stage that spends "
            f"{spent:.2g} of the error needs at least {least}"
        )
    return stages


def spending(stages: Sequence[int]) -> list[float]:
    """Returns the share of the error that each stage and those before it may spend.

    It is the share of the replicates to the power of 1.5, so that the last stage loses
    little, and a difference of twice the detectable one still ends early.

    Source: Kim and DeMets 1987, "Design and analysis of group sequential tests based on
    the type I error spending rate function".

    >>> spending((4, 16, 64))
    [0.015625, 0.125, 1.0]
    """
    return [(count / stages[-1]) ** 1.5 for count in stages]


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """The largest statistic of each stage so far, under random signs.

    Attributes:
      statistics: For each stage, `[draws]`; a draw is one history of all stages.
      shares: The share of the error that may be spent up to each stage.
      replicates: The number of replicates after each stage. Few of them have few
        choices of signs, however many are drawn, and the observed signs are one.
    """

    statistics: list[np.ndarray]
    shares: list[float]
    replicates: list[int]
    _criticals: dict[int, list[float]] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of draws."""
        return self.statistics[0].size

    def count(self, level: float) -> int:
        """Returns how many draws and the observed one may lie beyond the boundaries."""
        return math.floor((1 - level) * (1 + self.size) + 1e-9)

    def criticals(self, count: int) -> list[float]:
        """Returns for each stage the statistic above which there is a difference.

        Args:
          count: At most this many draws, less one, lie beyond any of them.
        """
        if count not in self._criticals:
            self._criticals[count] = self._spend(count)
        return self._criticals[count]

    def _choices(self, stage: int) -> int:
        """Returns the number of choices of signs, up to symmetry, if that is few."""
        return min(2 ** min(self.replicates[stage] - 1, 62), self.size)

    def _allowed(self, stage: int, count: int) -> int:
        """Returns how many draws and the observed one may lie beyond up to a stage.

        With N choices and the observed one beside them, an error α is a share of
        (α (1 + N) - 1) / N of the draws.
        """
        choices = self._choices(stage)
        error = self.shares[stage] * count / (1 + self.size)
        share = (error * (1 + choices) - 1) / choices
        return 1 + math.floor(share * self.size + 1e-9)

    def _spend(self, count: int) -> list[float]:
        alive, results = np.ones(self.size, bool), []
        for stage, statistics in enumerate(self.statistics):
            spent = self.size - np.count_nonzero(alive)
            beyond = self._allowed(stage, count) - spent
            left = statistics[alive]
            critical = math.inf if beyond < 1 else -math.inf
            if 0 < beyond <= left.size:
                critical = float(np.partition(left, left.size - beyond)[-beyond])
            alive &= statistics <= critical
            results.append(critical)
        return results

    def p_value(self, stage: int, statistic: float) -> float:
        """Returns the least error at which a statistic is beyond a stage's boundary.

        Source: Jennison and Turnbull 1989, "Interim analyses: the repeated confidence
        interval approach".
        """
        if len(self.shares) == 1 and self.shares[0] == 1.0:
            share = np.count_nonzero(self.statistics[0] >= statistic) / self.size
            choices = self._choices(0)
            return float((1 + share * choices) / (1 + choices))
        low, high = 0, self.size + 1
        while high - low > 1:
            middle = (low + high) // 2
            crosses = statistic > self.criticals(middle)[stage]
            low, high = (low, middle) if crosses else (middle, high)
        return float(high / (1 + self.size))
