"""MNIST-1D: ten one-dimensional shapes, stretched, moved and buried in noise."""

from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import Dataset, standardise, table

# The heights of each digit's shape at 12 points, from the recipe.
_HEIGHTS = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
_POINTS, _LENGTH = 72, 40  # before and after the last interpolation
_SIZES = {"train": 3200, "valid": 800, "test": 1000}


class Draws(NamedTuple):
    """The random numbers of N examples.

    Attributes:
      padding: Zeros after a shape of 12 points, int `[N]`, 36 to 60.
      scale: Factor of the heights, `[N]`, 0.8 to 1.2.
      shift: Points that a shape is rolled by, int `[N]`, 0 to 47.
      shear: Slope of a line that is subtracted, `[N]`, −0.375 to 0.375.
      correlated: Normal numbers that are smoothed into noise beside the shape,
        `[N, 72]`.
      independent: Normal numbers of the noise everywhere, `[N, 72]`.
    """

    padding: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    shear: np.ndarray
    correlated: np.ndarray
    independent: np.ndarray


def mnist1d(seed: int = 0) -> Dataset:
    """Draws 5,000 examples of ten shapes at 40 points, by the recipe of MNIST-1D.

    Args:
      seed: The seed of everything that is drawn, any integer. Of the 4,000 training
        examples of the recipe, 800 are the validation part.

    Returns:
      The data set; x is float32 [N, 40], standardised by the training part.

    Source: Greydanus and Kobak 2020, "Scaling down deep learning with MNIST-1D",
    https://arxiv.org/abs/2011.14439.

    >>> data = mnist1d()
    >>> data.features, data.classes, data.about["sizes"]["train"]
    (40, 10, 3200)
    """
    rng = np.random.default_rng(seed % 2**64)
    count = sum(_SIZES.values())
    labels = rng.permutation(np.arange(count) % 10)
    examples = distort(labels, draw(rng, count))
    ends = np.cumsum([*_SIZES.values()])[:-1]
    parts = dict(zip(_SIZES, np.split(np.arange(count), ends), strict=True))
    return table(
        name="mnist1d",
        task="classes",
        classes=10,
        x=standardise({part: examples[rows] for part, rows in parts.items()}),
        y={part: labels[rows] for part, rows in parts.items()},
        about={"source": "drawn by the recipe of MNIST-1D", "seed": seed},
    )


def draw(rng: np.random.Generator, count: int) -> Draws:
    """Returns the random numbers of some examples."""
    return Draws(
        padding=rng.integers(36, 61, count),
        scale=1 + 0.4 * (rng.random(count) - 0.5),
        shift=rng.integers(0, 48, count),
        shear=0.75 * (rng.random(count) - 0.5),
        correlated=rng.normal(size=(count, _POINTS)),
        independent=rng.normal(size=(count, _POINTS)),
    )


def distort(labels: np.ndarray, draws: Draws) -> np.ndarray:
    """Returns examples of shapes, stretched, scaled, rolled, sheared and with noise.

    Args:
      labels: The digit of each example, int `[N]`.
      draws: Their random numbers.

    Returns:
      Their heights at 40 points, `[N, 40]`.

    >>> distort(np.array([3, 7]), draw(np.random.default_rng(0), 2)).shape
    (2, 40)
    """
    from scipy.ndimage import gaussian_filter1d

    centred = _HEIGHTS - _HEIGHTS.mean(axis=1, keepdims=True)
    shapes = centred / centred.std(axis=1, keepdims=True)
    shapes = (shapes - shapes[:, :1]) / 6 + 1e-8  # not 0, as what is beside them
    padded = np.zeros((len(labels), _POINTS))
    padded[:, : shapes.shape[1]] = shapes[labels]
    lengths = shapes.shape[1] + draws.padding
    stretched = _interpolate(padded, lengths, _POINTS) * draws.scale[:, None]
    places = (np.arange(_POINTS) - draws.shift[:, None]) % _POINTS
    rolled = np.take_along_axis(stretched, places, axis=1)
    noise = 0.25 * gaussian_filter1d(draws.correlated, 2, axis=1)
    noisy = np.where(rolled != 0, rolled, noise) + 0.02 * draws.independent
    line = np.linspace(-0.5, 0.5, _POINTS)
    sheared = noisy - draws.shear[:, None] * line
    return _interpolate(sheared, np.full(len(labels), _POINTS), _LENGTH)


def _interpolate(rows: np.ndarray, lengths: np.ndarray, points: int) -> np.ndarray:
    """Returns the first `lengths` numbers of each row, linearly at `points` places."""
    places = np.linspace(0, 1, points) * (lengths[:, None] - 1)  # [N, points]
    left = np.minimum(places.astype(int), lengths[:, None] - 2)
    low = np.take_along_axis(rows, left, axis=1)
    high = np.take_along_axis(rows, left + 1, axis=1)
    share = places - left
    return (1 - share) * low + share * high
