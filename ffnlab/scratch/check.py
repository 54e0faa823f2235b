"""Checks of gradients by finite differences, and the origin of NaNs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ffnlab.scratch import trees
from ffnlab.scratch.derivatives import grad
from ffnlab.scratch.tensor import Primitive, array, observer


class Check(NamedTuple):
    """The result of comparing a gradient with finite differences.

    Attributes:
      passed: Whether every entry agrees.
      entries: How many entries were compared.
      worst: The path and the index of the entry with the largest error.
      gradient: The gradient of that entry.
      difference: Its finite difference.
      error: Its error, |gradient − difference| / (1 + |difference|).
      tolerance: The largest error that passes.
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
      f: A function of one tree of arrays, to a number. It must be smooth near x: at
        the corner of a relu the finite difference is wrong, not the gradient.
      x: The tree; every entry is moved up and down in turn.
      step: The size of the move, relative to 1 + |entry|.
      tolerance: The largest error that passes, relative to 1 + |difference|.

    Returns:
      The result; printed, it names the worst entry.

    >>> check_gradients(lambda x: (x**2).sum(), np.array([1.0, -3.0])).passed
    True
    """
    leaves, rebuild = trees.flatten(x)
    leaves = [np.array(array(leaf), np.float64) for leaf in leaves]
    names = [name or "x" for name, _ in trees.named_leaves(x)]
    gradients, _ = trees.flatten(grad(f)(rebuild(leaves)))
    rows = []
    for name, leaf, gradient in zip(names, leaves, gradients, strict=True):
        for index in np.ndindex(leaf.shape):
            difference = _difference(f, rebuild, leaves, leaf, index, step)
            error = abs(gradient[index] - difference) / (1.0 + abs(difference))
            entry = f"{name}[{', '.join(map(str, index))}]" if index else name
            error = np.nan_to_num(error, nan=np.inf)  # so that a NaN is the worst
            rows.append((error, entry, gradient[index], difference))
    if not rows:
        return Check(True, 0, "none", 0.0, 0.0, 0.0, tolerance)
    error, worst, gradient, difference = max(rows, key=lambda row: row[0])
    values = map(float, (gradient, difference, error))
    return Check(bool(error <= tolerance), len(rows), worst, *values, tolerance)


def _difference(
    f: Callable[[Any], Any],
    rebuild: Callable[[list], Any],
    leaves: list[np.ndarray],
    leaf: np.ndarray,
    index: tuple[int, ...],
    step: float,
) -> float:
    """Returns the central difference of f in one entry; the entry is restored."""
    value = leaf[index]
    width = step * (1.0 + abs(value))
    ends = []
    for sign in (1.0, -1.0):
        leaf[index] = value + sign * width
        ends.append(float(array(f(rebuild([leaf.copy() for leaf in leaves])))))
    leaf[index] = value
    return (ends[0] - ends[1]) / (2.0 * width)


@contextlib.contextmanager
def detect_nan() -> Iterator[None]:
    """Raises an error at the first operation, forward or backward, that has a NaN.

    Raises:
      FloatingPointError: Inside the block; it names the operation, the shapes of its
        inputs and the index of the NaN.

    >>> from ffnlab.scratch import Tensor
    >>> root = Tensor(-1.0)
    >>> with detect_nan():
    ...     root**0.5
    Traceback (most recent call last):
    FloatingPointError: power of shapes () and (): the result has the first NaN, at []
    """
    token = observer.set(_locate)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        observer.reset(token)


def _locate(operation: Primitive, arrays: Sequence[Any], result: Any) -> None:
    for number, x in enumerate([*arrays, result]):
        if np.isnan(x).any():
            owner = f"input {number}" if number < len(arrays) else "the result"
            first = np.argwhere(np.isnan(x))[0].tolist()
            raise FloatingPointError(
                f"{operation.describe(arrays)}: {owner} has the first NaN, at {first}"
            )
