"""Equal budgets: the hidden width at which one block costs what another costs."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

from ffnlab.errors import InputError, choose
from ffnlab.nn.ffn import BlockConfig


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

    hidden = width(cost, target, multiple, config.kind, budget)
    return Match(
        dataclasses.replace(config, hidden=hidden), budget, cost(hidden), target
    )


def width(
    cost: Callable[[int], int],
    target: int,
    multiple: int = 1,
    name: str = "the model",
    unit: str = "parameters",
) -> int:
    """Returns the width whose cost is nearest to a target; of two as near the smaller.

    Args:
      cost: of a width; it never falls.
      target: what it should be.
      multiple: the width is a multiple of this.
      name, unit: what is sized and what it costs, for the error.

    Raises:
      InputError: the target is nearer to nothing than to the smallest width.

    >>> width(lambda hidden: hidden**2, 50), width(lambda hidden: hidden**2, 50, 2)
    (7, 6)
    """
    high = 1
    while cost(high * multiple) < target:
        high *= 2
    low = high // 2  # its cost is below the target
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if cost(middle * multiple) < target else (low, middle)
        )
    below = cost(low * multiple) if low else 0
    if target - below <= cost(high * multiple) - target:
        high = low
    if high < 1:
        raise InputError(
            f"{name}: {target} {unit} buy fewer than {multiple} hidden units"
        )
    return high * multiple
