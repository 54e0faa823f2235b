"""Classification by a fine-tuned encoder: of texts, of pairs of texts, of words."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab import stats
from ffnlab.data.examples import Examples
from ffnlab.data.labels import label_ids, label_names
from ffnlab.data.packed_rows import Rows
from ffnlab.data.tags import span_counts
from ffnlab.data.targets import check_classes
from ffnlab.finetune import error_rows, metrics, outputs
from ffnlab.finetune.outputs import Prediction
from ffnlab.finetune.tagged_words import columns_of, scheme_to_write
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.finetune.text_parts import pack_parts, read_examples, usage_of
from ffnlab.finetune.usage import Usage
from ffnlab.models.classifier import ClassifierConfig, Predictor, classifier_model
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.types import Model, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_SPANS = {
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "macro F1": "macro",
    "weighted F1": "weighted",
    "strict F1": "strict",
}
_CLASSES = {
    "accuracy": "accuracy",
    "macro F1": "macro",
    "weighted F1": "weighted",
    "Matthews": "matthews",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationTask(Task):
    """One label for each text, pair of texts or word.

    Attributes:
      labels: The label ids by part; −1 is a label that does not occur in train.
      shape: The configuration of the classifier; its vocabulary is `vocab_ids`.
    """

    labels: dict[str, list]
    shape: ClassifierConfig

    @property
    def spans(self) -> bool:
        """Whether the labels are tags of spans of words."""
        return bool(self.examples["train"].scheme)

    @property
    def monitor(self) -> str:
        """The name of the metric that chooses the best epoch."""
        return "span F1" if self.spans else "accuracy"

    @property
    def columns(self) -> dict[str, str]:
        """The metrics to report."""
        return _SPANS if self.spans else _CLASSES

    @property
    def float32_model(self) -> Model:
        """The classifier."""
        return classifier_model(self.shape)

    @property
    def label_weights(self) -> list[float] | None:
        """The weight of each label in the loss, or None if all weigh the same."""
        if self.config.class_weights == "none":
            return None
        labels = self.rows["train"].arrays["y"].ravel()
        return layerwise.balanced_weights(labels, len(self.label_names))

    def predictor(self, part: str, batch: int) -> Callable[[Params], tuple]:
        """Returns a function to labels and their probabilities, `[count]` each."""
        rows = self.rows[part]
        predict = Predictor(self.model, rows.arrays, batch)

        def flat(params: Params) -> tuple[np.ndarray, np.ndarray]:
            labels, probabilities = predict(params)
            return rows.flat(labels), rows.flat(probabilities, 0.0)

        return flat

    def score(self, part: str, predicted: tuple) -> dict[str, Any]:
        """Returns accuracy and F1s of texts or words, or precision and F1s of spans."""
        if self.config.task != "tag":
            scores = metrics.classification_report(
                predicted[0], self.labels[part], self.label_names
            )
            return {MONITORED: scores["accuracy"], **scores}
        labels = self.examples[part].labels
        names = [self.label_names[k] for k in predicted[0]]
        tags = split_by_sentence(names, labels)
        words = metrics.word_report(tags, labels, self.label_names)
        if not self.spans:
            return {MONITORED: words["accuracy"], **words}
        scores = metrics.span_report(tags, labels)
        return {MONITORED: scores["f1"], **scores, "words": words}

    def example_scores(self, part: str, predicted: tuple) -> np.ndarray:
        """Returns whether each text is right, or what a sentence adds to the score."""
        labels = self.examples[part].labels
        if self.config.task != "tag":
            return (predicted[0] == np.asarray(self.labels[part])).astype(np.float64)
        tags = split_by_sentence([self.label_names[k] for k in predicted[0]], labels)
        if self.spans:
            right, ours, theirs = span_counts(tags, labels, "iob2").T
            return stats.ratio_scores(2 * right, ours + theirs)
        right = [sum(map(operator.eq, *row)) for row in zip(tags, labels, strict=True)]
        return stats.ratio_scores(right, list(map(len, labels)))

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns the scores of each label; for spans also those of single words."""
        tables = {"by label": label_table(scores["types"])}
        if self.spans:
            words = label_table(scores["words"]["types"])
            tables["word by word, O included"] = words
        return tables

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws F1 by label, and the confusion of labels."""
        figure = plots.scores_by_label({k: v["f1"] for k, v in scores["types"].items()})
        plots.save(figure, directory / "types.png")
        titles = {"types.png": "F1 by label"}
        if "confusion" in scores and len(self.label_names) <= 40:
            figure = plots.confusion(np.array(scores["confusion"]), self.label_names)
            plots.save(figure, directory / "confusion.png")
            titles["confusion.png"] = "confusion of labels"
        return titles

    def write(self, part: str, predicted: tuple, directory: Path) -> None:
        """Writes predictions in the format of the part's file."""
        examples, (labels, probabilities) = self.examples[part], predicted
        names = [self.label_names[k] for k in labels]
        if self.config.task == "tag":
            names = split_by_sentence(names, examples.labels)
            probabilities = split_by_sentence(probabilities, examples.labels)
        outputs.write_predictions(
            directory,
            self.config.file_of(part),
            part,
            examples,
            list(map(Prediction, names, probabilities)),
            scheme_to_write(examples, self.examples["train"].scheme),
        )

    def errors(self, part: str, predicted: tuple) -> list[dict[str, Any]]:
        """Returns the texts, spans or words with wrong labels."""
        examples, (labels, probabilities) = self.examples[part], predicted
        names = [self.label_names[k] for k in labels]
        if self.config.task != "tag":
            return error_rows.of_texts(examples, names, probabilities)
        by_sentence = [
            split_by_sentence(values, examples.labels)
            for values in (names, probabilities)
        ]
        return error_rows.of_words(examples, *by_sentence, self.spans)

    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""
        tagged = {}
        if self.config.task == "tag":  # train keeps no rows
            tagged = columns_of(self.examples["dev"], self.config.label_column)
        return usage_of(self.config, self.examples["train"], self.shape, **tagged)


def prepare(config: "Config") -> ClassificationTask:
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    (examples, found), labels = read_examples(config), {}
    train, columns = examples["train"], examples["train"].layout.columns
    if config.task != "tag" and config.problem_type is None and not config.resume:
        note = check_classes(config.train, train.labels, columns.label)
        found += [f"train: {note}"] if note else []
    names = label_names(train, config.task, config.train, config.label_names)

    def numbered(part: str, each: Examples) -> list:
        ignore = part != "train" and config.unseen_labels == "ignore"
        labels[part] = label_ids(config.file_of(part), each, names, ignore)
        return labels[part]

    def missing(part: str, rows: Rows) -> list[str]:
        return _missing_labels(part, rows, names)

    fields = pack_parts(config, examples, len(names), found, numbered, missing)
    return ClassificationTask(**fields, label_names=names, labels=labels)


def _missing_labels(part: str, rows: Rows, names: Sequence[str]) -> list[str]:
    """Returns a line on the labels that a part has no example of, if there are any."""
    missing = np.setdiff1d(np.arange(len(names)), rows.arrays["y"])
    if not missing.size:
        return []
    shown = ", ".join(names[k] for k in missing[:5])
    rest = f" and {missing.size - 5} more" if missing.size > 5 else ""
    return [f"{part}: no example of {shown}{rest}"]


def split_by_sentence(flat: Sequence[Any], like: list) -> list[list[Any]]:
    """Returns values of words by sentence.

    Args:
      flat: One value for each word.
      like: Sentences, of as many words each.

    >>> split_by_sentence(["O", "O", "B-PER"], [["O"], ["O", "O"]])
    [['O'], ['O', 'B-PER']]
    """
    words = iter(flat)
    return [list(itertools.islice(words, len(row))) for row in like]


def label_table(types: dict[str, dict[str, float]]) -> Table:
    """Returns a table of precision, recall, F1 and support by label."""
    worst = sorted(types, key=lambda name: types[name]["f1"])
    shown = types if len(types) <= 40 else {name: types[name] for name in worst[:20]}
    rows = [
        [
            name,
            *(f"{100 * each[key]:.2f}" for key in ("precision", "recall", "f1")),
            f"{each['support']:,.0f}",
        ]
        for name, each in shown.items()
    ]
    first = "label" if len(shown) == len(types) else "label (the 20 worst)"
    return Table(
        [first, "precision, %", "recall, %", "F1, %", "support"], rows, words=1
    )
