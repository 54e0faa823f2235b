"""The error for wrong input, and a check of names that offers the nearest ones."""

import difflib
from collections.abc import Iterable

from ffnlab import escape


class InputError(ValueError):
    r"""An input of the user cannot be used.

    The message is one line. It names the parameter, file, line or shape, and says what
    was expected and what to do. Launchers print it with the flags of the parameters and
    exit with code 2. What it quotes of a file is escaped for a terminal.

    >>> print(InputError("a.csv:2: unknown \x1b[31mred"))
    a.csv:2: unknown \x1b[31mred
    """

    def __str__(self) -> str:
        return escape.terminal_lines(super().__str__())


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns `name` if it is known; otherwise raises with the nearest names.

    Args:
      kind: The parameter or the kind of thing that is named, for instance `optimizer`.
      name: The name given.
      known: The names that exist.

    Raises:
      InputError: The name is unknown. The message offers the nearest names.

    >>> choose("activation", "relu", ["relu", "gelu"])
    'relu'
    >>> try:
    ...     choose("activation", "geul", ["tanh", "gelu"])
    ... except InputError as error:
    ...     print(error)
    activation: unknown 'geul'; nearest: gelu. Known: gelu, tanh
    """
    known = sorted(known)
    if name in known:
        return name
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"; nearest: {_join(nearest)}" if nearest else ""
    raise InputError(f"{kind}: unknown {name!r}{hint}. Known: {_join(known)}")


def _join(names: Iterable[str]) -> str:
    return ", ".join(map(escape.terminal, names))
