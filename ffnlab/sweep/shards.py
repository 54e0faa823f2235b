"""A part of the replicates of a comparison, for a grid of jobs on many machines.

Shard i of n runs the replicates from `(i - 1) * R // n` to `i * R // n - 1` of R, which
are numbered from 0. A replicate depends on its number and the seed of the comparison
alone, so that its runs are the same in any shard.
"""

import dataclasses
import re
from typing import NamedTuple

from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.sweep.design import Design
from ffnlab.sweep.replicate_options import ReplicateOptions

_FORM = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


class Shard(NamedTuple):
    """A part of the replicates.

    Attributes:
      number: Its number, from 1.
      count: The number of shards.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def numbers(self, replicates: int) -> range:
        """Returns the numbers of its replicates.

        Sizes of shards differ by at most one.

        Args:
          replicates: The number of all replicates, at least that of shards.

        >>> [[*Shard(i, 3).numbers(8)] for i in (1, 2, 3)]
        [[0, 1], [2, 3, 4], [5, 6, 7]]
        """
        first, last = self.number - 1, self.number
        return range(first * replicates // self.count, last * replicates // self.count)


def parse(text: str) -> Shard:
    """Returns the shard that a text names.

    Args:
      text: Its number and the number of shards, I/N.

    Raises:
      InputError: The text has another form, or there is no such shard.

    >>> parse("3/8")
    Shard(number=3, count=8)
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise InputError(
            f"shard: {text!r:.60} should be I/N, for instance 3/8 for the third of 8 "
            "shards"
        )
    shard = Shard(*map(int, match.groups()))
    if not 1 <= shard.number <= shard.count:
        raise InputError(
            f"shard: {text}: there is no shard {shard.number} of {shard.count}; shards "
            f"are numbered from 1 to {max(shard.count, 1)}"
        )
    return shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardOptions(ReplicateOptions):
    """Grid of jobs: a part of the replicates, for a run on many machines."""

    shard: str | None = option(
        None,
        "Part of the replicates to run, as I/N: the I-th of N shards, for instance "
        "3/8. A shard has no verdict; experiments.judge --runs joins all of them. The "
        "default runs all replicates.",
    )

    def __post_init__(self):
        if isinstance(self.shard, (tuple, list)):
            object.__setattr__(self, "shard", "/".join(map(str, self.shard)))
        super().__post_init__()
        if self.shard is not None:
            object.__setattr__(self, "shard", str(parse(self.shard)))
            self._check_part()

    def _check_part(self) -> None:
        """Raises if a part of the replicates cannot be run without the others."""
        if self.split == "fixed":
            raise InputError(
                "shard: with split=fixed all runs of a model share a learning rate, "
                "which takes all replicates to choose; use split=replicates"
            )
        if self.part_of.count > self.replicates:
            raise InputError(
                f"shard: {self.part_of.count} shards of {self.replicates} replicates; "
                "there can be at most one shard for each replicate"
            )

    @property
    def part_of(self) -> Shard | None:
        """The part of the replicates that is run; None is all."""
        return None if self.shard is None else parse(self.shard)

    @property
    def design(self) -> Design:
        """What the runs of a model have in common, and which of them are run."""
        design, shard = super().design, self.part_of
        return design._replace(part=shard and shard.numbers(self.replicates))
