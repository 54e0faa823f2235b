"""Pretraining of language models, and swapping the blocks of a trained model."""

from ffnlab.lazy import attach

_NAMES = {
    "Config": "config",
    "Result": "runner",
    "SwapConfig": "swap_experiment",
    "run": "runner",
    "swap_blocks": "swap_experiment",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
