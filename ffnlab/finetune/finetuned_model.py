"""A fine-tuned model, read from the directory of its run."""

import os
from pathlib import Path
from typing import NamedTuple

import jax

from ffnlab import adapt, trees
from ffnlab.adapt.files import ARRAYS, SETTINGS
from ffnlab.data.corpus import Tokenizes
from ffnlab.data.tokenizer_files import checkpoint_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune.adapting import FOLDER
from ffnlab.finetune.task import PURPOSES
from ffnlab.finetune.usage import KEY, Usage, read_labels
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.nn.precision import mixed_precision
from ffnlab.pretrained.checkpoint import Checkpoint, load
from ffnlab.pretrained.safetensors_io import load_classifier, read_file
from ffnlab.schema import Field, check_object
from ffnlab.types import Model, Params

_POOLER = "encoder/pooler/"
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
      directory: The run directory, its `best/` or its `adapter/`.

    Raises:
      InputError: The directory does not hold a fine-tuned model.
    """
    folder = Path(directory)
    if (folder / SETTINGS).is_file():
        return read_adapter(folder)
    folder = folder / "best" if (folder / "best").is_dir() else folder
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"run: {directory}: {_NO_RUN}, it has no config.json")
    checkpoint = load(folder, head=None)
    if KEY not in checkpoint.settings:
        raise InputError(f"run: {folder}: {_NO_RUN}, its config.json has no {KEY}")
    usage = Usage.from_dict(f"run: {path}", checkpoint.settings[KEY])
    shape = checkpoint.config
    tokenizer = checkpoint_tokenizer(folder, shape.vocabulary, _types(usage, shape))
    if usage.task == "generate":
        params = _with_adapter({"encoder": checkpoint.params}, folder)
        return _with_parts(checkpoint, params, tokenizer, [], usage)
    pooler = None if usage.task in ("classify", "pairs") else False
    checkpoint = load(folder, head=False, pooler=pooler, dropout=0.0)
    head = load_classifier(folder, PURPOSES[usage.task], checkpoint.family)
    params = _with_adapter({"encoder": checkpoint.params, "head": head}, folder)
    names = read_labels(f"run: {path}", checkpoint.settings.get("id2label"))
    return _with_parts(checkpoint, params, tokenizer, names, usage)


def _types(usage: Usage, shape: TransformerConfig) -> int:
    """Returns how many token types a tokenizer may give; 0 where there is one text."""
    return shape.types if usage.two_texts else 0


def _with_adapter(params: Params, folder: Path) -> Params:
    """Returns parameters with the adapter that lies beside them, if there is one."""
    directory = folder / FOLDER
    return _adapted(params, directory) if directory.is_dir() else params


def read_adapter(
    directory: str | Path, checkpoint: str | Path | None = None
) -> FinetunedModel:
    """Returns the model of an adapter on its base.

    Args:
      directory: The directory of the adapter, such as `adapter` of a run.
      checkpoint: The directory of the base; None is that of training.

    Raises:
      InputError: The directory holds no adapter of a fine-tuning, or the base is
        another one.
    """
    about = adapt.read_about(directory)
    if KEY not in about:
        raise InputError(f"adapter: {directory}: it has no {KEY}; train it again")
    usage = Usage.from_dict(f"adapter: {directory}", about[KEY])
    held = {"checkpoint": Field(kind=str, optional=True)}
    about = {**about, **check_object(about, held, f"adapter: {directory}")}
    base = Path(checkpoint or about.get("checkpoint") or "")
    if not os.path.isfile(base / "config.json"):  # also where the name is no name
        raise InputError(
            f"checkpoint: {base} holds no checkpoint; name the base of the adapter"
        )
    plain = usage.task == "generate"
    pooler = None if usage.task in ("classify", "pairs") else False
    if any(path.startswith(_POOLER) for path in read_file(Path(directory) / ARRAYS)):
        pooler = True  # that of a base without one was drawn, and trained
    options = {} if plain else {"head": False, "pooler": pooler}
    loaded = load(base, dropout=0.0, **options)
    shape = loaded.config
    tokenizer = checkpoint_tokenizer(base, shape.vocabulary, _types(usage, shape))
    params = _adapted({"encoder": loaded.params}, Path(directory))
    names = read_labels(f"adapter: {directory}", about.get("id2label"))
    return _with_parts(loaded, params, tokenizer, names, usage)


def _adapted(params: Params, directory: Path) -> Params:
    """Returns the parameters of a base with those of an adapter."""
    trainable, methods, _ = adapt.load(directory, params)
    return adapt.join(trainable, params, methods)


def _with_parts(
    checkpoint: Checkpoint,
    params: Params,
    tokenizer: Tokenizes,
    names: list[str],
    usage: Usage,
) -> FinetunedModel:
    """Returns a fine-tuned model whose model is that of its task."""
    if usage.task == "generate":
        from ffnlab.models.language_model import seq2seq_lm

        model = seq2seq_lm(checkpoint.config)
    else:
        model = _model(checkpoint, usage, len(names))
        _check_head(checkpoint.directory, model, params)
        if usage.dtype != "float32":
            model = mixed_precision(model, usage.dtype)
    return FinetunedModel(checkpoint, model, params, tokenizer, names, usage)


def _check_head(directory: Path, model: Model, params: Params) -> None:
    """Checks the arrays of a head by the labels and the settings of its model."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))["head"]
    shapes, leaves = trees.flatten(shapes), trees.flatten(params["head"])
    for path in sorted(shapes.keys() | leaves.keys()):
        asked, there = (
            [*tree[path].shape] if path in tree else "absent"
            for tree in (shapes, leaves)
        )
        if asked != there:
            raise InputError(
                f"{directory}: head/{path} is {there}, its labels and {KEY} ask for "
                f"{asked}; train again"
            )


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
