"""Language models against what is written out, and that they learn."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import DecoderConfig, EncoderConfig, Plan, fit
from ffnlab.data import take
from ffnlab.data.corpus import ByteTokenizer, language_data
from ffnlab.data.dataset import IGNORE
from ffnlab.data.seq2seq import Pairs, pack_pairs
from ffnlab.errors import InputError
from ffnlab.models import language_model
from ffnlab.models.transformer import transformer_model
from ffnlab.train import layerwise, objectives, optimizers
from ffnlab.train.loop import make_evaluate

KEY = jax.random.key(0)
SIZE = {"vocabulary": 257, "features": 16, "heads": 2, "hidden": 32, "layers": 1}
DECODER = DecoderConfig(**SIZE, positions="rotary")
ENCODER = EncoderConfig(**SIZE, types=0, head="tied")
TEXT = b"\n".join(b"the cat sat on the mat %d" % (n % 7) for n in range(60))
PARTS = dict.fromkeys(("train", "valid", "test"), [TEXT])


def written(masked):
    return language_data("cat", PARTS, ByteTokenizer(), 24, masked=masked)


def first(part, rows=4):
    return take(part, np.arange(rows))


def test_causal_loss_is_that_of_the_next_token():
    model, batch = language_model.causal(DECODER), first(written(False).train)
    params = model.init(KEY)
    outputs, _ = model.apply(params, batch["x"], None)
    logits, _ = transformer_model(DECODER).apply(
        params, jnp.asarray(batch["x"]["tokens"])
    )
    chances = np.asarray(jax.nn.log_softmax(logits))
    rows, places = np.nonzero(batch["y"] != IGNORE)
    expected = -chances[rows, places, batch["y"][rows, places]].mean()
    found = objectives.means(language_model.objective(1.5).score(outputs, batch))
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["bits"]) == pytest.approx(1.5 * expected / np.log(2), rel=1e-5)


def test_padding_is_not_heard():
    model, params = (
        language_model.causal(DECODER),
        language_model.causal(DECODER).init(KEY),
    )
    score = language_model.objective(1.0).score
    batch = first(written(False).train)
    batch["y"] = np.where(np.arange(24) < 20, batch["y"], IGNORE)
    other = {**batch, "x": {**batch["x"], "tokens": np.array(batch["x"]["tokens"])}}
    other["x"]["tokens"][:, 20:] = 7
    one, two = (
        objectives.means(score(model.apply(params, each["x"], None)[0], each))["loss"]
        for each in (batch, other)
    )
    assert float(one) == pytest.approx(float(two), abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_masked_loss_is_that_of_what_was_hidden(whole):
    model = language_model.masked(ENCODER, mask=256, rate=0.3, whole=whole)
    batch, params = first(written(True).train), model.init(KEY)
    (logits, label_positions, live), _ = model.apply(params, batch["x"], KEY)
    assert logits.shape == (*label_positions.shape, 257) and live.any()
    found = objectives.means(
        language_model.objective(1.0).score((logits, label_positions, live), batch)
    )
    labels = np.take_along_axis(batch["y"], np.asarray(label_positions), axis=1)
    chances = np.asarray(jax.nn.log_softmax(logits))
    rows, places = np.nonzero(np.asarray(live))
    expected = -chances[rows, places, labels[rows, places]].mean()
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert (labels[np.asarray(live)] != IGNORE).all()


def test_logits_at_some_places_are_those_of_all():
    model = transformer_model(ENCODER)
    tokens = jnp.asarray(first(written(True).train)["x"][
        "tokens"])  # fmt: skip
    params, label_positions = (
        model.init(KEY),
        jnp.array([[3, 0], [5, 5], [1, 2], [23, 4]]),
    )
    some, all_ = (
        model.apply(params, tokens, label_positions=each)[0]
        for each in (label_positions, None)
    )
    expected = jnp.take_along_axis(all_, label_positions[..., None], axis=1)
    chex.assert_trees_all_close(some, expected, rtol=1e-5, atol=1e-6)


def test_what_is_scored_is_hidden_the_same_way_each_time():
    model, data = language_model.masked(ENCODER, mask=256), written(True)
    params, size = model.init(KEY), len(data.valid["y"])
    evaluate = make_evaluate(model, language_model.objective(1.0), take, size, 8)
    one, two = (jax.jit(evaluate)(params, jax.device_put(data.valid)) for _ in "ab")
    chex.assert_trees_all_equal(one, two)


@pytest.mark.parametrize("masked", [False, True])
def test_they_learn(masked):
    model = language_model.causal(DECODER)
    if masked:
        model = language_model.masked(ENCODER, mask=256)
    data = written(masked)
    found = fit(
        model,
        language_model.objective(1.0),
        optimizers.make("adam"),
        data,
        Plan(1000, 500, 16, monitor="bits", higher_is_better=False),
        learning_rate=1e-2,
        scored=16,
    )
    assert found.record.loss[0] > 5.0 and found.record.best < 2.5


PAIRS = Pairs(
    [np.array(row) for row in ([7, 8, 9, 5, 0], [3, 4, 0], [6, 6, 2, 1])],
    np.array([3, 1, 2]),
    0,
)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_conditional_loss_is_that_of_targets_alone(positions):
    config = dataclasses.replace(DECODER, positions=positions)
    model, rows = language_model.conditional(config), pack_pairs(PAIRS, 10).arrays
    params, batch = model.init(KEY), take(rows, np.arange(len(rows["y"])))
    logits, _ = model.apply(params, batch["x"], None)
    assert logits.shape == (*rows["y"].shape, 257) and len(rows["y"]) == 2
    found = objectives.means(layerwise.objective().score(logits, batch))
    total = []
    for row, begin in zip(PAIRS.tokens, PAIRS.begins, strict=True):  # each text alone
        whole, _ = transformer_model(config).apply(
            params["encoder"], jnp.asarray(row)[None]
        )
        chances = np.asarray(jax.nn.log_softmax(whole[0]))
        total += [-chances[n - 1, row[n]] for n in range(begin, len(row))]
    assert float(found["loss"]) == pytest.approx(np.mean(total), rel=1e-5)


def test_the_layers_of_a_conditional_model_have_their_rates():
    params = language_model.conditional(DECODER).init(KEY)
    rates = layerwise.layer_rates(params, 1, decay=0.5, freeze=["layers.0"])
    assert set(params) == {"encoder"}
    assert rates["encoder"]["embed"]["tokens"]["embedding"] == 0.25
    assert set(jax.tree.leaves(rates["encoder"]["layer_0"])) == {0.0}
    assert set(jax.tree.leaves(rates["encoder"]["norm"])) == {1.0}


def test_other_transformers_are_refused():
    with pytest.raises(InputError, match="needs a causal Transformer with head"):
        language_model.causal(ENCODER)
    with pytest.raises(InputError, match="needs a causal Transformer with head"):
        language_model.conditional(dataclasses.replace(DECODER, head="none"))
    with pytest.raises(InputError, match="needs an encoder with a head"):
        language_model.masked(DECODER, 256)


BESIDE = EncoderConfig(
    **{**SIZE, "vocabulary": 20}, length=9, block="mlp:relu", pooler=True
)


def texts():
    """Two rows of two texts, between 1 and 2, then padding."""
    tokens = np.random.default_rng(0).integers(4, 20, (2, 9))
    tokens[:, [0, 4]], tokens[:, [3, 7]] = 1, 2
    segment_ids = np.tile([5, 5, 5, 5, 8, 8, 8, 8, -1], (2, 1))
    x = {"tokens": tokens, "mask": segment_ids >= 0, "segment_ids": segment_ids}
    return {"x": jax.tree.map(jnp.asarray, x), "y": jnp.zeros((2, 1), int)}


def started():
    model = language_model.with_mlm_head(BESIDE, mask=3, rate=0.5, special=(1, 2))
    params = jax.tree.map(lambda p: 5 * p if p.ndim > 1 else p, model.init(KEY))
    params["masked"]["bias"] = jnp.linspace(-1.0, 1.0, 20)
    return model, params


def squares(params, batch, key):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))


def test_special_tokens_and_padding_are_never_hidden():
    (model, params), batch = started(), texts()
    x, hit = batch["x"], np.zeros((2, 9), int)
    for seed in range(40):
        label_positions, live = model.apply(params, x, jax.random.key(seed))[0][1:]
        for row in range(2):
            places = np.asarray(label_positions[row])[np.asarray(live[row])]
            assert len(places) == 2
            hit[row, places] += 1
    usual = np.isin(np.arange(9), [1, 2, 5, 6])
    assert (hit[:, ~usual] == 0).all() and (hit[:, usual] > 5).all()


def test_the_loss_beside_is_that_of_the_hidden_places():
    (model, params), batch = started(), texts()
    both = language_model.add_mlm_loss(squares, model, weight=0.3)
    asked = []

    def told(params, x, key):
        asked.append(key)
        return model.apply(params, x, key)

    language_model.add_mlm_loss(squares, model._replace(apply=told), 0.3)(
        params, batch, KEY
    )
    (logits, label_positions, live), _ = model.apply(params, batch["x"], asked[0])
    chances = np.asarray(jax.nn.log_softmax(logits))
    rows, places = np.nonzero(np.asarray(live))
    labels = np.take_along_axis(
        np.asarray(batch["x"]["tokens"]), np.asarray(label_positions), 1
    )
    expected = -chances[rows, places, labels[rows, places]].mean()
    found = float(both(params, batch, KEY)) - float(squares(params, batch, KEY))
    assert found == pytest.approx(0.3 * expected, abs=1e-4)
    assert expected > 1.0


def test_texts_beside_are_heard_apart():
    """Another text in the row changes no logit, if the same places are hidden."""
    (model, params), x = started(), texts()["x"]
    other = {**x, "tokens": x["tokens"].at[:, 5:7].set(9)}
    (one, label_positions, _), _ = model.apply(params, x, KEY)
    (two, same, _), _ = model.apply(params, other, KEY)
    assert (label_positions == same).all()
    first = np.asarray(label_positions) < 4
    np.testing.assert_allclose(one[first], two[first], atol=1e-5)
    assert first.any() and np.abs(one - two)[~first].max() > 1e-3


def test_encoder_and_head_both_learn_from_what_is_hidden():
    (model, params), batch = started(), texts()
    nothing = language_model.add_mlm_loss(lambda *_: 0.0, model, 1.0)
    grads = jax.jit(jax.grad(nothing))(params, batch, KEY)
    still = {"pooler"}
    for name, part in {**grads["encoder"], **grads["masked"]}.items():
        moved = any(bool(leaf.any()) for leaf in jax.tree.leaves(part))
        assert moved == (name not in still), name


def test_a_weight_of_zero_adds_nothing():
    model, _ = started()
    assert language_model.add_mlm_loss(squares, model, 0.0) is squares
    one, two = (
        language_model.add_mlm_loss(squares, model, weight) for weight in (1e-30, 1.0)
    )
    params, batch = model.init(KEY), texts()
    assert float(one(params, batch, KEY)) == float(squares(params, batch, KEY))
    assert float(two(params, batch, KEY)) > float(squares(params, batch, KEY))


def test_the_loss_beside_against_finite_differences(x64):
    (model, params), batch = started(), texts()
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    both = language_model.add_mlm_loss(lambda *_: 0.0, model, 0.5)
    run = jax.jit(jax.value_and_grad(lambda p: both(p, batch, KEY)))
    grads = run(params)[1]
    way = jax.tree.map(jnp.cos, params)
    # Attention's softmax is of float32, so the step is wide.
    ahead, back = (
        float(run(jax.tree.map(lambda p, w: p + sign * 1e-3 * w, params, way))[0])  # noqa: B023
        for sign in (1, -1)
    )
    expected = (ahead - back) / 2e-3
    found = sum(map(jnp.vdot, jax.tree.leaves(grads), jax.tree.leaves(way)))
    assert float(found) == pytest.approx(expected, rel=1e-3) and abs(expected) > 0.01


def test_a_new_head_is_that_of_the_model_beside():
    model, _ = started()
    shapes = jax.eval_shape(model.init, KEY)["masked"]
    chex.assert_trees_all_equal_shapes(language_model.masked_head(BESIDE, KEY), shapes)


def test_whole_words_need_words():
    model = language_model.masked(ENCODER, mask=256, whole=True)
    x = {"tokens": jnp.ones((1, 4), int), "mask": jnp.ones((1, 4), bool)}
    with pytest.raises(InputError, match="whole words can be hidden only where x"):
        model.apply(model.init(KEY), x, KEY)
