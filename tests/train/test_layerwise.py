"""Learning rates by layer: decayed, frozen, and unfrozen in turn."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import EncoderConfig, trees
from ffnlab.data.dataset import Dataset
from ffnlab.errors import InputError
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.train import layerwise, objectives, optimizers
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.loop import Hooks, Learner, fit
from ffnlab.train.record import Plan
from ffnlab.types import Model
from tests.conftest import draw

ENCODER = EncoderConfig(
    vocabulary=30, features=8, layers=2, heads=2, hidden=16, types=2, length=20
)
MODEL = classifier_model(ClassifierConfig(ENCODER, 3, dropout=0.0))
# The arrays of a small encoder and its head, and the first step that updates each if a
# part is unfrozen every two steps.
STARTS = {
    "encoder/embed/tokens/embedding": 6,
    "encoder/layer_0/up/kernel": 4,
    "encoder/layer_0/up/bias": 4,
    "encoder/layer_1/up/kernel": 2,
    "encoder/norm/scale": 0,
    "head/out/kernel": 0,
}


def small():
    """Parameters of a small encoder and its head."""
    rng = np.random.default_rng(0)
    shapes = {"embedding": (5, 3), "kernel": (3, 4), "bias": (4,), "scale": (4,)}
    return trees.unflatten(
        {
            name: jnp.asarray(rng.normal(size=shapes[name.rpartition("/")[2]]), "f4")
            for name in STARTS
        }
    )


def test_rates_fall_by_layer_and_are_zero_where_frozen():
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    rates = trees.flatten(layerwise.layer_rates(params, 2, 0.5, ["layers.0"]))
    assert rates["encoder/embed/tokens/embedding"] == 0.125
    assert rates["encoder/layer_1/ffn/up/kernel"] == 0.5
    assert rates["head/out/kernel"] == 1.0
    assert {r for n, r in rates.items() if n.startswith("encoder/layer_0/")} == {0.0}
    for wrong in ("layers.2", "layers.1-0", "layer", "layers.-1"):
        with pytest.raises(InputError, match="^freeze: "):
            layerwise.frozen_patterns([wrong], 2)


def test_what_is_frozen_stays_and_costs_no_gradient():
    rng, params = np.random.default_rng(0), draw(MODEL)
    x = {
        "tokens": rng.integers(1, 30, (2, 9)),
        "mask": np.ones((2, 9), bool),
        "segment_ids": np.zeros((2, 9), np.int32),
        "label_positions": np.array([[0, 3, -1], [1, 4, 5]]),
    }
    batch = {"x": x, "y": np.array([[0, 1, -100], [2, 0, 1]])}
    rates = layerwise.layer_rates(params, 2, 1.0, ["embeddings", "layers.0-1"])
    frozen = layerwise.stop_gradients(MODEL, rates)
    optimizer = optimizers.make("adamw", 0.1, weight_decay=0.1)
    optimizer = layerwise.scale_by_layer(optimizer, rates)

    @jax.jit
    def differentiate(params):
        def loss(params, model):
            objective = objectives.cross_entropy_objective()
            return objectives.mean_loss(model, objective)(params, batch, None)

        grads = jax.grad(loss)(params, frozen)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return grads, jax.grad(loss)(params, MODEL), updates

    grads, full, updates = differentiate(params)
    head = {"head/out/bias", "head/out/kernel"}
    for tree in (grads, updates):
        assert {n for n, leaf in trees.flatten(tree).items() if leaf.any()} == head
    chex.assert_trees_all_close(grads["head"], full["head"], rtol=1e-5)
    assert trees.flatten(full)["encoder/layer_0/ffn/up/kernel"].any()


# The moments of a matrix and of a vector.
MOMENTS = {"adamw": (2, 2), "lion": (1, 1), "muon": (1, 2)}


@pytest.mark.parametrize("name", MOMENTS)
def test_frozen_arrays_have_no_moments_and_the_others_the_same_updates(name, tmp_path):
    """And a checkpoint with moments of all arrays is continued without them."""
    params, plain = small(), optimizers.make(name, 0.1, weight_decay=0.1, clip=0.5)
    rates = layerwise.layer_rates(params, 2, 0.5, ["embeddings", "layers.0"])
    scaled = layerwise.scale_by_layer(plain, rates)
    frozen = [n for n, rate in trees.flatten(rates).items() if rate == 0]
    assert [n.rpartition("/")[2] for n in frozen] == ["embedding", "bias", "kernel"]

    @jax.jit
    def train(params):
        """Returns both states and their updates after two steps, and the rest."""
        states = [plain.init(params), scaled.init(params)]
        for step in range(2):
            grads = jax.tree.map(
                lambda p, rate: jnp.cos(p + step) * (rate > 0),  # noqa: B023
                params,
                rates,
            )
            updates = [
                optimizer.update(grads, state, params)
                for optimizer, state in zip((plain, scaled), states, strict=True)
            ]
            states = [state for _, state in updates]
        third = scaled.update(params, states[1], params)
        return states, [update for update, _ in updates], third

    (with_moments, without), (expected, updates), third = train(params)
    extra = len(jax.tree.leaves(with_moments)) - len(jax.tree.leaves(without))
    assert extra == 2 * MOMENTS[name][0] + MOMENTS[name][1]
    names = trees.flatten(without)
    assert not [n for n in names if n.endswith(tuple(frozen))]
    assert [n for n in names if n.endswith("head/out/kernel")]
    expected = jax.tree.map(lambda update, rate: rate * update, expected, rates)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6, atol=2e-6)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, {"params": params, "optimizer": with_moments})
    empty = jax.tree.map(jnp.zeros_like, {"params": params, "optimizer": without})
    restored = checkpoints.restore(empty)
    chex.assert_trees_all_equal(restored["params"], params)
    chex.assert_trees_all_close(restored["optimizer"], without, rtol=1e-6)
    chex.assert_trees_all_equal_structs(third[1], restored["optimizer"])


def test_nothing_frozen_is_the_state_of_the_optimizer_itself():
    params, plain = small(), optimizers.make("adam", 0.1)
    scaled = layerwise.scale_by_layer(plain, layerwise.layer_rates(params, 2, 0.5))
    states = (jax.eval_shape(o.init, params) for o in (plain, scaled))
    chex.assert_trees_all_equal_structs(*states)


def test_weights_and_smoothing():
    labels = np.array([[0, 1, -100]])
    logits = jnp.array([[[2.0, 0.0], [2.0, 0.0], [9.0, 9.0]]])
    weights = layerwise.balanced_weights([0, 0, 0, 1], 2)
    score = objectives.cross_entropy_objective(0.1, weights).score
    means = jax.jit(lambda logits: objectives.means(score(logits, {"y": labels})))
    logs = np.log(np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum())
    losses = [-0.95 * logs[0] - 0.05 * logs[1], -0.95 * logs[1] - 0.05 * logs[0]]
    expected = np.average(losses, weights=weights)
    assert float(means(logits)["loss"]) == pytest.approx(expected, rel=1e-5)
    assert layerwise.balanced_weights([0, 0], 2) == [0.5, 0.0]


def test_balanced_weights_are_inverse_frequencies():
    rng = np.random.default_rng(0)
    for classes in (2, 5, 9):
        labels = rng.integers(-1, classes, 200)
        labels[labels == 1] = -1  # a class of the dev part alone
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        total = counts.sum()
        wanted = [total / (classes * n) if n else 0.0 for n in counts]
        weights = layerwise.balanced_weights(labels, classes)
        np.testing.assert_allclose(weights, wanted, rtol=1e-15)
        assert weights[1] == 0.0
    assert layerwise.balanced_weights([-1], 3) == [0.0] * 3


def test_embeddings_that_were_pruned_come_back():
    table = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    original = {"embed": {"tokens": {"embedding": table}, "norm": 1}, "layer_0": 2}
    vocab_ids = np.array([1, 3, 4])
    pruned = layerwise.prune_embeddings(original, vocab_ids)
    assert pruned["embed"]["tokens"]["embedding"].tolist() == table[[1, 3, 4]].tolist()
    assert pruned["embed"]["norm"] == 1 and pruned["layer_0"] == 2
    trained = jax.tree.map(lambda leaf: -leaf, pruned)
    restored = layerwise.restore_embeddings(trained, original, vocab_ids)
    wanted = np.where(np.isin(np.arange(6), vocab_ids)[:, None], -table, table)
    assert restored["embed"]["tokens"]["embedding"].tolist() == wanted.tolist()
    assert restored["embed"]["norm"] == -1 and restored["layer_0"] == -2


@pytest.mark.parametrize("chained", [False, True])
def test_parts_are_updated_from_their_turn_on(chained):
    """Before it nothing moves; from it on, updates are those of nobody waiting."""
    chex.clear_trace_counter()
    params = small()
    rates = layerwise.layer_rates(params, 2, 0.5)
    plain = layerwise.scale_by_layer(
        optimizers.make("adamw", 0.1, weight_decay=0.1), rates
    )
    held = layerwise.gradual_unfreezing(plain, params, layers=2, every=2)
    if chained:
        held = optax.chain(optax.identity(), held)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(states, step):
        grads = jax.tree.map(lambda p: jnp.cos(p + step), params)
        updates, state = held.update(grads, states[0], params)
        expected, other = plain.update(grads, states[1], params)
        return updates, expected, (state, other)

    states = jax.jit(lambda p: (held.init(p), plain.init(p)))(params)
    for step in range(8):
        updates, expected, states = update(states, np.float32(step))
        updates, expected = trees.flatten(updates), trees.flatten(expected)
        for name, leaf in updates.items():
            if step < STARTS[name]:
                assert not leaf.any(), (name, step)
            else:
                np.testing.assert_allclose(leaf, expected[name], 1e-6, atol=1e-8)
                assert leaf.any(), (name, step)


def test_members_of_a_population_take_their_turns():
    params = {"encoder": {"layer_0": {"w": jnp.ones(2)}}, "head": {"w": jnp.ones(2)}}
    held = layerwise.gradual_unfreezing(optimizers.make("sgd", 1.0), params, 1, every=1)

    def run(rate):
        state = optimizers.with_learning_rate(held.init(params), rate)
        moved = []
        for _ in range(2):
            updates, state = held.update(params, state, params)
            moved.append(updates["encoder"]["layer_0"]["w"][0])
        return jnp.stack(moved)

    moved = jax.jit(jax.vmap(run))(jnp.array([1.0, 0.5]))
    assert moved.tolist() == [[0.0, -1.0], [0.0, -0.5]]


def test_turns_are_resumed_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    part = {"x": rng.normal(size=(8, 2)).astype("float32"), "y": np.arange(8) % 2}
    dataset = Dataset("toy", part, part, {}, "classes", 2, 2, {})
    start = {"encoder": {"layer_0": {"w": jnp.eye(2)}}, "head": {"w": jnp.eye(2)}}

    def apply(params, x, key=None):
        return x @ params["encoder"]["layer_0"]["w"] @ params["head"]["w"], {}

    model = Model(lambda key: jax.tree.map(jnp.copy, start), apply)
    optimizer = layerwise.gradual_unfreezing(
        optimizers.make("adam", 0.1), start, 1, every=3
    )
    learner = Learner(model, objectives.cross_entropy_objective(), optimizer)

    def run(stop, checkpoints=None):
        def on_progress(record):
            if int(record.step) == stop:
                raise KeyboardInterrupt

        hooks = Hooks(checkpoints, on_progress)
        return fit(learner, dataset, Plan(6, 2, 4), hooks=hooks).state

    uninterrupted, checkpoints = run(None), Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(2, checkpoints)
    resumed = run(None, checkpoints)
    chex.assert_trees_all_equal(uninterrupted, resumed)
    assert int(uninterrupted.optimizer.count) == 6
