"""Is a gradient right, and where does a NaN come from?"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ffnlab.scratch import trees
from ffnlab.scratch.derivatives import grad
from ffnlab.scratch.tensor import Primitive, array, looking


class Check(NamedTuple):
    """What a comparison of a gradient with finite differences found.

    Attributes:
      passed: whether every entry agrees.
      entries: how many were compared.
      worst: the path and the index of the entry that agrees least.
      gradient: what the engine says there.
      difference: what finite differences say there.
      error: |gradient − difference| / (1 + |difference|) there.
      tolerance: the largest error that agrees.
    """

    passed: bool
    entries: int
    worst: str
    gradient: float
    difference: float
    error: float
    tolerance: float

    def __str__(self) -> str:
        verdict = "agree" if self.passed else "DIFFER"
        return (
            f"gradient and finite differences {verdict} over {self.entries} entries "
            f"(tolerance {self.tolerance:g})\nworst: {self.worst}: gradient "
            f"{self.gradient:.9g}, difference {self.difference:.9g}, "
            f"error {self.error:.3g}"
        )


def check_gradients(
    f: Callable[[Any], Any], x: Any, *, step: float = 1e-6, tolerance: float = 1e-6
) -> Check:
    """Compares the gradient of f at x with central differences, in float64.

    Args:
      f: a function of one tree of arrays, to a number. It must be smooth near x: the
        corner of a relu makes differences wrong, not the gradient.
      x: the tree; every entry is moved up and down in turn.
      step: how far, relative to 1 + |entry|.
      tolerance: the largest error that agrees, relative to 1 + |difference|.

    Returns:
      What was found; printed, it names the worst entry.

    >>> check_gradients(lambda x: (x**2).sum(), np.array([1.0, -3.0])).passed
    True
    """
    given, rebuild = trees.flatten(x)
    leaves = [np.array(array(leaf), np.float64) for leaf in given]
    names = [name or "x" for name, _ in trees.named(x)]
    found, _ = trees.flatten(grad(f)(rebuild(leaves)))
    rows = []
    for name, leaf, gradient in zip(names, leaves, found, strict=True):
        for index in np.ndindex(leaf.shape):
            difference = _difference(f, rebuild, leaves, leaf, index, step)
            error = abs(gradient[index] - difference) / (1.0 + abs(difference))
            where = f"{name}[{', '.join(map(str, index))}]" if index else name
            error = np.nan_to_num(error, nan=np.inf)  # so that it is the worst of all
            rows.append((error, where, gradient[index], difference))
    if not rows:
        return Check(True, 0, "none", 0.0, 0.0, 0.0, tolerance)
    error, where, gradient, difference = max(rows, key=lambda row: row[0])
    values = map(float, (gradient, difference, error))
    return Check(bool(error <= tolerance), len(rows), where, *values, tolerance)


def _difference(
    f: Callable[[Any], Any],
    rebuild: Callable[[list], Any],
    leaves: list[np.ndarray],
    leaf: np.ndarray,
    index: tuple[int, ...],
    step: float,
) -> float:
    """Returns the central difference of f by one entry, which is put back after."""
    kept = leaf[index]
    width = step * (1.0 + abs(kept))
    ends = []
    for sign in (1.0, -1.0):
        leaf[index] = kept + sign * width
        ends.append(float(array(f(rebuild([each.copy() for each in leaves])))))
    leaf[index] = kept
    return (ends[0] - ends[1]) / (2.0 * width)


@contextlib.contextmanager
def detect_nan() -> Iterator[None]:
    """Makes the first operation that makes a NaN, forward or backward, an error.

    Raises:
      FloatingPointError: within the block; it names the operation, the shapes of its
        inputs and the index of the NaN.

    >>> from ffnlab.scratch import Tensor
    >>> root = Tensor(-1.0)
    >>> with detect_nan():
    ...     root**0.5
    Traceback (most recent call last):
    FloatingPointError: power of shapes () and (): the result has the first NaN, at []
    """
    token = looking.set(_locate)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        looking.reset(token)


def _locate(operation: Primitive, arrays: Sequence[Any], result: Any) -> None:
    for place, x in enumerate([*arrays, result]):
        if np.isnan(x).any():
            what = f"input {place} is" if place < len(arrays) else "the result has"
            first = np.argwhere(np.isnan(x))[0].tolist()
            raise FloatingPointError(
                f"{operation.of(arrays)}: {what} the first NaN, at {first}"
            )
