"""Initializers of kernels, by name."""

from collections.abc import Callable

from flax import nnx

from ffnlab.types import Array

INITIALIZERS: dict[str, Callable[..., Array]] = {
    "zeros": nnx.initializers.zeros,
    "normal": nnx.initializers.normal(0.02),
    "uniform": nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    "xavier": nnx.initializers.xavier_uniform(),
    "xavier_normal": nnx.initializers.xavier_normal(),
    "he": nnx.initializers.he_normal(),
    "he_uniform": nnx.initializers.he_uniform(),
    "lecun": nnx.initializers.lecun_normal(),
    "lecun_uniform": nnx.initializers.lecun_uniform(),
    "orthogonal": nnx.initializers.orthogonal(),
}
