"""Labels by a fine-tuned encoder: for a text, a pair of texts, or every word."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab.data.augment import augment
from ffnlab.data.examples import (
    Columns,
    Examples,
    label_ids,
    label_names,
    read_labelled,
    replace_markers,
)
from ffnlab.data.files import read_json, stop_at
from ffnlab.data.packed_rows import Rows, pack
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.finetune import metrics, outputs, task
from ffnlab.finetune.outputs import Prediction
from ffnlab.models.classifier import ClassifierConfig, Predictor, classifier_model
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.pretrained.safetensors_io import config_file
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.types import Array, Batch, Model, Objective, Params

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
# What transformers has before the last layer: the pooler of a BERT, or a layer of its
# own in the head, with this activation.
_DENSE = {"roberta": "tanh", "distilbert": "relu"}


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """What is to be labelled, see `tasks.Task`.

    Attributes:
      config: the flags.
      names: of the labels.
      examples: by part, as they were read.
      labels: by part, as numbers; −1 is one that training does not show.
      rows: by part, packed; tokens are numbered by their place in `vocab_ids`.
      vocab_ids: the tokens that occur in any part, ascending: the others have no gradient,
        and their embeddings wait outside until the end.
      found: the checkpoint.
      tokenizer: its tokenizer.
      shape: what the labeller is made of, its vocabulary being `vocab_ids`.
      summary: what a reader should know of the data.
    """

    config: "Config"
    names: list[str]
    examples: dict[str, Examples]
    labels: dict[str, list]
    rows: dict[str, Rows]
    vocab_ids: np.ndarray
    found: Checkpoint
    tokenizer: Tokenizer
    shape: ClassifierConfig
    summary: str

    @property
    def spans(self) -> bool:
        """Whether the labels are of spans of words."""
        return bool(self.examples["train"].scheme)

    @property
    def monitor(self) -> str:
        """What the best epoch is chosen by."""
        return "span F1" if self.spans else "accuracy"

    @property
    def columns(self) -> dict[str, str]:
        """The scores to show."""
        return _SPANS if self.spans else _CLASSES

    @property
    def sizes(self) -> dict[str, int]:
        """How many texts there are, by part."""
        return {part: len(found.texts) for part, found in self.examples.items()}

    @property
    def model(self) -> Model:
        """The labeller."""
        return task.with_dtype(self.config, classifier_model(self.shape))

    @property
    def objective(self) -> Objective:
        """Cross-entropy over the places."""
        return layerwise.objective(self.config.label_smoothing, self.weights)

    @property
    def weights(self) -> list[float] | None:
        """What each label counts, if not all the same."""
        if self.config.class_weights == "none":
            return None
        labels = self.rows["train"].arrays["y"].ravel()
        return layerwise.balanced_weights(labels[labels >= 0], len(self.names))

    def count(self, batch: Batch) -> Array:
        """Returns what the places of a batch count together."""
        return layerwise.label_weights(batch["y"], self.weights).sum()

    def classes(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of the classes for each entry of y."""
        return outputs

    def predictor(self, part: str, batch: int) -> Callable[[Params], tuple]:
        """Returns what gives labels and their probabilities, `[count]` each."""
        rows = self.rows[part]
        predict = Predictor(self.model, rows.arrays, batch)

        def flat(params: Params) -> tuple[np.ndarray, np.ndarray]:
            labels, probabilities = predict(params)
            return rows.flat(labels), rows.flat(probabilities, 0.0)

        return flat

    def score(self, part: str, predicted: tuple) -> dict[str, Any]:
        """Returns the report of predictions, `monitor` among them."""
        if self.config.task != "tag":
            found = metrics.classification_report(
                predicted[0], self.labels[part], self.names
            )
            return {"headline": found["accuracy"], **found}
        gold = self.examples[part].labels
        guess = split_by_sentence([self.names[k] for k in predicted[0]], gold)
        words = metrics.word_report(guess, gold, self.names)
        if not self.spans:
            return {"headline": words["accuracy"], **words}
        found = metrics.span_report(guess, gold)
        return {"headline": found["f1"], **found, "words": words}

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns the scores of each label; for spans also those of single words."""
        found = {"by label": label_table(scores["types"])}
        if self.spans:
            found["word by word, O included"] = label_table(scores["words"]["types"])
        return found

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws F1 by label, and which labels are taken for which."""
        figure = plots.by_type({k: v["f1"] for k, v in scores["types"].items()})
        plots.save(figure, directory / "types.png")
        drawn = {"types.png": "F1 by label"}
        if "confusion" in scores and len(self.names) <= 40:
            figure = plots.confusion(np.array(scores["confusion"]), self.names)
            plots.save(figure, directory / "confusion.png")
            drawn["confusion.png"] = "confusion of labels"
        return drawn

    def write(self, part: str, predicted: tuple, directory: Path) -> None:
        """Writes predictions in the format that the part was read in."""
        found, (labels, probabilities) = self.examples[part], predicted
        given = [self.names[k] for k in labels]
        if self.config.task == "tag":
            given = split_by_sentence(given, found.labels)
            probabilities = split_by_sentence(probabilities, found.labels)
        # A part may lack a B- by chance; what touches is then to be kept apart.
        alike = found.scheme != "io" or self.examples["train"].scheme == "io"
        scheme = found.scheme if alike else "iob1"
        said = list(map(Prediction, given, probabilities))
        outputs.write_predictions(
            directory, _path(self.config, part), part, found, said, scheme
        )

    def about(self) -> dict[str, Any]:
        """Returns what config.json says of the head, and how it is used."""
        names = enumerate(self.names)
        return {
            "id2label": {str(number): name for number, name in names},
            "label2id": {name: number for number, name in enumerate(self.names)},
            "ffnlab_use": {
                "task": self.config.task,
                "head": self.config.head,
                "hidden": self.config.head_hidden,
                "dense": self.shape.dense,
                "dtype": self.config.dtype,
                "length": self.config.most,
                "scheme": self.examples["train"].scheme,
                "marks": list(self.config.marks),
                "text_column": self.config.text_column,
                "pair_column": self.config.pair_column,
            },
        }


def encode(
    task: str,
    tokenizer: Tokenizer,
    found: Examples,
    length: int,
    marks: Sequence[str] = (),
) -> Encoded:
    """Returns the tokens of examples; marks of entities become signs."""
    if task == "tag":
        return tokenizer.words(found.texts, length)
    texts = replace_markers(found.texts, marks)[0] if marks else found.texts
    return tokenizer.texts(texts, found.pairs or None, length)


def prepare(config: "Config") -> ClassificationTask:
    """Reads all files and packs them; everything that can be wrong is found here."""
    examples = _examples(config)
    names = label_names(examples["train"], config.task, config.train)
    found, tokenizer = task.read_checkpoint(
        config, _texts(examples["train"]), head=False, pooler=_pooled(config)
    )
    examples["train"] = _with_copies(config, examples["train"], tokenizer)
    labels, rows, summary = {}, {}, []
    for part, each in examples.items():
        ignore = part != "train" and config.unseen_labels == "ignore"
        labels[part] = label_ids(_path(config, part), each, names, ignore)
        encoded = encode(config.task, tokenizer, each, config.most, config.marks)
        how = task.packing_options(config, found, part, encoded.tokens, len(each.texts))
        rows[part] = pack(encoded, labels[part], **how)
        summary.append(_summary(part, each, encoded, rows[part]))
    arrays = [each.arrays for each in rows.values()]
    vocab_ids = task.renumber_tokens(arrays, task.mask_tokens_of(config, tokenizer))
    shape = ClassifierConfig(
        dataclasses.replace(found.config, vocabulary=len(vocab_ids)),
        len(names),
        config.head,
        config.head_hidden,
        found.config.dropout,
        config.gradient,
        _DENSE.get(found.family) if config.task != "tag" else None,
    )
    return ClassificationTask(config, names, examples, labels, rows, vocab_ids, found, tokenizer, shape,
                  "\n".join(summary))  # fmt: skip


def _texts(found: Examples) -> list[str]:
    """Returns all texts, of words with blanks between."""
    texts = [*found.texts, *found.pairs]
    return [" ".join(text) if isinstance(text, list) else text for text in texts]


def _pooled(config: "Config") -> bool | None:
    """Returns whether there is a dense layer on a text's first place in the encoder.

    That of a BERT is drawn where the checkpoint has none, as transformers does; our own
    family has what its checkpoint has.
    """
    if config.task == "tag" or config.scratch:
        return config.task != "tag"
    kind = read_json(config_file(Path(config.checkpoint))).get("model_type")
    return {"bert": True, "ffnlab": None}.get(kind, False)


def _path(config: "Config", part: str) -> str:
    return getattr(config, part) or config.train


def _examples(config: "Config") -> dict[str, Examples]:
    """Returns the parts that there are."""

    def read(part: str) -> Examples:
        return _read(config, _path(config, part), part)

    found = task.read_parts(config, read)
    more = [_read(config, path) for path in config.extra]
    return {**found, "train": found["train"].joined(*more)}


def _read(config: "Config", path: str, part: str = "train") -> Examples:
    """Returns the examples of a file; with marked entities one text each."""
    columns = Columns(config.text_column, config.pair_column, config.label_column)
    if not config.marks:
        return read_labelled(path, config.task, columns, part)
    found = read_labelled(path, "classify", columns, part)
    pairs = zip(found.lines, replace_markers(found.texts, config.marks)[1], strict=True)
    stop_at(path, [(line, what) for line, what in pairs if what])
    return found


def _with_copies(config: "Config", train: Examples, tokenizer: Tokenizer) -> Examples:
    """Returns the training part with altered copies."""
    altered = augment(
        train,
        config.task,
        [name for name in config.augment if name != "mlm_substitute"],
        config.augment_copies,
        config.augment_rate,
        config.seed,
    )
    if "mlm_substitute" in config.augment:
        from ffnlab.finetune.mlm_augment import mlm_substitute
        from ffnlab.pretrained import checkpoint

        whole = checkpoint.load(config.checkpoint)
        copies = mlm_substitute(train, config.task, whole, tokenizer,
                             config.augment_copies, seed=config.seed)  # fmt: skip
        own = range(len(train.texts), len(copies.texts))
        altered = altered.joined(copies.subset(own))
    return altered


def _summary(part: str, found: Examples, encoded: Encoded, rows: Rows) -> str:
    """Returns a line on a part: its size, how full its rows are, what was cut off."""
    full = rows.arrays["x/mask"].mean()
    scheme = f", tags in {found.scheme}" if found.scheme else ""
    lost = f", {encoded.lost:,} words or tokens cut off" if encoded.lost else ""
    return (
        f"{part}: {len(found.texts):,} texts in {len(rows.example_index):,} rows, {full:.0%} "
        f"full{scheme}{lost}"
    )


def split_by_sentence(flat: Sequence[Any], like: list) -> list[list[Any]]:
    """Returns what is predicted of words, by sentence.

    >>> split_by_sentence(["O", "O", "B-PER"], [["O"], ["O", "O"]])
    [['O'], ['O', 'B-PER']]
    """
    words = iter(flat)
    return [list(itertools.islice(words, len(row))) for row in like]


def label_table(types: dict[str, dict[str, float]]) -> Table:
    """Returns a line for each label: precision, recall, F1, and how many there are."""
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
