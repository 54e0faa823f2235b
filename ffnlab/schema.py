"""Checks of what is read from JSON: types, ranges, lengths and nesting.

    settings = parse_json(text, "config.json")
    check_object(settings, {"layers": Field(kind=int, least=1)}, "config.json")

Keys that no field describes are allowed, since the files of other programs have many.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from ffnlab.errors import InputError

DEPTH = 100  # levels of nesting that are read
MAX_INT = 2**63 - 1
_SHOWN = 60  # characters of a wrong value that a message shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """What a value of JSON may be.

    Attributes:
      kind: `bool`, `int`, `float` (any finite number), `str`, `list` or `dict`. A bool
        is neither an int nor a float.
      optional: Whether it may be null.
      required: Whether an object must have it.
      least: Smallest number, or smallest length of a text, list or object.
      most: Largest number or length; integers have at most 64 bits in any case.
      below: Numbers must be smaller than this.
      known: The values allowed.
      items: What the entries of a list or the values of an object may be.
      either: Another field, which the value may be instead.
    """

    kind: type
    optional: bool = False
    required: bool = False
    least: float | None = None
    most: float | None = None
    below: float | None = None
    known: tuple[Any, ...] = ()
    items: "Field | None" = None
    either: "Field | None" = None

    def __str__(self) -> str:
        words = [_describe(self)]
        words += [str(self.either)] if self.either else []
        return " or ".join([*words, "null"] if self.optional else words)


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
_UNITS = {str: " characters", list: " entries", dict: " keys"}


def _describe(field: Field) -> str:
    """Returns what a value may be, without the alternatives, in words."""
    if field.known:
        names = [json.dumps(value) for value in field.known]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    limits = (("at least", "least"), ("at most", "most"), ("below", "below"))
    bounds = [(word, getattr(field, name)) for word, name in limits]
    bounds = [f"{word} {bound}" for word, bound in bounds if bound is not None]
    text = _NAMES[field.kind]
    if bounds and field.kind in _UNITS:
        text += f" of {' and '.join(bounds)}{_UNITS[field.kind]}"
    elif bounds:
        text += f" {' and '.join(bounds)}"
    return text


def check(value: Any, field: Field, where: str, advice: str = "") -> Any:
    """Returns a value after a check that it is what a field describes.

    Args:
      value: A value of JSON.
      field: What it may be.
      where: The file and the key, for errors.
      advice: What to do if it is wrong, for errors.

    Raises:
      InputError: The value, or an entry of it, is something else.

    >>> check(3, Field(kind=int, least=1), "config.json: layers")
    3
    >>> check(True, Field(kind=int), "config.json: layers", "download it again")
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: config.json: layers: should be a whole number, not true; \
download it again
    """
    if value is None and field.optional:
        return value
    if field.either is not None and isinstance(value, field.either.kind):
        return check(value, field.either, where, advice)
    if not _fits(value, field):
        raise error(where, f"should be {field}, not {show(value)}", advice)
    if field.items is not None:
        keyed = isinstance(value, dict)
        rows = value.items() if keyed else enumerate(value, 1)
        for key, item in rows:
            if field.items.items is None and _fits(item, field.items):
                continue
            name = show(key) if keyed else f"entry {key}"
            check(item, field.items, f"{where}: {name}", advice)
    return value


def error(where: str, what: str, advice: str = "") -> InputError:
    """Returns an error of one line: where, what is wrong, and what to do."""
    return InputError(f"{where}: {what}{'; ' if advice else ''}{advice}")


def _fits(value: Any, field: Field) -> bool:
    """Returns whether a value is of the kind and in the range of a field."""
    kinds = (int, float) if field.kind is float else (field.kind,)
    if type(value) not in kinds:
        return False
    size = len(value) if field.kind in _UNITS else value
    if type(value) is str and any("\ud800" <= letter <= "\udfff" for letter in value):
        return False
    if type(value) is int and not -MAX_INT <= value <= MAX_INT:
        return False
    if type(value) is float and not math.isfinite(value):
        return False
    return (
        (field.least is None or size >= field.least)
        and (field.most is None or size <= field.most)
        and (field.below is None or size < field.below)
        and (not field.known or value in field.known)
    )


def show(value: Any) -> str:
    """Returns a value as JSON of one short line, for errors.

    >>> show({"a": "b\\n"}), show([1] * 99), show(10**5000)
    ('{"a": "b\\\\n"}', 'a list of 99 entries', 'an integer of over 64 bits')
    """
    if type(value) is int and abs(value) > MAX_INT:
        return "an integer of over 64 bits"
    if isinstance(value, (list, dict)):
        if len(value) > 9 or nesting(value) > 3:
            unit = _UNITS[type(value)]
            return f"{_NAMES[type(value)]} of {len(value)}{unit}"
        parts = [show(each) for each in value]
        if isinstance(value, dict):
            rows = zip(parts, value.values(), strict=True)
            parts = [f"{name}: {show(each)}" for name, each in rows]
        text = ", ".join(parts)
        text = f"[{text}]" if isinstance(value, list) else f"{{{text}}}"
    else:
        plain = isinstance(value, str) and value.isprintable()
        text = json.dumps(value, ensure_ascii=not plain)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_object(
    values: Any, fields: Mapping[str, Field], where: str, advice: str = ""
) -> dict[str, Any]:
    """Returns the values of an object that fields describe, after a check of each.

    Args:
      values: A value of JSON.
      fields: What each key may hold. Other keys are allowed, and left out.
      where: The file, for errors.
      advice: What to do if a value is wrong, for errors.

    Raises:
      InputError: It is no object, a key is missing, or a value is something else.

    >>> check_object({"a": 1, "b": 2}, {"a": Field(kind=int)}, "config.json")
    {'a': 1}
    """
    check(values, Field(kind=dict), where, advice)
    for key, field in fields.items():
        if key in values:
            check(values[key], field, f"{where}: {key}", advice)
        elif field.required:
            raise error(where, f"{key} is missing", advice)
    return {key: values[key] for key in fields if key in values}


def fields_of(config: type, **changes: Field) -> dict[str, Field]:
    """Returns what JSON may hold for each field of a dataclass, by its type hints.

    Args:
      config: The dataclass. Its hints are bool, int, float, str, Literal, tuples of one
        of them, and these or None.
      **changes: Fields that replace those of the hints, by name.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     names: tuple[str, ...] | None
    >>> str(fields_of(Config)["names"])
    'a list or null'
    """
    hints = typing.get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config)]
    return {name: changes.get(name) or _field_of(hints[name]) for name in names}


def _field_of(hint: Any) -> Field:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return Field(kind=type(inner[0]), known=inner)
    if origin is tuple:
        return Field(kind=list, items=_field_of(inner[0]))
    if origin in (types.UnionType, typing.Union):
        first, *others = (_field_of(each) for each in inner if each is not type(None))
        return dataclasses.replace(
            first,
            optional=type(None) in inner,
            either=others[0] if others else None,
        )
    return Field(kind=hint)


def nesting(value: Any) -> int:
    """Returns the number of levels of lists and objects, at most `DEPTH` + 1.

    >>> nesting(3), nesting([]), nesting({"a": [1, [2]]})
    (0, 1, 3)
    """
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, (list, dict))]:
        depth += 1
        if depth > DEPTH:
            break
        members = (e.values() if isinstance(e, dict) else e for e in level)
        level = [each for row in members for each in row]
    return depth


def parse_json(text: str, where: str = "", advice: str = "") -> Any:
    """Returns the value of a JSON text.

    NaN and Infinity are read, as Python writes them; `check` refuses them where a
    number must be finite.

    Args:
      text: The text, without a byte-order mark.
      where: Its file, for errors; empty if the caller names it and the line.
      advice: What to do if it is wrong, for errors.

    Raises:
      InputError: The text is not JSON, an object has a key twice, or the nesting is too
        deep or a number too long to be read.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ffnlab.errors.InputError: 'a' is there twice
    """
    line = ""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except InputError as found:
        what = str(found)
    except json.JSONDecodeError as found:
        what, line = f"not JSON: {found.msg}", f":{found.lineno}"
    except (RecursionError, ValueError):  # thousands of brackets or digits
        what = _TOO_DEEP
    else:
        if nesting(value) <= DEPTH:
            return value
        what = _TOO_DEEP
    raise error(f"{where}{line}", what, advice) if where else InputError(what) from None


_TOO_DEEP = f"JSON that goes too deep, over {DEPTH} levels, or has too long a number"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object; raises if a key is there twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        name = repr(_first_repeated(key for key, _ in pairs))
        raise InputError(f"{name[:_SHOWN]} is there twice")
    return members


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))
