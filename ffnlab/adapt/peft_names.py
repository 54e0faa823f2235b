"""What the peft library calls the layers and the settings of our methods.

peft saves adapter_config.json and adapter_model.safetensors. It names a layer as the
model of `transformers` does; GPT-2's c_attn is our query, key and value at once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ffnlab import trees
from ffnlab.adapt.selection import ENCODER
from ffnlab.errors import InputError, choose
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.pretrained.conversion import FAMILIES
from ffnlab.pretrained.safetensors_io import classifier_tensors
from ffnlab.schema import Field, check
from ffnlab.types import Params

ARRAYS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
RANKNUM = 1e-5  # peft divides by the rank of AdaLoRA plus this

# The task of a head in transformers, and peft's name of it.
TASKS = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
}


class Layer(NamedTuple):
    """A linear layer of the encoder of a checkpoint.

    Attributes:
      name: Its name, without the prefix of a model with a head.
      modules: Paths of our layers that it consists of, side by side.
      transposed: Whether it is a Conv1D, whose kernel is `[D, H]` as ours.
    """

    name: str
    modules: tuple[str, ...]
    transposed: bool


def linear_rows(family: str, config: TransformerConfig) -> list[Layer]:
    """Returns the linear layers of an encoder, layer by layer.

    Raises:
      InputError: The family is not one of transformers, or layers are stacked.
    """
    known = [name for name, row in FAMILIES.items() if not row.native]
    if choose("family", family, FAMILIES) not in known:
        raise InputError(f"family: peft knows {', '.join(known)}, not {family}")
    if config.scan:
        raise InputError("scan: peft has no stacks of layers; unstack_layers first")
    return [
        Layer(
            row.name.format(i=i),
            tuple(row.paths.format(i=i).split()),
            row.kind == "conv1d",
        )
        for i in range(config.layers)
        for row in FAMILIES[family].rows
        if row.kind in ("linear", "conv1d") and "{i}" in row.name
    ]


def head_rows(params: Params, family: str, purpose: str) -> Iterator[tuple[str, str]]:
    """Yields the path and the name of every array outside the encoder.

    Args:
      params: Parameters of the model, `encoder` and `head`.
      family: A key of `FAMILIES`.
      purpose: A key of `TASKS`.
    """
    choose("purpose", purpose, TASKS)
    for path, leaf in trees.flatten(params.get("head", {})).items():
        one = trees.unflatten({path: np.zeros(leaf.shape, np.float32)})
        for name in classifier_tensors(one, np.float32, purpose, family):
            yield f"head/{path}", name


def is_transposed(path: str, name: str) -> bool:
    """Returns whether an array of a linear layer of torch is ours transposed."""
    return path.endswith("/kernel") and name.endswith(".weight")


def pooler_rows() -> list[tuple[str, str]]:
    """Returns the paths and names of the arrays of BERT's pooler."""
    return [
        (f"{ENCODER}pooler/{ours}", f"pooler.dense.{theirs}")
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    ]


def read_number(
    settings: dict[str, Any],
    key: str,
    source: str,
    default: Any = None,
    least: float = 0,
    most: float = 2**31 - 1,
    whole: bool = False,
) -> Any:
    """Returns a number of adapter_config.json, in a range.

    Raises:
      InputError: It is missing without a default, or is no such number, or should be
        whole and is not.
    """
    value = default if settings.get(key) is None else settings[key]
    if value is None:
        raise InputError(f"{source}: {key} is missing")
    kind = Field(kind=int if whole else float, least=least, most=most)
    return check(value, kind, f"{source}: {key}", "save the adapter again")
