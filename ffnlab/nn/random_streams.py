"""The random streams that modules are built with, and their check."""

from typing import Any

import jax
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.types import Key


def random_streams(key: Key | int) -> nnx.Rngs:
    """Returns `nnx.Rngs(key)`, with the same keys, whose calls are fast to trace.

    A stream of NNX asks its traced count for a sharding, which it does not have. The
    text of that error lists the operations so far, so that the time to trace a module
    grows with the square of its size.

    Args:
      key: A key of `jax.random.key`, or a seed.

    >>> bool(random_streams(0)() == nnx.Rngs(0)())
    True
    """
    rngs = nnx.Rngs(key)
    rngs.default = _Stream(rngs.default.key.get_value(), tag="default")
    return rngs


class _Stream(nnx.RngStream):
    """A random stream that replaces its count as a whole."""

    def __call__(self) -> Key:
        count = self.count.get_value()
        self.count.set_value(count + 1)
        return jax.random.fold_in(self.key.get_value(), count)


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
