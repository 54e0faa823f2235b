"""Dataclass fields that are flags: their help, their limits and their flag files.

A configuration is a frozen dataclass whose fields are made by `option`. It may inherit
from other such dataclasses; the docstring of each class is a heading of `--help`. The
class attribute `RENAMED` maps old names of fields to today's, so that old command lines
and flag files keep working.
"""

import dataclasses
import importlib
import json
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from ffnlab import devices, names
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
      default: The default value; None stands for "not given".
      text: The help text. `--help` adds the type, the range and the default.
      least: The smallest number allowed.
      above: Numbers must exceed this.
      below: Numbers must be smaller than this.
      known: Returns the names allowed.
      empty: Whether a list may be empty.
      repeats: Whether a list may hold an entry twice.
    """
    limits = {"least": least, "above": above, "below": below, "known": known}
    more = {"text": text, "empty": empty, "repeats": repeats}
    return dataclasses.field(default=default, metadata={**limits, **more})


def names_in(module: str, table: str) -> Callable[[], list[str]]:
    """Returns a function that returns the keys of a module's table.

    Tables of modules that import JAX are listed in `ffnlab.names`, and read from there
    until their module is imported; from then on, rows that a user added count too.

    Args:
      module: The module's name, for instance `ffnlab.nn.ffn`.
      table: The name of a dict in it, for instance `BLOCKS`.

    >>> names_in("ffnlab.data.builtin", "DATASETS")()[:3]
    ['digits', 'bytes', 'breast_cancer']
    """

    def known() -> list[str]:
        listed = names.TABLES.get((module, table))
        if listed and module not in sys.modules:
            return list(listed)
        return list(getattr(importlib.import_module(module), table))

    return known


def kind_of(hint: Any) -> tuple[type, bool]:
    """Returns the type of a field's values, and whether there may be several.

    >>> kind_of(int | None), kind_of(tuple[str, ...])
    ((<class 'int'>, False), (<class 'str'>, True))
    """
    inner = [a for a in typing.get_args(hint) if a not in (type(None), ...)]
    return (inner[0] if inner else hint), typing.get_origin(hint) is tuple


def check(config: Any) -> None:
    """Checks each field of a configuration against its type and its limits.

    A value of another type is converted where that is unambiguous: lists and arrays
    become tuples, one value becomes a tuple of one, text that a flag would accept
    becomes what it stands for, and numbers of NumPy become those of Python.

    Raises:
      InputError: A value is of another type, a number is not finite or out of range, or
        a name is unknown; the field is named.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = _convert(field, getattr(config, field.name), hints[field.name])
        object.__setattr__(config, field.name, value)
        values = value if isinstance(value, tuple) else (value,)
        if value == () and not field.metadata["empty"]:
            raise InputError(f"{field.name}: at least one is needed")
        if len(set(values)) < len(values) and not field.metadata["repeats"]:
            raise InputError(f"{field.name}: {as_text(value)} has an entry twice")
        for one in values:
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                _check_number(field, one)
            elif isinstance(one, str) and field.metadata["known"]:
                choose(field.name, one, field.metadata["known"]())


_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def _convert(field: dataclasses.Field, value: Any, hint: Any) -> Any:
    """Returns the value of a field in the type of the field."""
    kind, several = kind_of(hint)
    if value is None and type(None) in typing.get_args(hint):
        return None
    if not several:
        return _convert_one(field, value, kind)
    if isinstance(value, str):  # as a flag holds it
        value = [part.strip() for part in value.split(",") if part]
    elif not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        value = [value]
    elif isinstance(value, (Mapping, Set, bytes)):
        raise _wrong_type(field, value, "a list")
    return tuple(_convert_one(field, one, kind) for one in value)


def _convert_one(field: dataclasses.Field, value: Any, kind: type) -> Any:
    """Returns one value in the type of its field."""
    if kind is str and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    exact = {int: int, float: (int, float), bool: bool, str: ()}[kind]
    if isinstance(value, exact) and (kind is bool or not isinstance(value, bool)):
        return value if type(value) in (int, float, bool) else kind(value)
    try:
        return _READERS[kind](str(value).strip())
    except (KeyError, ValueError):
        raise _wrong_type(field, value, _KINDS[kind]) from None


def _read_integer(text: str) -> int:
    """Returns the integer that a text stands for; 100.0 is one."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


_READERS: dict[type, Callable[[str], Any]] = {
    int: _read_integer,
    float: float,
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}[
        text.lower()
    ],
}


def _wrong_type(field: dataclasses.Field, value: Any, wanted: str) -> InputError:
    """Returns the error about a value that is not of the type of its field."""
    text = repr(value)
    shown = " ".join(text.split()) if len(text) <= 60 else type(value).__name__
    return InputError(
        f"{field.name}: {shown} should be {wanted} {limits(field)}".strip()
    )


def _check_number(field: dataclasses.Field, value: float) -> None:
    """Raises if a number is not finite or not within the limits of its field."""
    least, above, below = (field.metadata[key] for key in ("least", "above", "below"))
    fits = (
        abs(value) <= sys.float_info.max  # also where an int is too long for a float
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        raise InputError(f"{field.name}: {value} should be a number {limits(field)}")


def limits(field: dataclasses.Field) -> str:
    """Returns the range of a field's numbers in words; empty if there is no limit.

    >>> limits(option(0.5, "Dropout rate.", least=0, below=1))
    'at least 0 and below 1'
    """
    words = (("at least", "least"), ("above", "above"), ("below", "below"))
    bounds = ((word, field.metadata[key]) for word, key in words)
    return " and ".join(
        f"{word} {bound}" for word, bound in bounds if bound is not None
    )


# What belongs to one run.
RUN = (
    "out",
    "resume",
    "strict_resume",
    "device",
    "report_to",
    "mesh",
    "fsdp",
    "shard_positions",
    "coordinator",
    "processes",
    "process",
)


def to_flags(config: Any, leave_out: Iterable[str] = RUN) -> str:
    """Returns the lines of a flag file that gives this configuration again.

    Args:
      config: The configuration.
      leave_out: The fields that belong to one run and not to its repetition.
    """
    values = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in leave_out
    }
    lines = (
        f"--{flag_of(k)}={as_text(v)}\n" for k, v in values.items() if v is not None
    )
    return "".join(lines)


IMPORTS = "imports"  # the field of --import


def flag_of(field: str) -> str:
    """Returns the flag of a field, which cannot have the name of a keyword of Python.

    >>> flag_of("imports"), flag_of("seed")
    ('import', 'seed')
    """
    return "import" if field == IMPORTS else field


def rename_flag(argument: str, renamed: Mapping[str, str]) -> str:
    """Returns a command-line argument with today's name of its flag.

    >>> rename_flag("--length=64", {"length": "max_seq_length"})
    '--max_seq_length=64'
    >>> rename_flag("--noremat", {"remat": "gradient_checkpointing"})
    '--nogradient_checkpointing'
    """
    if not argument.startswith("-"):
        return argument
    dashes = argument[: len(argument) - len(argument.lstrip("-"))]
    name, equals, value = argument.lstrip("-").partition("=")
    if name in renamed:
        name = renamed[name]
    elif name.startswith("no") and name[2:] in renamed and not equals:
        name = f"no{renamed[name[2:]]}"
    return f"{dashes}{name}{equals}{value}"


def as_text(value: Any) -> str:
    """Returns a value as a flag file holds it."""
    if isinstance(value, tuple):
        return ",".join(map(as_text, value))
    if isinstance(value, str) and (value != value.strip() or set('\n\r"') & set(value)):
        return json.dumps(value, ensure_ascii=False)  # a flag file is read by lines
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Output: directory, how a run is continued, and where it runs."""

    out: str | None = option(
        None, "Output directory. The default is a new directory below runs/."
    )
    resume: bool = option(False, "Continue the run in the output directory.")
    strict_resume: bool = option(
        False,
        "Whether a damaged checkpoint is an error. If not, the run continues from the "
        "one before it, and says so.",
    )
    device: str | None = option(
        None,
        "Kind of device to run on. The default is that of the environment variable "
        "JAX_PLATFORMS, or an accelerator if JAX finds one.",
        known=lambda: devices.NAMES,
    )

    def __post_init__(self):
        check(self)
        if self.resume and not self.out:
            raise InputError("resume: out=DIRECTORY must name the run to continue")
