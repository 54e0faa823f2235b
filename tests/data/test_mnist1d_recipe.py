"""MNIST-1D against its recipe, written out for one example at a time."""

import numpy as np
from scipy.interpolate import interp1d
from scipy.ndimage import gaussian_filter

from ffnlab.data import size
from ffnlab.data.mnist1d_recipe import _HEIGHTS, distort, draw, mnist1d


def interpolate(x, points):
    places = np.linspace(0, 1, len(x))
    return interp1d(places, x)(np.linspace(0, 1, points))


def one(label, draws, row):
    x = _HEIGHTS[label] - _HEIGHTS[label].mean()
    x = x / x.std()
    x = (x - x[0]) / 6.0 + 1e-8
    x = np.concatenate([x, np.zeros(draws.padding[row])])
    x = interpolate(x, 72) * draws.scale[row]
    x = np.roll(x, draws.shift[row])
    mask = x != 0
    x = mask * x + (1 - mask) * gaussian_filter(0.25 * draws.correlated[row], 2)
    x = x + 0.02 * draws.independent[row]
    x = x - draws.shear[row] * np.linspace(-0.5, 0.5, 72)
    return interpolate(x, 40)


def test_examples_are_those_of_the_recipe():
    labels = np.arange(40) % 10
    draws = draw(np.random.default_rng(1), 40)
    expected = [one(label, draws, row) for row, label in enumerate(labels)]
    np.testing.assert_allclose(distort(labels, draws), expected, atol=1e-7)


def test_random_numbers_have_the_ranges_of_the_recipe():
    draws = draw(np.random.default_rng(0), 20_000)
    for values, low, high in (
        (draws.padding, 36, 60), (draws.scale, 0.8, 1.2), (draws.shift, 0, 47),
        (draws.shear, -0.375, 0.375),
    ):  # fmt: skip
        span = high - low
        assert low <= values.min() <= low + 0.01 * span
        assert high - 0.01 * span <= values.max() <= high
    assert abs(draws.independent.std() - 1) < 0.01


def test_every_seed_draws_anew_and_all_classes_are_there():
    first, second = mnist1d(0), mnist1d(1)
    assert (first.train["x"][0] != second.train["x"][0]).any()
    for part in ("train", "valid", "test"):
        assert set(getattr(first, part)["y"]) == set(range(10))
    assert [size(getattr(first, p)) for p in ("train", "valid", "test")] == [
        3200, 800, 1000
    ]  # fmt: skip
