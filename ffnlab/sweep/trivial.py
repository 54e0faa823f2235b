"""The scores of trivial predictors, which runs that diverge are given."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import data
from ffnlab.sweep import units
from ffnlab.types import Objective

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


def remarks(
    chosen: Mapping[str, Sequence[Mapping[str, Any]]],
    tests: Mapping[str, np.ndarray],
    objective: Objective,
) -> list[str]:
    """Returns a remark on blocks that predict no better than a constant, if any.

    Args:
      chosen: The lines of the chosen runs of each block.
      tests: The test score of each of them, by block, `[R]`.
      objective: The objective, whose monitored score it is.

    >>> from ffnlab.train import OBJECTIVES
    >>> scores = {"mlp": np.array([0.8, 0.9]), "glu": np.array([0.9, 0.9])}
    >>> lines = dict.fromkeys(scores, [{"trivial": 0.86}] * 2)
    >>> remarks(lines, scores, OBJECTIVES["classes"])
    ['mlp predicts no better than a constant, whose test accuracy is 86.00 %']
    """
    sign = 1 if objective.higher_is_better else -1
    constants = {
        block: float(np.mean([run["trivial"] for run in runs]))
        for block, runs in chosen.items()
        if all("trivial" in run for run in runs)
    }
    weak = [
        block
        for block, constant in constants.items()
        if sign * (tests[block].mean() - constant) <= 1e-9 * abs(constant)
    ]
    if not weak:
        return []
    who = f"{', '.join(weak)} predict{'s' * (len(weak) == 1)} no"
    if len(weak) == len(chosen) > 1:
        who = "no block predicts"
    label, *percent = units.UNITS[objective.monitor][0].split(",")
    score = units.format_score(objective, constants[weak[0]], None)
    return [f"{who} better than a constant, whose {label} is {score}{''.join(percent)}"]


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
