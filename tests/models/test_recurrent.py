"""Baseline layers against NumPy, Flax and the feedback layer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.feedback.chain import solve_chain
from ffnlab.feedback.solvers import GaussSeidel
from ffnlab.models.recurrent import GRU, Bidirectional, Elman, Window
from ffnlab.nn.pure import bind, functional
from tests import oracles

X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
MASK = np.arange(6)[None] < np.array([6, 4, 1])[:, None]
MAKERS = {
    "elman": lambda rngs: Elman(4, 6, rngs=rngs),
    "elman back": lambda rngs: Elman(4, 6, "swish", back=True, rngs=rngs),
    "gru": lambda rngs: GRU(4, 6, rngs=rngs),
    "both ways": lambda rngs: Bidirectional(GRU, 4, 6, rngs=rngs),
    "window": lambda rngs: Window(4, 6, "swish", radius=2, rngs=rngs),
}


def make(build):
    """A layer with parameters that are drawn without a compilation."""
    params = oracles.random_params(functional(build))
    return bind(build, jax.tree.map(jnp.asarray, params))


@pytest.mark.parametrize("name", MAKERS)
def test_padding_changes_no_state(name):
    model = functional(MAKERS[name])
    params = oracles.random_params(model)
    noise = X.copy()
    noise[1, 4:] = np.nan

    @jax.jit
    def run(params):
        (h, aux), (again, _) = (model.apply(params, x, MASK) for x in (X, noise))
        return h, again, model.apply(params, X[:, :4])[0], aux

    h, again, short, aux = jax.tree.map(np.asarray, run(params))
    assert h.shape == (3, 6, 6) and aux == {}
    assert (h[1, 4:] == 0).all() and (h[2, 1:] == 0).all()
    chex.assert_trees_all_close(again, h)
    chex.assert_trees_all_close(h[1, :4], short[1], atol=1e-6)
    with pytest.raises(InputError, match="must be"):
        jax.eval_shape(model.apply, params, X[..., :3])


def test_elman_is_the_feedback_layer_without_its_right():
    layer = make(MAKERS["elman"])
    kernel = layer.left[...]
    zero = np.zeros((6, 6), np.float32)
    for back, kernels in ((False, (kernel, zero)), (True, (zero, kernel))):
        layer.back = back
        states, wanted = jax.jit(
            lambda: (
                layer(X)[0],
                solve_chain(layer.up(X), *kernels, solver=GaussSeidel()).state,  # noqa: B023
            )
        )()
        chex.assert_trees_all_close(states, wanted, atol=1e-6)


def test_gru_is_its_equation():
    """In NumPy, and without the bias inside the reset that of Flax."""
    model = functional(MAKERS["gru"])
    params = oracles.random_params(model)
    params["up"]["bias"] = np.linspace(-1.0, 1.0, 18, dtype=np.float32)
    params["inner"] = np.linspace(0.5, -0.5, 6, dtype=np.float32)
    bare = {**params, "inner": np.zeros(6, np.float32)}
    cell = functional(lambda rngs: _CellOutput(nnx.GRUCell(4, 6, rngs=rngs)))
    flax = {
        "cell": {
            "dense_i": params["up"],
            "dense_h": {"kernel": params["left"]},
        }
    }

    @jax.jit
    def run(params, bare, flax):
        h = jnp.zeros((3, 6))
        for t in range(6):
            h, _ = cell.apply(flax, h, X[:, t])
        return model.apply(params, X)[0], model.apply(bare, X)[0][:, -1], h

    with jax.numpy_rank_promotion("allow"):
        states, last, wanted = run(params, bare, flax)
    expected = oracles.gru(
        X, params["up"]["kernel"], params["up"]["bias"], params["left"], params["inner"]
    )
    chex.assert_trees_all_close(states, expected, atol=1e-5)
    chex.assert_trees_all_close(last, wanted, atol=1e-5)


class _CellOutput(nnx.Module):
    """A cell of Flax that returns the new state alone."""

    def __init__(self, cell):
        self.cell = cell

    def __call__(self, h, x):
        return self.cell(h, x)[0]


def test_both_directions_are_two_layers_side_by_side():
    both = make(lambda rngs: Bidirectional(Elman, 4, 6, rngs=rngs))
    mirrored = both.backward
    h = jax.jit(lambda: both(X)[0])()
    mirrored.back = False
    forward, backward = jax.jit(
        lambda: (both.forward(X)[0], mirrored(X[:, ::-1])[0][:, ::-1])
    )()
    chex.assert_trees_all_close(h[..., :3], forward)
    chex.assert_trees_all_close(h[..., 3:], backward, atol=1e-6)
    with pytest.raises(InputError, match="hidden=5 must be even"):
        Bidirectional(Elman, 4, 5, rngs=nnx.Rngs(0))


def test_a_window_reads_its_radius_and_no_further():
    layer = make(lambda rngs: Window(4, 6, radius=2, rngs=rngs))
    changed = X.copy()
    changed[:, 3] += 1.0
    h, other = (
        np.asarray(h) for h in jax.jit(lambda: (layer(X)[0], layer(changed)[0]))()
    )
    moved = other - h
    assert [(moved[:, t] != 0).any() for t in range(6)] == [False] + [True] * 5
    kernel = np.asarray(layer.up.kernel[...]).reshape(5, 4, 6)
    padded = np.pad(X, ((0, 0), (2, 2), (0, 0)))
    wanted = sum(padded[:, i : i + 6] @ kernel[i] for i in range(5))
    wanted = np.tanh(wanted + np.asarray(layer.up.bias[...]))
    chex.assert_trees_all_close(h, wanted, atol=1e-6)
