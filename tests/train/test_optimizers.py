import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab.errors import InputError
from ffnlab.models.layer_stack import stack_layers
from ffnlab.train import optimizers

PARAMS = {
    "up": {
        "kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]),
        "bias": jnp.array([0.1, 0.2]),
    }
}


def run(optimizer, steps=5, params=PARAMS):
    """A few steps on the sum of squares of all but one."""
    state = optimizer.init(params)
    for _ in range(steps):
        grads = jax.tree.map(lambda p: 2 * (p - 1), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


PLAIN = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad(0.1),
    "rmsprop": optax.rmsprop(0.1, decay=0.9),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=1e-4, mask=optimizers.decayed),
    "lion": optax.lion(0.1, weight_decay=1e-3, mask=optimizers.decayed),
    "muon": optax.contrib.muon(0.1),
}


def test_every_recipe_has_a_reference():
    assert sorted(PLAIN) == sorted(optimizers.OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_recipes_are_optax_own(name):
    kinds = [optimizers.make(name, 0.1, flat=flat) for flat in (False, True)]
    *ours, expected = jax.jit(
        lambda params: [run(o, params=params) for o in (*kinds, PLAIN[name])]
    )(PARAMS)
    for params in ours:
        chex.assert_trees_all_close(params, expected, rtol=2e-5, atol=1e-6)


def test_article_adamw_step():
    """From 1.0 with g = 0.5, rate 0.001, λ = 0.01: the decay is scaled by the rate."""
    params = {"kernel": jnp.ones(1)}
    optimizer = optimizers.make("adamw", 0.001, weight_decay=0.01)

    @jax.jit
    def first(params):
        grads = {"kernel": jnp.array([0.5])}
        return optimizer.update(grads, optimizer.init(params), params)[0]

    update = float(first(params)["kernel"][0])
    assert 1.0 + update == pytest.approx(0.99899, abs=1e-6)
    undiscounted = 1.0 + update + 0.001 * 0.01 - 0.01
    assert undiscounted == pytest.approx(0.989, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "muon"])
def test_decay_is_decoupled_and_spares_biases(name):
    kinds = [optimizers.make(name, 0.1, weight_decay=decay) for decay in (0.0, 0.5)]
    plain, decaying = jax.jit(lambda params: [run(o, 1, params) for o in kinds])(PARAMS)
    gap = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), decaying, plain)
    expected = -0.1 * 0.5 * np.asarray(PARAMS["up"]["kernel"])
    chex.assert_trees_all_close(gap["up"]["kernel"], expected, rtol=1e-4, atol=1e-6)
    assert gap["up"]["bias"].tolist() == [0.0, 0.0]


def test_muon_takes_each_matrix_of_a_stack():
    """Also the biases of a stack, `[L, H]`, which are no matrix."""
    rng = np.random.default_rng(0)

    def layer():
        shapes = {"query": (4, 4), "up": (4, 6), "down": (6, 4)}
        linear = {
            name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[1])}
            for name, shape in shapes.items()
        }
        norm = {"scale": rng.normal(size=4)}
        parts = {"ffn": linear, "ffn_norm": norm, "attention": linear}
        return jax.tree.map(jnp.float32, parts)

    layers = {f"layer_{number}": layer() for number in range(3)}
    optimizer = optimizers.make("muon", 0.1, weight_decay=0.1, clip=1.0)
    one_by_one, stacked = jax.jit(
        lambda params: [run(optimizer, 3, p) for p in (params, stack_layers(params))]
    )(layers)
    chex.assert_trees_all_close(stacked, stack_layers(one_by_one), atol=1e-6, rtol=0)


def test_muon_takes_a_list_called_layers_as_it_is():
    params = {"layers": [PARAMS["up"], PARAMS["up"]]}
    ours, expected = jax.jit(
        lambda params: [
            run(o, 2, params) for o in (optimizers.make("muon", 0.1), PLAIN["muon"])
        ]
    )(params)
    chex.assert_trees_all_close(ours, expected, atol=1e-6)


def test_clipping_is_of_the_whole_gradient():
    optimizer = optimizers.make("sgd", 1.0, clip=1.0)

    @jax.jit
    def update(factor):
        grads = jax.tree.map(lambda p: factor * jnp.ones_like(p), PARAMS)
        return optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]

    for factor, norm in ((100.0, 1.0), (0.1, 0.1 * 6**0.5)):
        leaves = jax.tree.leaves(update(factor))
        squares = sum(float(np.square(leaf).sum()) for leaf in leaves)
        assert squares == pytest.approx(norm**2, rel=1e-5)


def test_learning_rate_is_traced():
    """Two rates, one compilation."""
    optimizer = optimizers.make("adamw", schedule=optimizers.schedule("cosine", 10, 2))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def first_step(rate):
        state = optimizers.with_learning_rate(optimizer.init(PARAMS), rate)
        return optimizer.update(PARAMS, state, PARAMS)[0]["up"]["bias"]

    one, two = (np.asarray(first_step(rate)) for rate in (0.1, 0.2))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "last"), [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)]
)
def test_schedules(name, last):
    factor = jax.jit(optimizers.schedule(name, steps=110, warmup=10))
    values = [float(factor(np.int32(step))) for step in range(111)]
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert values[10] == 1.0
    assert values[-1] == pytest.approx(last, abs=1e-6)
    if name != "constant":
        assert values[60] == pytest.approx(0.5, abs=1e-6)
        assert all(np.diff(values[10:]) < 0)


def test_bad_names_and_numbers():
    with pytest.raises(InputError, match="^optimizer: unknown 'adma'; nearest: adam"):
        optimizers.make("adma")
    with pytest.raises(InputError, match="^schedule: unknown .*; nearest: cosine"):
        optimizers.schedule("cosin", 10)
    for warmup in (10, -1):
        wanted = f"^warmup: {warmup} must be at least 0 and below 10"
        with pytest.raises(InputError, match=wanted):
            optimizers.schedule("cosine", 10, warmup)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam,
        lambda learning_rate: optax.adam(learning_rate),
        lambda rate=0.3: optax.adam(lambda step: rate),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.3),
        optax.chain(optax.identity(), optimizers.make("adam")),
        "adam",
    ],
)
def test_optimizers_whose_learning_rate_is_used(optimizer):
    optimizer = optimizers.as_optimizer(optimizer)
    assert optimizers.has_learning_rate(optimizer, PARAMS)

    @jax.jit
    def updates(rate):
        state = optimizers.with_learning_rate(optimizer.init(PARAMS), rate)
        return optimizer.update(PARAMS, state, PARAMS)[0]

    plain = optax.adam(0.1)
    expected, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates(0.1), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.1),
        optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
        optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(0.1, 10)),
        optax.chain(optax.clip(1.0), optax.sgd(0.1)),
    ],
)
def test_a_learning_rate_that_would_not_be_used_is_refused(optimizer):
    assert optimizers.as_optimizer(optimizer) is optimizer
    assert not optimizers.has_learning_rate(optimizer, PARAMS)
    with pytest.raises(InputError, match="^learning_rate: .* would not be used"):
        optimizers.with_learning_rate(optimizer.init(PARAMS), 0.1)


def test_a_function_without_a_rate_given_has_its_default():
    for optimizer, rate in (
        (lambda rate=0.3: optax.sgd(rate), 0.3),
        (optax.adam, 1e-3),
    ):
        state = optimizers.as_optimizer(optimizer).init(PARAMS)
        assert float(state.hyperparams["learning_rate"]) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        (None, "or a function of the learning rate that returns one, got NoneType"),
        (optax.GradientTransformation, "got type"),
        (lambda: optax.adam(0.1), "the call failed: .* takes 0 positional arguments"),
        (lambda rate: rate, "it returned DynamicJaxprTracer"),
        (lambda rate: optax.sgd(float(rate)), "JAX cannot trace that; make the sched"),
        (
            lambda rate: optax.sgd(optax.warmup_cosine_decay_schedule(0, rate, 1, 9)),
            "lambda step: rate \\* factor",
        ),
        ("adma", "unknown 'adma'; nearest: adam"),
    ],
)
def test_what_is_no_optimizer_is_refused(optimizer, wanted):
    with pytest.raises(InputError, match=f"^optimizer: .*{wanted}"):
        optimizers.as_optimizer(optimizer)
