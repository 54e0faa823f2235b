import subprocess
import sys

import pytest

import ffnlab


def test_importing_costs_nothing():
    code = (
        "import sys, ffnlab; "
        "heavy = {'jax', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_whole_library_needs_neither_matplotlib_nor_scikit_learn():
    code = (
        "import sys, ffnlab; [getattr(ffnlab, name) for name in ffnlab.__all__]; "
        "import ffnlab.sweep.ranking, ffnlab.report.plots; "
        "heavy = {'matplotlib', 'sklearn', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist_and_are_documented():
    for name in ffnlab.__all__:
        assert getattr(ffnlab, name).__doc__, name
    assert set(dir(ffnlab)) == set(ffnlab.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'swigul'"):
        _ = ffnlab.swigul
