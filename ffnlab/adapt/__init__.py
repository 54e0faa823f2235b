"""Parameter-efficient fine-tuning: LoRA and its kin as pure functions."""

from ffnlab.lazy import attach

_NAMES = {
    "AdaLoRA": "methods",
    "Adapted": "surgery",
    "AttentionOnly": "methods",
    "BitFit": "methods",
    "Bottleneck": "methods",
    "FFNOnly": "methods",
    "Full": "methods",
    "HeadOnly": "methods",
    "IA3": "methods",
    "LoRA": "methods",
    "METHODS": "methods",
    "Prefix": "methods",
    "Prompt": "methods",
    "TopLayers": "methods",
    "apply": "surgery",
    "init": "surgery",
    "join": "surgery",
    "merge": "merging",
    "parse": "methods",
    "rates": "surgery",
    "summary": "surgery",
    "unmerge": "merging",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
