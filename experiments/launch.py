"""What every launcher shares: flags from a config, one clear error, the devices.

A launcher defines a frozen dataclass `Config` whose fields are made by `option`, a
`run(config)`, and ends with `launch.main(Config, run)`. Nothing here imports JAX, so
that a wrong flag is refused before it is.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable
from typing import Any

from absl import flags

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

    >>> names_in("ffnlab.data", "DATASETS")()
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
            raise InputError(f"--{field.name}: at least one is needed")
        if len(set(values)) < len(values) and not field.metadata["repeats"]:
            raise InputError(f"--{field.name}: {_text(value)} has one of them twice")
        for one in values:
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                _check_number(field, one)
            elif isinstance(one, str) and field.metadata["known"]:
                choose(f"--{field.name}", one, field.metadata["known"]())


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
            f"--{field.name}: {value} should be a number {' and '.join(wanted)}"
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
    lines = (f"--{k}={_text(v)}\n" for k, v in values.items() if v is not None)
    return "".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, str) and (value != value.strip() or set('\n\r"') & set(value)):
        return json.dumps(value, ensure_ascii=False)  # a flag file is read by lines
    return str(value).lower() if isinstance(value, bool) else str(value)


class _List(flags.ArgumentParser):
    """Reads a comma-separated list of words or numbers into a tuple."""

    def __init__(self, kind: type):
        self.kind = kind
        self.syntactic_help = "comma-separated"

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        return tuple(self.kind(part.strip()) for part in argument.split(",") if part)


class _Text(flags.ArgumentParser):
    """Reads a text; one in double quotes as JSON does, so that it may hold anything.

    >>> _Text().parse('"def \\\\n"'), _Text().parse('"a'), _Text().parse("a")
    ('def \\n', '"a', 'a')
    """

    def parse(self, argument: Any) -> str:
        if len(argument) > 1 and argument[0] == argument[-1] == '"':
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(argument)
        return argument


_PARSERS = {
    int: flags.IntegerParser,
    float: flags.FloatParser,
    bool: flags.BooleanParser,
    str: _Text,
}


def define(config: type, values: flags.FlagValues) -> None:
    """Defines a flag for each field of a Config."""
    for name, hint in typing.get_type_hints(config).items():
        field = config.__dataclass_fields__[name]
        text = field.metadata["text"]
        inner = [a for a in typing.get_args(hint) if a not in (type(None), ...)]
        if typing.get_origin(hint) is tuple:
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(_List(inner[0]), name, field.default, text, values, serializer)
        elif hint is bool:
            flags.DEFINE_boolean(name, field.default, text, values)
        else:
            parser = _PARSERS[inner[0] if inner else hint]()
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(parser, name, field.default, text, values, serializer)


def parse(
    config: type,
    argv: list[str],
    presets: dict[str, dict] | None = None,
    aliases: dict[str, str] | None = None,
) -> Any:
    """Returns the Config that a command line asks for.

    Args:
      config: the launcher's Config.
      argv: the command line, with the program's name first.
      presets: for a switch, what it sets of the flags that were not given.
      aliases: other names of flags, and theirs.

    Raises:
      InputError: a flag is unknown, cannot be read, or is out of range.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("flagfile", None, "read flags from this file too", values)
    define(config, values)
    for switch in presets or {}:
        flags.DEFINE_boolean(switch, False, "a preset", values)
    argv = [_renamed(each, aliases or {}) for each in argv]
    try:
        rest = values(argv)[1:]
    except UnicodeDecodeError:
        raise InputError("--flagfile: not a text file") from None
    except flags.Error as error:
        message = str(error).replace("flag --", "--").removeprefix("ERROR:: ")
        message = re.sub(_NO_NUMBER, "not a number: ", message)
        raise InputError(f"{message} (--help lists the flags)") from None
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; flags start with -- (see --help)")
    names = [field.name for field in dataclasses.fields(config)]
    given = {name: values[name].value for name in names}
    for switch, preset in (presets or {}).items():
        if values[switch].value:
            given |= {k: v for k, v in preset.items() if not values[k].present}
    return config(**given)


def _renamed(argument: str, aliases: dict[str, str]) -> str:
    """Returns an argument with the name of its flag, if it has an alias of one.

    >>> _renamed("--output_dir=a", {"output_dir": "out"})
    '--out=a'
    """
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or name[2:] not in aliases:
        return argument
    return f"--{aliases[name[2:]]}{equals}{value}"


# What Python says of a text that is none.
_NO_NUMBER = r"invalid literal for int\(\) with base 10: |could not convert .* float: "
_INDENT = {"initial_indent": "      ", "subsequent_indent": "      "}


def usage(
    config: type, description: str, presets: dict[str, dict] | None = None
) -> str:
    """Returns what `--help` prints."""
    lines = [description.strip(), "", "Flags:"]
    own = inspect.get_annotations(config)  # before those it shares with others
    fields = sorted(dataclasses.fields(config), key=lambda field: field.name not in own)
    for field in fields:
        shown = "" if field.default is None else _text(field.default)
        text = textwrap.wrap(field.metadata["text"], 78, **_INDENT)
        lines += [f"  --{field.name}={shown}", *text]
    for switch, preset in (presets or {}).items():
        short = " ".join(f"--{name}={_text(value)}" for name, value in preset.items())
        lines += [f"  --{switch}", *textwrap.wrap(short, 78, **_INDENT)]
    lines += ["  --flagfile=", "      read flags from this file too"]
    return "\n".join(lines)


def use_all_cores() -> None:
    """Gives JAX one CPU device per core; of no effect once JAX is imported.

    A population is sharded over devices, and a step of a small model is too short to
    be worth splitting in any other way. Accelerators are not affected.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores or os.cpu_count() or 1))


def main(
    config: type,
    run: Callable[[Any], Any],
    description: str,
    presets: dict[str, dict] | None = None,
    aliases: dict[str, str] | None = None,
) -> None:
    """Runs a launcher from the command line; exits with 2 if the input is wrong.

    Args:
      config: the launcher's Config.
      run: what to do with it.
      description: the launcher's docstring.
      presets: see `parse`.
      aliases: see `parse`.
    """
    if {"--help", "-h", "--helpfull", "-help"} & set(sys.argv[1:]):
        print(usage(config, description, presets))
        return
    try:
        run(parse(config, sys.argv, presets, aliases))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: out of memory: ask for less ({error})", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print("; ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
        sys.exit(130)
