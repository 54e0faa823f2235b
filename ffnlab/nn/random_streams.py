"""The check of the random streams that modules are built with."""

from typing import Any

from flax import nnx

from ffnlab.errors import InputError


def check_rngs(rngs: Any) -> None:
    """Raises unless `rngs` are random streams that initial parameters come from.

    Args:
      rngs: What a module was given as `rngs`.

    Raises:
      InputError: It is something else, such as a seed or a key.

    >>> check_rngs(nnx.Rngs(0))
    >>> check_rngs(0)
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: rngs: int given; give random streams, nnx.Rngs(0)
    """
    if isinstance(rngs, nnx.Rngs):
        return
    shown = "nnx.Rngs(0)"
    if hasattr(rngs, "dtype"):  # a key of jax.random
        shown = "nnx.Rngs(key)"
    elif isinstance(rngs, int) and not isinstance(rngs, bool):
        shown = f"nnx.Rngs({rngs})"
    kind = "None" if rngs is None else type(rngs).__name__
    raise InputError(f"rngs: {kind} given; give random streams, {shown}")
