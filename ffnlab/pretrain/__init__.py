"""Pretraining of language models, and swapping the blocks of a trained model."""

from ffnlab.lazy import attach

_NAMES = {
    "Config": "config",
    "PrepareConfig": "text_preparation",
    "Result": "runner",
    "SwapConfig": "swap_experiment",
    "prepare_text": "text_preparation",
    "run": "runner",
    "swap_blocks": "swap_experiment",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
