"""What the runs of a model in a sweep have in common."""

from typing import NamedTuple


class Design(NamedTuple):
    """What the runs of a model have in common.

    Attributes:
      fixed: Whether runs of one number have equal random numbers in all models and
        experiments, and all runs of a model one learning rate. Otherwise the seed of
        the experiment changes everything, the order of the data is shared by runs of
        one number, and every run has the rate that its validation part chose.
      extensions: The largest number of learning rates beyond those of the
        configuration, for a run whose best rate is the smallest or the largest.
      part: The numbers of the replicates of a part of a sweep, whose files of arrays
        begin with the first of them; None is all.
    """

    fixed: bool = True
    extensions: int = 0
    part: range | None = None

    @property
    def first(self) -> int:
        """The number of the first replicate."""
        return self.part.start if self.part else 0


FIXED = Design()
