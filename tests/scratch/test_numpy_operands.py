"""NumPy's arrays and functions beside tensors of the engine."""

import numpy as np
import pytest

from ffnlab.scratch import (
    Tensor,
    check_gradients,
)


def test_arrays_and_lists_stand_beside_tensors():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    assert (np.array([2.0, 3.0]) * x).data.tolist() == [2.0, 6.0]
    assert ([2.0, 3.0] - x).data.tolist() == [1.0, 1.0]
    assert (x > [0.5, 2.5]).tolist() == [True, False]
    assert len(x) == 2 and [float(v) for v in x] == [1.0, 2.0]
    assert "requires_grad" in repr(x) and "by multiply" in repr(x * 2.0)
    assert bool(x[0] < x[1])
    assert (x == [1.0, 3.0]).tolist() == [True, False] and len({x, x * 1.0}) == 2
    assert f"{x.sum():.1f}" == "3.0" and x.sum().item() == 3.0
    assert x.reshape((2, 1)).transpose((1, 0)).shape == (1, 2)


def test_numpy_does_not_forget_the_graph_in_silence():
    x = Tensor(np.ones(2), requires_grad=True)
    for forget, words in [
        (np.asarray, "use scratch.ops, .* or .data"),
        (np.tanh, "np.tanh does not record the graph .*: use scratch.ops.tanh, or"),
        (np.mean, "use scratch.ops.mean,"),
        (np.concatenate, "use scratch.ops.concatenate,"),
        (lambda x: np.where(True, x, x), "use scratch.ops.where,"),
        (np.i0, "np.i0 .*: use scratch.ops, or a Primitive of your own, or .data"),
        (np.linalg.norm, "use scratch.ops, or a Primitive"),
        (np.add.reduce, "use scratch.ops.add,"),
        (lambda x: np.add(x, 1.0, dtype=float), "use scratch.ops.add,"),
    ]:
        with pytest.raises(TypeError, match=words):
            forget(x)
    with pytest.raises(AttributeError, match=r"make a new one, Tensor\(array, req"):
        x.data = np.zeros(2)
    with pytest.raises(TypeError, match=r"item assignment.*ops\.where\(mask, value, x"):
        x[0] = 5.0
    held = np.ones(2)
    with pytest.raises(TypeError, match=r"np.add cannot change .*: make a new one, as"):
        held += x
    assert (held == 1).all()
    assert np.shape(x) == (2,) and np.ndim(x) == 1 and np.size(x) == 2


@pytest.mark.parametrize(
    "of",
    [
        lambda a, x: a + x, lambda a, x: a - x, lambda a, x: a * x, lambda a, x: a / x,
        lambda a, x: a**x, lambda a, x: a @ x, lambda a, x: np.float64(2.0) * x,
        lambda a, x: np.multiply(a, x),
    ],
)  # fmt: skip
def test_arrays_on_the_left_are_recorded(of):
    x, a = np.array([1.5, 2.0]), np.array([[0.5, 3.0], [1.0, 2.0]])
    assert type(of(a, Tensor(x, requires_grad=True))) is Tensor
    np.testing.assert_array_equal(of(a, Tensor(x)).data, of(a, x))
    assert check_gradients(lambda x: of(a, x).sum(), x).passed
    for compare in (np.less, np.greater_equal, np.equal):
        np.testing.assert_array_equal(compare(a, Tensor(x)), compare(a, x))
    assert type(a < Tensor(x)) is np.ndarray
