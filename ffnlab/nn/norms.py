"""Norms by name, and where a block may have them."""

import functools
from collections.abc import Callable

from flax import nnx

from ffnlab.nn.batch_norm import BatchNorm

NORMS: dict[str, Callable[..., nnx.Module]] = {
    # The fast variance E[x²] − E[x]² cancels in float32 when the mean is large.
    "layer": functools.partial(nnx.LayerNorm, use_fast_variance=False),
    "rms": functools.partial(nnx.RMSNorm, use_fast_variance=False),
    "batch": BatchNorm,
}

NORM_PLACEMENTS = ("none", "pre", "post", "hidden", "sandwich")
