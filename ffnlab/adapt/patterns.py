r"""Regular expressions of the names of layers, matched in bounded time.

Patterns come from flags and from files of adapters, and Python's `re` takes time that
is exponential in the length of some. Here a pattern is matched against all places of a
name at once, a bit for each, so that the time is that of the pattern's length times
that of the name at most.

A pattern has at most 200 characters: letters that stand for themselves, `.` for any,
sets such as `[0-3]` and `[^a-z]`, the classes `\d`, `\w`, `\s` and their opposites in
capitals, `\` before other characters, groups `(a|b)`, `*`, `+` and `?` after one of
these, `^` and `$`. A group that holds `*` or `+` cannot be followed by them.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from ffnlab.errors import InputError

_LENGTH = 200  # characters of a pattern
_TOKEN = re.compile(
    r"\[\^?[\w./-]+\]|\\[dwsDWS]|\\[^a-zA-Z0-9]|\(\?:|[^\\\[\]{}]", re.DOTALL
)
_QUANTIFIERS = ("*", "+", "?")
# Returns the places that a part of a pattern ends at, from the name and the places that
# it starts at, each place a bit.
_Step = Callable[[str, int], int]


class _Part(NamedTuple):
    """A part of a pattern, and whether it may repeat something."""

    step: _Step
    repeats: bool


def match_end(pattern: str, name: str, separator: str) -> bool:
    """Returns whether a pattern matches a whole name, or all after a separator in it.

    Args:
      pattern: The pattern.
      name: The name.
      separator: The character between the parts of a name.

    Raises:
      InputError: The pattern is not valid.

    Source: Thompson 1968, Regular expression search algorithm.

    >>> match_end("attention/.*", "layer_0/attention/query", "/")
    True
    >>> match_end("up|down", "layer_0/ffn/group", "/")
    False
    """
    starts = 1 | _places(re.escape(separator), name) << 1
    return bool(_parse(pattern).step(name, starts) >> len(name))


@functools.lru_cache(maxsize=1024)
def _parse(pattern: str) -> _Part:
    """Returns a pattern as a function."""
    if len(pattern) > _LENGTH:
        raise InputError(f"{pattern!r:.60} is no pattern: over {_LENGTH} characters")
    tokens = [match[0] for match in _TOKEN.finditer(pattern)]
    try:
        if "".join(tokens) != pattern:
            known = r"sets [], classes \d, \w and \s, groups (|), *, +, ?, ^ and $"
            raise ValueError(f"only {known} have a meaning")
        tokens.reverse()  # the next one is the last
        part = _alternatives(tokens)
        if tokens:
            raise ValueError("unbalanced parenthesis")
    except (ValueError, re.error) as error:
        raise InputError(f"{pattern!r} is no pattern: {error}") from None
    return part


def _alternatives(tokens: list[str]) -> _Part:
    """Parses parts with `|` between them, to a `)` or the end."""
    parts = [_sequence(tokens)]
    while tokens and tokens[-1] == "|":
        tokens.pop()
        parts.append(_sequence(tokens))

    def step(name: str, at: int) -> int:
        return functools.reduce(int.__or__, (part.step(name, at) for part in parts))

    return _Part(step, any(part.repeats for part in parts))


def _sequence(tokens: list[str]) -> _Part:
    """Parses parts that follow each other."""
    parts = []
    while tokens and tokens[-1] not in ("|", ")"):
        parts.append(_quantified(tokens))

    def step(name: str, at: int) -> int:
        for part in parts:
            at = at and part.step(name, at)
        return at

    return _Part(step, any(part.repeats for part in parts))


def _quantified(tokens: list[str]) -> _Part:
    """Parses a group or a character, and what says how often it may occur."""
    anchor = tokens[-1] in ("^", "$")
    part = _one(tokens)
    quantifier = tokens.pop() if tokens and tokens[-1] in _QUANTIFIERS else None
    if quantifier is None:
        return part
    if anchor or tokens and tokens[-1] in _QUANTIFIERS:
        raise ValueError("nothing to repeat")
    if quantifier == "?":
        return _Part(lambda name, at: at | part.step(name, at), part.repeats)
    if part.repeats:
        raise ValueError("a group that repeats something cannot be repeated")

    def step(name: str, at: int) -> int:
        at = part.step(name, at) if quantifier == "+" else at
        while (further := at | part.step(name, at)) != at:
            at = further
        return at

    return _Part(step, True)


def _one(tokens: list[str]) -> _Part:
    """Parses a group, an anchor or what stands for one character."""
    token = tokens.pop()
    if token in ("(", "(?:"):
        part = _alternatives(tokens)
        if not tokens:
            raise ValueError("missing )")
        tokens.pop()
        return part
    if token in _QUANTIFIERS:
        raise ValueError("nothing to repeat")
    if token == "^":
        return _Part(lambda _, at: at & 1, False)
    if token == "$":
        return _Part(lambda name, at: at & 1 << len(name), False)
    re.compile(token)  # raises for a set such as [z-a]
    return _Part(lambda name, at: (at & _places(token, name)) << 1, False)


@functools.lru_cache(maxsize=4096)
def _places(token: str, name: str) -> int:
    """Returns where a name has a character, each place a bit."""
    character = re.compile(token)
    return sum(1 << n for n, each in enumerate(name) if character.fullmatch(each))
