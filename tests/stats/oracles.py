"""Plain loops that the statistics of comparison agree with, and small data."""

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose

NAN, INF = float("nan"), float("inf")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def named(rows):
    return dict(zip("abcdefghijklmnop", rows, strict=False))


def by_name(comparisons):
    return {row.name: row for row in comparisons}


def excludes_zero(interval):
    return interval.low > 0 or interval.high < 0


# Oracles


def student(values):
    """Returns the mean over its standard error."""
    spread = statistics.stdev(values)
    return statistics.fmean(values) / (spread / math.sqrt(len(values)))


def count_signs(rows):
    """Returns the largest statistic of all rows for each choice of the signs."""
    largest = []
    for choice in itertools.product((1, -1), repeat=len(rows[0])):
        if choice[0] == 1:
            flipped = [
                [sign * (x - statistics.fmean(row)) for sign, x in zip(choice, row)]  # noqa: B905
                for row in rows
            ]
            largest.append(max(abs(student(row)) for row in flipped))
    return sorted(largest)


def exact_p_values(rows):
    """Returns the p-value of each row of whole numbers, by exact arithmetic."""

    def square(values):
        total, squares = sum(values), sum(x * x for x in values)
        rest = len(values) * squares - total * total
        if rest == 0:
            return INF if total else 0
        return Fraction(total * total, rest)

    n, largest = len(rows[0]), []
    centred = [[n * x - sum(row) for x in row] for row in rows]
    for choice in itertools.product((1, -1), repeat=n - 1):
        flipped = [
            [s * x for s, x in zip((1, *choice), row, strict=True)] for row in centred
        ]
        largest.append(max(map(square, flipped)))
    reached = [sum(draw >= square(row) for draw in largest) for row in rows]
    return [(1 + count) / (1 + len(largest)) for count in reached]


def same(first, second, flipped=False):
    """Checks that comparisons agree, but for rounding and perhaps all signs."""
    sign = -1 if flipped else 1
    assert first.p_value == second.p_value
    assert first.p_new_data == second.p_new_data
    assert first.improvement == second.improvement
    assert first.verdict == second.verdict
    most = 10**6
    assert (first.needed or most) == pytest.approx(second.needed or most, rel=1e-3)
    if first.difference is not None:
        assert_allclose(second.difference, sign * first.difference, atol=1e-9)
    if first.difference_interval is not None:
        ends = np.multiply(sign, first.difference_interval[::sign])
        assert_allclose(second.difference_interval, ends, rtol=1e-4, atol=1e-4)
        assert_allclose(second.detectable, first.detectable, rtol=1e-4, atol=1e-3)
