"""What is told of predicted labels: of texts, of words, of spans; on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab import tags

Report = dict[str, Any]


def classes(
    predicted: Sequence[int], gold: Sequence[int], names: Sequence[str]
) -> Report:
    """Returns accuracy, Matthews' coefficient, F1s, and precision and recall by class.

    Args:
      predicted: N labels.
      gold: N true ones; −1 is a label that no prediction hits.
      names: of the labels.

    Returns:
      `accuracy`, `matthews`, `macro`, `weighted`; under `types` by name `precision`,
      `recall`, `f1`, `support`; `confusion`, `[K, K]`, true labels down.

    >>> found = classes([0, 1, 1], [0, 1, 0], ["ham", "spam"])
    >>> round(found["accuracy"], 3), found["types"]["spam"]["precision"]
    (0.667, 0.5)
    """
    from sklearn import metrics

    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels = np.arange(len(names))
    parts = metrics.precision_recall_fscore_support(
        gold, predicted, labels=labels, zero_division=0.0
    )
    kinds = ("precision", "recall", "f1", "support")
    types = {
        name: dict(zip(kinds, (float(part[k]) for part in parts), strict=True))
        for k, name in enumerate(names)
    }
    there = gold >= 0
    return {
        "accuracy": float((gold == predicted).mean()),
        "matthews": float(metrics.matthews_corrcoef(gold, predicted)),
        **_averages(types),
        "types": types,
        "confusion": metrics.confusion_matrix(
            gold[there], predicted[there], labels=labels
        ).tolist(),
    }


def _averages(types: dict[str, dict[str, float]]) -> dict[str, float]:
    """Returns the mean F1 over types, and that weighted by how many there are."""
    f1 = [each["f1"] for each in types.values()]
    support = [each["support"] for each in types.values()]
    return {
        "macro": float(np.mean(f1)) if f1 else 0.0,
        "weighted": float(np.average(f1, weights=support)) if sum(support) else 0.0,
    }


def words(
    predicted: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    names: Sequence[str],
) -> Report:
    """Returns the report of single words, `O` being a label like any other.

    >>> words([["O", "B-LOC"]], [["O", "O"]], ["O", "B-LOC"])["accuracy"]
    0.5
    """
    known = {name: number for number, name in enumerate(names)}
    flat = [
        [known.get(tag, -1) for row in rows for tag in row]
        for rows in (predicted, gold)
    ]
    return classes(*flat, names)


def spans(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> Report:
    """Returns what `tags.span_f1` says of IOB2 tags, with the means over types.

    An I- without its beginning begins an entity, as conlleval has it; under `strict`,
    the F1 when it does not, as in seqeval's strict mode.

    >>> found = spans([["O", "I-LOC"]], [["O", "B-LOC"]])
    >>> found["f1"], found["strict"]
    (1.0, 0.0)
    """
    found = tags.span_f1(predicted, gold, "iob2")
    strict = tags.span_f1(
        [tags.strict(row) for row in predicted], [tags.strict(row) for row in gold],
        "iob2",
    )  # fmt: skip
    return {**found, **_averages(found["types"]), "strict": strict["f1"]}
