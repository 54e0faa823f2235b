"""The decoder of the tests of costs."""

import jax

from ffnlab import DecoderConfig
from ffnlab.models.language_model import causal_lm

SIZE = {
    "features": 64,
    "layers": 2,
    "heads": 4,
    "key_value_heads": 2,
    "hidden": 160,
    "vocabulary": 512,
}


def decoder(**options):
    """Returns the decoder of the formulas, and the shapes of its parameters."""
    plain = {"positions": "rotary", "norm_kind": "rms", "bias": False}
    model = causal_lm(DecoderConfig(**{**SIZE, "block": "swiglu", **plain, **options}))
    return model, jax.eval_shape(model.init, jax.random.key(0))
