"""Dataclass fields that are flags: their limits, checked, and their flag file."""

import ast
import dataclasses
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ffnlab.errors import InputError, choose


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    known: Callable[[], Iterable[str]] | None = None,
    empty: bool = False,
    repeats: bool = False,
) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: its value unless given; None stands for "not given".
      text: what `--help` says of it.
      least: numbers must be at least this.
      above: numbers must be above this.
      below: numbers must be below this.
      known: returns the names that exist.
      empty: whether a list may hold nothing.
      repeats: whether a list may hold one thing twice.
    """
    limits = {"least": least, "above": above, "below": below, "known": known}
    more = {"text": text, "empty": empty, "repeats": repeats}
    return dataclasses.field(default=default, metadata={**limits, **more})


def names_in(module: str, table: str, **having: Any) -> Callable[[], list[str]]:
    """Returns a function that gives the keys of a module's table.

    An unimported module is read, not run: importing JAX takes a second or two, and a
    misspelt name should not.

    Args:
      module: for instance `ffnlab.nn.ffn`.
      table: the name of a dict literal in it, for instance `BLOCKS`.
      **having: only the rows with these fields, as they are written: `fixed=False`.

    >>> names_in("ffnlab.data.builtin", "DATASETS")()
    ['digits', 'bytes', 'breast_cancer', 'wine']
    >>> names_in("ffnlab.nn.ffn", "BLOCKS", fixed=False)()
    ['mlp', 'glu']
    """

    def names() -> list[str]:
        if module in sys.modules:
            rows = getattr(sys.modules[module], table)
            fields = {k: {f: getattr(v, f) for f in having} for k, v in rows.items()}
        else:
            fields = _written(module, table)
        return [k for k, found in fields.items() if having.items() <= found.items()]

    return names


def _written(module: str, table: str) -> dict[str, dict[str, Any]]:
    """Returns the keys of a dict literal, each with its row's literal keywords."""
    with open(importlib.util.find_spec(module).origin, encoding="utf-8") as file:
        body = ast.parse(file.read()).body
    for node in body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if getattr(targets[0], "id", None) == table:
            return {
                ast.literal_eval(key): {
                    each.arg: each.value.value
                    for each in getattr(row, "keywords", [])
                    if isinstance(each.value, ast.Constant)
                }
                for key, row in zip(node.value.keys, node.value.values, strict=True)
            }
    raise LookupError(f"{module} has no table {table}")


def check(config: Any) -> None:
    """Checks each field of a config against the limits of its option.

    Raises:
      InputError: a number is not finite or out of range, or a name is unknown; the
        flag is named.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, list):  # as a notebook would write it
            value = tuple(value)
            object.__setattr__(config, field.name, value)
        values = value if isinstance(value, tuple) else (value,)
        if value == () and not field.metadata["empty"]:
            raise InputError(f"{field.name}: at least one is needed")
        if len(set(values)) < len(values) and not field.metadata["repeats"]:
            raise InputError(f"{field.name}: {as_text(value)} has one of them twice")
        for one in values:
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                _check_number(field, one)
            elif isinstance(one, str) and field.metadata["known"]:
                choose(f"{field.name}", one, field.metadata["known"]())


def _check_number(field: dataclasses.Field, value: float) -> None:
    least, above, below = (field.metadata[key] for key in ("least", "above", "below"))
    wanted = [
        f"{word} {limit:g}"
        for word, limit in (("at least", least), ("above", above), ("below", below))
        if limit is not None
    ]
    fits = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        raise InputError(
            f"{field.name}: {value} should be a number {' and '.join(wanted)}"
        )


def to_flags(config: Any, leave_out: Iterable[str] = ()) -> str:
    """Returns the lines of a flag file that gives this config again.

    Args:
      config: an instance of a launcher's Config.
      leave_out: the fields that belong to one run and not to its repetition.
    """
    values = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in leave_out
    }
    lines = (f"--{k}={as_text(v)}\n" for k, v in values.items() if v is not None)
    return "".join(lines)


def as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(as_text, value))
    if isinstance(value, str) and (value != value.strip() or set('\n\r"') & set(value)):
        return json.dumps(value, ensure_ascii=False)  # a flag file is read by lines
    return str(value).lower() if isinstance(value, bool) else str(value)
