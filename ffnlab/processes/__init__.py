"""Several processes of one run, joined by the distributed runtime of JAX.

Each process calls the same function with the same configuration. `joined` connects
them, compares them, and lets only process 0 print and write: the others run in private
directories, of which `checkpoints/` alone is that of the run.
"""

from ffnlab.lazy import attach

_NAMES = {
    "agree": "exchange",
    "check_equal": "exchange",
    "first_does": "exchange",
    "gather": "exchange",
    "is_first": "runtime",
    "joined": "joining",
    "meet": "exchange",
    "own_rows": "exchange",
    "place": "exchange",
    "place_rows": "exchange",
    "several": "runtime",
    "shared": "runtime",
    "stop_requested": "exchange",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
