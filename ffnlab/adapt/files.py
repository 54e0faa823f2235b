"""Saves what trains as a directory of its own, and loads it onto the same base.

    save("out", trainable, config, params)
    trainable, config, about = load("out", params)

A directory has adapter.safetensors, the arrays by path, and adapter.json, the methods
and a digest of the base's names and shapes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ffnlab import digests, io, trees
from ffnlab.adapt.method_names import from_json, to_json
from ffnlab.adapt.methods import Config, Method
from ffnlab.adapt.selection import ENCODER, encoder_arrays
from ffnlab.adapt.surgery import split_path
from ffnlab.data.files import read_settings
from ffnlab.errors import InputError
from ffnlab.pretrained.safetensors_io import (
    read_file,
    require_safetensors,
    write_arrays,
)
from ffnlab.schema import Field, check_object, show
from ffnlab.types import Params

ARRAYS, SETTINGS = "adapter.safetensors", "adapter.json"
_FORMAT = 1


class Saved(NamedTuple):
    """An adapter that was loaded.

    Attributes:
      trainable: The trained part.
      config: The methods.
      about: Further entries, as they were given to `save`.
    """

    trainable: Params
    config: tuple[Method, ...]
    about: dict[str, Any]


def base_digest(params: Params) -> str:
    """Returns a digest of the names and shapes of the encoder's layers and embeddings.

    A pooler and a head do not count, since a task may add or leave them out.

    >>> base_digest({"norm": {"scale": np.ones(2)}, "pooler": {"bias": np.ones(2)}})[:8]
    'f2286366'
    """
    rows = [
        f"{path} {[*np.shape(leaf)]}"
        for path, leaf in encoder_arrays(params).items()
        if not path.startswith(("pooler/", "head/"))
    ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def save(
    directory: str | Path,
    trainable: Params,
    config: Config,
    params: Params,
    *,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Saves what trains as a directory, written completely or not at all.

    Args:
      directory: The directory to write; it must be empty or not exist.
      trainable: The trained part.
      config: The methods.
      params: Parameters of the base; shapes are enough.
      about: Further entries, as JSON can hold them, such as the names of labels.

    Raises:
      InputError: The directory is not empty, or safetensors is not installed.
    """
    require_safetensors(f"{directory}: writing it")
    settings = {
        "format": _FORMAT,
        "methods": to_json(config),
        "base": base_digest(params),
        "about": dict(about or {}),
    }
    tensors = {
        path: np.ascontiguousarray(leaf)
        for path, leaf in trees.flatten(trainable).items()
    }
    with new_directory(directory) as part:
        write_arrays(tensors, part / ARRAYS)
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (part / SETTINGS).write_text(text, "utf-8")


def new_directory(directory: str | Path) -> Any:
    """Returns a context in which a directory is written; see `io.atomic_directory`.

    Raises:
      InputError: The directory is not empty.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists already; choose another directory")
    return io.atomic_directory(directory)


def read_about(directory: str | Path) -> dict[str, Any]:
    """Returns the further entries that `save` was given.

    Raises:
      InputError: The directory has no adapter.
    """
    return _read_settings(Path(directory)).get("about", {})


def _read_settings(directory: Path) -> dict[str, Any]:
    if not (directory / SETTINGS).is_file():
        raise InputError(f"{directory / SETTINGS}: not found; an adapter has it")
    digests.check_all(directory, ("README.md",))
    settings = read_settings(directory / SETTINGS, {})
    if settings.get("format") != _FORMAT:
        raise InputError(
            f"{directory / SETTINGS}: format {show(settings.get('format'))} is "
            f"unknown, only {_FORMAT} can be loaded"
        )
    fields = {"about": Field(kind=dict), "methods": Field(kind=list, least=1)}
    check_object(settings, fields, str(directory / SETTINGS), "save it again")
    return settings


def load(directory: str | Path, params: Params) -> Saved:
    """Loads what `save` wrote.

    Args:
      directory: The directory.
      params: Parameters of the base; shapes are enough.

    Raises:
      InputError: A file is missing or corrupt, or the adapter is of another base.
    """
    directory = Path(directory)
    settings = _read_settings(directory)
    if settings.get("base") != base_digest(params):
        raise InputError(
            f"{directory}: the adapter is of another base: names or shapes of its "
            "arrays differ; load the base that it was trained on"
        )
    try:
        config = from_json(settings.get("methods"))
    except InputError as error:
        raise InputError(f"{directory / SETTINGS}: {error}") from None
    leaves = read_file(directory / ARRAYS)
    check_arrays(directory, leaves, config, params)
    trainable = trees.unflatten({p: jnp.asarray(leaf) for p, leaf in leaves.items()})
    return Saved(trainable, config, settings.get("about", {}))


def check_arrays(
    directory: Path,
    leaves: Mapping[str, np.ndarray],
    config: tuple[Method, ...],
    params: Params,
) -> None:
    """Checks that arrays by path belong to a model and to the methods.

    Raises:
      InputError: An array is not of numbers, of a method that the configuration lacks,
        of a layer that the model lacks, or of another shape than the model's.
    """
    known, shapes = {each.name for each in config}, trees.flatten(params)
    parents = {str(parent) for path in shapes for parent in PurePosixPath(path).parents}
    for path, leaf in leaves.items():
        module, method, _ = split_path(path)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(f"{directory}: {path} is {leaf.dtype}, not floating-point")
        if method and method not in known:
            raise InputError(f"{directory}: {path} is of {method}, no method of it")
        if method and (module or ".") not in parents:
            what = f"{path} is of a layer that the model lacks"
            if path.startswith(ENCODER) and ENCODER[:-1] not in parents:
                what += '; an adapter of finetune needs params={"encoder": params}'
            raise InputError(f"{directory}: {what}")
        if not method and path.startswith(ENCODER) and path not in shapes:
            raise InputError(f"{directory}: {path} is no array of the model")
        expected = np.shape(shapes.get(path, leaf))
        top = expected[:1] > leaf.shape[:1] and leaf.shape[1:] == expected[1:]
        if leaf.shape != expected and not top:  # the last layers of a stack
            raise InputError(
                f"{directory}: {path} has the shape {[*leaf.shape]}, the model's is "
                f"{[*expected]}"
            )
