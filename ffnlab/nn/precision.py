"""Precision: bfloat16 beside float32 parameters, and products of all bits."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from ffnlab.nn.statistics import STATS
from ffnlab.types import Model, Params

_Inputs = ParamSpec("_Inputs")
_Result = TypeVar("_Result")


def full_precision(function: Callable[_Inputs, _Result]) -> Callable[_Inputs, _Result]:
    """Returns a function whose matrix products use all bits of their operands.

    By default, JAX multiplies float32 on a GPU with the 10 bits of TF32, and on a TPU
    with the 7 of bfloat16. Iterations then do not reach a tolerance, and bounds do not
    hold. A precision that the user has set, by `jax.default_matmul_precision` or
    `JAX_DEFAULT_MATMUL_PRECISION`, stays.

    >>> square = full_precision(lambda x: x @ x)
    >>> "HIGHEST" in str(jax.make_jaxpr(square)(jnp.ones((2, 2))))
    True
    """

    @functools.wraps(function)
    def call(*args: _Inputs.args, **options: _Inputs.kwargs) -> _Result:
        if jax.config.jax_default_matmul_precision is not None:
            return function(*args, **options)
        with jax.default_matmul_precision("highest"):
            return function(*args, **options)

    return call


def cast(tree: Any, dtype: Any) -> Any:
    """Returns a tree whose floating-point arrays have another dtype.

    >>> cast({"w": jnp.ones(1), "n": jnp.ones(1, int)}, "bfloat16")["w"].dtype
    dtype(bfloat16)
    """

    def cast_leaf(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(cast_leaf, tree)


def keep_dtype(arrays: tuple, **_: Any) -> tuple:
    """Returns arrays unchanged, as the `promote_dtype` of an `nnx.Embed`.

    The default casts a table back to the dtype that it was created with, which undoes
    `cast`.
    """
    return arrays


def mixed_precision(
    model: Model, dtype: Any = jnp.bfloat16, keep: Sequence[str] = ("head",)
) -> Model:
    """Returns a model that computes in another dtype than that of its parameters.

    Parameters, gradients and optimizer state stay in float32, since an update is far
    smaller than the last bit of a bfloat16 parameter. Sums inside norms and attention,
    and the softmax, are in float32 too.

    Args:
      model: Model whose floating-point parameters and inputs are cast.
      dtype: The dtype to compute in.
      keep: Top-level parameter names that are not cast and compute in float32. The head
        of a classifier costs little, and a solver in it would not converge. Running
        statistics are never cast.

    Returns:
      The model, with float32 outputs.

    Source: Micikevicius et al. 2018, section 3.1. The loss is not scaled, as
      bfloat16 has the exponent range of float32.
    """

    def apply(params: Params, *inputs: Any, **options: Any) -> Any:
        params = {
            name: part if name in (*keep, STATS) else cast(part, dtype)
            for name, part in params.items()
        }
        inputs, options = cast((inputs, options), dtype)
        return cast(model.apply(params, *inputs, **options), jnp.float32)

    return Model(model.init, apply)
