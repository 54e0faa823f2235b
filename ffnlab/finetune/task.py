"""What all tasks of fine-tuning share: a checkpoint in, data in parts, a model out."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ffnlab import data
from ffnlab.data.dataset import Arrays
from ffnlab.data.examples import PARTS
from ffnlab.data.packed_rows import Rows
from ffnlab.data.packing import even_width
from ffnlab.data.tokenizer import Tokenizer, checkpoint_tokenizer, read_tokenizer
from ffnlab.errors import InputError
from ffnlab.models.transformer_config import dropouts
from ffnlab.nn.precision import mixed_precision
from ffnlab.pretrained import checkpoint
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


class Task(Protocol):
    """What a task brings: its data, its head, and how predictions are scored.

    Attributes:
      found: the checkpoint.
      tokenizer: its tokenizer.
      vocab_ids: the tokens that occur in any part, ascending, if the others wait outside.
      model: parameters are `encoder` and `head`.
      objective: what is minimised.
      count: `count(batch)`, the sum of the weights in that.
      classes: `classes(outputs, batch)`, the logits of the classes for each entry of y.
      rows: packed, by part.
      sizes: how many texts there are, by part.
      monitor: what the best epoch is chosen by.
      columns: the scores to show: what they are called, and their keys.
      summary: what a reader should know of the data.
    """

    found: Checkpoint
    tokenizer: Tokenizer
    vocab_ids: np.ndarray | None
    model: Model
    objective: Objective
    count: Callable[[Batch], Array]
    classes: Callable[[Any, Batch], Array]
    rows: dict[str, Rows]
    sizes: dict[str, int]
    monitor: str
    columns: dict[str, str]
    summary: str

    def predictor(self, part: str, batch: int) -> Callable[[Params], Any]:
        """Returns what predicts a part, in the order of its file, from parameters."""

    def score(self, part: str, predicted: Any) -> dict[str, Any]:
        """Returns the report of predictions, `monitor` among them."""

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns further tables of the scores, such as one of each label."""

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws pictures of the scores; returns their titles by file."""

    def write(self, part: str, predicted: Any, directory: Path) -> None:
        """Writes predictions in the format that the part was read in."""

    def about(self) -> dict[str, Any]:
        """Returns what config.json says of the head, and how it is used."""


def read_checkpoint(
    config: "Config", texts: Iterable[str], causal: bool = False, **options: Any
) -> tuple[Checkpoint, Tokenizer]:
    """Returns the checkpoint to begin with, and its tokenizer.

    Args:
      config: the flags.
      texts: what a small model from scratch learns its tokens from.
      causal: whether the task needs a decoder.
      **options: see `pretrained.load`.

    Raises:
      InputError: it cannot be read, or is not what the task and the flags need.
    """
    if not config.scratch:
        return _read(config, Path(config.checkpoint), causal, options)
    from ffnlab.pretrained import tiny

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "tiny")
        tiny.write(folder, texts, causal, config.most, config.seed)
        return _read(config, folder, causal, options)


def _read(
    config: "Config", folder: Path, causal: bool, options: dict[str, Any]
) -> tuple[Checkpoint, Tokenizer]:
    more = dropouts(config.dropout)
    found = checkpoint.load(
        folder, remat=config.gradient_checkpointing, **more, **options
    )
    if found.config.causal != causal:
        kinds = ("an encoder such as BERT", "a decoder such as GPT-2")
        raise InputError(
            f"checkpoint: {folder}: task={config.task} needs {kinds[causal]}; "
            f"this is a {found.family}"
        )
    layerwise.frozen_patterns(config.freeze, found.config.layers)
    most = found.config.length
    if config.most > most and found.config.positions == "learned":
        raise InputError(
            f"max_seq_length: {config.most} is more than the {most} positions of the "
            "checkpoint"
        )
    if not causal:  # words and pairs need tokens, and marks around them
        return found, read_tokenizer(folder)
    return found, checkpoint_tokenizer(folder, found.config.vocabulary)


def read_parts(
    config: "Config",
    read: Callable[[str], Any],
    groups: Callable[[Any], Sequence] | None = None,
) -> dict[str, Any]:
    """Returns the parts of the data that there are; --split cuts them from one file.

    Args:
      config: the flags.
      read: `read(part)` gives the examples of a part: lists side by side, and `subset`.
      groups: what gives, for all examples, what must stay together in a split.
    """
    if not config.split:
        there = [part for part in PARTS if config.lists or getattr(config, part)]
        return {part: read(part) for part in there}
    whole = read("train")
    names = list(groups(whole)) if groups else list(range(len(whole[0])))
    unique = list(dict.fromkeys(names))
    order = data.order(config.seed, 0, len(unique), len(unique))
    ends = np.round(np.cumsum(config.split) * len(order)).astype(int)[:2]
    pieces = np.split(order, ends)
    if not all(map(len, pieces)):
        raise InputError(f"split: {len(order)} examples do not fill three parts")
    part_of = {unique[i]: part for part, piece in zip(PARTS, pieces, strict=True)
               for i in piece}  # fmt: skip
    return {
        part: whole.subset([i for i, name in enumerate(names) if part_of[name] == part])
        for part in PARTS
    }


def packing_options(
    config: "Config", found: Checkpoint, part: str, tokens: Sequence, texts: int
) -> dict[str, Any]:
    """Returns how a part is packed: the width of rows, and what they are mixed by.

    Whole rows of train make up --batch_size, and texts meet in them by chance.

    Args:
      config: the flags.
      found: the checkpoint, whose positions no row may have more of.
      part: which.
      tokens: what is put in rows, `[T]` each.
      texts: how many texts that is; a long one may be several.
    """
    if part != "train":
        return {"width": config.most}
    sizes = [len(row) for row in tokens]
    count = config.batch_size * len(sizes) / texts
    width = even_width(sizes, count, max(found.config.length, config.most))
    return {"width": width, "mix": config.seed}


def renumber_tokens(parts: Iterable[Arrays], also: Iterable[int] = ()) -> np.ndarray:
    """Numbers the tokens of rows anew, in place; returns the old ones by new number.

    Args:
      parts: arrays with x/tokens.
      also: tokens that are needed beside those.
    """
    parts = list(parts)
    found = [np.unique(part["x/tokens"]) for part in parts]
    vocab_ids = np.unique(np.concatenate([*found, np.array([*also], np.int32)]))
    for part in parts:
        tokens = np.searchsorted(vocab_ids, part["x/tokens"])
        part["x/tokens"] = tokens.astype(np.int32)
    return vocab_ids


def mask_tokens_of(config: "Config", tokenizer: Tokenizer) -> list[int]:
    """Returns the token that stands for hidden ones, if some are to be found again.

    Raises:
      InputError: the tokenizer has none.
    """
    if not config.mlm_loss_weight:
        return []
    if tokenizer.mask is None:
        raise InputError(f"mlm_loss_weight: {tokenizer.source} has no mask token")
    return [tokenizer.mask]


def digest(task: Task) -> str:
    """Returns a hash of all arrays."""
    found = hashlib.sha256()
    for rows in task.rows.values():
        for name, array in sorted(rows.arrays.items()):
            found.update(name.encode() + array.tobytes())
    return found.hexdigest()


def with_dtype(config: "Config", model: Model, keep: str = "head") -> Model:
    """Returns a model that computes in --dtype, but in one part of its parameters."""
    if config.dtype == "float32":
        return model
    return mixed_precision(model, config.dtype, keep=(keep,))


PURPOSES = {
    "classify": "SequenceClassification",
    "pairs": "SequenceClassification",
    "tag": "TokenClassification",
    "qa": "QuestionAnswering",
}
_STEMS = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}


def save(config: "Config", task: Task, params: Params, folder: Path) -> None:
    """Writes a checkpoint directory with the head, and how it is used."""
    shutil.rmtree(folder, ignore_errors=True)
    encoder, found = params["encoder"], task.found
    if task.vocab_ids is not None:
        encoder = layerwise.restore_embeddings(encoder, found.params, task.vocab_ids)
    about, purpose = task.about(), PURPOSES.get(config.task)
    if found.family in _STEMS and purpose and config.head == "linear":
        about["architectures"] = [f"{_STEMS[found.family]}For{purpose}"]
    checkpoint.save(
        folder,
        found.config,
        encoder,
        like=found,
        classifier=params.get("head"),
        purpose=purpose,
        about=about,
    )
    if config.scratch:
        task.tokenizer.save(folder)


def loads_in_transformers(config: "Config", task: Task) -> bool:
    """Whether transformers has such a model."""
    if config.task == "generate":
        return task.found.family == "gpt2"
    return task.found.family in _STEMS and config.head == "linear"
