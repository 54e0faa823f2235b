import contextlib
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types

import pytest

import ffnlab
from ffnlab import names
from ffnlab.errors import InputError

PACKAGES = [
    "adapt",
    "data",
    "feedback",
    "finetune",
    "models",
    "nn",
    "pretrain",
    "pretrained",
    "processes",
    "report",
    "scratch",
    "stats",
    "sweep",
    "train",
]


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def submodules():
    modules = pkgutil.walk_packages(ffnlab.__path__, "ffnlab.")
    return [module.name for module in modules]


def call(function):
    """Calls a function without arguments; most say which they need."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        with pytest.raises(TypeError, match="missing"):
            function()
    else:
        with contextlib.suppress(InputError):  # an argument that is always needed
            function()


def test_importing_costs_nothing():
    run(
        "import sys, ffnlab; "
        f"[__import__('ffnlab.' + name) for name in {PACKAGES} if name != 'scratch']; "
        "heavy = {'jax', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )


def test_the_whole_library_needs_neither_matplotlib_nor_scikit_learn():
    run(
        "import sys, ffnlab; [getattr(ffnlab, name) for name in ffnlab.__all__]; "
        "import ffnlab.sweep.ranking, ffnlab.report.plots; "
        "heavy = {'matplotlib', 'sklearn', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )


def test_launchers_check_their_flags_without_jax():
    run(
        "import sys; from experiments import launch; "
        "import experiments.compare, experiments.feedback, experiments.exchange, "
        "experiments.finetune, experiments.from_scratch, experiments.judge, "
        "experiments.predict, experiments.prepare_text, experiments.pretrain; "
        "assert 'jax' not in sys.modules"
    )


def test_names_are_those_of_the_tables():
    for (module, table), listed in names.TABLES.items():
        assert listed == tuple(getattr(importlib.import_module(module), table)), table
    from ffnlab.nn.ffn import BLOCKS

    taking = tuple(name for name, block in BLOCKS.items() if not block.fixed)
    assert taking == names.OPEN_BLOCKS


def test_every_package_is_listed():
    packages = {m.name for m in pkgutil.iter_modules(ffnlab.__path__) if m.ispkg}
    assert packages == set(PACKAGES)


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_no_module_shares_a_name_with_what_its_package_exports(package):
    modules = submodules()
    for name in modules:
        importlib.import_module(name)
    package = importlib.import_module(f"ffnlab.{package}".rstrip("."))
    assert package.__all__
    for name in package.__all__:
        value, full = getattr(package, name), f"{package.__name__}.{name}"
        assert (full in modules) == isinstance(value, types.ModuleType), full
        if callable(value):
            assert value.__doc__, full
        if inspect.isfunction(value):
            call(value)
    assert set(package.__all__) <= set(dir(package))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'swigul'"):
        _ = ffnlab.swigul
    with pytest.raises(AttributeError, match="module 'ffnlab.nn' has no attribute"):
        _ = importlib.import_module("ffnlab.nn").swigul
