"""Columns of dates: what is one, and what its cells become."""

import numpy as np
import pytest

from ffnlab.data import read_csv
from ffnlab.data.table_columns import days
from ffnlab.errors import InputError

NAME = "table.csv"  # of what `write` writes


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1970-01-03", 2.0),
        ("1970-01-01T06:00", 0.25),
        ("1970-01-01 06:00:00.5", (6 * 3600 + 0.5) / 86_400),
        ("1970-01-01T06:00:00+06:00", 0.0),
        ("1970-01-01T06:00:00Z", 0.25),
        ("1970-13-01", np.nan),
        ("19700103", np.nan),
        ("1970-01-03-04", np.nan),
        ("tomorrow", np.nan),
    ],
)
def test_dates_are_days(cell, expected):
    assert days(cell) == pytest.approx(expected, nan_ok=True)


def test_a_column_of_few_dates_is_one_of_categories(write):
    rows = [f"2024-01-{1 + i % 9:02},{i % 2}" for i in range(40)]
    dated = read_csv(write("day,y\n" + "\n".join(rows)), "y")
    assert dated.about["columns"]["day"]["kind"] == "dates (days since 1970)"
    rows[:20] = [f"soon,{i % 2}" for i in range(20)]
    mixed = read_csv(write("day,y\n" + "\n".join(rows)), "y")
    assert mixed.about["columns"]["day"]["kind"] == "categories"
    rows[1:20] = rows[21:40]
    with pytest.raises(InputError, match="2: text in a column of dates: 'day' is 'so"):
        read_csv(write("day,y\n" + "\n".join(rows)), "y")
