"""What the tasks of fine-tuning share: a checkpoint, packed data by part, a model."""

import abc
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from ffnlab import pretrained, trees
from ffnlab.data.dataset import Arrays
from ffnlab.data.packed_rows import Rows
from ffnlab.data.packing import even_width
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.data.tokenizer_files import checkpoint_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune import usage
from ffnlab.finetune.usage import Usage
from ffnlab.models.transformer_config import dropout_fields
from ffnlab.nn.precision import mixed_precision
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.train.objectives import cross_entropy_objective, label_weights
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

# The key of the monitored score, in the scores of a part and in results.jsonl.
MONITORED = "headline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """The data of a task, its model, and how its predictions are scored and written.

    Attributes:
      config: The flags.
      examples: The examples by part, as they were read.
      rows: The packed examples by part; tokens are numbered by their place in
        `vocab_ids`.
      checkpoint: The checkpoint to start from.
      tokenizer: The tokenizer of the checkpoint.
      vocab_ids: The ids of all tokens that occur in any part, ascending. The others
        have no gradient, and their embeddings are left out until the end. None trains
        the whole vocabulary.
      summary: A line on each part.
      label_names: The names of the labels, if the task has labels.
      monitor: The name of the metric that chooses the best epoch.
      columns: The metrics to report: their headings, and their keys in the scores.
      percent: Whether the metrics are shown as percentages.
    """

    config: "Config"
    examples: dict[str, Any]
    rows: dict[str, Rows]
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    vocab_ids: np.ndarray | None
    summary: str
    label_names: Sequence[str] = ()

    monitor: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    percent: ClassVar[bool] = True

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples by part."""
        # Examples and questions are lists side by side: the first is as long as all.
        return {part: len(examples[0]) for part, examples in self.examples.items()}

    @property
    def last_part(self) -> str:
        """The part on which runs are compared: test, or dev where there is none."""
        return "test" if "test" in self.rows else "dev"

    @property
    def unused_parameters(self) -> int:
        """The number of embedding parameters that training leaves out."""
        if self.vocab_ids is None:
            return 0
        whole, vocab_ids = self.checkpoint.params, self.vocab_ids
        pruned = jax.eval_shape(
            lambda params: layerwise.prune_embeddings(params, vocab_ids), whole
        )
        return trees.count(whole) - trees.count(pruned)

    @property
    def label_weights(self) -> Sequence[float] | None:
        """The weight of each label in the loss, or None if all weigh the same."""
        return None

    @property
    def model(self) -> Model:
        """The model; parameters are `encoder` and `head`. It computes in --dtype."""
        return with_dtype(self.config, self.float32_model)

    @property
    def objective(self) -> Objective:
        """The objective of training: cross-entropy over the labels `y`."""
        return cross_entropy_objective(self.config.label_smoothing, self.label_weights)

    def train_examples(self, rows: np.ndarray) -> list[int]:
        """Returns the numbers of the training examples in some rows, ascending."""
        numbers = np.unique(self.rows["train"].arrays["x/segment_ids"][rows])
        return numbers[numbers >= 0].tolist()

    def train_text(self, number: int) -> str:
        """Returns the text of a training example, or its words or question."""
        text = self.examples["train"].texts[number]
        return text if isinstance(text, str) else " ".join(text)

    def count(self, batch: Batch) -> Array:
        """Returns the sum of the weights of the labels of a batch."""
        return label_weights(batch["y"], self.label_weights).sum()

    def class_logits(self, outputs: Any, batch: Batch) -> Array:
        """Returns the logits of the classes for each entry of y."""
        return outputs

    def limits(self, key: str) -> tuple[float, float]:
        """Returns the range of a score, by its key, as it is shown."""
        return (-100.0 if key == "matthews" else 0.0), 100.0

    def settle(self, predicted: dict[str, Any]) -> "Task":
        """Returns the task with what the predictions of a run decide.

        That is a threshold that the dev part chooses, for example; `score` and what
        follows it then go by it in all parts.

        Args:
          predicted: The predictions of the run by part.
        """
        return self

    def exported(self, params: Params) -> Params:
        """Returns parameters as a saved model has them.

        Args:
          params: The parameters, or the part of them that trains.
        """
        return params

    @property
    @abc.abstractmethod
    def float32_model(self) -> Model:
        """The model, which computes in float32."""

    @abc.abstractmethod
    def predictor(self, part: str, batch: int) -> Callable[[Params], Any]:
        """Returns a function from parameters to predictions, compiled once.

        Args:
          part: The part to predict; predictions are in the order of its file.
          batch: Rows per batch.
        """

    @abc.abstractmethod
    def score(self, part: str, predicted: Any) -> dict[str, Any]:
        """Returns the scores of predictions; `MONITORED` is one of them."""

    def example_scores(self, part: str, predicted: Any) -> np.ndarray | None:
        """Returns a score of each example, whose mean is the monitored score.

        It is `[examples]`, in the order of the file; None where there is none, as for
        scores of all texts together.
        """
        return None

    @abc.abstractmethod
    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns further tables of the scores by title, such as one of each label."""

    @abc.abstractmethod
    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws pictures of the scores; returns their titles by file."""

    @abc.abstractmethod
    def write(self, part: str, predicted: Any, directory: Path) -> None:
        """Writes predictions in the format of the part's file."""

    @abc.abstractmethod
    def errors(self, part: str, predicted: Any) -> list[dict[str, Any]]:
        """Returns a row for each error of predictions, see `error_rows`."""

    @abc.abstractmethod
    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""


def read_checkpoint(
    config: "Config", texts: Iterable[str], causal: bool = False, **options: Any
) -> tuple[Checkpoint, Tokenizer]:
    """Returns the checkpoint to start from, and its tokenizer.

    Args:
      config: The flags.
      texts: The texts from which a small model from scratch learns its tokens.
      causal: Whether the task needs a decoder.
      **options: See `pretrained.load`.

    Raises:
      InputError: The checkpoint cannot be read, or does not fit the task or the flags.
    """
    if not config.scratch:
        return _read(config, Path(config.checkpoint), causal, options)
    from ffnlab.pretrained import tiny

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "tiny")
        tiny.write(folder, texts, causal, config.max_length, config.seed)
        return _read(config, folder, causal, options)


def _read(
    config: "Config", folder: Path, causal: bool, options: dict[str, Any]
) -> tuple[Checkpoint, Tokenizer]:
    options = {"strict": config.strict, **dropout_fields(config.dropout), **options}
    options = {**config.transformer_fields, **options}
    checkpoint = pretrained.load(folder, **options)
    _check_checkpoint(config, checkpoint, causal)
    shape = checkpoint.config
    paired = config.task in ("pairs", "qa") and not config.marks
    # Words and pairs need tokens, and special tokens around them.
    tokenizer = checkpoint_tokenizer(
        folder, shape.vocabulary, shape.types * paired, texts=not causal, warn=False
    )
    return checkpoint, tokenizer


def _check_checkpoint(config: "Config", checkpoint: Checkpoint, causal: bool) -> None:
    shape = checkpoint.config
    if shape.causal != causal:
        kinds = ("an encoder such as BERT", "a decoder such as GPT-2")
        raise InputError(
            f"checkpoint: {checkpoint.directory}: task={config.task} needs "
            f"{kinds[causal]}; this is a {checkpoint.family}"
        )
    layerwise.frozen_patterns(config.freeze, shape.layers)
    if config.max_length > shape.length and shape.positions == "learned":
        raise InputError(
            f"max_seq_length: {config.max_length} is more than the {shape.length} "
            "positions of the checkpoint"
        )


def notes(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[str]:
    """Returns a line on everything in a checkpoint that was decided, not told."""
    return [*checkpoint.summary.notes, *getattr(tokenizer, "notes", ())]


def packing_options(
    config: "Config", checkpoint: Checkpoint, part: str, tokens: Sequence, count: int
) -> dict[str, Any]:
    """Returns how a part is packed: the width of its rows, and the seed of their order.

    Whole rows of train make up --batch_size, and examples share a row at random.

    Args:
      config: The flags.
      checkpoint: The checkpoint, whose positions limit the width.
      part: The name of the part.
      tokens: The texts or windows that are packed, `[T]` each.
      count: The number of examples; a long one may be several windows.
    """
    if part != "train":
        return {"width": config.max_length}
    lengths = [len(row) for row in tokens]
    per_batch = config.batch_size * len(lengths) / count
    most = max(checkpoint.config.length, config.max_length)
    return {"width": even_width(lengths, per_batch, most), "mix": config.seed}


def renumber_tokens(parts: Iterable[Arrays], also: Iterable[int] = ()) -> np.ndarray:
    """Numbers the tokens of rows anew, in place; returns the old ids by new number.

    Args:
      parts: Arrays with x/tokens.
      also: Ids of further tokens that are needed.
    """
    parts = list(parts)
    ids = [np.unique(part["x/tokens"]) for part in parts]
    vocab_ids = np.unique(np.concatenate([*ids, np.array([*also], np.int32)]))
    for part in parts:
        tokens = np.searchsorted(vocab_ids, part["x/tokens"])
        part["x/tokens"] = tokens.astype(np.int32)
    return vocab_ids


def mask_token_ids(config: "Config", tokenizer: Tokenizer) -> list[int]:
    """Returns the id of the mask token if a masked-language-model loss needs it.

    Raises:
      InputError: The tokenizer has no mask token.
    """
    if not config.mlm_loss_weight:
        return []
    if tokenizer.mask is None:
        raise InputError(f"mlm_loss_weight: {tokenizer.source} has no mask token")
    return [tokenizer.mask]


# Names under which arrays are hashed, so that runs from before a renaming resume.
_HASHED_AS = {"x/segment_ids": "x/packs", "x/label_positions": "x/at"}


def digest(task: Task) -> str:
    """Returns a hash of all arrays of a task."""
    sha256 = hashlib.sha256()
    for rows in task.rows.values():
        arrays = {_HASHED_AS.get(k, k): array for k, array in rows.arrays.items()}
        for name, array in sorted(arrays.items()):
            sha256.update(name.encode() + array.tobytes())
    return sha256.hexdigest()


def with_dtype(config: "Config", model: Model, keep: str = "head") -> Model:
    """Returns a model that computes in --dtype, except for one part of its parameters.

    Args:
      config: The flags.
      model: A model that computes in float32.
      keep: The part of the parameters that stays in float32.
    """
    if config.dtype == "float32":
        return model
    return mixed_precision(model, config.dtype, keep=(keep,))


# The names of tasks in the architectures of transformers.
PURPOSES = {
    "classify": "SequenceClassification",
    "pairs": "SequenceClassification",
    "tag": "TokenClassification",
    "qa": "QuestionAnswering",
}
_STEMS = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
}


def save(config: "Config", task: Task, params: Params, folder: Path) -> None:
    """Writes a checkpoint directory with the head and how the model is used."""
    shutil.rmtree(folder, ignore_errors=True)
    params = task.exported(params)
    encoder, checkpoint = params["encoder"], task.checkpoint
    if task.vocab_ids is not None:
        whole = checkpoint.params
        encoder = layerwise.restore_embeddings(encoder, whole, task.vocab_ids)
    pretrained.save(
        folder,
        checkpoint.config,
        encoder,
        like=checkpoint,
        classifier=params.get("head"),
        purpose=PURPOSES.get(config.task),
        about=_settings(config, task),
    )
    if config.scratch:
        task.tokenizer.save(folder)


def describe(config: "Config", task: Task) -> dict[str, Any]:
    """Returns how a fine-tuned model is used, and its labels, ready for JSON."""
    settings: dict[str, Any] = {usage.KEY: task.usage().to_dict()}
    if config.targets:
        settings["problem_type"] = config.problem_type
    if task.label_names:
        names = dict(enumerate(task.label_names))
        settings["id2label"] = {str(number): name for number, name in names.items()}
        settings["label2id"] = {name: number for number, name in names.items()}
    return settings


def _settings(config: "Config", task: Task) -> dict[str, Any]:
    """Returns what config.json holds beside the settings of the checkpoint."""
    settings = describe(config, task)
    stem, purpose = _STEMS.get(task.checkpoint.family), PURPOSES.get(config.task)
    if stem and purpose and config.head == "linear":
        settings["architectures"] = [f"{stem}For{purpose}"]
    return settings


def loads_in_transformers(config: "Config", task: Task) -> bool:
    """Returns whether transformers has a model of the same kind."""
    if config.task == "generate":
        return task.checkpoint.family == "gpt2"
    return task.checkpoint.family in _STEMS and config.head == "linear"
