"""A verdict on what is compared, in two sentences that a reader can quote."""

import math
from collections.abc import Callable, Sequence

from ffnlab import stats


def verdict(
    comparisons: Sequence[stats.Comparison],
    show: Callable[[float], str] = "{:g}".format,
    margin: float | None = None,
    level: float = 0.95,
) -> str:
    r"""Returns two sentences for a report: what is claimed, and what could have been.

    Args:
      comparisons: From `stats.compare`.
      show: Returns a difference as text, with its unit.
      margin: The margin that `stats.compare` was given.
      level: The level that `stats.compare` was given.

    >>> losses = {"glu": [0.3, 0.31, 0.3, 0.3, 0.29, 0.3], "mlp": [0.4] * 6}
    >>> print(verdict(stats.compare(losses, "mlp", False)).replace(". ", ".\n"))
    Over 6 replicates, better than mlp: glu.
    All claims hold together at 95 % confidence.
    """
    (baseline,) = (row.name for row in comparisons if row.verdict is None)
    count = max(row.replicates for row in comparisons)
    rest = [row for row in comparisons if row.verdict is not None]
    if not rest:
        return f"{baseline} is alone, so there is nothing to compare."
    least = min(row.replicates for row in comparisons)
    span = f"{count}" if least == count else f"{least} to {count}"
    over = f"Over {span} replicate{'s' * (count != 1)}"
    if count < stats.least_replicates(level):
        return (
            f"{over}, nothing can be claimed about {baseline} and the others: "
            f"a claim needs at least {stats.least_replicates(level)} replicates."
        )
    reach = _reach(rest, show)
    if all(row.verdict == "undecided" for row in rest):
        within = f", or to be within ±{show(margin)} of it" if margin else ""
        return (
            f"{over}, nothing is shown to differ from {baseline}{within}, at "
            f"{_percent(level)} confidence. {reach[0].upper()}{reach[1:]}."
        )
    claims = _claims(rest, baseline, show(margin or 0.0))
    together = f"All claims hold together at {_percent(level)} confidence"
    return f"{over}, {claims}. {'; '.join(filter(None, [together, reach]))}."


def _claims(rows: Sequence[stats.Comparison], baseline: str, margin: str) -> str:
    """Returns the blocks of each verdict; of many undecided ones only the number."""
    phrases = {
        "better": f"better than {baseline}",
        "worse": f"worse than {baseline}",
        "equivalent": f"equivalent to {baseline} within ±{margin}",
        "undecided": "undecided",
    }
    claims = []
    for kind, phrase in phrases.items():
        names = [row.name for row in rows if row.verdict == kind]
        if kind == "undecided" and len(names) > 4:
            names = [f"the other {len(names)}"]
        if names:
            claims.append(f"{phrase}: {', '.join(names)}")
    return "; ".join(claims)


def _percent(level: float) -> str:
    return f"{100 * level:.6g} %"


def _reach(rows: Sequence[stats.Comparison], show: Callable) -> str:
    """Returns what the run could have detected, and what would decide."""
    undecided = [row for row in rows if row.verdict == "undecided"]
    if not undecided:
        return ""
    sizes = sorted(row.detectable for row in undecided)
    least, most = show(sizes[0]), show(sizes[-1])
    number, _, unit = least.partition(" ")
    if least != most and most.partition(" ")[2] == unit:
        least = number
    reach = most if least == most else f"{least} to {most}"
    sentence = f"a difference of {reach} would be detected four times in five"
    needed = [row.needed for row in undecided if row.needed is not None]
    if needed:
        sentence += f", and about {_rounded(max(needed))} replicates would decide"
        sentence += " all" if len(needed) == len(undecided) > 1 else ""
    return sentence


def _rounded(count: int) -> str:
    """Returns a number with two significant digits."""
    digits = max(len(str(count)) - 2, 0)
    return f"{math.ceil(count / 10**digits) * 10**digits:,}"
