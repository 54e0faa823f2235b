"""The exact filter and smoother of a hidden chain of states."""

import numpy as np

from ffnlab.errors import InputError


def posterior(
    values: np.ndarray,
    mask: np.ndarray,
    states: int,
    stay: float,
    noise: float,
    smooth: bool,
) -> np.ndarray:
    """Returns the exact probability of each state of the chain of `noisy_smoothing`.

    This is the forward-backward recursion, in logarithms. A position may have no value:
    its probabilities follow from the values at other positions.

    Args:
      values: The observations, [N, T, 1].
      mask: Whether there is a value, bool [N, T].
      states: K, at least 2.
      stay: The probability to stay, above 0 and below 1.
      noise: The standard deviation of the noise, above 0.
      smooth: Whether the probabilities at t are given all values, or those until t.

    Returns:
      float64 [N, T, K]; the sum over K is 1.

    Raises:
      InputError: An argument is out of its range.

    Source: Rabiner 1989, section III; in full at `noisy_smoothing`.

    >>> seen = np.array([[[-0.5], [0.0]]])
    >>> mask = np.array([[True, True]])
    >>> posterior(seen, mask, states=2, stay=0.9, noise=1.0, smooth=False).round(3)
    array([[[0.622, 0.378],
            [0.598, 0.402]]])
    """
    check_chain(states, stay, noise)
    distance = (np.asarray(values, np.float64) - levels(states)) / noise  # [N, T, K]
    seen = np.where(mask[..., None], -0.5 * distance**2, 0.0)
    same = np.eye(states, dtype=bool)
    move = np.log(np.where(same, stay, (1 - stay) / (states - 1)))  # [from, to]
    logs = seen.copy()  # the constant of the uniform start drops out below
    for t in range(1, seen.shape[1]):
        before = logs[:, t - 1, :, None] + move  # [N, from, to]
        logs[:, t] += np.logaddexp.reduce(before, axis=1)
    if smooth:
        after = np.zeros_like(seen[:, 0])  # [N, K]
        for t in reversed(range(seen.shape[1] - 1)):
            later = (seen[:, t + 1] + after)[:, None, :]  # [N, 1, to]
            after = np.logaddexp.reduce(move + later, axis=2)
            logs[:, t] += after
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_chain(states: int, stay: float, noise: float) -> None:
    """Raises if a parameter of the chain is out of range."""
    if states < 2:
        raise InputError(f"states: expected at least 2, got {states}")
    if not 0 < stay < 1:
        raise InputError(
            f"stay: expected a probability above 0 and below 1, got {stay}"
        )
    if not 0 < noise < np.inf:
        raise InputError(f"noise: expected a finite deviation above 0, got {noise}")


def levels(states: int) -> np.ndarray:
    """Returns the observation of each state without noise, float64 [K]."""
    return np.arange(states) - (states - 1) / 2
