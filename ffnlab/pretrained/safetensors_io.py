"""The files of a checkpoint directory: JSON and safetensors, each error by its name."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import trees
from ffnlab.data.files import read_json
from ffnlab.errors import InputError
from ffnlab.types import Params

NEED = "pip install 'ffnlab[pretrained]'"


def require(what: str) -> None:
    """Checks that safetensors is installed, before work that it has to end.

    Args:
      what: what it is needed for.

    Raises:
      InputError: it is not.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise InputError(f"{what} needs safetensors: {NEED}")


def config_file(directory: Path) -> Path:
    """Returns the config.json of a checkpoint directory.

    Raises:
      InputError: there is no such directory or file.
    """
    path = directory / "config.json"
    if not directory.is_dir():
        raise InputError(f"{directory}: not a directory; name one with a config.json")
    if not path.is_file():
        raise InputError(f"{path}: not found; a checkpoint directory needs it")
    return path


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint directory, by name.

    Raises:
      InputError: there are none, or a file cannot be read.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        return _read_shards(directory, index)
    path = directory / "model.safetensors"
    if path.is_file():
        return _read_file(path)
    pickled = [name for name in ("pytorch_model.bin", "model.pt", "model.bin")
               if (directory / name).exists()]  # fmt: skip
    if pickled:
        raise InputError(
            f"{directory / pickled[0]}: a pickle can run code, and is not read; "
            "AutoModel.from_pretrained(DIR).save_pretrained(DIR) of transformers "
            "writes model.safetensors beside it"
        )
    raise InputError(f"{path}: not found, nor {index.name}")


def _read_shards(directory: Path, index: Path) -> dict[str, np.ndarray]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise InputError(f"{index}: weight_map is missing")
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(places.values())):
        path = directory / str(name)
        if path.parent != directory or not path.is_file():
            raise InputError(f"{path}: not found, though {index.name} names it")
        found = _read_file(path)
        missing = {t for t, file in places.items() if file == name} - set(found)
        if missing:
            raise InputError(f"{path}: {min(missing)} is missing, as {index.name} says")
        tensors |= found
    return tensors


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(f"{path}: reading it needs safetensors: {NEED}") from None
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise InputError(
                f"{path}: a Git LFS pointer and not the file; `git lfs pull` fetches it"
            )
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({error}); fetch it again"
        ) from None


# Where transformers keeps the linear layers of a head: by what the model is for and by
# its family. What is not here is kept under `classifier.` by our own name.
HEADS: dict[tuple[str, str], dict[str, str]] = {
    ("SequenceClassification", "roberta"): {
        "dense": "classifier.dense",
        "out": "classifier.out_proj",
    },
    ("SequenceClassification", "distilbert"): {
        "dense": "pre_classifier",
        "out": "classifier",
    },
}


def _places(purpose: str, family: str) -> dict[str, str]:
    """Returns the names of the arrays of linear layers, by ours."""
    usual = {"out": "qa_outputs" if purpose == "QuestionAnswering" else "classifier"}
    layers = HEADS.get((purpose, family), usual)
    ends = (("kernel", "weight"), ("bias", "bias"))
    return {f"{ours}/{one}": f"{theirs}.{two}"
            for ours, theirs in layers.items() for one, two in ends}  # fmt: skip


def classifier_tensors(
    params: Params, dtype: Any, purpose: str, family: str
) -> dict[str, np.ndarray]:
    """Returns the arrays of a head by their names in a checkpoint.

    Args:
      params: of the head.
      dtype: of the arrays.
      purpose: `SequenceClassification`, `TokenClassification`, `QuestionAnswering`.
      family: of the encoder.
    """
    places, tensors = _places(purpose, family), {}
    for path, leaf in trees.flatten(params).items():
        array = np.asarray(leaf).astype(dtype)
        if path in places and path.endswith("kernel"):
            array = np.ascontiguousarray(array.T)
        tensors[places.get(path, f"classifier.{path}")] = array
    return tensors


def load_classifier(directory: str | Path, purpose: str, family: str) -> Params:
    """Returns the parameters that `pretrained.save` was given as `classifier`.

    Args:
      directory: of the checkpoint.
      purpose: see `classifier_tensors`.
      family: see `classifier_tensors`.

    Raises:
      InputError: there are none.
    """
    places = {theirs: ours for ours, theirs in _places(purpose, family).items()}
    leaves = {}
    for name, array in read_tensors(Path(directory)).items():
        if name in places:
            path = places[name]
            turned = array.T if path.endswith("kernel") else array
            leaves[path] = turned.astype("float32")
        elif name.startswith("classifier."):
            leaves[name.removeprefix("classifier.")] = array.astype("float32")
    if "out/kernel" not in leaves:
        raise InputError(f"{directory}: no classifier in it; it was not fine-tuned")
    return trees.unflatten(leaves)
