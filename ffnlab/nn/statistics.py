"""Running statistics: leaves of a tree of parameters that no optimizer trains.

A tree of parameters may have an entry `stats` beside its other parts. A model that has
one returns the statistics after a batch as `aux["stats"]`, a tree of the same shapes,
whenever it is called with a key, which is in training. A step writes them into the
parameters after the optimizer's update. The optimizer never sees them, so they have
neither gradients nor moments nor weight decay. Checkpoints and populations treat them
as parameters.
"""

from typing import Any

from ffnlab.errors import InputError
from ffnlab.types import Params

STATS = "stats"


def split_stats(params: Params) -> tuple[Params, Params | None]:
    """Returns the parameters that are trained, and the statistics, or None.

    >>> split_stats({"up": 1.0, "stats": {"mean": 0.0}})
    ({'up': 1.0}, {'mean': 0.0})
    >>> split_stats({"up": 1.0})
    ({'up': 1.0}, None)
    """
    if STATS not in params:
        return params, None
    trained = {name: part for name, part in params.items() if name != STATS}
    return trained, params[STATS]


def join_stats(trained: Params, stats: Params | None) -> Params:
    """Returns parameters with their statistics: the inverse of `split_stats`.

    >>> join_stats({"up": 1.0}, None)
    {'up': 1.0}
    """
    return trained if stats is None else {**trained, STATS: stats}


def stats_of(aux: Any) -> Params:
    """Returns the statistics after a batch, from what a model returns beside y.

    Raises:
      InputError: There are none.
    """
    if isinstance(aux, dict) and STATS in aux:
        return aux[STATS]
    raise InputError(
        f"model: its parameters have an entry {STATS!r}, which holds running "
        "statistics, so apply(params, x, key) should return (y, aux) with the new "
        f"ones in aux[{STATS!r}]; rename the entry if it is to be trained"
    )
