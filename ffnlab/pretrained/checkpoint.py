"""Loads and saves checkpoint directories of BERT, RoBERTa, DistilBERT and GPT-2.

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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import digests, io, trees
from ffnlab.data.files import read_settings
from ffnlab.errors import InputError
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.config_json import (
    ADVICE,
    check_sizes,
    read_config,
    write_config,
)
from ffnlab.pretrained.conversion import (
    FAMILIES,
    Entry,
    Family,
    entries,
    is_ignored,
)
from ffnlab.pretrained.safetensors_io import (
    classifier_tensors,
    config_file,
    read_tensors,
    require_safetensors,
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
    """

    loaded: list[str]
    initialised: list[str]
    unused: list[str]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} arrays loaded"]
        for word, names in (
            ("newly initialised", self.initialised),
            ("unused", self.unused),
        ):
            listed = f": {', '.join(names)}" if names else ""
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
    **options: Any,
) -> Checkpoint:
    """Loads a checkpoint directory of a BERT, RoBERTa, DistilBERT, GPT-2 or our own.

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
      **options: Other fields of the configuration, such as `remat=True` or
        `dropout=0.1`. The default dropout is that of the checkpoint, usually 0.1.

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
    tensors, names = _current_names(family, tensors)
    check_sizes(str(source), family, fields, tensors)
    parts = _head_and_pooler(family, tensors, head, pooler)
    try:
        config = family.config(**{**fields, **parts})
    except InputError as error:
        raise InputError(f"{source}: {error}; {ADVICE}") from None
    config = dataclasses.replace(config, **options)
    shapes = _shapes(config)
    leaves, loaded = _convert(directory, family, config, shapes, tensors, names)
    unused = _check_unused(directory, family, tensors, names, loaded)
    params, new = _complete(directory, config, shapes, leaves, dtype, key)
    loaded = sorted(names[name] for name in loaded)
    summary = LoadSummary(loaded, new, sorted(unused))
    return Checkpoint(directory, kind, config, params, summary, settings)


def _current_names(
    family: Family, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays by their current names, and the name in the file of each.

    Old files use gamma and beta, and models without a head have no prefix.
    """
    roots = {row.name.split(".")[0] for row in family.rows}
    current, names = {}, {}
    for name, tensor in tensors.items():
        new = name.removesuffix("gamma") + "weight" if name.endswith(".gamma") else name
        new = new.removesuffix("beta") + "bias" if new.endswith(".beta") else new
        if new.split(".")[0] in roots:
            new = family.prefix + new
        current[new], names[new] = tensor, name
    return current, names


def _head_and_pooler(
    family: Family,
    tensors: Mapping[str, Any],
    head: bool | None,
    pooler: bool | None,
) -> dict[str, Any]:
    """Returns the fields `head` and `pooler` of the configuration."""
    fields: dict[str, Any] = {}
    if family.native:
        if head is not None:
            fields["head"] = "tied" if head else "none"
        return fields if pooler is None else {**fields, "pooler": pooler}
    if any(row.paths == "pooler" for row in family.rows):
        stored = f"{family.prefix}pooler.dense.weight" in tensors
        fields["pooler"] = stored if pooler is None else pooler
    elif pooler:
        raise InputError("pooler: this family of models has none")
    if head is None:
        first = family.head[0].name + ".weight" if family.head else None
        head = first is None or first in tensors
    fields["head"] = "tied" if head else "none"
    return fields


def _shapes(config: TransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the parameters by path."""
    init = transformer_model(config).init
    return trees.flatten(jax.eval_shape(init, jax.random.key(0)))


def _entries(
    family: Family, config: TransformerConfig, paths: Iterable[str]
) -> list[Entry]:
    """Returns the arrays of a model in a checkpoint; `paths` are its parameters."""
    if family.native:
        return [Entry(path, (path,), np.asarray) for path in paths]
    return [
        entry
        for entry in entries(family, config.layers, config.head == "tied")
        if config.pooler or not entry.paths[0].startswith("pooler")
        if config.types or not entry.paths[0].startswith("embed/types")
    ]


def _convert(
    directory: Path,
    family: Family,
    config: TransformerConfig,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Returns our parameters by path, and the names of the arrays that they are from.

    Raises:
      InputError: An array does not have the shape that the configuration implies.
    """
    leaves, loaded = {}, set()
    for entry in _entries(family, config, shapes):
        if entry.name not in tensors:
            continue
        array = tensors[entry.name]
        joined = [*shapes[entry.paths[0]].shape]
        joined[-1] *= len(entry.paths)
        expected = tuple(joined[::-1] if entry.transform is np.transpose else joined)
        if array.shape != expected:
            raise InputError(
                f"{directory}: {names[entry.name]} has the shape "
                f"{[*array.shape]}, config.json asks for {[*expected]}"
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(
                f"{directory}: {names[entry.name]} should be of floating-point "
                f"numbers, not {array.dtype}; {ADVICE}"
            )
        leaves |= dict(zip(entry.paths, entry.read(array), strict=True))
        loaded.add(entry.name)
    return leaves, loaded


def _check_unused(
    directory: Path,
    family: Family,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    loaded: set[str],
) -> list[str]:
    """Returns the names of the arrays that are not needed.

    Raises:
      InputError: A name is unknown, or a tied array differs from its original.
    """
    unused, unknown = [], []
    for name in sorted(set(tensors) - loaded):
        original = family.ties.get(name)
        tied = original in loaded
        if tied and not np.array_equal(tensors[name], tensors[original]):
            raise InputError(
                f"{directory}: {names[name]} differs from {names[original]}: only "
                "heads tied to the embeddings are known; head=False leaves it out"
            )
        (unused if _is_unused(family, name) else unknown).append(names[name])
    if unknown:
        raise InputError(
            f"{directory}: {len(unknown)} arrays are no part of the model that "
            f"config.json describes, the first is {unknown[0]}"
        )
    return unused


def _is_unused(family: Family, name: str) -> bool:
    """Returns whether an array is a copy, a buffer, or of a head that is left out."""
    heads = (row.name for row in family.head)
    parts = (*heads, "pooler", f"{family.prefix}pooler")
    return name in family.ties or is_ignored(family, name) or name.startswith(parts)


def _complete(
    directory: Path,
    config: TransformerConfig,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    leaves: Mapping[str, np.ndarray],
    dtype: Any,
    key: Key | None,
) -> tuple[Params, list[str]]:
    """Returns all parameters, and the paths of those that were initialised.

    Raises:
      InputError: Parameters other than those of a head or a pooler are missing.
    """
    new = sorted(set(shapes) - set(leaves))
    missing = [path for path in new if not path.startswith(("head/", "pooler/"))]
    if missing:
        raise InputError(
            f"{directory}: {len(missing)} arrays of the model are missing, the first "
            f"is that of {missing[0]}"
        )
    if new:
        key = jax.random.key(0) if key is None else key
        leaves = {**trees.flatten(transformer_model(config).init(key)), **leaves}
    params = {path: jnp.asarray(leaves[path], dtype) for path in shapes}
    return trees.unflatten(params), new


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
      params: Parameters of the model, with layers as `layer_0` and so on.
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
    from safetensors.numpy import save_file

    directory, kind = Path(directory), family or (like.family if like else None)
    if kind not in FAMILIES:
        raise InputError(f"family {kind!r} should be one of {', '.join(FAMILIES)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists already; choose another directory")
    if config.head == "tied" and not FAMILIES[kind].native:
        config = dataclasses.replace(config, pooler=False)
    inherited = like.settings if like and like.family == kind else {}
    settings = {**inherited, **write_config(kind, config)}
    settings["dtype"] = str(np.dtype(dtype))
    settings.pop("torch_dtype", None)
    settings |= about or {}
    tensors = _tensors(FAMILIES[kind], config, params, dtype, classifier is not None)
    tensors |= classifier_tensors(classifier or {}, dtype, purpose, kind)
    with io.atomic_directory(directory) as part:
        save_file(tensors, part / "model.safetensors", {"format": "pt"})
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


def _tensors(
    family: Family,
    config: TransformerConfig,
    params: Params,
    dtype: Any,
    prefixed: bool,
) -> dict[str, np.ndarray]:
    """Returns the arrays of a model by their names in a checkpoint.

    A model without a head has names without a prefix, unless `prefixed` is set.
    """
    leaves, tensors = trees.flatten(params), {}
    prefix = "" if config.head == "tied" or prefixed else family.prefix
    for entry in _entries(family, config, _shapes(config) if family.native else ()):
        arrays = [np.asarray(leaves[path]).astype(dtype) for path in entry.paths]
        tensors[entry.name.removeprefix(prefix)] = entry.write(arrays)
    return tensors
