"""Flags of a command line and of flag files, parsed into a configuration.

Flags are the fields of a configuration: `--name=value`, `--name value`, and `--name` or
`--noname` where a field is true or false. `--flagfile=FILE` stands for the lines of a
file, each a word of the command line; blank lines and those that start with `#` or `//`
are skipped. Flag files may name further ones, relative to the working directory. Of a
flag that is given several times the last value counts.
"""

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import stat
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ffnlab import options
from ffnlab.errors import InputError

Presets = Mapping[str, Mapping[str, Any]]

_SIZE = 2**20  # bytes of all flag files of a command line
_DEPTH = 20  # flag files inside each other
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")
_HELP = "(--help lists the flags)"


class Word(NamedTuple):
    """A word of a command line or a line of a flag file.

    Attributes:
      text: The word.
      where: `FILE:LINE: ` of a flag file, or empty.
    """

    text: str
    where: str = ""


def kind_of(hint: Any) -> tuple[type, bool]:
    """Returns the type of a field's values, and whether there may be several.

    >>> kind_of(int | None), kind_of(tuple[str, ...])
    ((<class 'int'>, False), (<class 'str'>, True))
    """
    inner = [a for a in typing.get_args(hint) if a not in (type(None), ...)]
    return (inner[0] if inner else hint), typing.get_origin(hint) is tuple


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
    presets = presets or {}
    hints = typing.get_type_hints(config)
    kinds = {
        each.name: kind_of(hints[each.name]) for each in dataclasses.fields(config)
    }
    renamed = {**getattr(config, "RENAMED", {}), **(aliases or {})}
    words = read_flag_files(map(Word, argv[1:]))
    switches = dict.fromkeys(presets, (bool, False))
    given, where = _assign(words, {**kinds, **switches}, renamed)
    values = {}
    for switch, preset in presets.items():
        values |= preset if given.pop(switch, False) else {}
    values |= given
    for name, value in values.items():
        _check_text(where.get(name, ""), name, value)
    try:
        return config(**values)
    except InputError as error:
        message = with_flags(str(error), config)
        flag = re.match(r"--(\w+): ", message)
        raise InputError((where.get(flag[1], "") if flag else "") + message) from None


def _assign(
    words: Iterable[Word],
    kinds: Mapping[str, tuple[type, bool]],
    renamed: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the values of the flags by name, and where each was given."""
    values, where, words = {}, {}, iter(words)
    for word in words:
        if word.text == "--":
            word = next(words, None)
            if word is None:
                break
            raise _stray(word)
        if not word.text.startswith("-") or not word.text.strip("-"):
            raise _stray(word)
        text = options.rename_flag(word.text, renamed)
        name, equals, value = text.removeprefix("-").removeprefix("-").partition("=")
        negated = name.removeprefix("no")
        if kinds.get(name, (str,))[0] is bool and not equals:
            value = "true"
        elif name not in kinds and kinds.get(negated, (str,))[0] is bool:
            if equals:
                raise InputError(f"{word.where}--{name} takes no value {_HELP}")
            name, value = negated, "false"
        elif name not in kinds:
            raise _unknown(word, name, kinds)
        elif not equals:
            value = _value_after(word, name, words)
        values[name] = _parse_value(word.where, name, value, *kinds[name])
        where[name] = word.where
    return values, where


def _stray(word: Word) -> InputError:
    wrong = f"{word.text!r} is not a flag; flags start with -- (see --help)"
    return InputError(word.where + wrong)


def _unknown(word: Word, name: str, known: Iterable[str]) -> InputError:
    """Returns the error about a flag that does not exist, with the nearest ones."""
    nearest = difflib.get_close_matches(name, known, cutoff=0.5)
    hint = "; nearest: " + ", ".join(f"--{each}" for each in nearest) if nearest else ""
    return InputError(f"{word.where}unknown flag {'--' + name!r}{hint} {_HELP}")


def _value_after(word: Word, name: str, words: Iterator[Word]) -> str:
    """Returns the next word, which is the value of a flag."""
    following = next(words, None)
    if following is None:
        raise InputError(f"{word.where}--{name} needs a value {_HELP}")
    return following.text


def _parse_value(where: str, name: str, text: str, kind: type, several: bool) -> Any:
    """Returns the value of a flag.

    Raises:
      InputError: The text cannot be parsed.
    """
    parsers: dict[type, Callable[[str], Any]] = {int: _integer, bool: _boolean}
    one = parsers.get(kind, kind)
    try:
        if several:
            return tuple(one(part.strip()) for part in text.split(",") if part)
        return _unquote(text) if kind is str else one(text)
    except ValueError:
        wrong = "neither true nor false" if kind is bool else "not a number"
        parts = [part.strip() for part in text.split(",") if part] if several else []
        part = next((each for each in parts if not _parses(one, each)), text)
        message = f"{where}--{name}={text}: {wrong}: {part!r} {_HELP}"
        raise InputError(message) from None


def _parses(parser: Callable[[str], Any], text: str) -> bool:
    with contextlib.suppress(ValueError):
        parser(text)
        return True
    return False


def _integer(text: str) -> int:
    base = {"0x": 16, "0o": 8}.get(text[:2].lower(), 10)
    return int(text, base)


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def _unquote(text: str) -> str:
    """Returns a text; one in double quotes is JSON, so that it may hold any character.

    >>> _unquote('"def \\\\n"'), _unquote('"a'), _unquote("a")
    ('def \\n', '"a', 'a')
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
    return text


def _check_text(where: str, name: str, value: Any) -> None:
    """Raises if a text cannot be written to a flag file or be the name of a file."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str) and re.search("[\0\ud800-\udfff]", one):
            wrong = "holds a NUL byte" if "\0" in one else "is not UTF-8"
            raise InputError(f"{where}--{name}: {one!r} {wrong}; give another name")


def read_flag_files(words: Iterable[Word]) -> Iterator[Word]:
    """Yields words with the lines of flag files in place of `--flagfile`.

    The files may hold 1 MiB together, each counted as often as it is read, and may
    name others 20 deep.

    Args:
      words: Words of a command line.

    Raises:
      InputError: A flag file is no text file that can be read, includes itself, or is
        over a limit.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "flags")
    ...     _ = path.write_text("# A comment.\\n\\n--seed=1\\n")
    ...     [word.text for word in read_flag_files([Word(f"--flagfile={path}")])]
    ['--seed=1']
    """
    return _expand(iter(words), (), [_SIZE])


def _expand(
    words: Iterator[Word], opened: tuple[str, ...], left: list[int]
) -> Iterator[Word]:
    """Yields words with the lines of flag files in place of `--flagfile`.

    Args:
      words: Words of the command line or of a flag file.
      opened: The flag files that the words are from, the outermost first.
      left: The number of bytes that may still be read; it is updated.
    """
    for word in words:
        flag, equals, path = word.text.partition("=")
        if word.text == "--":
            yield word
            yield from words
        elif flag not in ("--flagfile", "-flagfile"):
            yield word
        else:
            path = path if equals else _value_after(word, "flagfile", words)
            path = os.path.expanduser(path.strip())
            wrong = f"{word.where}--flagfile: {path!r}"
            real = _real_path(path, wrong)
            if real in opened:
                raise InputError(f"{wrong} includes itself; remove the line")
            if len(opened) == _DEPTH:
                raise InputError(f"{wrong} is more than {_DEPTH} flag files deep")
            yield from _expand(_lines(path, wrong, left), (*opened, real), left)


def _real_path(path: str, wrong: str) -> str:
    """Returns the path of a regular file without links; raises for anything else."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        real = os.path.realpath(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{wrong} cannot be read: {reason}; name a file") from None
    except ValueError:  # a NUL byte, or half of a character
        raise InputError(f"{wrong} is no name of a file; name a file") from None
    if not regular:
        raise InputError(f"{wrong} is not a regular file; name a text file")
    return real


def _lines(path: str, wrong: str, left: list[int]) -> Iterator[Word]:
    """Returns the lines of a flag file that hold words."""
    try:
        with open(path, "rb") as file:
            content = file.read(left[0] + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{wrong} cannot be read: {reason}") from None
    left[0] -= len(content)
    if left[0] < 0:
        raise InputError(f"{wrong} is too long: flag files may have 1 MiB together")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{wrong}: line {number} is not UTF-8") from None
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{wrong}: line {number} holds a NUL byte; name a text file")
    lines = enumerate(map(str.strip, io.StringIO(text, newline=None)), 1)
    kept = (pair for pair in lines if pair[1] and not pair[1].startswith(("#", "//")))
    return (Word(line, f"{path}:{number}: ") for number, line in kept)


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
