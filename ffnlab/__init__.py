"""A laboratory for the feed-forward half of a neural network.

The public names are imported when they are first used, so that `import ffnlab` costs
nothing and a launcher can refuse a wrong flag before JAX is imported.

>>> import ffnlab
>>> ffnlab.match(ffnlab.BlockConfig("glu", 64), ffnlab.BlockConfig("mlp", 64)).value
33172
"""

import importlib
from typing import Any

from ffnlab.errors import InputError
from ffnlab.version import VERSION as __version__

_PUBLIC = {
    "BlockConfig": "ffnlab.nn.ffn",
    "Dataset": "ffnlab.data",
    "DecoderConfig": "ffnlab.models.transformer_config",
    "EncoderConfig": "ffnlab.models.transformer_config",
    "FeedForward": "ffnlab.nn.ffn",
    "FeedbackConfig": "ffnlab.feedback.layers",
    "FeedbackLayer": "ffnlab.feedback.layers",
    "FeedbackNetwork": "ffnlab.feedback.layers",
    "Model": "ffnlab.types",
    "Objective": "ffnlab.types",
    "Plan": "ffnlab.train.record",
    "SequenceConfig": "ffnlab.models.sequence",
    "Tower": "ffnlab.models.mlp",
    "TowerConfig": "ffnlab.models.mlp",
    "Transformer": "ffnlab.models.transformer",
    "fit": "ffnlab.train.loop",
    "fit_population": "ffnlab.sweep.population",
    "functional": "ffnlab.models.mlp",
    "make_step": "ffnlab.train.loop",
    "match": "ffnlab.nn.budget",
    "sequence_model": "ffnlab.models.sequence",
    "solve": "ffnlab.feedback.fixed_point",
}

__all__ = ["InputError", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ffnlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
