"""Feed-forward blocks, attention, and the parts that they are made of."""

from ffnlab.lazy import attach

_NAMES = {
    "ACTIVATIONS": "activations",
    "BLOCKS": "ffn",
    "BlockConfig": "ffn",
    "BlockParameter": "block_parameters",
    "FeedForward": "ffn",
    "bind": "pure",
    "dense": "linear",
    "flops": "pure",
    "functional": "pure",
    "match": "budget",
    "parameters": "pure",
    "register": "registration",
    "register_activation": "activation_registration",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
