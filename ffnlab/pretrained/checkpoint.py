"""Loads and saves checkpoint directories of `transformers`, and our own.

The families are BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ELECTRA and GPT-2.

    checkpoint = load("minilm")             # config.json, model.safetensors
    print(checkpoint.summary)               # which arrays were loaded
    h, aux = checkpoint.model.apply(checkpoint.params, tokens, mask)
    save("out", checkpoint.config, params, like=checkpoint)

A Transformer that none of these families can represent, such as one with gated blocks,
is saved under our own names, as the family `ffnlab`.

Only safetensors files are read, neither pickles nor code. A directory is written
completely or not at all.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ffnlab import digests, io
from ffnlab.data.files import read_settings
from ffnlab.errors import InputError
from ffnlab.models.layer_stack import with_scan
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.arrays import (
    check_unused,
    complete,
    convert,
    current_names,
    head_and_pooler,
    model_tensors,
    parameter_shapes,
    some,
    wrapper,
)
from ffnlab.pretrained.config_json import (
    ADVICE,
    check_sizes,
    read_config,
    write_config,
)
from ffnlab.pretrained.conversion import FAMILIES
from ffnlab.pretrained.safetensors_io import (
    classifier_tensors,
    config_file,
    read_tensors,
    require_safetensors,
    write_arrays,
)
from ffnlab.types import Key, Model, Params

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)


class LoadSummary(NamedTuple):
    """Which arrays were loaded, initialised and left unused.

    Attributes:
      loaded: Names of the arrays in the checkpoint that were loaded.
      initialised: Paths of the parameters that the checkpoint lacks; they were
        initialised randomly.
      unused: Names of the arrays in the checkpoint that are not needed: buffers, copies
        and the heads of other tasks.
      unknown: Those of them that no model of the family has, such as `crf.transitions`.
      wrapper: What all names in the checkpoint begin with, such as `module.`, which
        was left out.
    """

    loaded: list[str]
    initialised: list[str]
    unused: list[str]
    unknown: Sequence[str] = ()
    wrapper: str = ""

    @property
    def notes(self) -> list[str]:
        """A line on everything that is not as in a checkpoint of `transformers`."""
        notes = []
        if self.wrapper:
            notes.append(f"checkpoint: names are read without {self.wrapper}")
        for word, names in (("unused", self.unknown), ("missing", self.initialised)):
            if names:
                how = ", drawn at random" if word == "missing" else ""
                notes.append(
                    f"checkpoint: {len(names)} arrays {word}{how}: {some(names)}"
                )
        return notes

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} arrays loaded"]
        for word, names in (
            ("newly initialised", self.initialised),
            ("unused", self.unused),
        ):
            listed = f": {some(names)}" if names else ""
            lines.append(f"{len(names)} {word}{listed}")
        return "\n".join(lines)


class Checkpoint(NamedTuple):
    """A loaded checkpoint.

    Attributes:
      directory: The checkpoint directory.
      family: A key of `FAMILIES`.
      config: Configuration of the model.
      params: Parameters of the model.
      summary: Which arrays were loaded, initialised and left unused.
      settings: Contents of config.json.
    """

    directory: Path
    family: str
    config: TransformerConfig
    params: Params
    summary: LoadSummary
    settings: dict[str, Any]

    @property
    def model(self) -> Model:
        """The model as pure functions."""
        return transformer_model(self.config)


def load(
    directory: str | Path,
    *,
    head: bool | None = None,
    pooler: bool | None = None,
    dtype: Any = jnp.float32,
    key: Key | None = None,
    strict: bool = False,
    **options: Any,
) -> Checkpoint:
    """Loads a checkpoint directory of a family of `transformers`, or our own.

    Args:
      directory: Directory with config.json, and with model.safetensors or its shards
        and model.safetensors.index.json.
      head: Whether the model has the head of a language model; None means if the
        checkpoint has one.
      pooler: Whether the model has the pooler, the dense layer of the first position;
        None means if the checkpoint has one.
      dtype: Data type of the parameters.
      key: Random key of parameters that the checkpoint lacks; `jax.random.key(0)` if
        None.
      strict: Whether to refuse arrays that no model of the family has, such as
        `crf.transitions`, and a prefix of all names, such as `module.`.
      **options: Other fields of the configuration, such as `remat=True` or
        `dropout=0.1`. The default dropout is that of the checkpoint, usually 0.1.
        `scan=True` stacks the layers, see `models.layer_stack`.

    Returns:
      The checkpoint: configuration, parameters, and a summary of all arrays.

    Raises:
      InputError: A file is missing, corrupt or of another kind, does not match the
        configuration, or has not the digest that `save` recorded. The message names
        the file and the array.
    """
    directory, source = Path(directory), config_file(Path(directory))
    digests.check_all(directory, ("README.md",))
    settings = read_settings(source, {})
    kind, fields = read_config(str(source), settings)
    family, tensors = FAMILIES[kind], read_tensors(directory)
    outer = wrapper(family, tensors)
    tensors, names = current_names(directory, family, tensors)
    check_sizes(str(source), family, fields, tensors)
    parts = head_and_pooler(family, tensors, head, pooler)
    try:
        config = family.config(**{**fields, **parts})
    except InputError as error:
        raise InputError(f"{source}: {error}; {ADVICE}") from None
    scan = options.pop("scan", config.scan)
    config = dataclasses.replace(config, **options)
    shapes = parameter_shapes(config)
    leaves, loaded = convert(directory, family, config, shapes, tensors, names)
    unused, unknown = check_unused(directory, family, tensors, names, loaded)
    if strict:
        _check_strictly(directory, outer, unknown)
    params, new = complete(directory, family, config, shapes, leaves, dtype, key)
    config, params = with_scan(config, params, scan)
    loaded = sorted(names[name] for name in loaded)
    unused = sorted([*unused, *unknown])
    summary = LoadSummary(loaded, new, unused, unknown, outer)
    return Checkpoint(directory, kind, config, params, summary, settings)


def _check_strictly(directory: Path, outer: str, unknown: Sequence[str]) -> None:
    """Raises if names have a prefix, or if arrays are of other modules."""
    if outer:
        raise InputError(
            f"strict: {directory}: the names of arrays begin with {outer}; save the "
            "model that is inside"
        )
    if unknown:
        raise InputError(
            f"strict: {directory}: {len(unknown)} arrays are of no model of this "
            f"family: {some(unknown)}; save the checkpoint without them"
        )


def save(
    directory: str | Path,
    config: TransformerConfig,
    params: Params,
    *,
    family: str | None = None,
    like: Checkpoint | None = None,
    dtype: Any = np.float32,
    classifier: Params | None = None,
    purpose: str = "TokenClassification",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Saves a checkpoint directory; `transformers` loads all families but our own.

    Args:
      directory: The directory to write; it must be empty or not exist.
      config: Configuration of the model. With a head, BERT's pooler is not saved, since
        the masked language model of `transformers` has none.
      params: Parameters of the model. Stacked layers are saved one by one, but for
        our own family.
      family: A key of `FAMILIES`; None means that of `like`.
      like: Checkpoint whose settings and tokenizer are copied.
      dtype: Data type of the arrays in the file.
      classifier: Parameters of a classification or span head.
      purpose: Task of that head; see `safetensors_io.classifier_tensors`.
      about: Further entries of config.json.

    Raises:
      InputError: The directory is not empty, or the family cannot represent the model.
    """
    require_safetensors(f"{directory}: writing it")
    directory, kind = Path(directory), family or (like.family if like else None)
    if kind not in FAMILIES:
        raise InputError(f"family {kind!r} should be one of {', '.join(FAMILIES)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists already; choose another directory")
    if not FAMILIES[kind].native:
        config, params = with_scan(config, params, False)
    if config.head == "tied" and not FAMILIES[kind].native:
        config = dataclasses.replace(config, pooler=False)
    inherited = like.settings if like and like.family == kind else {}
    settings = {**inherited, **write_config(kind, config)}
    settings["dtype"] = str(np.dtype(dtype))
    settings.pop("torch_dtype", None)
    settings |= about or {}
    tensors = model_tensors(
        FAMILIES[kind], config, params, dtype, classifier is not None
    )
    tensors |= classifier_tensors(classifier or {}, dtype, purpose, kind)
    with io.atomic_directory(directory) as part:
        write_arrays(tensors, part / "model.safetensors", {"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (part / "config.json").write_text(text, "utf-8")
        for name in TOKENIZER_FILES:
            if like and (like.directory / name).is_file():
                shutil.copyfile(like.directory / name, part / name)


def family_of(config: TransformerConfig) -> str:
    """Returns the first family that can represent a model, or our own, `ffnlab`.

    >>> from ffnlab import EncoderConfig
    >>> [family_of(EncoderConfig.tiny(block=b)) for b in ("mlp:gelu", "swiglu")]
    ['bert', 'ffnlab']
    """
    for kind in FAMILIES:
        try:
            write_config(kind, config)
        except InputError:
            continue
        return kind
    raise AssertionError("the family ffnlab represents any model")
