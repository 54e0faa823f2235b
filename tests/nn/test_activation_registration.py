"""Activations of a user's own, in blocks and networks, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.feedback import FeedbackConfig, chain_system
from ffnlab.nn import (
    ACTIVATIONS,
    BlockConfig,
    FeedForward,
    functional,
    match,
    register_activation,
)


@pytest.fixture(autouse=True)
def table():
    """What a test adds is removed."""
    before = dict(ACTIVATIONS)
    yield
    ACTIVATIONS.clear()
    ACTIVATIONS.update(before)


def cube(x):
    return x**3


def test_a_block_has_it_by_name():
    row = register_activation("cube", cube, formula="x³")
    assert row == ACTIVATIONS["cube"] and row.lipschitz == np.inf
    config = BlockConfig("mlp:cube", 3, 5, norm="none", bias=False, residual=False)
    block = FeedForward(config, rngs=nnx.Rngs(0))
    x = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)
    up, down = (np.asarray(layer.kernel[...]) for layer in (block.up, block.down))
    np.testing.assert_allclose(block(x)[0], (x @ up) ** 3 @ down, rtol=1e-5, atol=1e-6)
    assert match(BlockConfig("glu:cube"), BlockConfig("mlp")).config.activation is row


@pytest.mark.parametrize("beta,shape", [("layer", ()), ("channel", (5,))])
def test_a_beta_is_learned(beta, shape):
    register_activation("tilted", lambda x, beta: x * jnp.tanh(beta * x), beta=beta)
    config = BlockConfig("mlp:tilted", 3, 5)
    block = FeedForward(config, rngs=nnx.Rngs(0))
    assert block.beta.shape == shape
    model = functional(lambda rngs: FeedForward(config, rngs=rngs))
    assert trees.count(model.init(jax.random.key(0))) == config.parameters


def test_a_constant_makes_a_certificate():
    register_activation("half", lambda x: 0.5 * jnp.tanh(x), lipschitz=0.5)
    assert FeedbackConfig(3, 4, activation="half", contractive=0.9).lipschitz == 0.5
    register_activation("cube", cube)
    with pytest.raises(InputError, match="contractive: the slope of cube has no bound"):
        FeedbackConfig(3, 4, activation="cube", contractive=0.9)


def test_a_replaced_one_is_that_of_new_networks():
    register_activation("mine", jnp.tanh)
    args = {"drive": jnp.ones((1, 2, 1)), "kernels": [jnp.zeros((1, 1))] * 2}
    start = jnp.zeros((1, 2, 1))
    first = chain_system("mine").step(args, start)
    register_activation("mine", jnp.sin, replace=True)
    second = chain_system("mine").step(args, start)
    np.testing.assert_allclose(first, np.tanh(1.0), rtol=1e-6)
    np.testing.assert_allclose(second, np.sin(1.0), rtol=1e-6)


@pytest.mark.parametrize(
    "name,function,options,message",
    [
        ("relu", cube, {}, "^name: there is an activation 'relu'; .* replace=True"),
        ("a:b", cube, {}, "^name: 'a:b' should be letters, digits and _"),
        (3, cube, {}, "^name: 3 should be letters"),
        ("mine", "tanh", {}, "^function: 'tanh' should be a function"),
        ("mine", cube, {"beta": "unit"}, "^beta: unknown 'unit'"),
        ("mine", cube, {"lipschitz": 0}, "^lipschitz: 0 should be a number above 0"),
        ("mine", cube, {"lipschitz": "1"}, "^lipschitz: '1' should be a number"),
        ("mine", cube, {"lipschitz": float("nan")}, "^lipschitz: nan should be"),
        ("mine", cube, {"lipschitz": True}, "^lipschitz: True should be a number"),
        ("mine", np.tanh, {}, "^function: mine calls NumPy; use jax.numpy"),
        ("mine", lambda x: x.undone, {}, "mine fails .*AttributeError.*called as"),
        ("mine", lambda: 0, {}, r"mine fails .*TypeError.*mine\(x\) and should return"),
        ("mine", lambda x: None, {}, "mine returns NoneType, not an array"),
        ("mine", lambda x: [x], {}, "mine returns list, not an array"),
        ("mine", lambda x: x.sum(), {}, r"the shape \[\] for x \[5\]"),
        ("mine", lambda x: x[None], {}, r"the shape \[1\] for x \[\]"),
        ("mine", lambda x: x.astype("float32"), {}, "float32 for x in bfloat16"),
        ("mine", lambda x: x > 0, {}, "returns bool for x in float32"),
        ("mine", lambda x: x - x.mean(), {}, "mine is not elementwise.*register"),
        ("mine", jax.nn.softmax, {}, r"mine fails for x \[\]"),
        ("mine", jnp.log, {}, "mine is nan at -8; it should be finite"),
        ("mine", jnp.tanh, {"lipschitz": 0.9}, "0.9 is too small: .* at 0 is 1"),
        ("mine", cube, {"beta": "layer"}, r"mine fails .*mine\(x, beta \[\]\)"),
    ],
)  # fmt: skip
def test_what_is_no_activation_is_refused(name, function, options, message):
    before = dict(ACTIVATIONS)
    with pytest.raises(InputError, match=message):
        register_activation(name, function, **options)
    assert before == ACTIVATIONS


def test_those_of_the_library_would_be_taken():
    for name, row in dict(ACTIVATIONS).items():
        function, *_ = row
        options = {key: getattr(row, key) for key in row._fields if key != "function"}
        assert register_activation(name, function, **options, replace=True) == row
