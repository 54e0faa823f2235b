"""How the scores of a sweep are shown: their labels, units, ranges and margins."""

import math
from collections.abc import Sequence

from ffnlab import stats
from ffnlab.types import Objective

# The label of a score, the factor it is multiplied by, its decimals.
UNITS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("test accuracy, %", 100.0, 2),
    "bits": ("test bits per byte", 1.0, 3),
    "loss": ("test squared error (variance = 1)", 1.0, 4),
}

# The lowest and the highest value of a score, before it is multiplied.
RANGES = {"accuracy": (0.0, 1.0), "bits": (0.0, math.inf), "loss": (0.0, math.inf)}

# The largest difference that does not matter, in the units of the table.
MARGINS = {"accuracy": 0.5, "bits": 0.01}


def format_score(
    objective: Objective,
    middle: float,
    interval: Sequence[float] | None,
    sign: str = "",
) -> str:
    """Returns a score and its interval as text; with a sign, a difference.

    Intervals end where the range of the score, or of a difference of two, ends.

    Args:
      objective: The objective, whose monitored score it is.
      middle: The score, or the mean difference.
      interval: Its ends; None leaves them out.
      sign: `+` for a difference, and empty for a score.

    >>> from ffnlab.train import OBJECTIVES
    >>> format_score(OBJECTIVES["classes"], 0.99, stats.Interval(0.97, 1.01))
    '99.00 [97.00, 100.00]'
    """
    _, scale, digits = UNITS[objective.monitor]
    text = f"{scale * middle:{sign}.{digits}f}"
    if interval is None:
        return text
    lowest, highest = RANGES[objective.monitor]
    if sign:
        lowest, highest = lowest - highest, highest - lowest
    ends = stats.Interval(*interval).clip(lowest, highest)
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in ends)
    return f"{text} [{low}, {high}]"


def format_difference(objective: Objective, difference: float) -> str:
    """Returns the size of a difference with its unit."""
    _, scale, digits = UNITS[objective.monitor]
    unit = {"accuracy": " points", "bits": " bits"}.get(objective.monitor, "")
    return f"{scale * difference:.{digits}f}{unit}"


def default_margin(objective: Objective, baseline: float) -> float:
    """Returns the margin in the units of the table.

    Args:
      objective: The objective.
      baseline: The mean score of the baseline.
    """
    _, scale, _ = UNITS[objective.monitor]
    return MARGINS.get(objective.monitor) or 0.01 * scale * baseline
