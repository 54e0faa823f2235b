"""Flags of a command line and of flag files, parsed by absl into a configuration.

Flags are the fields of a configuration: `--name=value`, `--name value`, and `--name` or
`--noname` where a field is true or false. `--flagfile=FILE` stands for the lines of a
file, each a word of the command line; blank lines and those that start with `#` or `//`
are skipped. Flag files may name further ones, relative to the working directory. They
are read here and not by absl, with limits, and so that errors name file and line.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import os
import re
import stat
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from absl import flags

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import kind_of

Presets = Mapping[str, Mapping[str, Any]]

_SIZE = 2**16  # bytes of all flag files of a command line
_DEPTH = 20  # flag files inside each other
_LONGEST = 200  # characters of the name of a flag
_JOINED = options.IMPORTS  # a flag whose values add up if it is given several times
_HELP = "(--help lists the flags)"


class Word(NamedTuple):
    """A word of a command line or a line of a flag file.

    Attributes:
      text: The word.
      where: `FILE:LINE: ` of a flag file, or empty.
    """

    text: str
    where: str = ""


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
    renamed = {options.flag_of(_JOINED): _JOINED} if _JOINED in kinds else {}
    renamed |= {**getattr(config, "RENAMED", {}), **(aliases or {})}
    words = read_flag_files(map(Word, argv[1:]))
    switches = dict.fromkeys(presets, (bool, False))
    given, where = _assign(words, {**kinds, **switches}, renamed)
    where = {options.flag_of(name): place for name, place in where.items()}
    values = {}
    for switch, preset in presets.items():
        values |= preset if given.pop(switch, False) else {}
    values |= given
    for name, value in values.items():
        flag = options.flag_of(name)
        _check_text(where.get(flag, ""), flag, value)
    try:
        return config(**values)
    except InputError as error:
        message = with_flags(str(error), config)
        flag = re.match(r"--(\w+): ", message)
        raise InputError((where.get(flag[1], "") if flag else "") + message) from None


class _List(flags.ArgumentParser):
    """Parses a comma-separated list of words or numbers into a tuple."""

    def __init__(self, kind: type):
        self.kind = kind
        self.syntactic_help = "comma-separated"

    def parse(self, argument: Any) -> tuple:
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
# How Python and absl say that a text is no number, or neither true nor false.
_REASONS = {
    r"invalid literal for int\(\) with base \d+: |could not convert .* float: "
    r"|Exceeds the limit .*": "not a number: ",
    r"\('Non-boolean argument to boolean flag', (.*)\)": r"neither true nor false: \1",
    r"Missing value for (--\w+)": r"\1 needs a value",
}


def _assign(
    words: Iterable[Word],
    kinds: Mapping[str, tuple[type, bool]],
    renamed: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the values of the flags by name, and where each was given."""
    values = flags.FlagValues()
    for name, (kind, several) in kinds.items():
        if kind is bool:
            flags.DEFINE_boolean(name, None, "", values)
            continue
        parser = _List(kind) if several else _PARSERS[kind]()
        if name == _JOINED:
            flags.DEFINE_multi(
                parser, flags.ArgumentSerializer(), name, None, "", values
            )
        else:
            flags.DEFINE(parser, name, None, "", values, flags.ArgumentSerializer())
    words = [w._replace(text=options.rename_flag(w.text, renamed)) for w in words]
    where = {_name_of(word, kinds): word.where for word in words}
    for word in words:
        if len(word.text.partition("=")[0]) > _LONGEST and word.text.startswith("-"):
            raise _unknown(word, kinds)
    try:
        rest = values(["", *(word.text for word in words)])[1:]
    except flags.UnrecognizedFlagError as error:
        raise _unknown(_find(words, kinds, error.flagname), kinds) from None
    except (flags.Error, ValueError) as error:
        raise _wrong(words, kinds, str(error)) from None
    if rest:
        raise _stray(next(word for word in words if word.text == rest[0]))
    given = {name: values[name].value for name in kinds if values[name].present}
    if _JOINED in given:
        each = itertools.chain.from_iterable(given[_JOINED])
        given[_JOINED] = tuple(dict.fromkeys(each))
    return given, where


def _name_of(word: Word, known: Iterable[str]) -> str:
    """Returns the name of the flag of a word, without the no of a negated one."""
    name = word.text.lstrip("-").partition("=")[0]
    negated = name.removeprefix("no")
    return negated if name not in known and negated in known else name


def _find(words: Iterable[Word], known: Iterable[str], name: str) -> Word:
    """Returns the last word that gives a flag."""
    found = [each for each in words if _name_of(each, known) == name]
    return found[-1] if found else Word(f"--{name}")


def _wrong(words: Iterable[Word], known: Iterable[str], message: str) -> InputError:
    """Returns the error about a flag whose value absl cannot parse."""
    message = message.replace("flag --", "--").removeprefix("ERROR:: ")
    for pattern, reason in _REASONS.items():
        message = re.sub(pattern, reason, message)
    name = re.search(r"--(\w+)", message)
    where = _find(words, known, name[1]).where if name else ""
    return InputError(f"{where}{message} {_HELP}")


def _stray(word: Word) -> InputError:
    wrong = f"{word.text!r} is not a flag; flags start with -- (see --help)"
    return InputError(word.where + wrong)


def _unknown(word: Word, known: Iterable[str]) -> InputError:
    """Returns the error about a flag that does not exist, with the nearest ones."""
    name = word.text.lstrip("-").partition("=")[0]
    nearest = difflib.get_close_matches(name, known, cutoff=0.5)
    hint = "; nearest: " + ", ".join(f"--{each}" for each in nearest) if nearest else ""
    return InputError(f"{word.where}unknown flag {'--' + name!r}{hint} {_HELP}")


def _check_text(where: str, name: str, value: Any) -> None:
    """Raises if a text cannot be written to a flag file or be the name of a file."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str) and re.search("[\0\ud800-\udfff]", one):
            wrong = "holds a NUL byte" if "\0" in one else "is not UTF-8"
            raise InputError(f"{where}--{name}: {one!r} {wrong}; give another name")


def read_flag_files(words: Iterable[Word]) -> Iterator[Word]:
    """Yields words with the lines of flag files in place of `--flagfile`.

    The files may hold 64 KiB together, each counted as often as it is read, and may
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
            if not equals:
                path = next(words, Word("")).text
                if not path:
                    raise InputError(f"{word.where}--flagfile needs a value {_HELP}")
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
        raise InputError(f"{wrong} is too long: flag files may have 64 KiB together")
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

    def as_flag(name: re.Match) -> str:
        return f"--{options.flag_of(name[1])}"

    leading = re.sub(rf"\b({names})\b", as_flag, message[:end])
    rest = re.sub(rf"(?<![\w./-])({names})(?==\S)", as_flag, message[end:])
    return leading + rest
