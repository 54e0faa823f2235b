"""Classifiers of texts and words: packed rows, heads, and what they receive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import EncoderConfig
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
from tests.conftest import draw

WORDS = EncoderConfig(
    vocabulary=30, features=8, layers=2, heads=2, hidden=16, types=2, length=20
)
TEXTS = EncoderConfig(
    vocabulary=30, features=8, layers=2, heads=2, hidden=16, types=2, length=20,
    pooler=True,
)  # fmt: skip
SIZES = (6, 3, 6, 3)


def encoded(words=True):
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 30, n) for n in SIZES]
    first = [np.arange(1, n - 1) for n in SIZES] if words else []
    return Encoded(tokens, [np.zeros(n, int) for n in SIZES], first, 0)


def probabilities(model, params, rows):
    return rows.flat(Predictor(model, rows.arrays, batch=2)(params)[1])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("linear", True), ("feedback", True), ("swiglu", True), ("mlp:relu", True),
        ("linear", False), ("swiglu", False), ("mlp:relu", False),
    ],
)  # fmt: skip
def test_texts_that_share_a_row_do_not_meet(head, words):
    config = ClassifierConfig(WORDS if words else TEXTS, 3, head, hidden=6)
    model, texts = classifier_model(config), encoded(words)
    params, together = draw(model, 0.5), pack(texts, None, 20)
    assert len(together.arrays["y"]) == 1
    flat = probabilities(model, params, together)
    counts = [len(first) for first in texts.first] if words else [1] * 4
    assert len(flat) == sum(counts)
    by_text = np.split(flat, np.cumsum(counts)[:-1])
    for size in sorted(set(SIZES)):  # rows of this width hold one text, unpadded
        numbers = [i for i, n in enumerate(SIZES) if n == size]
        parts = ([part[i] for i in numbers] if part else [] for part in texts[:3])
        alone = pack(Encoded(*parts, 0), None, size)
        assert len(alone.arrays["y"]) == 2 and alone.arrays["x/mask"].all()
        wanted = np.concatenate([by_text[i] for i in numbers])
        found = probabilities(model, params, alone)
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_a_predictor_labels_every_row_by_the_most_likely_class():
    model = classifier_model(ClassifierConfig(TEXTS, 3))
    params, rows = draw(model), pack(encoded(words=False), None, 8)
    assert len(rows.arrays["y"]) == 4 - 1  # and batches of two
    x = {n.removeprefix("x/"): a for n, a in rows.arrays.items() if n != "y"}
    logits = np.asarray(jax.jit(model.apply)(params, x)[0])
    labels, chances = Predictor(model, rows.arrays, batch=2)(params)
    mask = x["label_positions"] >= 0
    assert (labels == logits.argmax(-1))[mask].all()
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(chances[mask], wanted.max(-1)[mask], rtol=1e-4)


def test_the_linear_head_is_what_is_written():
    config = ClassifierConfig(TEXTS, 3)
    model, encoder = classifier_model(config), transformer_model(config.encoder)
    params, rows = draw(model), pack(encoded(words=False), None, 8)
    x = {n.removeprefix("x/"): a for n, a in rows.arrays.items() if n != "y"}

    @jax.jit
    def outputs(params, x):
        states, _ = encoder.apply(
            params["encoder"], x["tokens"], x["mask"], segment_ids=x["segment_ids"]
        )
        return model.apply(params, x)[0], states

    logits, states = outputs(params, x)
    h = np.take_along_axis(
        np.asarray(states), np.maximum(x["label_positions"], 0)[..., None], 1
    )
    pooler, out = params["encoder"]["pooler"], params["head"]["out"]
    h = np.tanh(h @ np.asarray(pooler["kernel"]) + np.asarray(pooler["bias"]))
    expected = h @ np.asarray(out["kernel"]) + np.asarray(out["bias"])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("gradient", ["implicit", "bptt"])
def test_the_feedback_head_receives_label_positions_and_nothing_else(gradient):
    config = ClassifierConfig(WORDS, 3, "feedback", 4, 0.0, gradient)
    model = functional(lambda rngs: ClassifierHead(config, rngs=rngs))
    params = draw(model)
    h = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    mask = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], bool)

    @jax.jit
    def slopes(params, h, weights):
        def value(params, h):
            logits, _ = model.apply(params, h, mask)
            return (jnp.sin(logits) * weights[..., None]).sum()

        return jax.grad(value, argnums=(0, 1))(params, h)

    of_params, of_h = slopes(params, h, mask)
    assert all(bool((leaf != 0).any()) for leaf in jax.tree.leaves(of_params))
    assert ((np.abs(of_h).sum(axis=-1) > 0) == mask).all()
    first = np.zeros_like(mask)
    first[0, 0] = True
    received = np.abs(slopes(params, h, first)[1]).sum(axis=-1) > 0
    assert received.tolist() == [[True, True, False, False, False], [False] * 5]


def test_other_configs_are_refused():
    with pytest.raises(InputError, match="without a head"):
        ClassifierConfig(EncoderConfig.tiny(head="tied"), 3)
    with pytest.raises(InputError, match="classes=0 .* must be at least 1"):
        ClassifierConfig(WORDS, 0)
    with pytest.raises(InputError, match="nearest: swiglu"):
        ClassifierConfig(WORDS, 3, "swiglo")
