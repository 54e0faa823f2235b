"""Scores of blocks that are drawn, with known means, for `benchmarks.calibration`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RATES = np.array([-1.0, 0.0, 1.0])[:, None]  # [rates, 1]
EFFECTS = (0.25, 0.5, 1.0)
EXAMPLES, ACCURACY, SEED_SPREAD = 359, 0.97, 0.006

Generator = np.random.Generator


# Noise: scores of a spread of 1, or of `unit`, around means in units of the spread.


def normal(rng: Generator, means: np.ndarray) -> np.ndarray:
    return means + rng.normal(size=means.shape)


def shared(rng: Generator, means: np.ndarray) -> np.ndarray:
    """Returns scores with an effect that all blocks of a replicate share."""
    return normal(rng, means) + 2 * rng.normal(size=means.shape[-1])


def heavy(rng: Generator, means: np.ndarray) -> np.ndarray:
    return means + rng.standard_t(2, size=means.shape)


def ties(rng: Generator, means: np.ndarray) -> np.ndarray:
    """Returns accuracies, of which many are equal."""
    mean = ACCURACY + unit(ties) * means
    right = np.clip(rng.normal(mean, SEED_SPREAD), 0, 1)
    return (rng.binomial(EXAMPLES, right) / EXAMPLES).astype(np.float32)


def skewed(rng: Generator, means: np.ndarray) -> np.ndarray:
    return means + rng.exponential(size=means.shape) - 1


Noise = Callable[[Generator, np.ndarray], np.ndarray]


def unit(noise: Noise) -> float:
    """Returns the spread of a noise, in the units of the score."""
    if noise is not ties:
        return 1.0
    return float(np.hypot(SEED_SPREAD, np.sqrt(ACCURACY * (1 - ACCURACY) / EXAMPLES)))


class Condition(NamedTuple):
    """What a data set is drawn from.

    Attributes:
      name: Its name in tables.
      noise: The noise of a score.
      rate_effect: The difference between the test means of neighbouring rates.
      seen: Whether the means on the validation part differ in the same way.
      split_effect: The spread of the luck of a block with a split.
      fixed: Whether all replicates have the same split, and a block chooses one rate.
    """

    name: str
    noise: Noise = normal
    rate_effect: float = 0.0
    seen: bool = False
    split_effect: float = 0.0
    fixed: bool = False


NOISES = [
    Condition("normal"),
    Condition("shared order", shared),
    Condition("t with 2 degrees", heavy),
    Condition("ties", ties),
]
DESIGNED = [
    *(
        Condition(f"rates differ by {e:g}, {word}", rate_effect=e, seen=seen)
        for seen, word in ((False, "unseen"), (True, "seen"))
        for e in EFFECTS
    ),
    *(Condition(f"luck with the split {e:g}", split_effect=e) for e in EFFECTS),
]


def draw(
    condition: Condition, shifts: np.ndarray, replicates: int, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns validation and test scores, `[blocks, rates, replicates]` each.

    Args:
      condition: What to draw from.
      shifts: The true means of the blocks, `[blocks]`.
      replicates: The number of replicates.
      rng: The source of randomness.
    """
    means = np.zeros((len(shifts), len(RATES), replicates)) + shifts[:, None, None]
    rates = condition.rate_effect * RATES
    splits = 1 if condition.fixed else replicates
    luck = condition.split_effect * rng.normal(size=(len(shifts), 1, splits))
    validation = condition.noise(rng, means + condition.seen * rates)
    return validation, condition.noise(rng, means + rates + luck)


def choose_rates(validation: np.ndarray, fixed: bool) -> np.ndarray:
    """Returns the rate that is best on the validation part, `[blocks, replicates]`.

    Args:
      validation: Scores, `[blocks, rates, replicates]`.
      fixed: Whether a block has one rate, that of the best mean, in all replicates.

    >>> scores = np.array([[[0.9, 0.5, 0.7], [0.8, 0.9, 0.8]]])
    >>> choose_rates(scores, fixed=False), choose_rates(scores, fixed=True)
    (array([[0, 1, 1]]), array([[1, 1, 1]]))
    """
    if fixed:
        means = np.broadcast_to(validation.mean(-1, keepdims=True), validation.shape)
        return means.argmax(axis=1)
    return validation.argmax(axis=1)


def draw_examples(
    effect: float, blocks: int, replicates: int, rng: Generator, examples: int = 400
) -> np.ndarray:
    """Returns scores of equal blocks on examples, `[blocks, replicates, examples]`.

    All replicates share the examples. The mean of a replicate has a spread of 1 over
    replicates, and that of a block over draws of the examples has one of `effect`,
    which its number of replicates does not reduce.

    Args:
      effect: The spread of the luck of a block with the examples.
      blocks: The number of blocks.
      replicates: The number of replicates.
      rng: The source of randomness.
      examples: The number of examples.
    """
    luck = effect * math.sqrt(examples) * rng.normal(size=(blocks, 1, examples))
    noise = rng.normal(size=(blocks, replicates, examples))
    return rng.normal(size=(blocks, replicates, 1)) + luck + noise
