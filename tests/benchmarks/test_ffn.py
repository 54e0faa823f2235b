"""A block as it is trained, and its products, scan the same steps in one call."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ffn
from benchmarks.protocol import Work

SMALL = ffn.Shape(tokens=8, width=4, hidden=6)


@pytest.mark.parametrize("avx512, target", [(True, 0.65), (False, 1.08)])
def test_rows_as_trained(monkeypatch, avx512, target):
    monkeypatch.setattr(ffn, "STEPS", 2)
    sets = ("avx2", "avx512f") if avx512 else ("avx2",)
    monkeypatch.setattr(ffn.protocol, "processor", lambda: ("a CPU", sets))
    data = ffn.make_data("relu", SMALL)
    one = ffn.stepping(ffn.ours("relu", SMALL), data)
    names = [ffn.COMPILED, "torch, eager", ffn.LIMIT]
    peers = [(name, "threads: 1", Work(lambda _: None)) for name in names]
    entries = ffn.trained_entries("relu", data, one, peers, SMALL)
    assert [(entry.units, entry.target, entry.peer) for entry in entries] == [
        (2, None, False),
        (1, None, False),
        (2, ffn.PRODUCTS_TARGET, False),
        (1, target, True),
        (1, None, False),
    ]
    assert entries[3].setting == "threads: 1, one step a call"
    params, loss, x_grad = entries[0].work.once()
    expected = one.run(one.once())
    np.testing.assert_allclose(loss, expected[1], rtol=1e-6)
    np.testing.assert_allclose(x_grad, expected[2], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("inputs", [1, 2])
def test_products_stay_in_the_loop_of_their_scan(inputs):
    given = [jnp.ones(shape) for shape in ((8, 4), (6, 4))]
    pairs = [(jnp.ones((8, 6)), jnp.ones((4, 6)))] * inputs
    compiled = jax.jit(ffn.scan_products(3)).lower(*given, pairs).compile()
    _, entry = compiled.as_text().split("ENTRY")
    assert " dot(" in compiled.as_text() and " dot(" not in entry
    outs = ffn.scan_products(3)(*given, pairs)
    assert [float(out.max()) for out in outs[:4]] == [6, 4, 8, 4]


def test_doctests():
    assert doctest.testmod(ffn).failed == 0
