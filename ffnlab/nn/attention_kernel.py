"""Which kernel computes attention: that of XLA, or cuDNN on a GPU of NVIDIA.

The choice is made while a program is traced. On a CPU and a TPU it is always XLA, and
cuDNN is asked for its version only where JAX uses a GPU.
"""

import contextlib
import contextvars
import functools
import os
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ffnlab.errors import InputError, choose
from ffnlab.nn.default_platform import default_platform
from ffnlab.types import Array

Implementation = Literal["auto", "xla", "cudnn"]
IMPLEMENTATIONS = ("auto", "xla", "cudnn")

_DETERMINISTIC = re.compile(
    r"--xla_gpu_(deterministic_ops|exclude_nondeterministic_ops)(?!=(false|0)\b)"
)
# Why attention is computed by XLA, and whether that is for attention with masks alone.
_ONLY_XLA = contextvars.ContextVar[tuple[str, bool] | None]("only_xla", default=None)


class Kernel(NamedTuple):
    """How attention is computed.

    Attributes:
      name: `xla` or `cudnn`.
      causal: Whether the kernel leaves out later keys, beside what the mask leaves out.
        cuDNN then skips their products.
    """

    name: Literal["xla", "cudnn"] = "xla"
    causal: bool = False


XLA = Kernel()


@contextlib.contextmanager
def only_xla(why: str, masked: bool = False) -> Iterator[None]:
    """Inside, attention is computed by XLA.

    cuDNN takes no masks under `jax.vmap`, and a program for other platforms none of it.

    Args:
      why: The reason, for an error.
      masked: Whether this is for attention with a mask alone.

    >>> with only_xla("the program is for a TPU"):
    ...     _ONLY_XLA.get()
    ('the program is for a TPU', False)
    """
    token = _ONLY_XLA.set((why, masked))
    try:
        yield
    finally:
        _ONLY_XLA.reset(token)


def choose_kernel(
    implementation: Implementation,
    query: jax.ShapeDtypeStruct,
    key: jax.ShapeDtypeStruct,
    *,
    causal: bool = False,
    masked: bool = False,
    dropout: float = 0.0,
) -> Kernel:
    """Returns the kernel for attention of some shapes.

    Args:
      implementation: `auto` is cuDNN where JAX uses a GPU and cuDNN takes these shapes,
        and otherwise XLA; `xla`; or `cudnn`, where anything else is an error.
      query: `[B, T, N, h]`.
      key: `[B, S, n, h]`, and the values too.
      causal: Whether queries attend to no later keys; S is then T.
      masked: Whether there is a mask beside that.
      dropout: Dropout rate of the attention weights. cuDNN is used without.

    Raises:
      InputError: cuDNN is asked for and cannot be used.

    >>> one = jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.bfloat16)
    >>> choose_kernel("auto", one, one, causal=True)  # on a CPU
    Kernel(name='xla', causal=False)
    """
    choose("attention_implementation", implementation, IMPLEMENTATIONS)
    if implementation == "xla":
        return XLA
    reason = _reason(query, key, causal, masked, dropout)
    if reason is None:
        return Kernel("cudnn", causal)
    if implementation == "cudnn":
        raise InputError(
            f"attention_implementation: cudnn cannot be used: {reason}; use auto"
        )
    return XLA


def require(attention: Implementation, dtype: Any) -> None:
    """Checks early that a run can have the implementation that it asks for.

    Args:
      attention: See `choose_kernel`.
      dtype: The dtype that the run computes in.

    Raises:
      InputError: cuDNN is asked for, and there is no GPU or the dtype is too wide.

    >>> require("auto", "float32")
    """
    one = jax.ShapeDtypeStruct((1, 8, 1, 64), jnp.dtype(dtype))
    if attention == "cudnn" and (reason := _reason(one, one, False, False, 0.0)):
        raise InputError(f"attention: cudnn cannot be used: {reason}; use auto")


def _reason(
    query: jax.ShapeDtypeStruct,
    key: jax.ShapeDtypeStruct,
    causal: bool,
    masked: bool,
    dropout: float,
) -> str | None:
    """Returns why cuDNN cannot be used, or None."""
    if not uses_gpu():
        return "JAX does not use a GPU"
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it needs bfloat16 or float16, not {query.dtype.name}"
    if dropout:
        return "attention weights have dropout"
    if _DETERMINISTIC.search(os.environ.get("XLA_FLAGS", "")):
        return "it fails where XLA_FLAGS asks for deterministic operations"
    only = _ONLY_XLA.get()
    if only and (masked or not only[1]):
        return only[0]
    return _refusal(query, key, causal, masked)


def uses_gpu() -> bool:
    """Returns whether JAX puts new arrays on a GPU.

    >>> with jax.default_device(jax.devices("cpu")[0]):
    ...     uses_gpu()
    False
    """
    return default_platform() in ("gpu", "cuda")


@functools.cache
def _refusal(
    query: jax.ShapeDtypeStruct, key: jax.ShapeDtypeStruct, causal: bool, masked: bool
) -> str | None:
    """Returns why JAX refuses cuDNN for these shapes and their gradients, or None."""
    mask = jax.ShapeDtypeStruct((1, 1, query.shape[1], key.shape[1]), jnp.bool_)

    def both(query: Array, key: Array, value: Array, mask: Array) -> Any:
        def run(*args: Array) -> Array:
            return jax.nn.dot_product_attention(
                *args,
                mask=mask if masked else None,
                is_causal=causal,
                implementation="cudnn",
            )

        y, pullback = jax.vjp(run, query, key, value)
        return pullback(y)

    try:
        jax.eval_shape(both, query, key, key, mask)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return str(error).strip().partition("\n")[0].rstrip(".")
    return None
