"""Language models against what is written out, and that they learn."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import (
    DecoderConfig,
    EncoderConfig,
    Plan,
    fit,
    language,
    metrics,
    optimizers,
)
from ffnlab.data import take
from ffnlab.data.corpus import ByteTokenizer, language_data
from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from ffnlab.train import make_evaluate
from ffnlab.transformer import transformer

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
    model, batch = language.causal(DECODER), first(written(False).train)
    params = model.init(KEY)
    outputs, _ = model.apply(params, batch["x"], None)
    logits, _ = transformer(DECODER).apply(params, jnp.asarray(batch["x"]["tokens"]))
    chances = np.asarray(jax.nn.log_softmax(logits))
    rows, places = np.nonzero(batch["y"] != IGNORE)
    expected = -chances[rows, places, batch["y"][rows, places]].mean()
    found = metrics.means(language.objective(1.5).score(outputs, batch))
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["bits"]) == pytest.approx(1.5 * expected / np.log(2), rel=1e-5)


def test_padding_is_not_heard():
    model, params = language.causal(DECODER), language.causal(DECODER).init(KEY)
    score = language.objective(1.0).score
    batch = first(written(False).train)
    batch["y"] = np.where(np.arange(24) < 20, batch["y"], IGNORE)
    other = {**batch, "x": {**batch["x"], "tokens": np.array(batch["x"]["tokens"])}}
    other["x"]["tokens"][:, 20:] = 7
    one, two = (
        metrics.means(score(model.apply(params, each["x"], None)[0], each))["loss"]
        for each in (batch, other)
    )
    assert float(one) == pytest.approx(float(two), abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_masked_loss_is_that_of_what_was_hidden(whole):
    model = language.masked(ENCODER, mask=256, rate=0.3, whole=whole)
    batch, params = first(written(True).train), model.init(KEY)
    (logits, at, live), _ = model.apply(params, batch["x"], KEY)
    assert logits.shape == (*at.shape, 257) and live.any()
    found = metrics.means(language.objective(1.0).score((logits, at, live), batch))
    labels = np.take_along_axis(batch["y"], np.asarray(at), axis=1)
    chances = np.asarray(jax.nn.log_softmax(logits))
    rows, places = np.nonzero(np.asarray(live))
    expected = -chances[rows, places, labels[rows, places]].mean()
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert (labels[np.asarray(live)] != IGNORE).all()


def test_logits_at_some_places_are_those_of_all():
    model, tokens = transformer(ENCODER), jnp.asarray(first(written(True).train)["x"][
        "tokens"])  # fmt: skip
    params, at = model.init(KEY), jnp.array([[3, 0], [5, 5], [1, 2], [23, 4]])
    some, all_ = (model.apply(params, tokens, at=each)[0] for each in (at, None))
    expected = jnp.take_along_axis(all_, at[..., None], axis=1)
    chex.assert_trees_all_close(some, expected, rtol=1e-5, atol=1e-6)


def test_what_is_scored_is_hidden_the_same_way_each_time():
    model, data = language.masked(ENCODER, mask=256), written(True)
    params, size = model.init(KEY), len(data.valid["y"])
    evaluate = make_evaluate(model, language.objective(1.0), take, size, 8)
    one, two = (jax.jit(evaluate)(params, jax.device_put(data.valid)) for _ in "ab")
    chex.assert_trees_all_equal(one, two)


@pytest.mark.parametrize("masked", [False, True])
def test_they_learn(masked):
    model = language.causal(DECODER)
    if masked:
        model = language.masked(ENCODER, mask=256)
    data = written(masked)
    found = fit(
        model,
        language.objective(1.0),
        optimizers.make("adam"),
        data,
        Plan(1000, 500, 16, monitor="bits", higher_is_better=False),
        learning_rate=1e-2,
        scored=16,
    )
    assert found.record.loss[0] > 5.0 and found.record.best < 2.5


def test_other_transformers_are_refused():
    with pytest.raises(InputError, match="needs a causal Transformer with head"):
        language.causal(ENCODER)
    with pytest.raises(InputError, match="needs an encoder with a head"):
        language.masked(DECODER, 256)
