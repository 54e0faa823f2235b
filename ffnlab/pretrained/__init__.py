"""Loads and saves checkpoint directories of the families of `transformers`."""

from ffnlab.lazy import attach

_NAMES = {
    "Checkpoint": "checkpoint",
    "load": "checkpoint",
    "save": "checkpoint",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
