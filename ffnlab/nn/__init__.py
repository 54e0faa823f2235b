"""Feed-forward blocks, attention, and the parts that they are made of."""

from ffnlab.lazy import attach

_NAMES = {
    "ACTIVATIONS": "activations",
    "BLOCKS": "ffn",
    "BlockConfig": "ffn",
    "FeedForward": "ffn",
    "bind": "pure",
    "flops": "pure",
    "functional": "pure",
    "match": "budget",
    "parameters": "pure",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
