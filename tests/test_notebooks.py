"""Notebooks use public names of ffnlab only, so that they show what a user writes."""

import ast
import functools
import importlib
import json
from pathlib import Path

import pytest

import ffnlab

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# The packages and modules that a user imports from; see their `__all__`.
PUBLIC = {
    "adapt",
    "data",
    "feedback",
    "finetune",
    "models",
    "nn",
    "pretrain",
    "pretrained",
    "report",
    "scratch",
    "stats",
    "sweep",
    "train",
    "trees",
}


def parse(path):
    """Returns the syntax tree of a notebook's code, without magic commands."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    lines = "\n".join(code).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith("%")))


@functools.cache
def public_names(package):
    """Returns the names that may be imported from a package, or used of it."""
    if package == "ffnlab":
        return PUBLIC | set(ffnlab.__all__)
    module = importlib.import_module(package)
    names = set(getattr(module, "__all__", vars(module)))
    for name in names:
        assert hasattr(module, name), f"{package}.{name}"
    return names


def imports(tree):
    """Yields the package and the name of each import of ffnlab."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in ("ffnlab", "experiments"):
                yield from ((node.module, alias) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] != "ffnlab", ast.unparse(node)


def check(tree):
    """Checks that a notebook imports and uses public names only."""
    packages = {}
    for module, alias in imports(tree):
        allowed = {"ffnlab", *(f"ffnlab.{name}" for name in PUBLIC)}
        assert module in allowed, f"from {module} import {alias.name}"
        assert alias.name in public_names(module), f"from {module} import {alias.name}"
        if module == "ffnlab" and alias.name in PUBLIC:
            packages[alias.asname or alias.name] = f"ffnlab.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = packages.get(node.value.id)
            if package:
                assert node.attr in public_names(package), ast.unparse(node)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_use_public_names_only(path):
    check(parse(path))


@pytest.mark.parametrize(
    "code",
    [
        "from ffnlab.feedback.chain import feedback",
        "from experiments import launch",
        "from ffnlab import options",
        "from ffnlab.data import _names",
        "import ffnlab.train.loop",
        "from ffnlab import report\nreport.plots.ranking()",
    ],
)
def test_other_imports_are_found(code):
    with pytest.raises(AssertionError):
        check(ast.parse(code))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 6
