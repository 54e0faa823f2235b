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
from tests import oracles

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 4)), jnp.float32)
MASK = jnp.arange(6)[None] < jnp.array([6, 4, 1])[:, None]
MAKERS = {
    "elman": lambda: Elman(4, 6, rngs=nnx.Rngs(0)),
    "elman back": lambda: Elman(4, 6, "swish", back=True, rngs=nnx.Rngs(0)),
    "gru": lambda: GRU(4, 6, rngs=nnx.Rngs(0)),
    "both ways": lambda: Bidirectional(GRU, 4, 6, rngs=nnx.Rngs(0)),
    "window": lambda: Window(4, 6, "swish", radius=2, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_padding_touches_nobody(name):
    layer = MAKERS[name]()
    h, aux = layer(X, MASK)
    assert h.shape == (3, 6, 6) and aux == {}
    assert (h[1, 4:] == 0).all() and (h[2, 1:] == 0).all()
    again, _ = layer(X.at[1, 4:].set(jnp.nan), MASK)
    chex.assert_trees_all_close(again, h)
    short, _ = layer(X[:, :4])
    chex.assert_trees_all_close(h[1, :4], short[1], atol=1e-6)
    with pytest.raises(InputError, match="must be"):
        layer(X[..., :3])


def test_elman_is_the_feedback_layer_without_its_right():
    layer = Elman(4, 6, rngs=nnx.Rngs(0))
    kernel = layer.left[...]
    wanted = solve_chain(layer.up(X), kernel, 0 * kernel, solver=GaussSeidel()).state
    chex.assert_trees_all_close(layer(X)[0], wanted, atol=1e-6)
    layer.back = True
    wanted = solve_chain(layer.up(X), 0 * kernel, kernel, solver=GaussSeidel()).state
    chex.assert_trees_all_close(layer(X)[0], wanted, atol=1e-6)


def test_gru_is_its_equation():
    """In NumPy, and without the bias inside the reset that of Flax."""
    layer, cell = GRU(4, 6, rngs=nnx.Rngs(1)), nnx.GRUCell(4, 6, rngs=nnx.Rngs(2))
    layer.up.bias[...] = jnp.linspace(-1.0, 1.0, 18)
    layer.inner[...] = jnp.linspace(0.5, -0.5, 6)
    wanted = oracles.gru(
        *map(np.asarray, (X, layer.up.kernel[...], layer.up.bias[...])),
        *map(np.asarray, (layer.left[...], layer.inner[...])),
    )
    chex.assert_trees_all_close(layer(X)[0], wanted, atol=1e-5)
    layer.inner[...] = jnp.zeros(6)
    cell.dense_i.kernel[...] = layer.up.kernel[...]
    cell.dense_i.bias[...] = layer.up.bias[...]
    cell.dense_h.kernel[...] = layer.left[...]
    h = jnp.zeros((3, 6))
    with jax.numpy_rank_promotion("allow"):
        for t in range(6):
            h, _ = cell(h, X[:, t])
    chex.assert_trees_all_close(layer(X)[0][:, -1], h, atol=1e-5)


def test_both_ways_are_two_layers_side_by_side():
    both = Bidirectional(Elman, 4, 6, rngs=nnx.Rngs(0))
    h, _ = both(X)
    chex.assert_trees_all_close(h[..., :3], both.forward(X)[0])
    mirrored = both.backward
    mirrored.back = False
    chex.assert_trees_all_close(h[..., 3:], mirrored(X[:, ::-1])[0][:, ::-1], atol=1e-6)
    with pytest.raises(InputError, match="hidden=5 must be even"):
        Bidirectional(Elman, 4, 5, rngs=nnx.Rngs(0))


def test_a_window_sees_its_radius_and_no_further():
    layer = Window(4, 6, radius=2, rngs=nnx.Rngs(0))
    moved = layer(X.at[:, 3].add(1.0))[0] - layer(X)[0]
    assert [bool((moved[:, t] != 0).any()) for t in range(6)] == [False] + [True] * 5
    kernel = layer.up.kernel[...].reshape(5, 4, 6)
    padded = jnp.pad(X, ((0, 0), (2, 2), (0, 0)))
    wanted = sum(padded[:, i : i + 6] @ kernel[i] for i in range(5))
    chex.assert_trees_all_close(layer(X)[0], jnp.tanh(wanted), atol=1e-6)
