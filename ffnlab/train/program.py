"""A pure function whose compilations are counted and timed."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax


class Program:
    """A pure function, compiled ahead of its first call for each shape of its argument.

    Compiling is thus counted and timed apart from running.

    Args:
      function: A pure function. Only the shapes of its last argument may change between
        calls.
      donate: The positions of the arguments whose memory the function may reuse.

    >>> import jax.numpy as jnp
    >>> double = Program(lambda x: 2 * x)
    >>> double(jnp.ones(3)).tolist(), double(jnp.ones(3)).tolist(), double.compilations
    ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], 1)
    """

    def __init__(self, function: Callable[..., Any], donate: tuple[int, ...] = ()):
        self._function = jax.jit(function, donate_argnums=donate)
        self._lowered: dict[Any, jax.stages.Lowered] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """The number of shapes that were compiled."""
        return len(self._compiled)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Returns the lowered program for arguments of these shapes."""
        shape = _shapes(args[-1])
        if shape not in self._lowered:
            self._lowered[shape] = self._function.lower(*args)
        return self._lowered[shape]

    def fingerprint(self, *args: Any) -> str:
        """Returns a hash of what the function computes for arguments of these shapes.

        It differs between models, optimizers and schedules that differ in anything, and
        between versions of JAX.
        """
        text = self.lower(*args).as_text()
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def outputs(self, *args: Any) -> Any:
        """Returns the outputs' shapes for arguments of these shapes."""
        return jax.eval_shape(self._function, *args)

    def __call__(self, *args: Any) -> Any:
        shape = _shapes(args[-1])
        if shape not in self._compiled:
            start = time.perf_counter()
            self._compiled[shape] = self.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[shape](*args)


def _shapes(tree: Any) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of the arrays of a tree."""
    return tuple(leaf.shape for leaf in jax.tree.leaves(tree))
