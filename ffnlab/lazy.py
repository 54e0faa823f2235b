"""Public names of a package, imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    Importing the package then imports none of its modules, so that a launcher can
    refuse a wrong flag before JAX is imported.

    Args:
      package: The package's `__name__`.
      names: Where each public name is defined: `module`, or `module:name` if it has
        another name there. Modules are relative to the package.

    >>> __getattr__, __dir__, __all__ = attach("ffnlab", {"choose": "errors"})
    >>> __getattr__("choose").__module__, __all__
    ('ffnlab.errors', ['choose'])
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        return getattr(
            importlib.import_module(f"{package}.{module}"), attribute or name
        )

    public = sorted(names)
    return get, lambda: public, public
