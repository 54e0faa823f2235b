"""Language models against their definitions, and that they learn."""

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
from ffnlab.train.evaluation import make_evaluate
from ffnlab.train.loop import Learner
from tests import oracles

KEY = jax.random.key(0)
SIZE = {"vocabulary": 257, "features": 16, "heads": 2, "hidden": 32, "layers": 1}
DECODER = DecoderConfig(**SIZE, positions="rotary")
ENCODER = EncoderConfig(**SIZE, types=0, head="tied")
TEXT = b"\n".join(b"the cat sat on the mat %d" % (n % 7) for n in range(60))
PARTS = dict.fromkeys(("train", "valid", "test"), [TEXT])


def make_data(masked):
    return language_data("cat", PARTS, ByteTokenizer(), 24, masked=masked)


def first_rows(part, rows=4):
    return take(part, np.arange(rows))


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def mean_loss(logits, labels, mask):
    """−log p of the labels where the mask is True, in NumPy."""
    rows, columns = np.nonzero(np.asarray(mask))
    return -log_softmax(logits)[rows, columns, np.asarray(labels)[rows, columns]].mean()


@pytest.fixture(scope="module")
def causal():
    """Parameters, and the logits and mean scores of a batch, in one program."""
    model, plain = language_model.causal_lm(DECODER), transformer_model(DECODER)
    objective = language_model.objective(1.5)

    @jax.jit
    def run(params, batch):
        logits, _ = model.apply(params, batch["x"], None)
        scores = objectives.means(objective.score(logits, batch))
        return scores, plain.apply(params, batch["x"]["tokens"])[0]

    params = oracles.random_params(model)
    return lambda batch: run(params, batch)


def test_causal_loss_is_that_of_the_next_token(causal):
    batch = first_rows(make_data(False).train)
    scores, logits = causal(batch)
    expected = mean_loss(logits, batch["y"], batch["y"] != IGNORE)
    following = batch["x"]["tokens"][:, 1:]
    assert (batch["y"][:, :-1] == following)[batch["y"][:, :-1] != IGNORE].all()
    assert float(scores["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(scores["bits"]) == pytest.approx(1.5 * expected / np.log(2), rel=1e-5)


def test_padding_changes_no_loss(causal):
    batch = first_rows(make_data(False).train)
    batch["y"] = np.where(np.arange(24) < 20, batch["y"], IGNORE)
    other = {**batch, "x": {**batch["x"], "tokens": np.array(batch["x"]["tokens"])}}
    other["x"]["tokens"][:, 20:] = 7
    one, two = (causal(each)[0]["loss"] for each in (batch, other))
    assert float(one) == pytest.approx(float(two), abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_masked_loss_is_that_of_the_masked_tokens(whole):
    model = language_model.masked_lm(ENCODER, 256, rate=0.3, whole_words=whole)
    batch, objective = first_rows(make_data(True).train), language_model.objective(1.0)

    @jax.jit
    def run(params):
        outputs, _ = model.apply(params, batch["x"], KEY)
        return outputs, objectives.means(objective.score(outputs, batch))

    outputs, scores = run(oracles.random_params(model))
    logits, label_positions, label_mask = map(np.asarray, outputs)
    assert logits.shape == (*label_positions.shape, 257) and label_mask.any()
    labels = np.take_along_axis(batch["y"], label_positions, axis=1)
    expected = mean_loss(logits, labels, label_mask)
    assert float(scores["loss"]) == pytest.approx(expected, rel=1e-5)
    assert (labels[label_mask] != IGNORE).all()


def test_logits_at_some_positions_are_those_of_all():
    model = transformer_model(ENCODER)
    tokens = first_rows(make_data(True).train)["x"]["tokens"]
    label_positions = np.array([[3, 0], [5, 5], [1, 2], [23, 4]])
    some, all_ = jax.jit(
        lambda params: [
            model.apply(params, tokens, label_positions=positions)[0]
            for positions in (label_positions, None)
        ]
    )(oracles.random_params(model))
    expected = np.take_along_axis(np.asarray(all_), label_positions[..., None], axis=1)
    chex.assert_trees_all_close(some, expected, rtol=1e-5, atol=1e-6)


def test_evaluation_masks_the_same_tokens_each_time():
    model, data = language_model.masked_lm(ENCODER, 256), make_data(True)
    size = len(data.valid["y"])
    evaluate = make_evaluate(model, language_model.objective(1.0), take, size, 8)
    run, params = jax.jit(evaluate), oracles.random_params(model)
    one, two = (run(params, data.valid) for _ in "ab")
    chex.assert_trees_all_equal(one, two)


@pytest.mark.parametrize(
    ("masked", "steps"),
    [(False, 100), pytest.param(True, 1000, marks=pytest.mark.slow)],
)
def test_they_learn(masked, steps):
    model = language_model.causal_lm(DECODER)
    if masked:
        model = language_model.masked_lm(ENCODER, 256)
    fitted = fit(
        Learner(model, language_model.objective(1.0), optimizers.make("adam")),
        make_data(masked),
        Plan(steps, steps // 2, 16, monitor="bits", higher_is_better=False),
        learning_rate=1e-2,
    )
    assert fitted.record.loss[0] > 5.0 and fitted.record.best < 2.5


PAIRS = Pairs(
    [np.array(row) for row in ([7, 8, 9, 5, 0], [3, 4, 0], [6, 6, 2, 1])],
    np.array([3, 1, 2]),
    0,
)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_seq2seq_loss_is_that_of_targets_alone(positions):
    config = dataclasses.replace(DECODER, positions=positions)
    model, rows = language_model.seq2seq_lm(config), pack_pairs(PAIRS, 10).arrays
    batch = take(rows, np.arange(len(rows["y"])))
    texts = np.stack([np.pad(row, (0, 5 - len(row))) for row in PAIRS.tokens])

    @jax.jit
    def run(params):  # the padded ends of texts come after all that counts
        logits, _ = model.apply(params, batch["x"], None)
        score = objectives.cross_entropy_objective().score(logits, batch)
        alone, _ = transformer_model(config).apply(params["encoder"], texts)
        return logits, objectives.means(score), alone

    logits, scores, alone = run(oracles.random_params(model))
    assert logits.shape == (*rows["y"].shape, 257) and len(rows["y"]) == 2
    total, log_p = [], log_softmax(alone)
    for text, row, begin in zip(log_p, PAIRS.tokens, PAIRS.begins, strict=True):
        total += [-text[n - 1, row[n]] for n in range(begin, len(row))]
    assert float(scores["loss"]) == pytest.approx(np.mean(total), rel=1e-5)


def test_the_layers_of_a_seq2seq_model_have_their_rates():
    params = oracles.random_params(language_model.seq2seq_lm(DECODER))
    rates = layerwise.layer_rates(params, 1, decay=0.5, freeze=["layers.0"])
    assert set(params) == {"encoder"}
    assert rates["encoder"]["embed"]["tokens"]["embedding"] == 0.25
    assert set(jax.tree.leaves(rates["encoder"]["layer_0"])) == {0.0}
    assert set(jax.tree.leaves(rates["encoder"]["norm"])) == {1.0}


def test_other_transformers_are_refused():
    with pytest.raises(InputError, match="needs a causal Transformer with head"):
        language_model.causal_lm(ENCODER)
    with pytest.raises(InputError, match="needs a causal Transformer with head"):
        language_model.seq2seq_lm(dataclasses.replace(DECODER, head="none"))
    with pytest.raises(InputError, match="needs an encoder with a head"):
        language_model.masked_lm(DECODER, 256)


MLM_ENCODER = EncoderConfig(
    **{**SIZE, "vocabulary": 20}, length=9, block="mlp:relu", pooler=True
)
MLM = language_model.with_mlm_head(MLM_ENCODER, 3, rate=0.5, special_tokens=(1, 2))
APPLY = jax.jit(MLM.apply)


def texts():
    """Two rows of two texts, each between the tokens 1 and 2, then padding."""
    tokens = np.random.default_rng(0).integers(4, 20, (2, 9), np.int32)
    tokens[:, [0, 4]], tokens[:, [3, 7]] = 1, 2
    segment_ids = np.tile(np.int32([5, 5, 5, 5, 8, 8, 8, 8, -1]), (2, 1))
    x = {"tokens": tokens, "mask": segment_ids >= 0, "segment_ids": segment_ids}
    return {"x": x, "y": np.zeros((2, 1), int)}


def mlm_params(dtype=np.float32):
    params = oracles.random_params(MLM, 0.1, dtype)
    params["masked"]["bias"] = np.linspace(-1.0, 1.0, 20).astype(dtype)
    return params


def squares(params, batch, key):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))


def test_special_tokens_and_padding_are_never_masked():
    params, x, hit = mlm_params(), texts()["x"], np.zeros((2, 9), int)

    @jax.jit
    @jax.vmap
    def run(key):
        return MLM.apply(params, x, key)[0][1:]

    for positions, mask in zip(*map(np.asarray, run(jax.random.split(KEY, 40)))):  # noqa: B905
        for row in range(2):
            chosen = positions[row][mask[row]]
            assert len(chosen) == 2
            hit[row, chosen] += 1
    usual = np.isin(np.arange(9), [1, 2, 5, 6])
    assert (hit[:, ~usual] == 0).all() and (hit[:, usual] > 5).all()


@pytest.fixture(scope="module")
def mlm_losses():
    """A loss with its masked loss added by several weights, outputs and gradients."""
    weights = {"tiny": 1e-30, "some": 0.3, "one": 1.0}
    alone = language_model.add_mlm_loss(lambda *_: 0.0, MLM, 1.0)

    @jax.jit
    def run(params, batch, key):
        outputs = []

        def apply(*inputs):
            outputs.append(MLM.apply(*inputs)[0])
            return outputs[-1], {}

        model = MLM._replace(apply=apply)
        values = {
            name: language_model.add_mlm_loss(squares, model, weight)(
                params, batch, key
            )
            for name, weight in weights.items()
        }
        values["plain"] = squares(params, batch, key)
        return values, outputs[0], jax.grad(alone)(params, batch, key)

    values, outputs, grads = jax.tree.map(np.asarray, run(mlm_params(), texts(), KEY))
    return {name: float(value) for name, value in values.items()}, outputs, grads


def test_the_added_loss_is_that_of_the_masked_positions(mlm_losses):
    values, (logits, positions, mask), _ = mlm_losses
    labels = np.take_along_axis(texts()["x"]["tokens"], positions, 1)
    expected = mean_loss(logits, labels, mask)
    added = values["some"] - values["plain"]
    assert added == pytest.approx(0.3 * expected, abs=1e-4)
    assert expected > 1.0


def test_texts_of_a_row_are_masked_language_models_of_their_own():
    """Another text in the row changes no logit, if the same tokens are masked."""
    params, x = mlm_params(), texts()["x"]
    changed = x["tokens"].copy()
    changed[:, 5:7] = 9
    (one, positions, _), _ = APPLY(params, x, KEY)
    (two, same, _), _ = APPLY(params, {**x, "tokens": changed}, KEY)
    assert (np.asarray(positions) == np.asarray(same)).all()
    first, one, two = np.asarray(positions) < 4, np.asarray(one), np.asarray(two)
    np.testing.assert_allclose(one[first], two[first], atol=1e-5)
    assert first.any() and np.abs(one - two)[~first].max() > 1e-3


def test_encoder_and_head_both_learn_from_masked_tokens(mlm_losses):
    _, _, grads = mlm_losses
    unused = {"pooler"}
    for name, part in {**grads["encoder"], **grads["masked"]}.items():
        moved = any(np.asarray(leaf).any() for leaf in jax.tree.leaves(part))
        assert moved == (name not in unused), name


def test_a_weight_of_zero_adds_nothing(mlm_losses):
    values, _, _ = mlm_losses
    assert language_model.add_mlm_loss(squares, MLM, 0.0) is squares
    assert values["tiny"] == values["plain"] < values["one"]


def test_the_added_loss_against_finite_differences(x64):
    params, batch = mlm_params(np.float64), texts()
    loss = language_model.add_mlm_loss(lambda *_: 0.0, MLM, 0.5)
    run = jax.jit(jax.value_and_grad(lambda p: loss(p, batch, KEY)))
    grads = run(params)[1]
    way = jax.tree.map(np.cos, params)
    # The softmax of attention is in float32, so the step is wide.
    ahead, back = (
        float(run(jax.tree.map(lambda p, w: p + sign * 1e-3 * w, params, way))[0])  # noqa: B023
        for sign in (1, -1)
    )
    expected = (ahead - back) / 2e-3
    found = sum(map(np.vdot, jax.tree.leaves(grads), jax.tree.leaves(way)))
    assert float(found) == pytest.approx(expected, rel=1e-3) and abs(expected) > 0.01


def test_a_new_head_has_the_shapes_of_the_model():
    shapes = jax.eval_shape(MLM.init, KEY)["masked"]
    head = jax.eval_shape(
        lambda key: language_model.init_mlm_head(MLM_ENCODER, key), KEY
    )
    chex.assert_trees_all_equal_shapes(head, shapes)


def test_whole_words_need_words():
    model = language_model.masked_lm(ENCODER, 256, whole_words=True)
    x = {"tokens": np.ones((1, 4), int), "mask": np.ones((1, 4), bool)}
    with pytest.raises(InputError, match="whole_words: x needs `words`"):
        jax.eval_shape(lambda key: model.apply(model.init(key), x, key), KEY)
