"""Whole models: stacks of blocks, recurrent and feedback networks, Transformers."""

from ffnlab.lazy import attach

_NAMES = {
    "DecoderConfig": "transformer_config",
    "EncoderConfig": "transformer_config",
    "SequenceConfig": "sequence",
    "Tower": "mlp",
    "TowerConfig": "mlp",
    "Transformer": "transformer",
    "TransformerConfig": "transformer_config",
    "beam_search": "decoding",
    "generate": "decoding",
    "sequence_model": "sequence",
    "swap_block": "block_swap",
    "tower": "mlp",
    "transformer_model": "transformer",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
