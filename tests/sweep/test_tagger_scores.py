"""Span F1 of taggers, on hand-made predictions and by a model that knows its tags."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.data.dataset import IGNORE
from ffnlab.sweep import run_files, tagger_scores
from ffnlab.sweep.job import Job
from ffnlab.types import Model

TAGS = ["O", "B-X", "I-X"]


def job(predict, labels):
    """Returns a job whose model predicts `predict(tokens)`, from its own labels."""

    def apply(params, x, key):
        return jax.nn.one_hot(predict(x["tokens"]) + params["offset"], 3), {}

    test = {"x/tokens": labels, "y": labels}
    dataset = SimpleNamespace(about={"tags": TAGS}, test=test)
    return Job("elman", Model(None, apply), dataset, {})


def test_span_f1_is_of_the_predictions(monkeypatch):
    labels, predictions = np.array([1, 2, 0, 1, IGNORE]), np.array([1, 2, 0, 0, 1])
    rows = [(labels, predictions)]
    monkeypatch.setattr(tagger_scores, "_predict_test", lambda *_: rows)
    score = tagger_scores.span_f1(job(None, labels[None]), {}, None)
    assert score == pytest.approx(2 / 3)  # one span of two, and no wrong one
    labels[[0, 3]] = 2  # no B- in the truth
    score = tagger_scores.span_f1(job(None, labels[None]), {}, None)
    assert score == pytest.approx(2 / 3)


def test_every_sequence_is_predicted_once():
    """Also in the last batch, which is filled up."""
    labels = np.random.default_rng(0).integers(0, 3, (70, 4))
    labels[:, 3] = IGNORE
    params = {"offset": np.zeros((), np.int32)}
    tagger = job(lambda tokens: 2 - tokens, labels)
    predict = tagger_scores.make_predict(tagger)
    rows = list(tagger_scores._predict_test(tagger, params, predict, batch=32))
    assert len(rows) == 70
    for i, (truth, predictions) in enumerate(rows):
        np.testing.assert_array_equal(truth, labels[i])
        np.testing.assert_array_equal(predictions[:3], 2 - labels[i, :3])


def test_the_remark_has_the_score_of_every_run(tmp_path):
    labels = np.tile([1, 2, 0, IGNORE], (5, 1))
    taggers = [job(lambda t: jnp.maximum(t, 0), labels)]
    best = run_files.path_of(tmp_path, "best", taggers[0].slug)
    for offsets, text in (
        ((0, 1), "elman 0.500 [0.000, 1.000]"),
        ((0,), "elman 1.000"),
    ):
        # The second run knows nothing.
        run_files.append(best, {"offset": np.array(offsets, np.int32)}, 0)
        tagger_scores.write(taggers, tmp_path)
        remark = tagger_scores.remark(tmp_path, {"elman": taggers[0].slug})
        assert remark == f"span F1 on the test part: {text}"
