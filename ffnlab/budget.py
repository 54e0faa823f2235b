"""Equal budgets: the hidden width at which one block costs what another costs."""

import dataclasses
from typing import Literal, NamedTuple

from ffnlab.errors import InputError, choose
from ffnlab.ffn import BlockConfig


class Match(NamedTuple):
    """A block made as large as another, and how nearly.

    Attributes:
      config: the block, with the hidden width that was found.
      budget: what was made equal, `parameters` or `flops`.
      value: how many of those the block has.
      target: how many the reference has.
    """

    config: BlockConfig
    budget: str
    value: int
    target: int

    @property
    def difference(self) -> float:
        """What remains, as a share of the reference: 0.01 is one per cent more."""
        return self.value / self.target - 1.0


def match(
    config: BlockConfig,
    reference: BlockConfig,
    budget: Literal["parameters", "flops"] = "parameters",
    multiple: int = 1,
) -> Match:
    """Returns a block with the hidden width at which it costs what another costs.

    Args:
      config: the block to resize; its own `hidden` is ignored.
      reference: the block whose cost is the target.
      budget: `parameters`, or `flops` of a forward pass.
      multiple: the hidden width is a multiple of this.

    Raises:
      InputError: the budget is unknown, or buys less than one `multiple`.

    >>> found = match(BlockConfig("swiglu", 64), BlockConfig("mlp", 64, 256))
    >>> found.config.hidden, f"{found.difference:+.2%}"
    (170, '-0.13%')
    """
    choose("budget", budget, ("parameters", "flops"))
    target = getattr(reference, budget)

    def cost(hidden: int) -> int:
        return getattr(dataclasses.replace(config, hidden=hidden), budget)

    slope = cost(2) - cost(1)  # both costs are straight lines in the hidden width
    hidden = round((target - cost(1) + slope) / slope / multiple) * multiple
    if hidden < 1:
        raise InputError(
            f"{config.kind}: {target} {budget} buy fewer than {multiple} hidden units"
        )
    return Match(
        dataclasses.replace(config, hidden=hidden), budget, cost(hidden), target
    )
