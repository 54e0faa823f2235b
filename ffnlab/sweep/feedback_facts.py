"""What the report of a comparison of feedback networks is made from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ffnlab.sweep import feedback_note
from ffnlab.sweep.feedback_config import CERTIFIED, FeedbackCompareConfig
from ffnlab.sweep.report_facts import (
    REPEAT,
    DataFacts,
    Facts,
    FeedbackFacts,
    about_as_text,
)

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates

TITLE = "What does a network gain when every state depends on both neighbours?"
_MARKS = {
    "two_sided": "best possible from both sides",
    "one_sided": "best possible from the left",
}


def gather(
    config: FeedbackCompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> Facts:
    """Returns the facts of a comparison.

    Args:
      config: Its configuration.
      datasets: The data set of each task, or its replicates.
    """
    return Facts(
        TITLE,
        feedback_note.note(config, datasets),
        REPEAT,
        [*config.models],
        config.baseline,
        config.margin,
        config.seed,
        config.replicates,
        None,
        config.split == "fixed",
        {task: _data_facts(dataset) for task, dataset in datasets.items()},
        FeedbackFacts(_bounds(config), bool(config.train)),
    )


def _data_facts(dataset: "Dataset | Replicates") -> DataFacts:
    """Returns what a report says of a data set."""
    about = {name: fact for name, fact in dataset.about.items() if name != "ceiling"}
    return DataFacts(
        about_as_text(about), dataset.task, split_ratio(dataset), marks(dataset)
    )


def _bounds(config: FeedbackCompareConfig) -> dict[str, float]:
    """Returns the bounds of the certified models that a picture compares."""
    bounds = {certified_name(bound): bound for bound in config.couplings}
    if bounds and CERTIFIED in config.models:
        bounds[CERTIFIED] = config.contractive
    return bounds


def certified_name(bound: float) -> str:
    """Returns the name of a model that is certified by a bound.

    >>> certified_name(0.3)
    'certified 0.3'
    """
    return f"{CERTIFIED} {bound:g}"


def split_ratio(dataset: "Dataset | Replicates") -> float | None:
    """Returns the test examples per training example of splits of the same data.

    It is None for data that are the same for all runs, and for independent draws, whose
    p-value is about new data already.
    """
    from ffnlab import data

    if not isinstance(dataset, data.Replicates) or feedback_note.is_drawn(dataset):
        return None
    return dataset.rows["test"].shape[1] / dataset.rows["train"].shape[1]


def marks(dataset: "Dataset | Replicates") -> dict[str, float]:
    """Returns the best possible scores, by name."""
    return {_MARKS[k]: v for k, v in dataset.about.get("ceiling", {}).items()}
