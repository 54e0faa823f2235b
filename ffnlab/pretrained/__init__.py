"""Loads and saves checkpoint directories of BERT, RoBERTa, DistilBERT and GPT-2."""

from ffnlab.lazy import attach

_NAMES = {
    "Checkpoint": "checkpoint",
    "load": "checkpoint",
    "save": "checkpoint",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
