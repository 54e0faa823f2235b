"""Reads the files of a checkpoint directory: config.json and safetensors."""

import errno
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import trees
from ffnlab.data.files import read_settings
from ffnlab.errors import InputError
from ffnlab.schema import Field
from ffnlab.types import Params

_INSTALL = "pip install 'ffnlab[pretrained]'"


def require_safetensors(what: str) -> None:
    """Checks that safetensors is installed, before work that needs it at the end.

    Args:
      what: What needs it, for the error message.

    Raises:
      InputError: safetensors is not installed.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise InputError(f"{what} needs safetensors: {_INSTALL}")


def config_file(directory: Path) -> Path:
    """Returns the path of config.json in a checkpoint directory.

    Raises:
      InputError: The directory or the file does not exist.
    """
    path = directory / "config.json"
    if not directory.is_dir():
        name = str(directory)
        hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not name.startswith(".")
        get = f", for instance hf download {name} --local-dir {Path(name).name}"
        raise InputError(
            f"{directory}: not a directory; name one with a config.json. Nothing is "
            f"downloaded here{get if hub else ''}"
        )
    if not path.is_file():
        raise InputError(f"{path}: not found; a checkpoint directory needs it")
    return path


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint directory by name.

    Raises:
      InputError: There are no safetensors, or a file cannot be read.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        return _read_shards(directory, index)
    path = directory / "model.safetensors"
    if path.is_file():
        return read_file(path)
    for name in ("pytorch_model.bin", "model.pt", "model.bin"):
        if (directory / name).exists():
            raise InputError(
                f"{directory / name}: a pickle can run code, and is not read; "
                "AutoModel.from_pretrained(DIR).save_pretrained(DIR) of transformers "
                "writes model.safetensors beside it"
            )
    raise InputError(f"{path}: not found, nor {index.name}")


def _read_shards(directory: Path, index: Path) -> dict[str, np.ndarray]:
    shard_names = Field(kind=dict, items=Field(kind=str), required=True)
    files = read_settings(index, {"weight_map": shard_names})["weight_map"]
    present = {path.name for path in directory.iterdir() if path.is_file()}
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(files.values())):
        path = directory / name
        if name not in present:
            raise InputError(f"{path}: not found, though {index.name} names it")
        shard = read_file(path)
        missing = {t for t, file in files.items() if file == name} - set(shard)
        if missing:
            raise InputError(
                f"{path}: {min(missing)} is missing, though {index.name} lists it"
            )
        tensors |= shard
    return tensors


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a safetensors file by name.

    Raises:
      InputError: The file cannot be read, or safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(f"{path}: reading it needs safetensors: {_INSTALL}") from None
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise InputError(
                f"{path}: a Git LFS pointer, not the file; `git lfs pull` fetches it"
            )
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not a complete safetensors file ({error}); download it again"
        ) from None


def write_arrays(
    arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Args:
      arrays: The arrays by name.
      path: The file.
      metadata: Texts for the head of the file, by name.

    Raises:
      OSError: It cannot be written, for instance for want of room.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


# Names of the linear layers of a head in `transformers`, by task and family. Other
# arrays have our own names after `classifier.`.
_DENSE = {"dense": "classifier.dense", "out": "classifier.out_proj"}
HEADS: dict[tuple[str, str], dict[str, str]] = {
    ("SequenceClassification", "roberta"): _DENSE,
    ("SequenceClassification", "xlm-roberta"): _DENSE,
    ("SequenceClassification", "electra"): _DENSE,
    ("SequenceClassification", "distilbert"): {
        "dense": "pre_classifier",
        "out": "classifier",
    },
}


def _head_names(purpose: str, family: str) -> dict[str, str]:
    """Returns the names in a checkpoint of the arrays of linear layers, by path."""
    default = {"out": "qa_outputs" if purpose == "QuestionAnswering" else "classifier"}
    return {
        f"{layer}/{path}": f"{module}.{name}"
        for layer, module in HEADS.get((purpose, family), default).items()
        for path, name in (("kernel", "weight"), ("bias", "bias"))
    }


def classifier_tensors(
    params: Params, dtype: Any, purpose: str, family: str
) -> dict[str, np.ndarray]:
    """Returns the arrays of a head by their names in a checkpoint.

    Args:
      params: Parameters of the head.
      dtype: Data type of the arrays.
      purpose: Task of the head: `SequenceClassification`, `TokenClassification` or
        `QuestionAnswering`.
      family: Family of the encoder.
    """
    names, tensors = _head_names(purpose, family), {}
    for path, leaf in trees.flatten(params).items():
        array = np.asarray(leaf).astype(dtype)
        if path in names and path.endswith("kernel"):
            array = np.ascontiguousarray(array.T)
        tensors[names.get(path, f"classifier.{path}")] = array
    return tensors


def load_classifier(directory: str | Path, purpose: str, family: str) -> Params:
    """Returns the parameters of the head that `save` wrote as `classifier`.

    Args:
      directory: The checkpoint directory.
      purpose: See `classifier_tensors`.
      family: See `classifier_tensors`.

    Raises:
      InputError: The checkpoint has no such head.
    """
    paths = {name: path for path, name in _head_names(purpose, family).items()}
    leaves = {}
    for name, array in read_tensors(Path(directory)).items():
        if name in paths:
            path = paths[name]
            array = array.T if path.endswith("kernel") else array
            leaves[path] = array.astype("float32")
        elif name.startswith("classifier."):
            leaves[name.removeprefix("classifier.")] = array.astype("float32")
    if "out/kernel" not in leaves:
        raise InputError(f"{directory}: no classifier in it; it was not fine-tuned")
    return trees.unflatten(leaves)
