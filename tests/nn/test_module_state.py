"""Plain NNX modules as pure functions: dropout, batch norm, lists, and what is not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn import pure

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), jnp.float32)


class Plain(nnx.Module):
    """What a user of Flax writes: x alone, and all state inside."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)]
        )
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))


@pytest.fixture(scope="module")
def outputs():
    """Everything of one program: two keys, one of them twice, and no key."""
    model = pure.functional(Plain)
    params = model.init(KEY)

    @jax.jit
    def run(params):
        one, two = jax.random.split(KEY)
        calls = [(one,), (one,), (two,), (None,), ()]
        return [model.apply(params, X, *key) for key in calls]

    with jax.numpy_rank_promotion("allow"):
        return params, run(params)


def test_the_tree_of_parameters_has_statistics_and_no_streams(outputs):
    shapes = {n: leaf.shape for n, leaf in trees.flatten(outputs[0]).items()}
    assert shapes == {
        "layers/0/bias": (4,),
        "layers/0/kernel": (2, 4),
        "layers/1/bias": (4,),
        "layers/1/kernel": (4, 4),
        "norm/bias": (4,),
        "norm/scale": (4,),
        "stats/norm/mean": (4,),
        "stats/norm/var": (4,),
    }
    with jax.numpy_rank_promotion("allow"):
        assert pure.parameters(pure.functional(Plain)) == 12 + 20 + 8
        assert pure.flops(pure.functional(Plain)) == 2 * (8 + 16)


def test_a_key_starts_dropout_and_without_one_there_is_none(outputs):
    one, again, two, none, alone = [y for y, _ in outputs[1]]
    chex.assert_trees_all_equal(one, again)
    assert ((one == 0) != (two == 0)).any() and 0 < (one == 0).mean() < 1
    chex.assert_trees_all_equal(none, alone)
    assert (none != 0).all()


def test_statistics_are_of_the_batch_in_training_and_used_in_evaluation(outputs):
    params, ((y, aux), _, _, (evaluated, rest), _) = outputs
    h = np.asarray(X)
    for layer in ("0", "1"):
        part = params["layers"][layer]
        h = h @ np.asarray(part["kernel"]) + np.asarray(part["bias"])
    for name, value in (("mean", h.mean(0)), ("var", h.var(0))):
        old = params["stats"]["norm"][name]
        np.testing.assert_allclose(
            aux["stats"]["norm"][name], 0.5 * old + 0.5 * value, atol=1e-5
        )
    normed = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    np.testing.assert_allclose(y, np.where(y == 0, 0, 2 * normed), atol=1e-3)
    np.testing.assert_allclose(evaluated, h / np.sqrt(1 + 1e-5), atol=1e-5)
    assert rest == {}


def test_members_of_a_population_differ(outputs):
    model, keys = pure.functional(Plain), jax.random.split(KEY, 3)

    @jax.jit
    def run(keys):
        return jax.vmap(lambda key: model.apply(model.init(key), X, key))(keys)

    with jax.numpy_rank_promotion("allow"):
        y, aux = run(keys)
    chex.assert_shape(y, (3, 8, 4))
    means = np.asarray(aux["stats"]["norm"]["mean"])
    assert means.shape == (3, 4) and len(np.unique(means[:, 0])) == 3


def test_a_sequence_of_flax_takes_a_key():
    model = pure.functional(
        lambda rngs: nnx.Sequential(
            nnx.Linear(2, 3, rngs=rngs), jax.nn.relu, nnx.Dropout(0.5, rngs=rngs)
        )
    )
    shapes = jax.eval_shape(model.init, KEY)
    assert sorted(shapes["layers"]["0"]) == ["bias", "kernel"]
    for key in (KEY, None):
        y, aux = jax.eval_shape(model.apply, shapes, X, key)
        assert y.shape == (8, 3) and aux == {}


def test_module_with_its_own_key_and_batch_norm_of_flax():
    class Keyed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(2, rngs=rngs)

        def __call__(self, x, key=None):
            return self.norm(x), {"trained": key is not None}

    model = pure.functional(Keyed)
    params = jax.eval_shape(model.init, KEY)
    by_position = jax.eval_shape(model.apply, params, X, KEY)
    by_name = jax.eval_shape(lambda p: model.apply(p, X, key=KEY)[1]["stats"], params)
    assert sorted(by_position[1]) == ["stats", "trained"]
    assert sorted(by_name["norm"]) == ["mean", "var"]


def test_state_of_other_kinds_is_refused():
    class Cached(nnx.Module):
        def __init__(self, rngs):
            self.cache = nnx.Cache(jnp.zeros(2))

        def __call__(self, x):
            return x

    class Named(nnx.Module):
        def __init__(self, rngs):
            self.stats = nnx.Linear(2, 2, rngs=rngs)

        def __call__(self, x):
            return self.stats(x)

    class Three(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(2, rngs=rngs)

        def __call__(self, x):
            return self.norm(x), x, x

    with pytest.raises(InputError, match="holds Cache beside"):
        pure.functional(Cached)
    with pytest.raises(InputError, match="'stats' is the name"):
        pure.functional(Named)
    with pytest.raises(InputError, match="should return an nnx.Module"):
        pure.functional(lambda rngs: 3)
    model = pure.functional(Three)
    params = jax.eval_shape(model.init, KEY)
    with pytest.raises(InputError, match="not a tuple of 3"):
        jax.eval_shape(model.apply, params, X, KEY)
    with pytest.raises(InputError, match="'stats' is missing"):
        jax.eval_shape(model.apply, {"norm": params["norm"]}, X)
    with pytest.raises(InputError, match="should be a key of jax.random.key"):
        jax.eval_shape(lambda p: model.apply(p, X, 3), params)


class ByName(nnx.Module):
    """A module as Flax writes them: the random streams are passed by name."""

    def __init__(self, *, rngs):
        self.up = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.up(x)


def test_random_streams_may_be_taken_by_name():
    models = pure.functional(ByName), pure.functional(lambda rngs: ByName(rngs=rngs))
    chex.assert_trees_all_equal(*(model.init(KEY) for model in models))
