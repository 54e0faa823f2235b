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
import io
import os
import re
import signal
import sys
import textwrap
import traceback
import typing
from collections.abc import Callable, Mapping
from typing import Any

from experiments.flag_parsing import Presets, kind_of, parse, with_flags
from ffnlab import compilation_cache, escape, options, signals
from ffnlab.errors import InputError

_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text"}
_LISTS = {int: "integers", float: "numbers", str: "list"}
_EXIT_CODES = """\
0: finished. 1: an unexpected error, with a traceback. 2: a wrong flag or file, a full
disk or too little memory; the message says what to do. 3: another process of the run
has ended. 129, 130 and 143: stopped by SIGHUP, SIGINT or SIGTERM; the message says how
to continue. A second signal stops at once. 141: the reader of standard output closed
it."""
_VARIABLES = """\
FFNLAB_CACHE_DIR: the directory of compiled programs, which later runs load; by default
ffnlab in the directory of the user's caches. JAX_ENABLE_COMPILATION_CACHE=false: keep
no programs. JAX_COMPILATION_CACHE_DIR: keep them in this directory, as JAX does,
without a limit, and for every CPU alike."""
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
_LINE = 1000  # characters of a line of an error
_VALUE = 200  # characters of a value in quotes in a line that is too long
_CPP = 500  # characters of a message of C++


def usage(
    config: type,
    description: str,
    presets: Presets | None = None,
    compiles: bool = True,
) -> str:
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
    lines += ["", "Environment variables:", *_wrap(_VARIABLES)] if compiles else []
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
    kind, several = kind_of(hint)
    known = field.metadata["known"]
    facts = [f"comma-separated {_LISTS[kind]}" if several else _WORDS[kind]]
    if known:
        facts = [("any of " if several else "one of ") + ", ".join(known())]
    facts += [limit for limit in [options.limits(field)] if limit]
    shown = "" if field.default is None else options.as_text(field.default)
    text = f"{field.metadata['text']} ({', '.join(facts)})"
    return [f"  --{options.flag_of(field.name)}={shown}", *_wrap(text)]


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


def main(
    config: type,
    run: Callable[[Any], Any],
    description: str,
    presets: Presets | None = None,
    aliases: Mapping[str, str] | None = None,
    translate: Callable[[list[str]], Any] | None = None,
    compiles: bool = True,
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
      translate: Returns a command line with the flags of another program replaced by
        those of this one as `argv`, and lines about them as `notes`.
      compiles: Whether it runs programs of JAX, which are kept for the next run.
    """
    parsed = None
    try:
        try:
            signals.end_at_once(False)
            if None in (sys.stdout, sys.stderr):
                raise InputError("standard output or error is closed; use /dev/null")
            _show_all_characters()
            if {"--help", "-h", "--helpfull", "-help"} & set(sys.argv[1:]):
                print(usage(config, description, presets, compiles))
            else:
                argv, notes = translate(sys.argv) if translate else (sys.argv, ())
                for note in notes:
                    print(escape.terminal(note))
                parsed = parse(config, argv, presets, aliases)
                if compiles:
                    compilation_cache.enable()
                run(parsed)
            _flush()
        finally:
            signals.end_at_once(True)  # nothing below catches a signal
    except SystemExit:
        raise
    except BaseException as error:
        _flush_after(error)
        ending = describe(error, config, parsed)
        if ending is None and not signals.installed():
            raise
        code, message = ending or (1, traceback.format_exc().rstrip())
        signals.leave(code, message)


def _show_all_characters() -> None:
    r"""Writes characters that the terminal's encoding lacks as in Python: `\u0394`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not that of a notebook
            stream.reconfigure(errors="backslashreplace")


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
    notes = [escape.terminal(note) for note in getattr(error, "__notes__", ())]
    if isinstance(error, InputError):
        message = escape.terminal_lines(f"error: {with_flags(str(error), config)}")
        message = "\n".join(map(shorten, message.split("\n")))
        after_io = isinstance(error.__cause__, OSError)  # such as a full disk
        return 2, "; ".join([message, *(notes if after_io else ())])
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
    message = shorten(escape.terminal(message))  # commands of the notes stay whole
    return code, "; ".join([message, *notes])


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
    if isinstance(error, RuntimeError) and "initialize backend" in text:
        return f"{text}; JAX_PLATFORMS=cpu uses the CPU"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text
    ):
        return "out of memory: ask for less" + (
            f" ({_cut(text, _CPP)})" if text else ""
        )
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


def shorten(line: str) -> str:
    """Returns a line of at most 1,000 characters.

    Of long values in quotes, and of a line that is still too long, the beginning and
    the end are kept.

    >>> shorten(f"a.csv:2: unknown label '{'a' * 2000}'; known: b")[:50]
    "a.csv:2: unknown label 'aaaaaaaaaaaaaaaaaaaaaaaaaa"
    >>> len(shorten("a" * 2000))
    1000
    """
    if len(line) > _LINE:
        quoted = rf"'[^']{{{_VALUE},}}'|\"[^\"]{{{_VALUE},}}\""
        line = re.sub(quoted, lambda value: _cut(value[0], _VALUE), line)
    return _cut(line, _LINE)


def _cut(text: str, length: int) -> str:
    """Returns a text, with `…` in place of its middle if it is longer."""
    if len(text) <= length:
        return text
    start = length // 2
    return f"{text[:start]}…{text[len(text) - (length - start - 1) :]}"
