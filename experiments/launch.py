"""What every launcher shares: flags from a configuration, and one clear error.

A launcher imports a configuration, a frozen dataclass whose fields are made by
`ffnlab.options.option`, and a function of it, and ends with
`launch.main(Config, run, __doc__)`. Nothing here imports JAX, so that a wrong flag is
refused before JAX is imported.
"""

import contextlib
import dataclasses
import errno
import inspect
import json
import os
import re
import signal
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from ffnlab import options, signals
from ffnlab.errors import InputError

Presets = Mapping[str, Mapping[str, Any]]


class _List(flags.ArgumentParser):
    """Parses a comma-separated list of words or numbers into a tuple."""

    def __init__(self, kind: type):
        self.kind = kind
        self.syntactic_help = "comma-separated"

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        return tuple(self.kind(part.strip()) for part in argument.split(",") if part)


class _Text(flags.ArgumentParser):
    """Parses a text; one in double quotes is JSON, so that it may hold any character.

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
_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text"}
_LISTS = {int: "integers", float: "numbers", str: "list"}
_EXIT_CODES = """\
0: finished. 1: an unexpected error, with a traceback. 2: a wrong flag or file, a full
disk or too little memory; the message says what to do. 129, 130 and 143: stopped by
SIGHUP, SIGINT or SIGTERM; the message says how to continue. A second signal stops at
once. 141: the reader of standard output closed it."""
# What to do about an error of the operating system.
_ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EIO: "the device fails; use another",
    errno.EROFS: "name a path on a disk that can be written to",
    errno.EACCES: "change the permissions, or name another path",
    errno.EPERM: "change the permissions, or name another path",
    errno.ENAMETOOLONG: "name a shorter path; a name has at most 255 bytes",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_LONGEST = 500  # characters of a message of C++
# How Python's messages about a text that is not a number start.
_NO_NUMBER = r"invalid literal for int\(\) with base 10: |could not convert .* float: "


def _kind(hint: Any) -> tuple[type, bool]:
    """Returns the type of a field's values, and whether there may be several."""
    inner = [a for a in typing.get_args(hint) if a not in (type(None), ...)]
    return (inner[0] if inner else hint), typing.get_origin(hint) is tuple


def define(config: type, values: flags.FlagValues) -> None:
    """Defines a flag for each field of a configuration."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        name, (kind, several) = field.name, _kind(hints[field.name])
        text = field.metadata["text"]
        if kind is bool:
            flags.DEFINE_boolean(name, field.default, text, values)
            continue
        parser = _List(kind) if several else _PARSERS[kind]()
        serializer = flags.ArgumentSerializer()
        flags.DEFINE(parser, name, field.default, text, values, serializer)


def parse(
    config: type,
    argv: list[str],
    presets: Presets | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Any:
    """Returns the configuration that a command line asks for.

    Args:
      config: The configuration's class; its `RENAMED` are old names of flags.
      argv: The command line, with the program's name first.
      presets: For each switch, the values of the flags that were not given.
      aliases: Further names of flags, and the flags that they stand for.

    Raises:
      InputError: A flag is unknown, cannot be parsed, or is out of range.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("flagfile", None, "Read flags from this file too.", values)
    define(config, values)
    for switch in presets or {}:
        flags.DEFINE_boolean(switch, False, "A preset.", values)
    rest = _assign(values, argv, {**getattr(config, "RENAMED", {}), **(aliases or {})})
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; flags start with -- (see --help)")
    fields = [field.name for field in dataclasses.fields(config)]
    given = {name: values[name].value for name in fields}
    for switch, preset in (presets or {}).items():
        if values[switch].value:
            given |= {k: v for k, v in preset.items() if not values[k].present}
    for name, value in given.items():
        _check_text(name, value)
    try:
        return config(**given)
    except InputError as error:
        raise InputError(with_flags(str(error), config)) from None


def _check_text(name: str, value: Any) -> None:
    """Raises if a text cannot be written to a flag file or be the name of a file."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str) and re.search("[\0\ud800-\udfff]", one):
            wrong = "holds a NUL byte" if "\0" in one else "is not UTF-8"
            raise InputError(f"--{name}: {one!r} {wrong}; give another name")


def _assign(
    values: flags.FlagValues, argv: list[str], renamed: Mapping[str, str]
) -> list[str]:
    """Assigns flags from a command line and its flag files; returns the other words."""
    try:
        argv = values.read_flags_from_files(argv, force_gnu=False)
        return values([options.rename_flag(each, renamed) for each in argv])[1:]
    except ValueError:  # not UTF-8, or the name of another file has a NUL byte
        raise InputError("--flagfile: not a text file") from None
    except flags.Error as error:
        message = str(error).replace("flag --", "--").removeprefix("ERROR:: ")
        message = re.sub(_NO_NUMBER, "not a number: ", message)
        raise InputError(f"{message} (--help lists the flags)") from None


def usage(config: type, description: str, presets: Presets | None = None) -> str:
    """Returns what `--help` prints: flags under the headings of their classes."""
    hints, lines = typing.get_type_hints(config), [description.strip()]
    for owner, fields in _groups(config).items():
        lines += ["", owner.__doc__.strip().splitlines()[0].rstrip(".") + ":"]
        for field in fields:
            lines += _flag(field, hints[field.name])
    lines += ["", "Presets and files:"] if presets else ["", "Files:"]
    for switch, preset in (presets or {}).items():
        short = [f"--{name}={options.as_text(value)}" for name, value in preset.items()]
        lines += [f"  --{switch}", *_wrap(" ".join(short))]
    lines += ["  --flagfile=", *_wrap("Read flags from this file too.")]
    return "\n".join([*lines, "", "Exit codes:", *_wrap(_EXIT_CODES)])


def _groups(config: type) -> dict[type, list[dataclasses.Field]]:
    """Returns the fields by the class that defines them, the launcher's own first."""
    classes = [c for c in config.__mro__ if dataclasses.is_dataclass(c)]
    groups: dict[type, list[dataclasses.Field]] = {owner: [] for owner in classes}
    for field in dataclasses.fields(config):
        owner = next(c for c in classes if field.name in inspect.get_annotations(c))
        groups[owner].append(field)
    return {owner: fields for owner, fields in groups.items() if fields}


def _flag(field: dataclasses.Field, hint: Any) -> list[str]:
    """Returns the lines of `--help` about a flag."""
    kind, several = _kind(hint)
    known = field.metadata["known"]
    facts = [f"comma-separated {_LISTS[kind]}" if several else _WORDS[kind]]
    if known:
        facts = [("any of " if several else "one of ") + ", ".join(known())]
    facts += [limit for limit in [options.limits(field)] if limit]
    shown = "" if field.default is None else options.as_text(field.default)
    text = f"{field.metadata['text']} ({', '.join(facts)})"
    return [f"  --{field.name}={shown}", *_wrap(text)]


def _wrap(text: str) -> list[str]:
    """Returns a text as indented lines of at most 78 characters."""
    indent = " " * 6
    return textwrap.wrap(
        text,
        78,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def with_flags(message: str, config: type) -> str:
    """Returns an error message of the library with flags for its parameters.

    A parameter becomes a flag where the message starts with it (`out: ...`, or several:
    `out and seed: ...`) and where it stands before a value (`seed=1`).

    Args:
      message: The message.
      config: The configuration whose fields are parameters.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     out: str = ""
    ...     seed: int = 0
    >>> with_flags("out: runs holds a run; resume it, or give seed=1", Config)
    '--out: runs holds a run; resume it, or give --seed=1'
    >>> with_flags("out and seed: give one of them", Config)
    '--out and --seed: give one of them'
    """
    names = "|".join(field.name for field in dataclasses.fields(config))
    lead = re.match(rf"(?:{names})(?:(?:, | and |, and )(?:{names}))*(?=: |=)", message)
    end = lead.end() if lead else 0
    leading = re.sub(rf"\b({names})\b", r"--\1", message[:end])
    return leading + re.sub(rf"(?<![\w./-])({names})(?==\S)", r"--\1", message[end:])


def main(
    config: type,
    run: Callable[[Any], Any],
    description: str,
    presets: Presets | None = None,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Runs a launcher from the command line; how it ends is the exit code.

    What goes wrong for a reason that the user can mend is one line, without a
    traceback.

    Args:
      config: The launcher's configuration.
      run: The function to call with it.
      description: The launcher's docstring.
      presets: See `parse`.
      aliases: See `parse`.
    """
    parsed = None
    try:
        try:
            signals.end_at_once(False)
            if None in (sys.stdout, sys.stderr):
                raise InputError("standard output or error is closed; use /dev/null")
            if {"--help", "-h", "--helpfull", "-help"} & set(sys.argv[1:]):
                print(usage(config, description, presets))
            else:
                parsed = parse(config, sys.argv, presets, aliases)
                run(parsed)
            _flush()
        finally:
            signals.end_at_once(True)  # nothing below catches a signal
    except SystemExit:
        raise
    except BaseException as error:
        _flush_after(error)
        ending = describe(error, config, parsed)
        code, message = ending or (1, "")
        signals.exit_with(code)
        if ending is None:
            raise
        if message:
            with contextlib.suppress(OSError):
                print(message, file=sys.stderr)
        sys.exit(code)


def _flush() -> None:
    """Writes the rest of standard output, or discards it where that fails.

    Python flushes again when it exits, and prints what fails then.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _flush_after(error: BaseException) -> None:
    """Flushes, and names standard output in an error that comes from it."""
    try:
        _flush()
    except OSError as again:
        if isinstance(error, OSError) and error.errno == again.errno:
            error.filename = error.filename or again.filename


def describe(
    error: BaseException, config: type, parsed: Any = None
) -> tuple[int, str] | None:
    """Returns the exit code and the message for an error that the user can mend.

    Args:
      error: What ended the launcher.
      config: The class whose fields are parameters.
      parsed: The configuration, if the flags could be parsed.

    Returns:
      The code and one line, with more lines only for several problems of a file, or no
      line; None for an error that nobody expects.
    """
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE, ""
    if isinstance(error, InputError):
        message = printable(with_flags(str(error), config), keep="\n")
        return 2, f"error: {message}"
    number = signals.pending()  # the signal can become another error on its way
    if isinstance(error, KeyboardInterrupt):
        code = 128 + getattr(error, "number", signal.SIGINT)
        message = str(error) or "interrupted"
    elif system := _describe_system(error, parsed):
        code, message = 2, f"error: {system}"
    elif number and isinstance(error, Exception):
        code, message = 128 + number, str(signals.Stopped(number))
    else:
        return None
    return code, printable("; ".join([message, *getattr(error, "__notes__", [])]))


def _describe_system(error: BaseException, parsed: Any) -> str | None:
    """Returns a message about the memory or the files, or None for other errors."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and (error.errno in _ADVICE or error.filename):
        reason, where = error.strerror or text, _name(error.filename, parsed)
        advice = _ADVICE.get(error.errno, "name another path")
        return f"{where}: {reason}; {advice}"
    if isinstance(error, (RuntimeError, ValueError)):  # of the C++ that saves
        for number, advice in _ADVICE.items():
            before, reason, _ = text.partition(os.strerror(number))
            if reason:
                paths = re.findall(r"[\"'](/[^\"']+)[\"']", before)
                where = _name(paths[-1] if paths else None, parsed)
                return f"{where}: {reason}; {advice}"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text
    ):
        return "out of memory: ask for less" + (f" ({text[:_LONGEST]})" if text else "")
    return None


def _name(path: Any, parsed: Any) -> str:
    """Returns a path, after the flag that it comes from if there is one."""
    given = {} if parsed is None else vars(parsed)
    if path is None:
        out = given.get("out") or given.get("output")
        return "standard output or a file" + (f" in {out}" if out else "")
    path = os.fsdecode(path)
    for name, value in given.items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and one and f"{path}/".startswith(f"{one}/"):
                return f"--{name}: {path}"
    return path


def printable(text: str, keep: str = "") -> str:
    r"""Returns a text with what would act on a terminal escaped.

    Args:
      text: The text.
      keep: Characters to keep.

    >>> print(printable("a\x1b[31m\u202eb"))
    a\x1b[31m\u202eb
    """
    escaped = (c.encode("unicode_escape").decode() for c in text)
    pairs = zip(text, escaped, strict=True)
    return "".join(c if c.isprintable() or c in keep else e for c, e in pairs)
