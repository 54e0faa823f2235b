"""The time of a run that JAX takes to compile."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

_EVENTS = "/jax/core/compile/"  # tracing, lowering, and compiling or loading


class CompileTime:
    """The share of the time of a block in which JAX traces, lowers and compiles.

    It counts all programs, also those of single operations, of any thread. Loading a
    program that an earlier run has compiled counts too.

    >>> import jax
    >>> with CompileTime() as compiling:
    ...     _ = jax.jit(lambda x: 3 * x)(1.0)
    >>> 0 < compiling.compile_seconds <= compiling.seconds
    True
    """

    def __enter__(self) -> "CompileTime":
        from jax import monitoring

        self._spans: list[tuple[float, float]] = []
        self._start = time.time()  # the clock of the events
        monitoring.register_event_time_span_listener(self._add)
        return self

    def __exit__(self, *_: Any) -> None:
        from jax import monitoring

        with contextlib.suppress(AssertionError, ValueError):  # all were removed
            monitoring.unregister_event_time_span_listener(self._add)

    def _add(self, event: str, start: float, end: float, **_: Any) -> None:
        if event.startswith(_EVENTS):
            self._spans.append((start, end))

    @property
    def seconds(self) -> float:
        """The time since the block began."""
        return time.time() - self._start

    @property
    def compile_seconds(self) -> float:
        """The time in which something was traced, lowered, compiled or loaded."""
        return covered(self._spans)

    def __str__(self) -> str:
        whole, part = self.seconds, self.compile_seconds
        share = part / whole if whole > 0 else 0.0
        return f"compiling took {part:.0f} s of {whole:.0f} s ({100 * share:.0f} %)"


@contextlib.contextmanager
def shown(quiet: bool = False) -> Iterator[None]:
    """Prints the share of compiling at the end of a block that does not fail.

    Args:
      quiet: Whether to print nothing.
    """
    with CompileTime() as compiling:
        yield
    if not quiet:
        print(compiling, flush=True)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Returns the length of the union of spans of time, which may lie in each other.

    Args:
      spans: Pairs of start and end, in seconds.

    >>> covered([(1, 2), (0, 3), (2, 4), (6, 7)])
    5.0
    """
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return total
