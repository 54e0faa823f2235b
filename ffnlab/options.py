"""Dataclass fields that are flags: their help, their limits and their flag files.

A configuration is a frozen dataclass whose fields are made by `option`. It may inherit
from other such dataclasses; the docstring of each class is a heading of `--help`. The
class attribute `RENAMED` maps old names of fields to today's, so that old command lines
and flag files keep working.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
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


def check(config: Any) -> None:
    """Checks each field of a configuration against the limits of its option.

    Lists become tuples.

    Raises:
      InputError: A number is not finite or out of range, or a name is unknown; the
        field is named.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, list):
            value = tuple(value)
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


RUN = ("out", "resume", "strict_resume", "device")  # what belongs to one run


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
    lines = (f"--{k}={as_text(v)}\n" for k, v in values.items() if v is not None)
    return "".join(lines)


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
