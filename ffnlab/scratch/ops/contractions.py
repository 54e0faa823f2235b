"""Sums of products over indices: `einsum`, and the products that are cases of it.

The gradient with respect to an operand is such a sum too, over all indices that the
operand does not have.

>>> einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).data
array([3., 7.])
"""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ffnlab.scratch.ops.elementwise import multiply
from ffnlab.scratch.ops.products import matmul
from ffnlab.scratch.ops.reductions import sum
from ffnlab.scratch.ops.shapes import ravel, reshape
from ffnlab.scratch.tensor import Primitive, Tensor, tensor


def _einsum(*xs, terms, output):
    return np.einsum(f"{','.join(terms)}->{output}", *xs, optimize=len(xs) > 1)


def _einsum_rule(g, y, *xs, terms, output):
    gradients = []
    for i, term in enumerate(terms):
        others = [*xs[:i], *xs[i + 1 :]]
        names = (output, *terms[:i], *terms[i + 1 :])
        gradients.append(_contraction(g, *others, terms=names, output=term))
    return gradients


_contraction = Primitive(_einsum, joint=_einsum_rule)


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Returns the sum of products of entries over all indices that are not kept.

    Args:
      subscripts: The indices of each operand and, after an arrow, of the result, for
        instance `ij,jk->ik`; `...` is any number of axes, which broadcast. In place of
        it, a list of numbers may follow each operand: `einsum(x, [0, 1], [1, 0])`.
      *operands: Arrays, each with an axis for each of its indices.

    Raises:
      ValueError: The subscripts do not fit the operands.

    >>> einsum("ii->i", [[1.0, 2.0], [3.0, 4.0]]).data
    array([1., 4.])
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _join_subscripts(subscripts, *operands)
    xs = [tensor(x) for x in operands]
    try:
        np.einsum_path(subscripts, *[x.data for x in xs], optimize=False)
        terms, output = _expand_ellipses(subscripts, [x.ndim for x in xs])
        sizes = _index_sizes(terms, xs)
    except ValueError as error:
        shapes = " and ".join(str(x.shape) for x in xs)
        raise ValueError(f"einsum {subscripts!r} of shapes {shapes}: {error}") from None
    for i, x in enumerate(xs):
        xs[i], terms[i] = _drop_axes(x, terms[i], sizes)
    for i, x in enumerate(xs):
        kept = {*output}.union(*terms[:i], *terms[i + 1 :])
        xs[i], terms[i] = _sum_alone(x, terms[i], kept)
    return _contraction(*xs, terms=tuple(terms), output=output)


def _join_subscripts(*parts: Any) -> tuple[str, Sequence[Any]]:
    """Returns the subscripts and the operands of `einsum(x, [0, 1], [1, 0])`."""
    lists = [*parts[1::2], *(parts[-1:] if len(parts) % 2 else [])]
    terms = [
        "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in indices)
        for indices in lists
    ]
    count = len(parts) // 2
    inputs = ",".join(terms[:count])
    return "->".join([inputs, *terms[count:]]), parts[: 2 * count : 2]


def _expand_ellipses(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Returns the indices of each operand and of the result, with letters for `...`."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    named = [len(term.replace("...", "")) for term in terms]
    missing = [rank - count for rank, count in zip(ranks, named, strict=True)]
    unused = [letter for letter in string.ascii_letters if letter not in subscripts]
    batch = "".join(unused[: max(missing)])
    if not arrow:
        once = [i for i in sorted({*inputs}) if i.isalpha() and inputs.count(i) == 1]
        output = "..." + "".join(once)
    if batch and "..." not in output:
        raise ValueError("the result has no `...` for the axes of the operands' `...`")
    for i, count in enumerate(missing):
        terms[i] = terms[i].replace("...", batch[len(batch) - count :])
    return terms, output.replace("...", batch)


def _index_sizes(terms: Sequence[str], xs: Sequence[Tensor]) -> dict[str, int]:
    """Returns the length of each index; an axis of length 1 takes any."""
    sizes: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for index, length in zip(term, x.shape, strict=True):
            if length != 1 and sizes.setdefault(index, length) != length:
                raise ValueError(
                    f"index {index} has the lengths {sizes[index]} and {length}"
                )
    return sizes


def _drop_axes(x: Tensor, term: str, sizes: dict[str, int]) -> tuple[Tensor, str]:
    """Returns an operand without repeated indices, and axes of length 1 that broadcast.

    What is left has every index once, with its full length.
    """
    letters = "".join(dict.fromkeys(term))
    if letters != term:
        lengths = [sizes.get(letter, 1) for letter in letters]
        grid = dict(zip(letters, np.indices(lengths, sparse=True), strict=True))
        x = x[tuple(grid[letter] for letter in term)]
    pairs = zip(letters, x.shape, strict=True)
    return _sum_alone(x, letters, {i for i, n in pairs if n == sizes.get(i, 1)})


def _sum_alone(x: Tensor, term: str, kept: set[str]) -> tuple[Tensor, str]:
    """Returns an operand summed over the indices that are not kept, and the others."""
    alone = tuple(axis for axis, i in enumerate(term) if i not in kept)
    return sum(x, alone) if alone else x, "".join(i for i in term if i in kept)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """Returns the sum of products over axes of a and as many axes of b.

    Args:
      a, b: Arrays.
      axes: The axes of each, as a pair, or how many: the last of a and the first of b.

    >>> tensordot([[1.0, 2.0]], [3.0, 4.0], axes=1).data
    array([11.])
    """
    a, b = tensor(a), tensor(b)
    if isinstance(axes, int):
        axes = (range(-axes, 0), range(axes))
    left, right = (
        normalize_axis_tuple(part, x.ndim) for part, x in zip(axes, (a, b), strict=True)
    )
    first = string.ascii_letters[: a.ndim]
    second = [*string.ascii_letters[a.ndim : a.ndim + b.ndim]]
    for i, j in zip(left, right, strict=True):
        second[j] = first[i]
    second = "".join(second)
    output = [i for i in first + second if (i in first) != (i in second)]
    return einsum(f"{first},{second}->{''.join(output)}", a, b)


def dot(a: Any, b: Any) -> Tensor:
    """Returns the sum of products over the last axis of a and the last but one of b.

    Beside a number it is the product, and for two matrices the matrix product.

    >>> dot([1.0, 2.0], [3.0, 4.0]).data
    array(11.)
    """
    a, b = tensor(a), tensor(b)
    if not a.ndim or not b.ndim:
        return multiply(a, b)
    if a.ndim <= 2 and b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, (-1, -1 if b.ndim == 1 else -2))


def inner(a: Any, b: Any) -> Tensor:
    """Returns the sum of products over the last axes of a and b."""
    a, b = tensor(a), tensor(b)
    return tensordot(a, b, (-1, -1)) if a.ndim and b.ndim else multiply(a, b)


def kron(a: Any, b: Any) -> Tensor:
    """Returns b in place of each entry of a, multiplied by it.

    >>> kron([1.0, 10.0], [1.0, 2.0]).data
    array([ 1.,  2., 10., 20.])
    """
    a, b = tensor(a), tensor(b)
    rank = max(a.ndim, b.ndim)
    first, second = ((1,) * (rank - x.ndim) + x.shape for x in (a, b))
    ones = (1,) * rank
    rows = reshape(a, np.ravel([first, ones], "F").tolist())
    columns = reshape(b, np.ravel([ones, second], "F").tolist())
    return reshape(rows * columns, np.multiply(first, second).tolist())


def outer(a: Any, b: Any) -> Tensor:
    """Returns the products of all entries of a, as rows, with all of b, as columns."""
    return ravel(a)[:, None] * ravel(b)
