"""The scores of trivial predictors, which runs that diverge are given."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import data

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates


def trivial_scores(dataset: "Dataset | Replicates", monitor: str) -> list[float]:
    """Returns the test score of the best constant prediction, of each split.

    That is the most frequent class, the mean of the values, or the frequencies of the
    classes, all of the training part.

    Args:
      dataset: A data set, with one split, or replicates.
      monitor: The score: `accuracy`, `loss` (squared error) or `bits`.

    >>> from ffnlab import data
    >>> [round(score, 4) for score in trivial_scores(data.load("wine"), "accuracy")]
    [0.3889]
    """
    if not isinstance(dataset, data.Replicates):
        return [_trivial_score(dataset, dataset.train, dataset.test, monitor)]
    return [
        _trivial_score(
            dataset, dataset.examples("train", r), dataset.examples("test", r), monitor
        )
        for r in range(len(dataset.seeds))
    ]


def _trivial_score(dataset: Any, train: dict, test: dict, monitor: str) -> float:
    seen, asked = (
        (part["text"][part["ends"]] if "ends" in part else part["y"]).ravel()
        for part in (train, test)
    )
    if dataset.task == "values":
        return float(np.square(asked - seen.mean()).mean())
    counts = np.bincount(seen[seen >= 0], minlength=dataset.classes)
    asked = asked[asked >= 0]
    if monitor == "bits":
        shares = (counts + 1) / (counts.sum() + counts.size)
        return float(-np.log2(shares[asked]).mean())
    return float((asked == counts.argmax()).mean())
