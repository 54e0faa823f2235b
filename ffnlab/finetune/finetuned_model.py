"""A fine-tuned model, read from the directory of its run."""

from pathlib import Path
from typing import NamedTuple

from ffnlab.data.corpus import Tokenizes
from ffnlab.data.tokenizer import checkpoint_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune.task import PURPOSES
from ffnlab.finetune.usage import KEY, Usage
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.nn.precision import mixed_precision
from ffnlab.pretrained.checkpoint import Checkpoint, load
from ffnlab.pretrained.safetensors_io import load_classifier
from ffnlab.types import Model, Params

_NO_RUN = "not a run of experiments.finetune"


class FinetunedModel(NamedTuple):
    """A fine-tuned model, and how it is used.

    Attributes:
      checkpoint: Its checkpoint.
      model: The model that is applied; its parameters are `encoder` and, unless it
        generates text, `head`.
      params: Its parameters.
      tokenizer: The tokenizer of the checkpoint.
      names: The names of the labels; empty for qa and generate.
      usage: How it is used.
    """

    checkpoint: Checkpoint
    model: Model
    params: Params
    tokenizer: Tokenizes
    names: list[str]
    usage: Usage


def read_finetuned(directory: str | Path) -> FinetunedModel:
    """Returns the model of a run of fine-tuning.

    Args:
      directory: The run directory, or its `best/`.

    Raises:
      InputError: The directory does not hold a fine-tuned model.
    """
    folder = Path(directory)
    folder = folder / "best" if (folder / "best").is_dir() else folder
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"run: {directory}: {_NO_RUN}, it has no config.json")
    checkpoint = load(folder, head=None)
    if KEY not in checkpoint.settings:
        raise InputError(f"run: {folder}: {_NO_RUN}, its config.json has no {KEY}")
    usage = Usage.from_dict(f"run: {path}", checkpoint.settings[KEY])
    tokenizer = checkpoint_tokenizer(folder, checkpoint.config.vocabulary)
    if usage.task == "generate":
        from ffnlab.models.language_model import seq2seq_lm

        params, model = {"encoder": checkpoint.params}, seq2seq_lm(checkpoint.config)
        return FinetunedModel(checkpoint, model, params, tokenizer, [], usage)
    pooler = None if usage.task in ("classify", "pairs") else False
    checkpoint = load(folder, head=False, pooler=pooler, dropout=0.0)
    head = load_classifier(folder, PURPOSES[usage.task], checkpoint.family)
    params = {"encoder": checkpoint.params, "head": head}
    labels = checkpoint.settings.get("id2label", {})
    names = [labels[str(number)] for number in range(len(labels))]
    model = _model(checkpoint, usage, len(names))
    if usage.dtype != "float32":
        model = mixed_precision(model, usage.dtype)
    return FinetunedModel(checkpoint, model, params, tokenizer, names, usage)


def _model(checkpoint: Checkpoint, usage: Usage, labels: int) -> Model:
    """Returns the encoder with the head of its task."""
    if usage.task == "qa":
        from ffnlab.models.span_qa import SpanQAConfig, span_qa_model

        return span_qa_model(SpanQAConfig(checkpoint.config))
    config = ClassifierConfig(
        checkpoint.config,
        labels,
        usage.head,
        usage.head_hidden,
        dropout=0.0,
        dense=usage.dense,
    )
    return classifier_model(config)
