"""What a run leaves behind: its directory, tables, progress and pictures."""

from ffnlab.lazy import attach

_NAMES = {
    "Progress": "progress",
    "Table": "table",
    "open_run": "run_directory",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
