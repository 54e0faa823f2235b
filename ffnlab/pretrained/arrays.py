"""Which arrays of a checkpoint are which parameters of a model, and back."""

from collections.abc import Iterable, Mapping, Sequence
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
    directory: Path, family: Family, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays by their current names, and the name in the file of each.

    Old files use gamma and beta, models without a head have no prefix, and those that
    were saved inside of another module have one more, see `wrapper`.

    Raises:
      InputError: Two arrays have the same name then.
    """
    roots = {row.name.split(".")[0] for row in family.rows}
    outer, current, names = wrapper(family, tensors), {}, {}
    for name, tensor in tensors.items():
        new = name.removeprefix(outer)
        new = new.removesuffix("gamma") + "weight" if new.endswith(".gamma") else new
        new = new.removesuffix("beta") + "bias" if new.endswith(".beta") else new
        if new.split(".")[0] in roots:
            new = family.prefix + new
        if new in current:
            raise InputError(
                f"{directory}: {names[new]} and {name} are the same array of the "
                "model; save it again without one of them"
            )
        current[new], names[new] = tensor, name
    for copy, original in family.ties.items():
        if copy in current and original not in current:  # saved under the other name
            current[original], names[original] = current.pop(copy), names.pop(copy)
    return current, names


def wrapper(family: Family, names: Iterable[str]) -> str:
    """Returns what the names of all modules of a model begin with in a file.

    That is the name of the module that the model was saved inside of, such as `module.`
    of DataParallel; empty for most files, and where there are several models.

    >>> from ffnlab.pretrained.conversion import FAMILIES
    >>> wrapper(FAMILIES["bert"], ["module.bert.embeddings.word_embeddings.weight"])
    'module.'
    """
    if family.native:
        return ""
    first = f"{family.rows[0].name}.weight"
    found = {
        name.removesuffix(first).removesuffix(family.prefix)
        for name in names
        if name.endswith(first)
    }
    outer = found.pop() if len(found) == 1 else ""
    return outer if outer.endswith(".") else ""


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


def some(names: Sequence[str], most: int = 5) -> str:
    """Returns some of the names, and how many more there are.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
        if config.embedding or not entry.paths[0].startswith("embed/project")
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
) -> tuple[list[str], list[str]]:
    """Returns the names of the arrays that are not needed, and of those no model has.

    The latter are of other modules than the model's, such as `crf.transitions`.

    Raises:
      InputError: A name within the model is unknown, or a tied array differs from its
        original.
    """
    unused, unknown, others = [], [], []
    for name in sorted(set(tensors) - loaded):
        original = family.ties.get(name)
        tied = original in loaded
        if tied and not np.array_equal(tensors[name], tensors[original]):
            raise InputError(
                f"{directory}: {names[name]} differs from {names[original]}: only "
                "heads tied to the embeddings are known; head=False leaves it out"
            )
        if _is_unused(family, name):
            unused.append(names[name])
        elif name.startswith(family.prefix):
            unknown.append(names[name])
        else:
            others.append(names[name])
    if unknown:
        raise InputError(
            f"{directory}: {len(unknown)} arrays are no part of the model that "
            f"config.json describes, the first is {unknown[0]}"
        )
    return unused, others


def _is_unused(family: Family, name: str) -> bool:
    """Returns whether an array is a copy, a buffer, or of a head that is left out."""
    heads = (row.name for row in family.head)
    parts = (*heads, "pooler", f"{family.prefix}pooler")
    return name in family.ties or is_ignored(family, name) or name.startswith(parts)


def complete(
    directory: Path,
    family: Family,
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
        known = _entries(family, config, shapes)
        wanted = [each.name for each in known if {*each.paths} & {*missing}]
        raise InputError(
            f"{directory}: {len(wanted)} arrays of the model are missing: "
            f"{some(wanted)}; {ADVICE}"
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
