"""config.json of a checkpoint: its fields as our configuration, and back."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffnlab.errors import InputError
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.pretrained.conversion import ACTIVATIONS, FAMILIES, Family
from ffnlab.schema import Field, check, check_object, fields_of, show

_REQUIRED = ("vocabulary", "features", "layers", "heads")
# What our configuration may hold, by field; foreign files have other names for them.
FIELDS: dict[str, Field] = fields_of(
    TransformerConfig,
    **{
        name: Field(kind=int, least=1, most=2**31 - 1)
        for name in (*_REQUIRED, "hidden", "length")
    },
    key_value_heads=Field(kind=int, least=1, most=2**31 - 1, optional=True),
    embedding=Field(kind=int, least=1, most=2**31 - 1, optional=True),
    head_activation=Field(kind=str, optional=True),
    offset=Field(kind=int, least=0, most=2**31 - 1),
    types=Field(kind=int, least=0, most=2**31 - 1),
    epsilon=Field(kind=float, least=0, below=1),
    dropout=Field(kind=float, least=0, below=1),
    attention_dropout=Field(kind=float, least=0, below=1),
)
# Fields that our own config.json leaves out where they are None, as all older ones do.
_LATER = ("embedding", "head_activation")
ADVICE = "download or save the checkpoint again"


def read_family(source: str, settings: dict[str, Any]) -> str:
    """Returns the family that a config.json names.

    Raises:
      InputError: It names none of `FAMILIES`.
    """
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        name = repr(kind) if isinstance(kind, str) else show(kind)
        known = ", ".join(FAMILIES)
        raise InputError(f"{source}: model_type {name:.60} should be one of {known}")
    return kind


def read_config(source: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the family of a config.json, and the fields of our configuration.

    Args:
      source: Name of the file, for error messages.
      settings: Contents of the file.

    Raises:
      InputError: The family is unknown, a key is missing, or a value is not supported.
    """
    kind = read_family(source, settings)
    family = FAMILIES[kind]
    required = {*family.fields} - {*_LATER} if family.native else _REQUIRED
    checks = {
        key: dataclasses.replace(FIELDS[field], required=field in required)
        for field, key in family.fields.items()
    }
    if not family.native:
        checks[family.fields["block"]] = Field(kind=str)
        hidden = family.fields["hidden"]  # None is four times the width
        checks[hidden] = dataclasses.replace(checks[hidden], optional=True)
    held = check_object(settings, checks, source, ADVICE)
    fields = {name: held[key] for name, key in family.fields.items() if key in held}
    if family.native:
        return kind, fields
    for key, value in family.fixed.items():
        wanted = f"only {show(value)} can be loaded"
        only = Field(kind=type(value), known=(value,))
        check(settings.get(key, value), only, f"{source}: {key}", wanted)
    fields = {**family.defaults, **fields}
    if fields.get("embedding") == fields["features"]:
        fields["embedding"] = None
    if fields.get("hidden") is None:
        fields["hidden"] = 4 * fields["features"]
    if family.padded:
        check_object(settings, {"pad_token_id": FIELDS["offset"]}, source, ADVICE)
        fields["offset"] = settings.get("pad_token_id", 1) + 1
        fields["length"] = fields.get("length", 512) - fields["offset"]
    name = fields.get("block", "gelu")
    if name not in ACTIVATIONS:
        raise InputError(
            f"{source}: activation {name!r:.60} should be one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    fields["block"] = f"mlp:{ACTIVATIONS[name]}"
    if family.head_activation:
        fields["head_activation"] = family.head_activation
    return kind, fields


def check_sizes(
    source: str,
    family: Family,
    fields: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Checks the sizes of a config.json by the arrays that are there.

    Nothing is allocated by a size before this check.

    Args:
      source: Name of the file, for error messages.
      family: The family of the checkpoint.
      fields: Fields of our configuration, as `read_config` returns them.
      tensors: The arrays, by the names of a model with a head.

    Raises:
      InputError: A size is larger than any axis of an array, or there are fewer layers.
    """
    shapes = {name: array.shape for name, array in tensors.items() if array.size}
    most = dict.fromkeys(
        ("vocabulary", "features", "embedding", "heads", "hidden", "types"),
        max((size for shape in shapes.values() for size in shape), default=0),
    )
    if fields.get("positions", "learned") == "learned":
        most["length"] = most["vocabulary"]
    most["layers"] = _count_layers(family, shapes)
    for name, limit in most.items():
        if fields.get(name) is not None and fields[name] > limit:
            key = family.fields[name]
            what = f"should be at most {limit}, as the arrays that are there have"
            raise InputError(f"{source}: {key}: {what}, not {fields[name]}; {ADVICE}")


def _count_layers(family: Family, shapes: Mapping[str, Sequence[int]]) -> int:
    """Returns the number of layers of which a checkpoint has arrays."""
    if family.native:
        stacks = [s[0] for name, s in shapes.items() if name.startswith("layers/")]
        numbers = {_number(name, "layer_(\\d+)/") for name in shapes}
        return max([*stacks, len(numbers - {None})])
    starts = {row.name.split("{i}")[0] for row in family.rows if "{i}" in row.name}
    pattern = (
        f"{re.escape(family.prefix)}(?:{'|'.join(map(re.escape, starts))})(\\d+)\\."
    )
    return len({_number(name, pattern) for name in shapes} - {None})


def _number(name: str, pattern: str) -> str | None:
    match = re.match(pattern, name)
    return match.group(1) if match else None


def write_config(kind: str, config: TransformerConfig) -> dict[str, Any]:
    """Returns the contents of config.json for a model.

    Args:
      kind: A key of `FAMILIES`.
      config: Configuration of the model.

    Raises:
      InputError: The family cannot represent the model. The message names the field.
    """
    family = FAMILIES[kind]
    settings = {key: getattr(config, field) for field, key in family.fields.items()}
    if family.native:
        for name in _LATER:
            if settings[name] is None:
                settings.pop(name)
        return {**settings, "model_type": kind}
    blocks = set(config.blocks)
    names = {f"mlp:{ours}": name for name, ours in reversed(ACTIVATIONS.items())}
    if len(blocks) > 1 or config.blocks[0] not in names:
        raise InputError(
            f"a {kind} checkpoint cannot hold the block {', '.join(sorted(blocks))}; "
            f"all layers need the same of {', '.join(sorted(names))}"
        )
    if "embedding" in family.fields:
        settings[family.fields["embedding"]] = config.embedding_width
    if family.padded:
        settings["max_position_embeddings"] += config.offset
        settings["pad_token_id"] = config.offset - 1
    settings[family.fields["block"]] = names[config.blocks[0]]
    head = config.head == "tied"
    settings |= {"model_type": kind, "architectures": [family.architectures[head]]}
    loaded = family.config(**read_config("config.json", settings)[1])
    same = ("types", "norm", "norm_kind", "embed_norm", "causal", "positions", "bias")
    same += ("epsilon", "offset", "key_value_heads", "embedding")
    if head and config.head_dense:
        same += ("head_function",)
    for name in same:
        value, only = getattr(config, name), getattr(loaded, name)
        if value != only:
            raise InputError(
                f"a {kind} checkpoint cannot hold {name}={value!r}, only {only!r}"
            )
    return settings
