"""Checks of gradients by finite differences, and the origin of NaNs."""

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ffnlab.scratch import ops, trees
from ffnlab.scratch.derivatives import grad
from ffnlab.scratch.tensor import Primitive, array, observer


class Check(NamedTuple):
    """The result of comparing derivatives with finite differences.

    Attributes:
      passed: Whether every entry agrees.
      entries: How many entries were compared.
      worst: The path and the index of the entry with the largest error.
      gradient: The gradient of that entry.
      difference: Its finite difference.
      error: Its error, |gradient − difference| / (1 + |difference|).
      tolerance: The largest error that passes.
      order: 1 if the gradient was compared; 2 if it is right, and what differs is its
        own gradient.
    """

    passed: bool
    entries: int
    worst: str
    gradient: float
    difference: float
    error: float
    tolerance: float
    order: int = 1

    def __str__(self) -> str:
        verdict = "agree" if self.passed else "DIFFER"
        what = {1: "gradient", 2: "gradient of the gradient"}[self.order]
        advice = (
            "\nThe gradient itself is right, but it cannot be differentiated: a rule "
            "leaves the graph. Rules must use their inputs, not `x.data` or NumPy."
        )
        return (
            f"{what} and finite differences {verdict} over {self.entries} entries "
            f"(tolerance {self.tolerance:g})\nworst: {self.worst}: gradient "
            f"{self.gradient:.9g}, difference {self.difference:.9g}, "
            f"error {self.error:.3g}" + (advice if self.order == 2 else "")
        )


def check_gradients(
    f: Callable[[Any], Any],
    x: Any,
    *,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    order: int = 2,
) -> Check:
    """Compares the gradient of f at x with central differences, in float64.

    With `order=2` the gradient along a random direction is then differentiated and
    compared too. This notices a rule that leaves the graph, such as `g * x.data`, whose
    first derivative is right and whose second is 0.

    Args:
      f: A function of one tree of arrays, to a number. It must be smooth near x: at
        the corner of a relu the finite difference is wrong, not the gradient.
      x: The tree; every entry is moved up and down in turn.
      step: The size of the move, relative to 1 + |entry|.
      tolerance: The largest error that passes, relative to 1 + |difference|.
      order: 1 or 2.

    Raises:
      ValueError: The order is neither.

    Returns:
      The result; printed, it names the worst entry.

    >>> check_gradients(lambda x: (x**2).sum(), np.array([1.0, -3.0])).passed
    True
    """
    if order not in (1, 2):
        raise ValueError(f"check_gradients: order {order} should be 1 or 2")
    first = _compare(f, x, step, tolerance)
    if not first.passed or order == 1:
        return first
    second = _compare(_slope(f, x), x, step, tolerance)
    return first if second.passed else second._replace(order=2)


def _slope(f: Callable[[Any], Any], x: Any) -> Callable[[Any], Any]:
    """Returns the derivative of f along a random direction, as a function."""
    random = np.random.default_rng(0)
    along = [
        random.standard_normal(np.shape(array(leaf))) for leaf in trees.flatten(x)[0]
    ]

    def slope(x: Any) -> Any:
        gradients, _ = trees.flatten(grad(f)(x))
        products = [ops.sum(g * v) for g, v in zip(gradients, along, strict=True)]
        return functools.reduce(operator.add, products, ops.identity(0.0))

    return slope


def _compare(f: Callable[[Any], Any], x: Any, step: float, tolerance: float) -> Check:
    """Returns the result for the gradient of f at x."""
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
