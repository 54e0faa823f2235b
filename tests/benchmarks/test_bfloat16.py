"""The rows of a shape in bfloat16 compute the same, and wrong shapes are refused."""

import jax.numpy as jnp
import pytest

from benchmarks import bfloat16, protocol
from benchmarks.bfloat16 import Config
from ffnlab.errors import InputError


def test_a_smoke_run_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(protocol, "use_cpu", lambda: None)
    monkeypatch.setattr(protocol, "has", lambda package: False)
    sizes = {"shapes": ("16x8x24",), "attention": ("2x8x2x4",)}
    tables = bfloat16.run(Config(**sizes, rounds=1, steps=1))
    for table in tables:
        assert [row[1] for row in table.rows] == ["bfloat16", "bfloat16", "float32"]
    assert len(tables) == 2
    assert "units for products of bfloat16 matrices" in capsys.readouterr().out


def test_a_layer_that_differs_is_an_error():
    with pytest.raises(AssertionError):
        bfloat16._check("other", jnp.ones(3), jnp.full(3, 1.02))


@pytest.mark.parametrize("shape", ["64x64", "64x0x64", "axbxc", "64x64x64x64"])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(InputError, match="^shapes: .* is not of the form ROWSxINxOUT"):
        Config(shapes=(shape,))
    with pytest.raises(InputError, match="^attention: .* is not of the form SEQ"):
        Config(attention=(f"{shape}x0",))
