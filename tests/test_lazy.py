import importlib
import sys

import pytest

FILES = {
    "__init__.py": """
from ffnlab.lazy import attach
__getattr__, __dir__, __all__ = attach(
    __name__, {"second": "inner", "first": "inner", "renamed": "inner:second"}
)
""",
    "inner.py": "first, second = 1, 2",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on disk, imported; none of its modules is."""
    (tmp_path / "lazypackage").mkdir()
    for name, text in FILES.items():
        (tmp_path / "lazypackage" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazypackage")
    for name in ("lazypackage", "lazypackage.inner"):
        sys.modules.pop(name, None)


def test_names_are_imported_when_they_are_used(package):
    assert "lazypackage.inner" not in sys.modules
    assert package.first == 1
    assert "lazypackage.inner" in sys.modules
    assert (package.second, package.renamed) == (2, 2)


def test_names_are_listed_in_order_and_imported_by_a_star(package):
    assert package.__all__ == dir(package) == ["first", "renamed", "second"]
    names = {}
    exec("from lazypackage import *", names)
    assert (names["first"], names["second"], names["renamed"]) == (1, 2, 2)


def test_other_names_are_attribute_errors(package):
    wanted = "module 'lazypackage' has no attribute 'third'"
    with pytest.raises(AttributeError, match=wanted):
        _ = package.third
    assert not hasattr(package, "third")
