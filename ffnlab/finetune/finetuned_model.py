"""A fine-tuned model, read from the directory of its run."""

from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.tokenizer import Tokenizer, checkpoint_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune.task import PURPOSES
from ffnlab.models import classifier
from ffnlab.nn.precision import mixed_precision
from ffnlab.pretrained import checkpoint, safetensors_io
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.types import Model, Params


class FinetunedModel(NamedTuple):
    """A model that was fine-tuned, and how it is used.

    Attributes:
      found: its checkpoint.
      model: what is applied.
      params: its parameters.
      tokenizer: of its checkpoint.
      names: of the labels, if it gives any.
      about: `task`, `length` and what else config.json says of its use.
    """

    found: Checkpoint
    model: Model
    params: Params
    tokenizer: Tokenizer
    names: list[str]
    about: dict[str, Any]


def read_finetuned(directory: str | Path) -> FinetunedModel:
    """Reads the model of a run.

    Raises:
      InputError: the directory is none of `experiments.finetune`.
    """
    folder = Path(directory)
    folder = folder / "best" if (folder / "best").is_dir() else folder
    if not (folder / "config.json").is_file():
        raise InputError(f"run: {directory}: not a run of experiments.finetune")
    found = checkpoint.load(folder, head=None)
    about = found.settings.get("ffnlab_use")
    if not about:
        raise InputError(f"run: {folder}: not a run of experiments.finetune")
    tokenizer = checkpoint_tokenizer(folder, found.config.vocabulary)
    task = about["task"]
    if task == "generate":
        from ffnlab.models.language_model import conditional

        params, model, names = {"encoder": found.params}, conditional(found.config), []
        return FinetunedModel(found, model, params, tokenizer, names, about)
    pooler = None if task in ("classify", "pairs") else False
    found = checkpoint.load(folder, head=False, pooler=pooler, dropout=0.0)
    head = safetensors_io.load_classifier(folder, PURPOSES[task], found.family)
    params = {"encoder": found.params, "head": head}
    labels = found.settings.get("id2label", {})
    names = [labels[str(number)] for number in range(len(labels))]
    model = _model(found, about, len(names))
    if about["dtype"] != "float32":
        model = mixed_precision(model, about["dtype"])
    return FinetunedModel(found, model, params, tokenizer, names, about)


def _model(found: Checkpoint, about: dict[str, Any], labels: int) -> Model:
    if about["task"] == "qa":
        from ffnlab.models.span_qa import SpanQAConfig, span_qa_model

        return span_qa_model(SpanQAConfig(found.config))
    shape = classifier.ClassifierConfig(
        found.config,
        labels,
        about["head"],
        about["hidden"],
        0.0,
        dense=about["dense"],
    )
    return classifier.classifier_model(shape)
