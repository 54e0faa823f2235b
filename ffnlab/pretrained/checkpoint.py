"""Checkpoint directories, read and written: BERT and its kin, GPT-2, and our own.

    found = load("minilm")                  # config.json, model.safetensors
    print(found.report)                     # every array accounted for
    h, aux = found.model.apply(found.params, tokens, mask)
    save("out", found.config, params, like=found)

A Transformer that none of those families can hold, such as one with gated blocks, is
written with our own names, as the family `ffnlab`.

Only safetensors are read: no pickle, no code. A directory is written whole or not at
all.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import io, trees
from ffnlab.data.files import read_json
from ffnlab.errors import InputError
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.conversion import (
    FAMILIES,
    Entry,
    Family,
    entries,
    is_other,
    read_config,
    write_config,
)
from ffnlab.pretrained.safetensors_io import (
    classifier_tensors,
    config_file,
    read_tensors,
    require,
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


class Report(NamedTuple):
    """What became of every array.

    Attributes:
      loaded: names in the checkpoint that were taken over.
      initialised: paths in our parameters that were not there, and were drawn.
      unused: names in the checkpoint that are of no use here: buffers, copies, and the
        heads of other tasks.
    """

    loaded: list[str]
    initialised: list[str]
    unused: list[str]

    def __str__(self) -> str:
        shown = [f"{len(self.loaded)} arrays loaded"]
        for word, names in (
            ("newly initialised", self.initialised),
            ("unused", self.unused),
        ):
            listed = f": {', '.join(names)}" if names else ""
            shown.append(f"{len(names)} {word}{listed}")
        return "\n".join(shown)


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      directory: where it is.
      family: a key of `FAMILIES`.
      config: what the model is made of.
      params: its parameters.
      report: what became of every array.
      settings: what config.json holds.
    """

    directory: Path
    family: str
    config: TransformerConfig
    params: Params
    report: Report
    settings: dict[str, Any]

    @property
    def model(self) -> Model:
        """The model, as pure functions."""
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
    """Reads a checkpoint directory of a BERT, RoBERTa, DistilBERT or GPT-2.

    Args:
      directory: holds config.json, and model.safetensors or its shards with
        model.safetensors.index.json.
      head: whether the model has the head of a language model; None is whether the
        checkpoint has one.
      pooler: likewise for the dense layer on the first position.
      dtype: of the parameters, whatever that of the file.
      key: what new arrays are drawn with; `jax.random.key(0)` if None.
      **options: other fields of the config, such as `remat=True` or `dropout=0.1`; by
        default there is the checkpoint's own dropout, as a rule 0.1 in training.

    Returns:
      The model, its parameters, and what became of every array.

    Raises:
      InputError: a file is missing, of another kind, cut off, or does not fit; the file
        and the array are named.
    """
    directory = Path(directory)
    settings = read_json(config_file(directory))
    kind, fields = read_config(str(directory / "config.json"), settings)
    family, tensors = FAMILIES[kind], read_tensors(directory)
    tensors, known = _renamed(family, tensors)
    parts = _parts(family, tensors, head, pooler)
    try:
        config = family.config(**{**fields, **parts, **options})
    except TypeError as error:
        raise InputError(f"{directory / 'config.json'}: {error}") from None
    leaves, loaded = _matched(directory, family, config, tensors, known)
    unused = _leftover(directory, family, tensors, known, loaded)
    params, new = _completed(directory, config, leaves, dtype, key)
    loaded = sorted(known[name] for name in loaded)
    report = Report(loaded, new, sorted(unused))
    return Checkpoint(directory, kind, config, params, report, settings)


def _renamed(
    family: Family, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays by the names of today, and those to the names in the file.

    Old files say gamma and beta, and models without a head have no prefix.
    """
    roots = {row.theirs.split(".")[0] for row in family.rows}
    found, known = {}, {}
    for name, tensor in tensors.items():
        new = name.removesuffix("gamma") + "weight" if name.endswith(".gamma") else name
        new = new.removesuffix("beta") + "bias" if new.endswith(".beta") else new
        if new.split(".")[0] in roots:
            new = family.prefix + new
        found[new], known[new] = tensor, name
    return found, known


def _parts(
    family: Family,
    tensors: Mapping[str, Any],
    head: bool | None,
    pooler: bool | None,
) -> dict[str, Any]:
    """Returns the fields of the config that say what the model has."""
    fields: dict[str, Any] = {}
    if family.own:
        if head is not None:
            fields["head"] = "tied" if head else "none"
        return fields if pooler is None else {**fields, "pooler": pooler}
    if any(row.ours == "pooler" for row in family.rows):
        there = f"{family.prefix}pooler.dense.weight" in tensors
        fields["pooler"] = there if pooler is None else pooler
    elif pooler:
        raise InputError("pooler: this family of models has none")
    if head is None:
        first = family.head[0].theirs + ".weight" if family.head else None
        head = first is None or first in tensors
    fields["head"] = "tied" if head else "none"
    return fields


def _entries(family: Family, config: TransformerConfig) -> list:
    """Returns what a model has in a checkpoint."""
    if family.own:
        shapes = jax.eval_shape(transformer_model(config).init, jax.random.key(0))
        return [Entry(path, (path,), np.asarray) for path in trees.flatten(shapes)]
    return [
        entry
        for entry in entries(family, config.layers, config.head == "tied")
        if config.pooler or not entry.ours[0].startswith("pooler")
        if config.types or not entry.ours[0].startswith("embed/types")
    ]


def _matched(
    directory: Path,
    family: Family,
    config: TransformerConfig,
    tensors: Mapping[str, np.ndarray],
    known: Mapping[str, str],
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Returns our leaves by path, and the names that they were made from."""
    shapes = trees.flatten(
        jax.eval_shape(transformer_model(config).init, jax.random.key(0))
    )
    leaves, loaded = {}, set()
    for entry in _entries(family, config):
        if entry.theirs not in tensors:
            continue
        array = tensors[entry.theirs]
        wide = [*shapes[entry.ours[0]].shape]
        wide[-1] *= len(entry.ours)
        wanted = tuple(entry.turn(np.empty(wide)).shape)
        if array.shape != wanted:
            raise InputError(
                f"{directory}: {known[entry.theirs]} has the shape "
                f"{[*array.shape]}, config.json asks for {[*wanted]}"
            )
        leaves |= dict(zip(entry.ours, entry.read(array), strict=True))
        loaded.add(entry.theirs)
    return leaves, loaded


def _leftover(
    directory: Path,
    family: Family,
    tensors: Mapping[str, np.ndarray],
    known: Mapping[str, str],
    loaded: set[str],
) -> list[str]:
    """Returns the names that are of no use here.

    Raises:
      InputError: a name is unknown, or a copy differs from what it should copy.
    """
    unused, strange = [], []
    for name in sorted(set(tensors) - loaded):
        original = family.ties.get(name)
        tied = original in loaded
        if tied and not np.array_equal(tensors[name], tensors[original]):
            raise InputError(
                f"{directory}: {known[name]} differs from {known[original]}: only "
                "heads tied to the embeddings are known; head=False leaves it out"
            )
        (unused if _of_no_use(family, name) else strange).append(known[name])
    if strange:
        raise InputError(
            f"{directory}: {len(strange)} arrays are no part of the model that "
            f"config.json describes, the first is {strange[0]}"
        )
    return unused


def _of_no_use(family: Family, name: str) -> bool:
    """Returns whether an array is a copy, a buffer, or of a head not asked for."""
    heads = (row.theirs for row in family.head)
    parts = (*heads, "pooler", f"{family.prefix}pooler")
    return name in family.ties or is_other(family, name) or name.startswith(parts)


def _completed(
    directory: Path,
    config: TransformerConfig,
    leaves: Mapping[str, np.ndarray],
    dtype: Any,
    key: Key | None,
) -> tuple[Params, list[str]]:
    """Returns all parameters, and the paths of those that had to be drawn.

    Raises:
      InputError: something other than a head or a pooler is missing.
    """
    init = transformer_model(config).init
    key = jax.random.key(0) if key is None else key
    wanted = trees.flatten(jax.eval_shape(init, key))
    new = sorted(set(wanted) - set(leaves))
    lost = [path for path in new if not path.startswith(("head/", "pooler/"))]
    if lost:
        raise InputError(
            f"{directory}: {len(lost)} arrays of the model are missing, the first is "
            f"that of {lost[0]}"
        )
    drawn = trees.flatten(init(key)) if new else {}
    found = {path: jnp.asarray(leaves.get(path, drawn.get(path)), dtype)
             for path in wanted}  # fmt: skip
    return trees.unflatten(found), new


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
    """Writes a checkpoint directory, which transformers loads unless it is our own.

    Args:
      directory: where; it must not exist, or be empty.
      config: what the model is made of. Beside a head BERT's pooler is left out: the
        masked language model of transformers has none.
      params: its parameters, with layers as `layer_0` and so on.
      family: a key of `FAMILIES`; that of `like` if None.
      like: the checkpoint it was made from: its settings and tokenizer come along.
      dtype: of the arrays in the file.
      classifier: the parameters of a head of another kind.
      purpose: what that is for, see `weights.classifier_tensors`.
      about: more that config.json is to say.

    Raises:
      InputError: the directory is in use, or the family has no such model.
    """
    require(f"{directory}: writing it")
    from safetensors.numpy import save_file

    directory, kind = Path(directory), family or (like.family if like else None)
    if kind not in FAMILIES:
        raise InputError(f"family {kind!r} should be one of {', '.join(FAMILIES)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists already; choose another directory")
    if config.head == "tied" and not FAMILIES[kind].own:
        config = dataclasses.replace(config, pooler=False)
    kept = like.settings if like and like.family == kind else {}
    settings = {**kept, **write_config(kind, config)}
    settings["dtype"] = str(np.dtype(dtype))
    settings.pop("torch_dtype", None)
    settings |= about or {}
    tensors = _written(FAMILIES[kind], config, params, dtype, classifier is not None)
    tensors |= classifier_tensors(classifier or {}, dtype, purpose, kind)
    with io.atomic_directory(directory) as part:
        save_file(tensors, part / "model.safetensors", {"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (part / "config.json").write_text(text, "utf-8")
        for name in TOKENIZER_FILES:
            if like and (like.directory / name).is_file():
                shutil.copyfile(like.directory / name, part / name)


def family_of(config: TransformerConfig) -> str:
    """Returns the first family that can hold a model, our own if there is no other.

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
    raise AssertionError("our own family holds any config")


def _written(
    family: Family,
    config: TransformerConfig,
    params: Params,
    dtype: Any,
    prefixed: bool,
) -> dict[str, np.ndarray]:
    """Returns the arrays of a model by their names in a checkpoint."""
    leaves, head = trees.flatten(params), config.head == "tied"
    tensors = {}
    for entry in _entries(family, config):
        arrays = [np.asarray(leaves[path]).astype(dtype) for path in entry.ours]
        prefix = "" if head or prefixed else family.prefix
        name = entry.theirs.removeprefix(prefix)
        tensors[name] = entry.write(arrays)
    return tensors
