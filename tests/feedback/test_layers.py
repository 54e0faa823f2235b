import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.feedback.chain import contract_kernels, contraction, feedback
from ffnlab.feedback.layers import FeedbackConfig, FeedbackLayer, FeedbackNetwork
from ffnlab.feedback.solvers import Anderson, Jacobi, Newton, Unrolled
from ffnlab.nn.activations import ACTIVATIONS
from ffnlab.nn.pure import functional

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 3)), jnp.float32)
MASK = jnp.arange(6)[None] < jnp.array([6, 4])[:, None]


def layer(**options):
    return FeedbackLayer(FeedbackConfig(3, 5, **options), rngs=nnx.Rngs(0))


def test_the_layer_is_the_equation():
    made = layer(boundary="learned")
    made.before[...], made.after[...] = jnp.ones(5), -jnp.ones(5)
    h, aux = made(X, MASK)
    wanted = feedback(
        made.up(X), made.left[...], made.right[...],
        mask=MASK, boundary=(jnp.ones(5), -jnp.ones(5)),
    )  # fmt: skip
    chex.assert_trees_all_close(h, wanted.state, atol=1e-5)
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
    wanted = {f"layer_0/{name}": shape for name, shape in one.items()}
    wanted |= {f"layer_1/{name}": shape for name, shape in above.items()}
    assert shapes(network) == wanted | {"down_1": (5, 5)}


@pytest.mark.parametrize("activation", ["tanh", "relu", "swish", "mish"])
def test_the_coupling_is_as_asked(activation):
    wanted = pytest.approx(0.7 * ACTIVATIONS[activation].lipschitz)
    for begin, certificate in (("mixed", "sum"), ("split", "joint")):
        made = layer(coupling=0.7, activation=activation, begin=begin)
        kernels = {"left": made.left[...], "right": made.right[...]}
        assert float(contraction(kernels, activation, certificate)) == wanted


def test_a_split_layer_begins_as_a_bidirectional_network():
    made = layer(coupling=0.9)
    h, _ = made(X, MASK)
    forward = feedback(made.up(X), made.left[...], 0 * made.right[...], mask=MASK)
    backward = feedback(made.up(X), 0 * made.left[...], made.right[...], mask=MASK)
    chex.assert_trees_all_close(h[..., :2], forward.state[..., :2], atol=1e-5)
    chex.assert_trees_all_close(h[..., 2:], backward.state[..., 2:], atol=1e-5)


@pytest.mark.parametrize("certificate", ["joint", "sum"])
def test_the_certificate_holds_through_training(certificate):
    """Large steps that drive W and V apart never reach the map."""
    config = FeedbackConfig(
        3, 5, contractive=0.8, coupling=0.7, certificate=certificate
    )
    model = functional(lambda rngs: FeedbackLayer(config, rngs=rngs))
    params, optimizer = model.init(jax.random.key(0)), optax.sgd(2.0)
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
    left, right = contract_kernels(kernels, ACTIVATIONS["tanh"], 0.8, certificate)
    used = {"left": left, "right": right}
    assert float(contraction(used, "tanh", certificate)) <= 0.8


def test_kernels_that_fit_the_certificate_are_left_alone():
    given = [0.3 * jnp.eye(4), 0.2 * jnp.eye(4)]
    chex.assert_trees_all_equal(
        contract_kernels(given, ACTIVATIONS["tanh"], 0.8), given
    )


@pytest.mark.parametrize("top_down", [False, True])
def test_a_network_solves_every_layer(top_down):
    config = FeedbackConfig(3, 5, contractive=0.9, activation="swish")
    network = FeedbackNetwork(config, 3, top_down, rngs=nnx.Rngs(1))
    h, aux = network(X, MASK, report=True)
    assert h.shape == (2, 6, 5) and aux["converged"].all()
    assert (h[1, 4:] == 0).all() and (aux["radius"] < 0.9).all()
    again, _ = network(X.at[1, 4:].set(jnp.nan), MASK)
    chex.assert_trees_all_close(again, h, atol=1e-6)
    if not top_down:
        by_hand = X
        for number in range(3):
            by_hand, _ = getattr(network, f"layer_{number}")(by_hand, MASK)
        chex.assert_trees_all_close(h, by_hand, atol=1e-5)


def test_a_joint_network_satisfies_its_equations(x64):
    """h¹ hears x, its neighbours and h²; h² hears h¹ and its neighbours."""
    config = FeedbackConfig(3, 5, solver=Newton(), coupling=0.4)
    network = FeedbackNetwork(config, 2, top_down=True, rngs=nnx.Rngs(1))
    low, high = network.layer_0, network.layer_1
    x = X.astype(jnp.float64)

    def heard(made, h):
        a = jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0))) @ made.left[...]
        return a + jnp.pad(h[:, 1:], ((0, 0), (0, 1), (0, 0))) @ made.right[...]

    first = second = jnp.zeros((2, 6, 5))
    for _ in range(300):
        first = jnp.tanh(low.up(x) + heard(low, first) + second @ network.down_1[...])
        second = jnp.tanh(high.up(first) + heard(high, second))
    chex.assert_trees_all_close(network(x)[0], second, atol=1e-6)


def test_one_layer_has_nothing_above():
    config = FeedbackConfig(3, 5)
    one = FeedbackNetwork(config, 1, top_down=True, rngs=nnx.Rngs(0))
    chex.assert_trees_all_close(one(X)[0], layer()(X)[0], atol=1e-5)


@pytest.mark.parametrize("top_down", [False, True])
def test_the_gradient_of_a_network_is_the_slope(x64, top_down):
    tight = Jacobi(tolerance=1e-14, max_steps=300)
    config = FeedbackConfig(
        3, 4, activation="swish", contractive=0.8, coupling=1.5, solver=tight
    )
    model = functional(lambda rngs: FeedbackNetwork(config, 2, top_down, rngs=rngs))
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)

    def loss(params):
        h, _ = model.apply(params, X.astype(jnp.float64), MASK)
        return jnp.sum(jnp.sin(h))

    slope = jax.grad(loss)(params)
    keys = iter(jax.random.split(jax.random.key(1), 20))
    along = jax.tree.map(
        lambda leaf: jax.random.normal(next(keys), leaf.shape, leaf.dtype), params
    )
    ends = [
        loss(jax.tree.map(lambda p, a, s=s: p + s * 1e-8 * a, params, along))
        for s in (1, -1)
    ]
    wanted = float(ends[0] - ends[1]) / 2e-8
    assert float(optax.tree.vdot(slope, along)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "solver", [Jacobi(), Anderson(), Newton(), Unrolled(60)], ids=str
)
def test_layers_of_every_solver_agree(solver):
    chex.assert_trees_all_close(layer(solver=solver)(X)[0], layer()(X)[0], atol=1e-4)


def test_learned_ends_are_learned():
    config = FeedbackConfig(3, 5, boundary="learned", begin="mixed")
    model = functional(lambda rngs: FeedbackLayer(config, rngs=rngs))
    params = model.init(jax.random.key(0))
    slope = jax.grad(lambda p: model.apply(p, X, MASK)[0].sum())(params)
    assert jnp.abs(slope["before"]).min() > 0 and jnp.abs(slope["after"]).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tahn"}, "unknown 'tahn'; nearest: tanh"),
        ({"gradient": "implict"}, "unknown 'implict'; nearest: implicit"),
        ({"certificate": "jiont"}, "unknown 'jiont'; nearest: joint"),
        ({"begin": "mix"}, "unknown 'mix'; nearest: mixed"),
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
    x = jnp.concatenate([X] * 40)
    h, aux = layer()(x, report=True)
    few, told = layer()(x[:64], report=True)
    chex.assert_trees_all_close(h[:64], few, atol=1e-6)
    for name in ("radius", "adjoint residual"):
        assert aux[name].shape == (80,) and told[name].shape == (64,)
        # A residual is what rounding leaves, which differs by the shape of a product.
        chex.assert_trees_all_close(aux[name][0], told[name].mean(), rtol=0.3)
