"""What a run leaves behind: its directory, tables, progress and pictures."""

from ffnlab.lazy import attach

_NAMES = {
    "Progress": "progress",
    "Table": "table",
    "open_run": "run_directory",
    "plot_convergence": "plots:convergence",
    "plot_curves": "validation_plots:curves",
    "plot_forest": "verdict_plots:forest",
    "plot_graph": "plots:graph",
    "plot_rates": "validation_plots:rates",
    "plot_relaxation": "plots:relaxation",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
