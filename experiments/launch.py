"""What every launcher shares: flags from a config, one clear error, the devices.

A launcher defines a frozen dataclass `Config` whose fields are made by `option`, a
`run(config)`, and ends with `launch.main(Config, run)`. Nothing here imports JAX, so
that a wrong flag is refused before it is.
"""

import contextlib
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from typing import Any

from absl import flags

from ffnlab.errors import InputError
from ffnlab.options import as_text


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
        shown = "" if field.default is None else as_text(field.default)
        text = textwrap.wrap(field.metadata["text"], 78, **_INDENT)
        lines += [f"  --{field.name}={shown}", *text]
    for switch, preset in (presets or {}).items():
        short = " ".join(f"--{name}={as_text(value)}" for name, value in preset.items())
        lines += [f"  --{switch}", *textwrap.wrap(short, 78, **_INDENT)]
    lines += ["  --flagfile=", "      read flags from this file too"]
    return "\n".join(lines)


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
