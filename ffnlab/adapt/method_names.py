"""Names of the methods, and configurations as text and as JSON.

parse("lora+bitfit", rank=8)  # LoRA(rank=8) + BitFit()
"""

import dataclasses
from typing import Any

from ffnlab.adapt.methods import (
    IA3,
    PLACEMENTS,
    AdaLoRA,
    AttentionOnly,
    BitFit,
    Bottleneck,
    Config,
    FFNOnly,
    Full,
    HeadOnly,
    LoRA,
    Method,
    Prefix,
    Prompt,
    TopLayers,
    as_methods,
)
from ffnlab.errors import InputError, choose
from ffnlab.schema import check_object, fields_of, show

CLASSES: tuple[type[Method], ...] = (
    LoRA, AdaLoRA, IA3, Bottleneck, Prefix, Prompt, BitFit, HeadOnly, TopLayers,
    FFNOnly, AttentionOnly, Full,
)  # fmt: skip

# The name of each method, its class, and the fields that the name sets.
METHODS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    **{each.name: (each, {}) for each in CLASSES if each is not Bottleneck},
    "dora": (LoRA, {"dora": True}),
    **{name: (Bottleneck, {"placement": name}) for name in PLACEMENTS},
}


def parse(text: str, **fields: Any) -> tuple[Method, ...]:
    """Returns the methods of a text such as `lora+bitfit`.

    Args:
      text: Keys of `METHODS`, with `+` between them.
      **fields: Fields of the methods; each is given to all methods that have it. None
        leaves the default.

    Raises:
      InputError: A method is unknown, no method has a field, or a value is out of its
        range.

    >>> parse("dora+head", rank=4)[0].dora
    True
    """
    fields = {name: value for name, value in fields.items() if value is not None}
    methods, used = [], set()
    for name in text.split("+"):
        kind, preset = METHODS[choose("method", name.strip().lower(), METHODS)]
        own = {field.name for field in dataclasses.fields(kind)} - set(preset)
        used |= own & set(fields)
        methods.append(kind(**preset, **{f: fields[f] for f in own if f in fields}))
    for name in fields:
        if name not in used:
            raise InputError(f"{name}: the method {text} has no such field")
    return as_methods(methods)


def to_json(config: Config) -> list[dict[str, Any]]:
    """Returns methods as JSON can hold them; `from_json` reads them.

    >>> from_json(to_json(LoRA(rank=2))) == (LoRA(rank=2),)
    True
    """
    return [
        {
            "method": method.name,
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(method).items()
            },
        }
        for method in as_methods(config)
    ]


def from_json(source: Any) -> tuple[Method, ...]:
    """Returns the methods that `to_json` wrote.

    Raises:
      InputError: A method or field is unknown, or a value is out of its range.
    """
    kinds, methods = {each.name: each for each in CLASSES}, []
    for row in source if isinstance(source, list) else [source]:
        if not isinstance(row, dict):
            raise InputError(f"method: {show(row)} is no object with fields")
        fields = {name: value for name, value in row.items() if name != "method"}
        kind = kinds[choose("method", str(row.get("method")), kinds)]
        known = fields_of(kind)
        for name in fields:
            choose(f"field of {kind.name}", name, known)
        methods.append(kind(**check_object(fields, known, kind.name)))
    return as_methods(methods)
