"""What tests of layers share."""

import pytest

from ffnlab.nn import bfloat16_linear


@pytest.fixture
def units(monkeypatch):
    """Takes the path of such a CPU on any; XLA can run its program everywhere."""
    monkeypatch.setattr(bfloat16_linear, "has_matrix_units", lambda: True)
