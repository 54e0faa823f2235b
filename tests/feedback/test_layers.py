import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.feedback.chain import contract_kernels, contraction, solve_chain
from ffnlab.feedback.layers import FeedbackConfig, FeedbackLayer, FeedbackNetwork
from ffnlab.feedback.solvers import Anderson, Jacobi, Newton, Unrolled
from ffnlab.nn.activations import ACTIVATIONS
from ffnlab.nn.pure import functional

X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
MASK = np.arange(6)[None] < np.array([6, 4])[:, None]


@functools.cache
def layer(**options):
    return FeedbackLayer(FeedbackConfig(3, 5, **options), rngs=nnx.Rngs(0))


def test_the_layer_is_the_equation():
    module = FeedbackLayer(FeedbackConfig(3, 5, boundary="learned"), rngs=nnx.Rngs(0))
    ends = np.ones(5, np.float32), -np.ones(5, np.float32)
    module.before[...], module.after[...] = map(jnp.asarray, ends)

    @jax.jit
    def run(x):
        solution = solve_chain(
            module.up(x), module.left[...], module.right[...], mask=MASK, boundary=ends
        )
        return module(x, MASK), solution

    (h, aux), expected = run(X)
    chex.assert_trees_all_close(h, expected.state, atol=1e-5)
    assert sorted(aux) == ["converged", "iterations", "residual"]


def test_the_parameters_are_these():
    def shapes(module):
        params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
        return {name: leaf.shape for name, leaf in trees.flatten(params).items()}

    one = {"up/kernel": (3, 5), "up/bias": (5,), "left": (5, 5), "right": (5, 5)}
    assert shapes(layer()) == one
    assert shapes(layer(activation="swish")) == one | {"beta": ()}
    assert shapes(layer(activation="swish_channel")) == one | {"beta": (5,)}
    ends = {"before": (5,), "after": (5,)}
    assert shapes(layer(boundary="learned")) == one | ends
    network = FeedbackNetwork(
        FeedbackConfig(3, 5), layers=2, top_down=True, rngs=nnx.Rngs(0)
    )
    above = one | {"up/kernel": (5, 5)}
    expected = {f"layer_0/{name}": shape for name, shape in one.items()}
    expected |= {f"layer_1/{name}": shape for name, shape in above.items()}
    assert shapes(network) == expected | {"down_1": (5, 5)}


@pytest.mark.parametrize("activation", ["tanh", "relu", "swish", "mish"])
def test_the_coupling_is_as_asked(activation):
    expected = pytest.approx(0.7 * ACTIVATIONS[activation].lipschitz)
    for init, certificate in (("mixed", "sum"), ("split", "joint")):
        module = layer(coupling=0.7, activation=activation, coupling_init=init)
        kernels = {"left": module.left[...], "right": module.right[...]}
        assert float(contraction(kernels, activation, certificate)) == expected


def test_a_split_layer_begins_as_a_bidirectional_network():
    module = layer(coupling=0.9)

    @jax.jit
    def run(x):
        left, right = module.kernels()
        forward = solve_chain(module.up(x), left, 0 * right, mask=MASK)
        backward = solve_chain(module.up(x), 0 * left, right, mask=MASK)
        return module(x, MASK)[0], forward.state, backward.state

    h, forward, backward = run(X)
    chex.assert_trees_all_close(h[..., :2], forward[..., :2], atol=1e-5)
    chex.assert_trees_all_close(h[..., 2:], backward[..., 2:], atol=1e-5)


@pytest.mark.parametrize("certificate", ["joint", "sum"])
def test_the_certificate_holds_through_training(certificate):
    """Large steps that drive W and V apart never reach the map."""
    config = FeedbackConfig(
        3, 5, contractive=0.8, coupling=0.7, certificate=certificate
    )
    model = functional(lambda rngs: FeedbackLayer(config, rngs=rngs))
    params, optimizer = jax.jit(model.init)(jax.random.key(0)), optax.sgd(2.0)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        def loss(params):
            h, aux = model.apply(params, X, MASK)
            return -jnp.mean(jnp.square(h)), aux

        grads, aux = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, aux

    for _ in range(30):
        params, state, aux = step(params, state)
        assert aux["converged"].all()
    kernels = [params["left"], params["right"]]
    assert float(contraction(params, "tanh", certificate)) > 1.0
    left, right = contract_kernels(kernels, "tanh", 0.8, certificate)
    scaled = {"left": left, "right": right}
    assert float(contraction(scaled, "tanh", certificate)) <= 0.8


def test_kernels_that_fit_the_certificate_are_left_alone():
    given = [0.3 * jnp.eye(4), 0.2 * jnp.eye(4)]
    chex.assert_trees_all_equal(contract_kernels(given, "tanh", 0.8), given)


@pytest.mark.parametrize("top_down", [False, True])
def test_a_network_solves_every_layer(top_down):
    config = FeedbackConfig(3, 5, contractive=0.9, activation="swish")
    network = FeedbackNetwork(config, 3, top_down, rngs=nnx.Rngs(1))

    @jax.jit
    def run(x):
        spoilt, by_hand = x.at[1, 4:].set(jnp.nan), x
        if not top_down:
            for number in range(3):
                by_hand, _ = getattr(network, f"layer_{number}")(by_hand, MASK)
        return network(x, MASK, report=True), network(spoilt, MASK)[0], by_hand

    (h, aux), spoilt, by_hand = run(X)
    assert h.shape == (2, 6, 5) and aux["converged"].all()
    assert (h[1, 4:] == 0).all() and (aux["radius"] < 0.9).all()
    chex.assert_trees_all_close(spoilt, h, atol=1e-6)
    if not top_down:
        chex.assert_trees_all_close(h, by_hand, atol=1e-5)


def test_a_joint_network_satisfies_its_equations(x64):
    """h¹ reads x, its neighbours and h²; h² reads h¹ and its neighbours."""
    config = FeedbackConfig(3, 5, solver=Newton(), coupling=0.4)
    network = FeedbackNetwork(config, 2, top_down=True, rngs=nnx.Rngs(1))
    low, high = network.layer_0, network.layer_1

    def neighbours(module, h):
        before = jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0)))
        after = jnp.pad(h[:, 1:], ((0, 0), (0, 1), (0, 0)))
        return before @ module.left[...] + after @ module.right[...]

    @jax.jit
    def run(x):
        def update(states, _):
            first, second = states
            down = second @ network.down_1[...]
            first = jnp.tanh(low.up(x) + neighbours(low, first) + down)
            second = jnp.tanh(high.up(first) + neighbours(high, second))
            return (first, second), None

        start = jnp.zeros((2, 2, 6, 5))
        (_, second), _ = jax.lax.scan(update, tuple(start), length=300)
        return network(x)[0], second

    h, expected = run(X.astype(np.float64))
    chex.assert_trees_all_close(h, expected, atol=1e-6)


def test_one_layer_has_nothing_above():
    config = FeedbackConfig(3, 5)
    one = FeedbackNetwork(config, 1, top_down=True, rngs=nnx.Rngs(0))
    h, expected = jax.jit(lambda x: (one(x)[0], layer()(x)[0]))(X)
    chex.assert_trees_all_close(h, expected, atol=1e-5)


@pytest.mark.parametrize("top_down", [False, True])
def test_the_gradient_of_a_network_is_the_slope(x64, top_down):
    tight = Jacobi(tolerance=1e-14, max_steps=300)
    config = FeedbackConfig(
        3, 4, activation="swish", contractive=0.8, coupling=1.5, solver=tight
    )
    model = functional(lambda rngs: FeedbackNetwork(config, 2, top_down, rngs=rngs))
    params = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    rng = np.random.default_rng(1)
    along = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    pair = jax.tree.map(
        lambda p, a: np.stack([p + 1e-8 * a, p - 1e-8 * a]), params, along
    )

    def loss(params):
        h, _ = model.apply(params, X.astype(np.float64), MASK)
        return jnp.sum(jnp.sin(h))

    slope, ends = jax.jit(
        lambda params, pair: (jax.grad(loss)(params), jax.lax.map(loss, pair))
    )(params, pair)
    expected = float(ends[0] - ends[1]) / 2e-8
    assert float(optax.tree.vdot(slope, along)) == pytest.approx(expected, rel=1e-5)


def test_layers_of_every_solver_agree():
    solvers = (Jacobi(), Anderson(), Newton(), Unrolled(60))
    modules = [layer(), *(layer(solver=solver) for solver in solvers)]
    expected, *states = jax.jit(lambda x: [module(x)[0] for module in modules])(X)
    for solver, state in zip(solvers, states, strict=True):
        chex.assert_trees_all_close(state, expected, atol=1e-4, custom_message=solver)


def test_learned_ends_are_learned():
    config = FeedbackConfig(3, 5, boundary="learned", coupling_init="mixed")
    model = functional(lambda rngs: FeedbackLayer(config, rngs=rngs))

    @jax.jit
    def run(key):
        params = model.init(key)
        return jax.grad(lambda p: model.apply(p, X, MASK)[0].sum())(params)

    slope = run(jax.random.key(0))
    assert jnp.abs(slope["before"]).min() > 0 and jnp.abs(slope["after"]).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tahn"}, "unknown 'tahn'; nearest: tanh"),
        ({"gradient": "implict"}, "unknown 'implict'; nearest: implicit"),
        ({"certificate": "jiont"}, "unknown 'jiont'; nearest: joint"),
        ({"coupling_init": "mix"}, "unknown 'mix'; nearest: mixed"),
        ({"boundary": "zero"}, "unknown 'zero'; nearest: zeros"),
        ({"contractive": 1.0}, r"contractive=1.0 must be in \(0, 1\)"),
        ({"contractive": float("nan")}, "contractive=nan must be in"),
        ({"contractive": 0.9, "activation": "relu2"}, "slope of relu2 has no bound"),
        ({"coupling": float("inf")}, "coupling=inf must be finite"),
        ({"coupling": -1.0}, "coupling=-1.0 must be finite"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        FeedbackConfig(3, 5, **change)
    with pytest.raises(InputError, match="features=0 and hidden=5"):
        FeedbackConfig(0, 5)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (X[:, :0], None, r"x \[2, 0, 3\] must be \[..., T, 3\] with T above 0"),
        (X[..., :2], None, r"x \[2, 6, 2\] must be"),
        (X[0, 0], None, r"x \[3\] must be"),
        (X, MASK[:, :5], r"mask \[2, 5\] must be \[2, 6\]"),
    ],
)
def test_bad_inputs_are_refused(x, mask, message):
    with pytest.raises(InputError, match=message):
        layer()(x, mask)
    network = FeedbackNetwork(FeedbackConfig(3, 5), 2, top_down=True, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=message):
        network(x, mask)
    with pytest.raises(InputError, match="layers=0"):
        FeedbackNetwork(FeedbackConfig(3, 5), 0, rngs=nnx.Rngs(0))


def test_a_large_batch_is_measured_in_part():
    @jax.jit
    def run(x):
        return layer()(x, report=True), layer()(x[:64], report=True)

    (h, aux), (few, part) = run(np.concatenate([X] * 40))
    chex.assert_trees_all_close(h[:64], few, atol=1e-6)
    for name in ("radius", "adjoint residual"):
        assert aux[name].shape == (80,) and part[name].shape == (64,)
        # A residual is what rounding leaves, which differs by the shape of a product.
        chex.assert_trees_all_close(aux[name][0], part[name].mean(), rtol=0.3)


@pytest.mark.parametrize("contractive", [None, 0.9])
@pytest.mark.parametrize("boundary", ["zeros", "learned"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_built_in_64_bits_takes_either_dtype(x64, contractive, boundary, dtype):
    config = FeedbackConfig(3, 4, contractive=contractive, boundary=boundary)
    layer = FeedbackLayer(config, rngs=nnx.Rngs(0))
    h, _ = layer(jnp.ones((2, 5, 3), dtype))
    assert h.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {
        jnp.dtype("float32")
    }


def test_widths_are_integers():
    with pytest.raises(InputError, match="features=8 and hidden=8.5 must be integers"):
        FeedbackConfig(8, 8.5)
