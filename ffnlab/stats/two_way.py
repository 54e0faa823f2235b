"""The variance that the examples cause, where all replicates are scored on the same."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def ratio_scores(numerators: ArrayLike, denominators: ArrayLike) -> np.ndarray:
    """Returns a score of each example, where the score of all is a ratio of two sums.

    The mean of the scores is the ratio, and their variance over the number of examples
    is that of the ratio by the delta method, so that `stats.compare` takes them as
    `examples`. For F1 the numerator of a sentence is twice the number of its right
    entities, and the denominator the number of its true and of its predicted ones.

    Args:
      numerators: What an example adds to the numerator, `[examples]`.
      denominators: What it adds to the denominator, at least 0, `[examples]`.

    Returns:
      float64 `[examples]`; 0 where the sum of the denominators is 0.

    Source: Cochran 1977, "Sampling Techniques", section 2.11.

    >>> ratio_scores([2, 0, 2], [2, 1, 3]).round(3).tolist()
    [1.0, 0.333, 0.667]
    """
    above, below = (np.asarray(x, np.float64) for x in (numerators, denominators))
    total = below.sum()
    if total == 0:
        return np.zeros_like(above)
    ratio = above.sum() / total
    return ratio + (above - ratio * below) * (above.size / total)


def example_covariance(scores: Sequence[np.ndarray]) -> np.ndarray:
    r"""Returns the covariance of the means of blocks that the examples cause.

    A score of a replicate on an example is the sum of a mean, an effect of the
    replicate, one of the example and one of both. The covariance of the means of
    examples, over the number of examples, holds the effects of both too; they are
    subtracted, since the variance between replicates holds them already.

    Args:
      scores: For each block its scores, or the differences from the baseline,
        `[replicates, examples]`. Blocks may have fewer replicates than others: then
        theirs are the first ones.

    Returns:
      `[blocks, blocks]`, positive semidefinite; 0 for a single replicate, whose effects
      cannot be separated.

    Source: Cameron, Gelbach and Miller 2011, "Robust inference with multiway
    clustering".

    >>> rng = np.random.default_rng(0)
    >>> effects = rng.normal(size=1000)
    >>> noise = rng.normal(size=(8, 1000))
    >>> print(f"{example_covariance([effects + noise])[0, 0]:.5f}")
    0.00095
    """
    arrays = [np.asarray(array, np.float64) for array in scores]
    examples = arrays[0].shape[1]
    means = np.stack([array.mean(axis=0) for array in arrays])  # [blocks, examples]
    centred = means - means.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / (examples - 1)
    least = min(len(array) for array in arrays)
    if least == 1:
        return np.zeros_like(covariance)
    counts = np.array([len(array) for array in arrays])
    most = np.maximum(counts[:, None], counts[None])
    covariance = (covariance - _interactions(arrays, least) / most) / examples
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _interactions(arrays: Sequence[np.ndarray], least: int) -> np.ndarray:
    """Returns the covariance of the effects of replicate and example together."""
    total = np.zeros((len(arrays), len(arrays)))
    rests = [_centred(array[:least]) for array in arrays]
    for replicate in range(least):
        rows = np.stack([rest[replicate] for rest in rests])
        total += rows @ rows.T
    return total / ((least - 1) * (arrays[0].shape[1] - 1))


def _centred(array: np.ndarray) -> np.ndarray:
    """Returns an array without the means of its rows and of its columns."""
    rest = array - array.mean(axis=0)
    return rest - rest.mean(axis=1, keepdims=True)
