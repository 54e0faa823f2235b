"""Predicted numbers, and predicted sets of labels."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_DIGITS = 6  # significant digits of a number in a file


class Score(NamedTuple):
    """The number that a model predicts for one example.

    Attributes:
      score: The number, in the units of the training files.
    """

    score: float

    @property
    def text(self) -> str:
        """The number in words of a file."""
        return f"{round_score(self.score):g}"

    @property
    def probability(self) -> float | None:
        """None, as numbers have no probability; NaN where the number is not finite."""
        return None if np.isfinite(self.score) else float("nan")

    def cells(self) -> list[Any]:
        """Returns the number to six digits.

        >>> Score(2.123456789).cells()
        [2.12346]
        """
        return [round_score(self.score)]


class LabelSet(NamedTuple):
    """The labels that a model predicts for one example, the likeliest first.

    Attributes:
      labels: The labels; there may be none.
      probabilities: The probability of each; NaN alone where the scores of the model
        are not finite.
    """

    labels: list[str]
    probabilities: list[float]

    @property
    def text(self) -> str:
        """The labels with commas between them."""
        return ", ".join(self.labels)

    @property
    def probability(self) -> list[float]:
        """The probabilities."""
        return self.probabilities

    def cells(self) -> list[Any]:
        """Returns the labels, and their probabilities to four digits.

        >>> LabelSet(["odd"], [0.98765]).cells()
        [['odd'], [0.9877]]
        """
        return [self.labels, [round(share, 4) for share in self.probabilities]]

    def joined(self, separator: str | None) -> list[str]:
        """Returns the labels and the probabilities as two cells of a table.

        Args:
          separator: What stands between them; None writes lists of JSON.

        >>> both = LabelSet(["a", "b"], [0.75, 0.5])
        >>> both.joined("|"), both.joined(None)
        (['a|b', '0.75|0.5'], ['["a", "b"]', '[0.75, 0.5]'])
        """
        labels, shares = self.cells()
        if separator is None:
            return [json.dumps(each, ensure_ascii=False) for each in (labels, shares)]
        return [separator.join(labels), separator.join(map(str, shares))]


def round_score(score: float) -> float:
    """Returns a number to six significant digits."""
    return float(f"{score:.{_DIGITS}g}")


def label_set(
    probabilities: np.ndarray, names: Sequence[str], threshold: float
) -> LabelSet:
    """Returns the labels whose probability is at least a threshold.

    Args:
      probabilities: The probability of each label, `[L]`.
      names: The names of the labels.
      threshold: The threshold.

    >>> label_set(np.array([0.5, 0.1, 0.75]), ["a", "b", "c"], 0.25).labels
    ['c', 'a']
    """
    if not np.isfinite(probabilities).all():
        return LabelSet([], [float("nan")])
    order = np.argsort(-probabilities, kind="stable")
    chosen = [k for k in order if probabilities[k] >= threshold]
    shares = [float(probabilities[k]) for k in chosen]
    return LabelSet([names[k] for k in chosen], shares)
