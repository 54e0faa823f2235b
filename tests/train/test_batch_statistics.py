"""Running statistics in training: what a step does to them, resuming, populations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ffnlab import data, trees
from ffnlab.errors import InputError
from ffnlab.models import mlp
from ffnlab.nn.ffn import BlockConfig
from ffnlab.nn.pure import functional
from ffnlab.sweep import fit_population
from ffnlab.train import loop, objectives, optimizers, train_step
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.gradients import mean_gradient
from ffnlab.train.loop import Hooks, Learner
from ffnlab.train.objectives import mean_loss
from ffnlab.train.program import Program
from ffnlab.train.record import Plan
from ffnlab.types import Model

OBJECTIVE = objectives.OBJECTIVES["classes"]
KEY = jax.random.key(0)
PLAN = Plan(8, 4, 16, monitor="accuracy", higher_is_better=True)


class Plain(nnx.Module):
    """A module of Flax alone, with state of both kinds."""

    def __init__(self, rngs):
        self.up = nnx.Linear(13, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.down = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.down(self.dropout(nnx.relu(self.norm(self.up(x)))))


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


@pytest.fixture(scope="module")
def learner():
    return Learner(functional(Plain), OBJECTIVE, optimizers.make("adamw", flat=True))


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_rank_promotion("allow"):  # Flax's own modules promote
        yield


def linear(apply):
    """A model that compiles fast, whose statistics are what `apply` returns."""

    def init(key):
        kernel = jax.random.normal(key, (13, 3))
        return {"kernel": kernel, "stats": {"mean": jnp.zeros(13)}}

    return Model(init, apply)


def centre(params, x, key=None):
    """Subtracts the mean: of the batch with a key, and the running one without."""
    mean = params["stats"]["mean"] if key is None else x.mean(0)
    running = 0.5 * params["stats"]["mean"] + 0.5 * x.mean(0)
    y = (x - mean[None]) @ params["kernel"]
    return y, {} if key is None else {"stats": {"mean": running}}


@pytest.mark.parametrize("own", [False, True])
def test_step_is_what_is_written_out(own, wine):
    """Against the gradient of the rest and SGD; once with a gradient of one's own."""
    model = linear(centre)
    gradient = mean_gradient(mean_loss(model, OBJECTIVE)) if own else None
    learner = Learner(
        model, OBJECTIVE, optimizers.make("sgd", weight_decay=0.5), gradient
    )
    state = train_step.init_state(learner, KEY, 0, 0.1)
    state.params["stats"]["mean"] = jnp.ones(13)
    batch = {name: array[:9] for name, array in wine.train.items()}

    @jax.jit
    def run(state, batch):
        kernel, x = state.params["kernel"], batch["x"]

        def loss(kernel):
            logits = (x - x.mean(0)[None]) @ kernel
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, batch["y"]
            ).mean()

        value, slope = jax.value_and_grad(loss)(kernel)
        return train_step.make_step(learner)(state, batch), value, slope

    (after, loss), value, slope = run(state, batch)
    kernel = state.params["kernel"]
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    np.testing.assert_allclose(
        after.params["kernel"], kernel - 0.1 * slope - 0.05 * kernel, rtol=1e-5
    )
    np.testing.assert_allclose(
        after.params["stats"]["mean"], 0.5 + 0.5 * batch["x"].mean(0), rtol=1e-5
    )


def test_the_optimizer_holds_nothing_for_statistics(learner):
    state = jax.eval_shape(lambda: train_step.init_state(learner, KEY, 0, 0.1))
    trained = 13 * 8 + 8 + 8 + 8 + 8 * 3 + 3
    largest = max(leaf.size for leaf in jax.tree.leaves(state.optimizer))
    assert largest == trained == trees.count(state.params) - 16
    unflat = Learner(learner.model, OBJECTIVE, optimizers.make("adam"))
    state = jax.eval_shape(lambda: train_step.init_state(unflat, KEY, 0, 0.1))
    assert not any("stats" in name for name in trees.flatten(state.optimizer))


def test_a_run_is_resumed_bit_for_bit(learner, wine, tmp_path):
    whole = loop.fit(learner, wine, PLAN, learning_rate=0.01)
    stats = whole.state.params["stats"]["norm"]
    assert (np.asarray(stats["mean"]) != 0).all()

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    hooks = Hooks(Checkpoints(tmp_path, 0.0), stop)
    with pytest.raises(Stop):
        loop.fit(learner, wine, PLAN, learning_rate=0.01, hooks=hooks)
    hooks = Hooks(Checkpoints(tmp_path, 0.0))
    resumed = loop.fit(learner, wine, PLAN, learning_rate=0.01, hooks=hooks)
    chex.assert_trees_all_equal(resumed.state, whole.state)
    chex.assert_trees_all_equal(resumed.best, whole.best)
    chex.assert_trees_all_equal(resumed.record.loss, whole.record.loss)


def test_a_member_of_a_population_is_a_run(learner, wine):
    population = fit_population(
        learner, wine, PLAN, seeds=[0, 1], learning_rates=[0.01]
    )
    for number, seed in enumerate((0, 1)):
        alone = loop.fit(learner, wine, PLAN, seed=seed, learning_rate=0.01)
        member = jax.tree.map(
            lambda leaf: leaf[number],  # noqa: B023
            population.fit.state.params,
        )
        chex.assert_trees_all_close(member, alone.state.params, atol=1e-5)


def test_batched_members_keep_statistics_of_their_own(learner, wine):
    result = fit_population(
        learner, wine, PLAN, seeds=[0, 1], learning_rates=[0.01], batching="vmap"
    )
    means = result.fit.state.params["stats"]["norm"]["mean"]
    chex.assert_shape(means, (2, 8))
    assert (np.asarray(means[0]) != np.asarray(means[1])).all()


def test_evaluation_uses_the_running_statistics(wine):
    model = linear(centre)
    params = model.init(KEY)
    learner = Learner(model, OBJECTIVE, optimizers.make("sgd"))
    result = loop.fit(learner, wine, PLAN, learning_rate=0.0)
    seen = result.best["stats"]["mean"]
    logits = (wine.valid["x"] - np.asarray(seen)) @ np.asarray(result.best["kernel"])
    expected = (logits.argmax(1) == wine.valid["y"]).mean()
    assert result.record.best == pytest.approx(expected)
    assert params.keys() == result.best.keys()


def test_a_tower_with_batch_norm_starts_with_matched_variances():
    block = BlockConfig("mlp", 8, 8, norm="hidden", norm_kind="batch")
    plain = mlp.tower(mlp.TowerConfig(5, 3, block, 1))
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, size=(64, 5)), jnp.float32)
    params = mlp.with_output_variance(plain, x, 0.7).init(KEY)
    np.testing.assert_allclose(mlp.output_variances(plain, params, x), 0.7, rtol=1e-4)


def test_a_program_without_statistics_is_the_same_as_before():
    def apply(params, x, key=None):
        return x @ params["kernel"], {}

    model = Model(lambda key: {"kernel": jax.random.normal(key, (13, 3))}, apply)
    learner = Learner(model, OBJECTIVE, optimizers.make("adam"))
    gradient = jax.value_and_grad(mean_loss(model, OBJECTIVE))

    def written_out(state, batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        loss, grads = gradient(state.params, batch, key)
        updates, moments = learner.optimizer.update(
            grads, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        return train_step.TrainState(state.step + 1, state.key, params, moments), loss

    state = train_step.init_state(learner, KEY, 0, 0.1)
    batch = {"x": jnp.ones((4, 13)), "y": jnp.zeros(4, int)}
    step = train_step.make_step(learner)
    step.__name__ = step.__qualname__ = "written_out"
    one, two = (Program(each).fingerprint(state, batch) for each in (step, written_out))
    assert one == two


def test_statistics_that_do_not_come_back_are_an_error():
    batch = {"x": jnp.ones((4, 13)), "y": jnp.zeros(4, int)}

    def run(apply):
        learner = Learner(linear(apply), OBJECTIVE, optimizers.make("sgd"))
        state = jax.eval_shape(lambda: train_step.init_state(learner, KEY, 0))
        jax.eval_shape(train_step.make_step(learner), state, batch)

    with pytest.raises(InputError, match=r"model: .* new ones in aux\['stats'\]"):
        run(lambda params, x, key=None: (x @ params["kernel"], {}))
    with pytest.raises(InputError, match=r"model: .*'mean': \(13,\)}, not .*\(1,\)"):
        run(
            lambda params, x, key=None: (
                x @ params["kernel"],
                {"stats": {"mean": jnp.zeros(1)}},
            )
        )
