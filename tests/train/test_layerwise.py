"""Which parts learn, at what rate; and the heads."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import EncoderConfig
from ffnlab.data.dataset import Dataset
from ffnlab.data.packed_rows import pack
from ffnlab.data.tokenizer import Encoded
from ffnlab.errors import InputError
from ffnlab.models.classifier import (
    ClassifierConfig,
    ClassifierHead,
    Predictor,
    classifier_model,
)
from ffnlab.models.transformer import transformer_model
from ffnlab.nn.pure import functional
from ffnlab.train import layerwise, objectives, optimizers
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.loop import Hooks, Learner, fit
from ffnlab.types import Model

KEY = jax.random.key(0)
ENCODER = EncoderConfig(
    vocabulary=30, features=8, layers=2, heads=2, hidden=16, types=2, length=20
)


def encoded(sizes=(5, 3, 4, 6), words=True):
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 30, n) for n in sizes]
    first = [np.arange(1, n - 1) for n in sizes] if words else []
    return Encoded(tokens, [np.zeros(n, int) for n in sizes], first, 0)


def wide(params):
    return jax.tree.map(lambda p: 5.0 * p if p.ndim > 1 else p, params)


@pytest.mark.parametrize("head", ["linear", "feedback", "swiglu", "mlp:relu"])
@pytest.mark.parametrize("words", [True, False])
def test_texts_that_share_a_row_do_not_meet(head, words):
    if head == "feedback" and not words:
        pytest.skip("a text has no neighbours")
    encoder = ENCODER if words else EncoderConfig.tiny(vocabulary=30, pooler=True)
    model = classifier_model(ClassifierConfig(encoder, 3, head, hidden=6))
    params, texts = wide(model.init(KEY)), encoded(words=words)
    together = pack(texts, None, 20)
    labels, chances = Predictor(model, together.arrays)(params)
    flat = together.flat(chances)
    begin = 0
    for number in range(4):
        one = Encoded(*(part[number : number + 1] for part in texts[:3]), 0)
        alone = pack(one, None, len(one.tokens[0]))
        found = alone.flat(Predictor(model, alone.arrays)(params)[1])
        end = begin + len(found)
        np.testing.assert_allclose(flat[begin:end], found, atol=2e-4)
        begin = end
    assert begin == len(flat) and labels.max() < 3


def test_the_linear_head_is_what_is_written():
    config = ClassifierConfig(EncoderConfig.tiny(vocabulary=30, pooler=True), 3)
    model = classifier_model(config)
    params, rows = wide(model.init(KEY)), pack(encoded(words=False), None, 8)
    x = {n.removeprefix("x/"): a for n, a in rows.arrays.items() if n != "y"}
    logits, _ = model.apply(params, x)
    states, _ = transformer_model(config.encoder).apply(
        params["encoder"], x["tokens"], x["mask"], segment_ids=x["segment_ids"]
    )
    h = np.take_along_axis(
        np.asarray(states), np.maximum(x["label_positions"], 0)[..., None], 1
    )
    pooler, out = params["encoder"]["pooler"], params["head"]["out"]
    h = np.tanh(h @ np.asarray(pooler["kernel"]) + np.asarray(pooler["bias"]))
    expected = h @ np.asarray(out["kernel"]) + np.asarray(out["bias"])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("gradient", ["implicit", "bptt"])
def test_the_feedback_head_hears_places_and_nothing_else(gradient):
    config = ClassifierConfig(ENCODER, 3, "feedback", 4, 0.0, gradient)
    model = functional(lambda rngs: ClassifierHead(config, rngs=rngs))
    params = model.init(KEY)
    h = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
    there = jnp.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], bool)

    def value(params, h, seen):
        logits = model.apply(params, h, there)
        return (jnp.sin(logits) * seen[..., None]).sum()

    of_params, of_h = jax.grad(value, argnums=(0, 1))(params, h, there)
    assert all(bool((leaf != 0).any()) for leaf in jax.tree.leaves(of_params))
    heard = np.abs(np.asarray(of_h)).sum(axis=-1) > 0
    assert (heard == np.asarray(there)).all()
    first = jnp.zeros_like(there).at[0, 0].set(True)
    heard = np.abs(np.asarray(jax.grad(value, argnums=1)(params, h, first))).sum(-1)
    assert (heard > 0).tolist() == [[True, True, False, False, False], [False] * 5]


def test_rates_fall_by_layer_and_are_zero_where_frozen():
    params = jax.eval_shape(classifier_model(ClassifierConfig(ENCODER, 3)).init, KEY)
    rates = trees.flatten(layerwise.layer_rates(params, 2, 0.5, ["layers.0"]))
    assert rates["encoder/embed/tokens/embedding"] == 0.125
    assert rates["encoder/layer_1/ffn/up/kernel"] == 0.5
    assert rates["head/out/kernel"] == 1.0
    assert {r for n, r in rates.items() if n.startswith("encoder/layer_0/")} == {0.0}
    for wrong in ("layers.2", "layers.1-0", "layer", "layers.-1"):
        with pytest.raises(InputError, match="--freeze"):
            layerwise.frozen_patterns([wrong], 2)


def test_what_is_frozen_stays_and_costs_no_gradient():
    model = classifier_model(ClassifierConfig(ENCODER, 3, dropout=0.0))
    params, rows = (
        model.init(KEY),
        pack(encoded(), [[0, 1, 2], [1], [2, 0], [1] * 4], 9),
    )
    rates = layerwise.layer_rates(params, 2, 1.0, ["embeddings", "layers.0-1"])
    learner = layerwise.stop_gradients(model, rates)
    x = {n.removeprefix("x/"): a for n, a in rows.arrays.items() if n != "y"}
    score = objectives.cross_entropy_objective().score

    def loss(params):
        batch = {"y": jnp.asarray(rows.arrays["y"])}
        return objectives.means(score(learner.apply(params, x)[0], batch))["loss"]

    optimizer = layerwise.scale_by_layer(
        optimizers.make("adamw", 0.1, weight_decay=0.1), rates
    )
    grads = jax.grad(loss)(params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    moved = {n: bool((u != 0).any()) for n, u in trees.flatten(updates).items()}
    assert {n for n, m in moved.items() if m} == {"head/out/bias", "head/out/kernel"}
    full = jax.grad(lambda p: loss(p))(params)["head"]
    chex.assert_trees_all_close(grads["head"], full)


def test_weights_and_smoothing():
    labels = jnp.array([[0, 1, -100]])
    logits = jnp.array([[[2.0, 0.0], [2.0, 0.0], [9.0, 9.0]]])
    weights = layerwise.balanced_weights([0, 0, 0, 1], 2)
    found = objectives.means(
        objectives.cross_entropy_objective(0.1, weights).score(logits, {"y": labels})
    )
    chances = np.log(np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum())
    losses = [-0.95 * chances[0] - 0.05 * chances[1], -0.95 * chances[1]
              - 0.05 * chances[0]]  # fmt: skip
    expected = np.average(losses, weights=weights)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert layerwise.balanced_weights([0, 0], 2) == [0.5, 0.0]


def test_balanced_weights_are_inverse_frequencies():
    rng = np.random.default_rng(0)
    for classes in (2, 5, 9):
        labels = rng.integers(-1, classes, 200)
        labels[labels == 1] = -1  # a class of the dev part alone
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        total = counts.sum()
        wanted = [total / (classes * n) if n else 0.0 for n in counts]
        found = layerwise.balanced_weights(labels, classes)
        np.testing.assert_allclose(found, wanted, rtol=1e-15)
        assert found[1] == 0.0
    assert layerwise.balanced_weights([-1], 3) == [0.0] * 3


def test_other_configs_are_refused():
    with pytest.raises(InputError, match="without a head"):
        ClassifierConfig(EncoderConfig.tiny(head="tied"), 3)
    with pytest.raises(InputError, match="classes=1 must be at least 2"):
        ClassifierConfig(ENCODER, 1)
    with pytest.raises(InputError, match="nearest: swiglu"):
        ClassifierConfig(ENCODER, 3, "swiglo")


TURNS = {"head": 0, "encoder/layer_1": 2, "encoder/layer_0": 4, "encoder/embed": 6}


def turn_of(name):
    return next((turn for part, turn in TURNS.items() if name.startswith(part)), 0)


@pytest.mark.parametrize("chained", [False, True])
def test_parts_learn_from_their_turn_on(chained):
    """Before it nothing moves; from it on, updates are those of nobody waiting."""
    params = classifier_model(ClassifierConfig(ENCODER, 3)).init(KEY)
    rates = layerwise.layer_rates(params, 2, 0.5)
    plain = layerwise.scale_by_layer(
        optimizers.make("adamw", 0.1, weight_decay=0.1), rates
    )
    held = layerwise.gradual_unfreezing(plain, params, layers=2, every=2)
    if chained:
        held = optax.chain(optax.identity(), held)
    state, other = held.init(params), plain.init(params)
    update = chex.assert_max_traces(held.update, n=1)
    update, free = jax.jit(update), jax.jit(plain.update)
    for step in range(8):
        grads = jax.tree.map(lambda p: jnp.cos(p + step), params)  # noqa: B023
        found, state = update(grads, state, params)
        expected, other = free(grads, other, params)
        found, expected = trees.flatten(found), trees.flatten(expected)
        for name, each in found.items():
            if step < turn_of(name):
                assert not each.any(), (name, step)
            else:
                np.testing.assert_allclose(each, expected[name], rtol=1e-6)
                assert each.any(), (name, step)


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

    assert jax.vmap(run)(jnp.array([1.0, 0.5])).tolist() == [[0.0, -1.0], [0.0, -0.5]]


def test_turns_are_resumed_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    part = {"x": rng.normal(size=(8, 2)).astype("float32"), "y": np.arange(8) % 2}
    dataset = Dataset("toy", part, part, {}, "classes", 2, 2, {})
    began = {"encoder": {"layer_0": {"w": jnp.eye(2)}}, "head": {"w": jnp.eye(2)}}

    def apply(params, x, key=None):
        return x @ params["encoder"]["layer_0"]["w"] @ params["head"]["w"], {}

    model = Model(lambda key: jax.tree.map(jnp.copy, began), apply)
    optimizer = layerwise.gradual_unfreezing(
        optimizers.make("adam", 0.1), began, 1, every=3
    )

    def run(stop, **options):
        def on_evaluation(record):
            if int(record.step) == stop:
                raise KeyboardInterrupt

        objective = objectives.cross_entropy_objective()
        return fit(Learner(model, objective, optimizer), dataset, Plan(6, 2, 4), **options, hooks=Hooks(on_evaluation=on_evaluation)).state  # fmt: skip

    whole, checkpoints = run(None), Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(2, checkpoints=checkpoints)
    resumed = run(None, checkpoints=checkpoints)
    chex.assert_trees_all_equal(whole, resumed)
    assert int(whole.optimizer.count) == 6
