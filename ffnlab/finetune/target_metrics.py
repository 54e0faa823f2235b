"""Metrics of predicted numbers, and of any number of labels for a text.

All are computed on the host, in float64, and equal those of SciPy and scikit-learn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Report = dict[str, Any]


def regression_report(predicted: np.ndarray, gold: np.ndarray) -> Report:
    """Returns the correlations of predicted and true numbers, and the squared error.

    Args:
      predicted: The predicted numbers, `[N]`.
      gold: The true numbers, `[N]`.

    Returns:
      `pearson`; `spearman`, in which equal numbers have the mean of their ranks;
      `correlation`, the mean of the two, as STS-B is scored; `mse`, the mean squared
      error. Correlations are 0 where all predictions or all true numbers are equal,
      for which there is none, and where one is not finite.

    Source: Wang et al. 2019, GLUE, section 3.2, for STS-B.

    >>> report = regression_report(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    >>> [round(report[name], 4) for name in ("pearson", "spearman", "mse")]
    [0.982, 1.0, 0.3333]
    """
    predicted, gold = (np.asarray(each, np.float64) for each in (predicted, gold))
    linear, finite = pearson(predicted, gold), np.isfinite(predicted).all()
    ranked = pearson(ranks(predicted), ranks(gold)) if finite else 0.0
    return {
        "pearson": linear,
        "spearman": ranked,
        "correlation": (linear + ranked) / 2,
        "mse": float(np.square(predicted - gold).mean()),
    }


def pearson(one: np.ndarray, two: np.ndarray) -> float:
    """Returns Pearson's correlation; 0 where there is none.

    Args:
      one: Numbers, `[N]`.
      two: Others, `[N]`.

    >>> round(pearson(np.array([1.0, 2.0]), np.array([5.0, 3.0])), 9)
    -1.0
    """
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        return 0.0
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    one, two = (_unit(each) for each in (one, two))
    return float(np.clip(one @ two, -1.0, 1.0))


def _unit(values: np.ndarray) -> np.ndarray:
    """Returns values minus their mean, scaled to length 1."""
    centred = values - values.mean()
    centred = centred / np.abs(centred).max()  # so that no square overflows
    return centred / np.linalg.norm(centred)


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks of values, from 1; equal values have the mean of theirs.

    >>> ranks(np.array([7.0, 2.0, 7.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]


def multi_label_report(
    predicted: np.ndarray,
    gold: np.ndarray,
    names: Sequence[str],
    unknown: np.ndarray | None = None,
) -> Report:
    """Returns micro and macro F1 and subset accuracy, and the scores of each label.

    A ratio whose denominator is 0 is 0.

    Args:
      predicted: Whether a text is predicted to have a label, bool `[N, L]`.
      gold: Whether it has it, bool `[N, L]`.
      names: The names of the labels.
      unknown: How many labels of a text are not among the names, int `[N]`; they count
        as missed in micro F1 and subset accuracy.

    Returns:
      `micro` F1, with `precision` and `recall`; `macro`, the mean F1 of labels;
      `subset`, the share of texts whose labels are all right; under `types` by name
      `precision`, `recall`, `f1` and `support`.

    >>> gold = np.array([[True, False], [True, True]])
    >>> report = multi_label_report(np.array([[True, False]] * 2), gold, ["a", "b"])
    >>> report["micro"], report["macro"], report["subset"]
    (0.8, 0.5, 0.5)
    """
    unknown = np.zeros(len(gold), int) if unknown is None else np.asarray(unknown)
    hits = (predicted & gold).sum(axis=0)
    guessed, true = predicted.sum(axis=0), gold.sum(axis=0)
    types = {
        name: dict(zip(("precision", "recall", "f1", "support"), row, strict=True))
        for name, *row in zip(
            names,
            _ratio(hits, guessed).tolist(),
            _ratio(hits, true).tolist(),
            _ratio(2 * hits, guessed + true).tolist(),
            true.astype(float).tolist(),
            strict=True,
        )
    }
    hit, guess, all_true = hits.sum(), guessed.sum(), true.sum() + unknown.sum()
    right = (predicted == gold).all(axis=1) & (unknown == 0)
    return {
        "micro": float(_ratio(2 * hit, guess + all_true)),
        "precision": float(_ratio(hit, guess)),
        "recall": float(_ratio(hit, all_true)),
        "macro": float(np.mean([each["f1"] for each in types.values()])),
        "subset": float(right.mean()),
        "types": types,
    }


def _ratio(top: Any, bottom: Any) -> np.ndarray:
    """Returns top / bottom, and 0 where bottom is 0."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def best_threshold(probabilities: np.ndarray, gold: np.ndarray) -> float:
    """Returns the threshold at which the micro F1 of labels is highest.

    A label is predicted whose probability is at least the threshold. It lies halfway
    between the probabilities that it parts; of several as good, it is the one nearest
    to 0.5.

    Args:
      probabilities: The probability of each label, `[N, L]`.
      gold: Whether a text has it, bool `[N, L]`.

    Returns:
      The threshold, in (0, 1); 0.5 where no text has a label, or where a probability
      is not finite.

    >>> best_threshold(np.array([[0.9, 0.2], [0.4, 0.1]]), np.eye(2, 2, -1) > 2)
    0.5
    >>> best_threshold(np.array([[0.9, 0.2]]), np.array([[True, True]]))
    0.1
    """
    shares, true = np.ravel(probabilities).astype(np.float64), np.ravel(gold)
    if not true.any() or not np.isfinite(shares).all():
        return 0.5
    order = np.argsort(-shares, kind="stable")
    shares, hits = shares[order], true[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + true.sum())
    below = np.append(shares[1:], 0.0)
    middle = (shares + below) / 2
    f1[shares == below] = -1.0  # equal probabilities cannot be parted
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middle[best[np.abs(middle[best] - 0.5).argmin()]])
