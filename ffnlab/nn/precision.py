"""Half the bits where they are enough: models that compute in bfloat16."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ffnlab.types import Model, Params


def cast(tree: Any, dtype: Any) -> Any:
    """Returns a tree whose arrays of real numbers are of another dtype.

    >>> cast({"w": jnp.ones(1), "n": jnp.ones(1, int)}, "bfloat16")["w"].dtype
    dtype(bfloat16)
    """

    def one(leaf: Any) -> Any:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if real else leaf

    return jax.tree.map(one, tree)


def uncast(arrays: tuple, **_: Any) -> tuple:
    """Returns arrays as they are: `promote_dtype` of an `nnx.Embed` to be lowered.

    Its own casts a table back to the dtype that it was made in.
    """
    return arrays


def mixed_precision(
    model: Model, dtype: Any = jnp.bfloat16, keep: Sequence[str] = ("head",)
) -> Model:
    """Returns a model that computes in another dtype than its parameters have.

    Parameters stay float32, and so do their gradients and what an optimizer holds: an
    update is far smaller than the last bit of a bfloat16. Sums inside norms and in
    attention, and its softmax, are of float32 too.

    Args:
      model: of which real parameters and inputs are cast; its outputs are float32.
      dtype: what it computes in.
      keep: parts of the parameters that are not cast, and compute in float32: the head
        of a labeller costs little, and a solver in it would not converge.

    Source: Micikevicius et al. 2018, section 3.1. The loss needs no scaling: bfloat16
      reaches as far down as float32.
    """

    def apply(params: Params, *inputs: Any, **options: Any) -> Any:
        params = {
            name: part if name in keep else cast(part, dtype)
            for name, part in params.items()
        }
        inputs, options = cast((inputs, options), dtype)
        return cast(model.apply(params, *inputs, **options), jnp.float32)

    return Model(model.init, apply)
