"""Meshes that do not fit the blocks of a comparison."""

import pytest

from ffnlab.errors import InputError
from ffnlab.sweep import comparison
from ffnlab.sweep.comparison_config import CompareConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"model:2 does not divide dimension .*, 5; .* \(bilinear\)$"),
        ({"budget": "time"}, "budget=time measures widths that it need not divide"),
    ],
)
def test_a_mesh_that_does_not_fit_a_block_leaves_no_directory(
    changes, message, tmp_path
):
    given = {"data": "wine", "blocks": ("mlp", "bilinear"), "activations": ("relu",)}
    given |= {"features": 4, "hidden": 8, "mesh": ("model:2",), **changes}
    config = CompareConfig(**given, out=str(tmp_path / "out"))
    with pytest.raises(InputError, match=message):
        comparison.compare(config, quiet=True)
    assert not (tmp_path / "out").exists()
