"""Whole models: stacks of blocks, recurrent and feedback networks, Transformers."""

from ffnlab.lazy import attach

_NAMES = {
    "DecoderConfig": "transformer_config",
    "EncoderConfig": "transformer_config",
    "MeshPlanConfig": "mesh_plan",
    "SequenceConfig": "sequence",
    "Tower": "mlp",
    "TowerConfig": "mlp",
    "Transformer": "transformer",
    "TransformerConfig": "transformer_config",
    "beam_search": "decoding",
    "generate": "decoding",
    "plan_mesh": "mesh_plan",
    "sequence_model": "sequence",
    "swap_block": "block_swap",
    "tower": "mlp",
    "transformer_model": "transformer",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
