"""Equal budgets: the hidden width at which two blocks cost the same."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

from ffnlab.errors import InputError, choose
from ffnlab.nn.ffn import BlockConfig


class Match(NamedTuple):
    """A block resized to the cost of a reference block.

    Attributes:
      config: The block, with the matched hidden width.
      budget: What is matched: `parameters`, `flops`, or the `time` of a training step.
      value: The cost of the block; a time is in seconds, and NaN if it is unknown.
      target: The cost of the reference.
    """

    config: BlockConfig
    budget: str
    value: float
    target: float

    @property
    def difference(self) -> float:
        """Relative difference from the target: 0.01 is one per cent more."""
        return self.value / self.target - 1.0


def match(
    config: BlockConfig,
    reference: BlockConfig,
    budget: Literal["parameters", "flops"] = "parameters",
    multiple: int = 1,
) -> Match:
    """Returns a block resized to the cost of a reference block.

    Args:
      config: The block to resize; its own `hidden` is ignored.
      reference: The block whose cost is the target.
      budget: `parameters`, or `flops` of a forward pass.
      multiple: The hidden width is a multiple of this.

    Raises:
      InputError: The budget is unknown, or is too small for `multiple` hidden units.

    >>> result = match(BlockConfig("swiglu", 64), BlockConfig("mlp", 64, 256))
    >>> result.config.hidden, f"{result.difference:+.2%}"
    (170, '-0.13%')
    """
    choose("budget", budget, ("parameters", "flops"))
    target = getattr(reference, budget)

    def cost(hidden: int) -> int:
        return getattr(dataclasses.replace(config, hidden=hidden), budget)

    hidden = nearest_width(cost, target, multiple, config.kind, budget)
    return at_width(config, reference, budget, hidden)


def at_width(
    config: BlockConfig,
    reference: BlockConfig,
    budget: Literal["parameters", "flops"],
    hidden: int,
) -> Match:
    """Returns a block of a given width, and its cost beside that of a reference block.

    Args:
      config: The block; its own `hidden` is ignored.
      reference: The block whose cost is the target.
      budget: `parameters`, or `flops` of a forward pass.
      hidden: The hidden width of the block.

    >>> result = at_width(BlockConfig("glu", 4), BlockConfig("mlp", 4, 6), "flops", 3)
    >>> result.value, result.target
    (72, 96)
    """
    resized = dataclasses.replace(config, hidden=hidden)
    return Match(resized, budget, getattr(resized, budget), getattr(reference, budget))


def nearest_width(
    cost: Callable[[int], int],
    target: int,
    multiple: int = 1,
    name: str = "the model",
    unit: str = "parameters",
) -> int:
    """Returns the width whose cost is nearest to a target.

    Args:
      cost: Cost of a width, a non-decreasing function.
      target: The cost to match.
      multiple: The width is a multiple of this.
      name: What is resized, for the error message.
      unit: What the cost counts, for the error message.

    Returns:
      The width; the smaller of two whose costs are equally near.

    Raises:
      InputError: The target is nearer to 0 than to the cost of the smallest width.

    >>> nearest_width(lambda hidden: hidden**2, 50)
    7
    >>> nearest_width(lambda hidden: hidden**2, 50, multiple=2)
    6
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
            f"{name}: {target} {unit} are too few for {multiple} hidden units; "
            "use a larger reference"
        )
    return high * multiple
