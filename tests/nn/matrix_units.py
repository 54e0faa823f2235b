"""What tests of products in bfloat16 for the matrix units of a CPU share."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.nn import bfloat16_linear

needs_units = pytest.mark.skipif(
    not bfloat16_linear.has_matrix_units() or jax.default_backend() != "cpu",
    reason="needs a CPU with AMX",
)


def draw(*shape, seed=0, dtype="bfloat16"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def operands_of_products(function, *arrays):
    """Returns the dtypes of both operands of each product that XLA compiles."""
    text = jax.jit(function).lower(*arrays).compile().as_text()
    dtypes = dict(re.findall(r"%?([\w.-]+)(?: = |: )(\w+)\[", text))
    products = re.findall(r" dot\(%?([\w.-]+), %?([\w.-]+)\)", text)
    return [tuple(dtypes[name] for name in names) for names in products]
