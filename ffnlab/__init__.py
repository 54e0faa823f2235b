"""A laboratory for the feed-forward half of a neural network.

The public names are imported when they are first used, so that `import ffnlab` costs
nothing and a launcher can refuse a wrong flag before JAX is imported.

>>> import ffnlab
>>> ffnlab.match(ffnlab.BlockConfig("glu", 64), ffnlab.BlockConfig("mlp", 64)).value
33172
"""

from ffnlab.errors import InputError
from ffnlab.lazy import attach
from ffnlab.version import VERSION as __version__

_NAMES = {
    "BlockConfig": "nn.ffn",
    "Dataset": "data.dataset",
    "DecoderConfig": "models.transformer_config",
    "EncoderConfig": "models.transformer_config",
    "FeedForward": "nn.ffn",
    "FeedbackConfig": "feedback.layers",
    "FeedbackLayer": "feedback.layers",
    "FeedbackNetwork": "feedback.layers",
    "Model": "types",
    "Objective": "types",
    "Hooks": "train.loop",
    "Learner": "train.loop",
    "Plan": "train.record",
    "SequenceConfig": "models.sequence",
    "Tower": "models.mlp",
    "TowerConfig": "models.mlp",
    "Transformer": "models.transformer",
    "fit": "train.loop",
    "fit_population": "sweep.population",
    "functional": "nn.pure",
    "make_step": "train.train_step",
    "match": "nn.budget",
    "sequence_model": "models.sequence",
    "solve": "feedback.fixed_point",
    "use_all_cores": "devices",
}

__getattr__, _, _public = attach(__name__, _NAMES)
__all__ = ["InputError", "__version__", *_public]


def __dir__() -> list[str]:
    return sorted(__all__)
