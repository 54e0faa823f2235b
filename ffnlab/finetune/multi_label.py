"""Any number of labels for a text or a pair of texts, by a fine-tuned encoder."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import stats
from ffnlab.data.dataset import IGNORE
from ffnlab.data.examples import Examples
from ffnlab.data.labels import refuse_unseen
from ffnlab.data.packed_rows import with_targets
from ffnlab.data.targets import SEPARATOR, is_list
from ffnlab.errors import InputError
from ffnlab.finetune import error_rows, outputs
from ffnlab.finetune.classification import label_table
from ffnlab.finetune.target_metrics import best_threshold, multi_label_report
from ffnlab.finetune.target_outputs import label_set
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.finetune.text_parts import pack_parts, read_examples, usage_of
from ffnlab.finetune.usage import Usage
from ffnlab.models.classifier import ClassifierConfig, Predictor, classifier_model
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train.objectives import binary_cross_entropy_objective
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelTask(Task):
    """Any number of labels for each text or pair of texts.

    A text has the labels whose probability is at least a threshold, one for all labels,
    at which the micro F1 of the dev part is highest.

    Attributes:
      gold: By part, whether each text has each label, bool `[N, L]`.
      unknown: By part, how many labels of each text train does not show, int `[N]`.
      separator: What stands between the labels of a cell; None for lists of JSON.
      shape: The configuration of the classifier.
      threshold: The threshold; None takes the best one of the part itself.
    """

    gold: dict[str, np.ndarray]
    unknown: dict[str, np.ndarray]
    separator: str | None
    shape: ClassifierConfig
    threshold: float | None = None

    monitor: ClassVar[str] = "micro F1"
    columns: ClassVar[dict[str, str]] = {
        "micro F1": "micro",
        "macro F1": "macro",
        "precision": "precision",
        "recall": "recall",
        "subset accuracy": "subset",
    }

    @property
    def float32_model(self) -> Model:
        """The classifier."""
        return classifier_model(self.shape)

    @property
    def objective(self) -> Objective:
        """The cross-entropy of each label, yes or no."""
        return binary_cross_entropy_objective(self.config.label_smoothing)

    def class_logits(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of no and yes for each label, `[B, K, L, 2]`."""
        return jnp.stack([jnp.zeros_like(outputs), outputs], axis=-1)

    def settle(self, predicted: dict[str, np.ndarray]) -> "MultiLabelTask":
        """Returns the task with the threshold that the dev part chooses."""
        threshold = best_threshold(predicted["dev"], self.gold["dev"])
        return dataclasses.replace(self, threshold=threshold)

    def predictor(self, part: str, batch: int) -> Callable[[Params], np.ndarray]:
        """Returns a function to the probabilities of labels, float32 `[count, L]`."""
        rows = self.rows[part]

        def read(outputs: Array, x: Batch) -> tuple[Array]:
            return (jax.nn.sigmoid(outputs),)

        predict = Predictor(self.model, rows.arrays, batch, read)
        return lambda params: rows.flat(predict(params)[0])

    def chosen(self, part: str, predicted: np.ndarray) -> np.ndarray:
        """Returns whether each text is predicted to have each label, bool `[N, L]`."""
        return predicted >= self._threshold(part, predicted)

    def _threshold(self, part: str, predicted: np.ndarray) -> float:
        if self.threshold is not None:
            return self.threshold
        return best_threshold(predicted, self.gold[part])

    def score(self, part: str, predicted: np.ndarray) -> dict[str, Any]:
        """Returns F1s, subset accuracy, the threshold, and the scores of labels."""
        report = multi_label_report(
            self.chosen(part, predicted),
            self.gold[part],
            self.label_names,
            self.unknown[part],
        )
        threshold = self._threshold(part, predicted)
        return {MONITORED: report["micro"], **report, "threshold": threshold}

    def example_scores(self, part: str, predicted: np.ndarray) -> np.ndarray:
        """Returns what each text adds to micro F1."""
        chosen, gold = self.chosen(part, predicted), self.gold[part]
        sizes = chosen.sum(axis=1) + gold.sum(axis=1) + self.unknown[part]
        return stats.ratio_scores(2 * (chosen & gold).sum(axis=1), sizes)

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns the scores of each label."""
        title = f"by label, at the threshold {scores['threshold']:.4g} chosen on dev"
        return {title: label_table(scores["types"])}

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws F1 by label."""
        figure = plots.scores_by_label({k: v["f1"] for k, v in scores["types"].items()})
        plots.save(figure, directory / "types.png")
        return {"types.png": "F1 by label"}

    def write(self, part: str, predicted: np.ndarray, directory: Path) -> None:
        """Writes predictions in the format of the part's file."""
        threshold = self._threshold(part, predicted)
        outputs.write_predictions(
            directory,
            self.config.file_of(part),
            part,
            self.examples[part],
            [label_set(row, self.label_names, threshold) for row in predicted],
            separator=self.separator,
        )

    def errors(self, part: str, predicted: np.ndarray) -> list[dict[str, Any]]:
        """Returns the texts with a wrong label, or one too few."""
        threshold = self._threshold(part, predicted)
        return error_rows.of_label_sets(
            self.examples[part], predicted, self.label_names, threshold
        )

    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""
        return usage_of(
            self.config,
            self.examples["train"],
            self.shape,
            problem_type=self.config.problem_type,
            threshold=0.5 if self.threshold is None else self.threshold,
            label_separator=self.separator,
        )


def prepare(config: "Config") -> MultiLabelTask:
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    examples, found = read_examples(config)
    train, names = examples["train"], _names(config, examples["train"])
    for part, each in examples.items():
        if config.unseen_labels == "error":
            flat = [name for row in each.labels for name in row]
            pairs = zip(each.lines, each.labels, strict=True)
            lines = [line for line, row in pairs for _ in row]
            refuse_unseen(config.file_of(part), flat, lines, names)
    fields = pack_parts(config, examples, len(names), found)
    gold, unknown, notes = {}, {}, []
    for part, rows in fields["rows"].items():
        labels = fields["examples"][part].labels
        gold[part], unknown[part] = indicate(labels, names)
        targets = gold[part].astype(np.int32)
        fields["rows"][part] = with_targets(rows, targets, IGNORE)
        notes += _notes(part, labels, names)
    return MultiLabelTask(
        **{**fields, "summary": "\n".join([fields["summary"], *notes])},
        label_names=names,
        gold=gold,
        unknown=unknown,
        separator=_separator(config, train),
    )


def _names(config: "Config", train: Examples) -> list[str]:
    """Returns the labels of train, sorted, or in the order in which they are given."""
    names = sorted({name for row in train.labels for name in row})
    if not names:
        raise InputError(f"{config.train}: no text has a label")
    given = config.label_names or train.layout.columns.indicators
    return list(given) if set(names) <= set(given) else names


def indicate(
    labels: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each text has each label, and the number of its other labels.

    Args:
      labels: The labels of each text.
      names: L names of labels.

    Returns:
      bool `[N, L]` and int `[N]`.

    >>> [each.tolist() for each in indicate([["b", "c"], []], ["a", "b"])]
    [[[False, True], [False, False]], [1, 0]]
    """
    place = {name: number for number, name in enumerate(names)}
    gold = np.zeros((len(labels), len(names)), bool)
    for number, row in enumerate(labels):
        gold[number, [place[name] for name in row if name in place]] = True
    return gold, np.array([len(row) for row in labels]) - gold.sum(axis=1)


def _notes(
    part: str, labels: Sequence[Sequence[str]], names: Sequence[str]
) -> list[str]:
    """Returns lines on the labels of a part: how many, and which it lacks."""
    counts = Counter(name for row in labels for name in row)
    empty = sum(not row for row in labels)
    per_text = counts.total() / len(labels)
    without = f", {empty:,} texts have none" if empty else ""
    notes = [f"{part}: {len(counts)} labels, {per_text:.2f} per text{without}"]
    if missing := [name for name in names if name not in counts]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"{part}: no example of {', '.join(missing[:5])}{more}")
    return notes


def _separator(config: "Config", train: Examples) -> str | None:
    """Returns what stands between labels in predictions; None for lists."""
    if config.label_separator is not None:
        return config.label_separator
    column = train.layout.columns.label
    if train.layout.kind not in ("csv", "tsv") or train.layout.columns.indicators:
        return SEPARATOR
    place = train.header.index(column) if train.header else int(column) - 1
    return None if any(is_list(row[place]) for row in train.rows) else SEPARATOR
