"""Which arrays of a checkpoint are which parameters of a model, and back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.config_json import ADVICE
from ffnlab.pretrained.conversion import Entry, Family, entries, is_ignored
from ffnlab.types import Key, Params


def current_names(
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


def head_and_pooler(
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


def parameter_shapes(config: TransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
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


def convert(
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
        if len(entry.paths) > 1:
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


def check_unused(
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


def complete(
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


def model_tensors(
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
    for entry in _entries(
        family, config, parameter_shapes(config) if family.native else ()
    ):
        arrays = [np.asarray(leaves[path]).astype(dtype) for path in entry.paths]
        tensors[entry.name.removeprefix(prefix)] = entry.write(arrays)
    return tensors
