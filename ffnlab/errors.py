"""The one error a user sees, and the sentence that offers the nearest names."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the flag, file, line or shape, says what was
    expected and what to do. Launchers print it as it stands and exit with code 2.
    """


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns `name` if it is known; otherwise raises with the nearest names.

    Args:
      kind: what is being named, as the user calls it, e.g. `--optimizer`.
      name: the name given.
      known: the names that exist.

    Raises:
      InputError: `name` is unknown. The nearest names come first in the message.

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
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise InputError(f"{kind}: unknown {name!r}{hint}. Known: {', '.join(known)}")
