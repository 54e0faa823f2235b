import jax
import numpy as np
import pytest

from ffnlab import data
from ffnlab.train.evaluation import make_evaluate, make_score_examples
from ffnlab.train.objectives import OBJECTIVES
from ffnlab.types import Model

OBJECTIVE = OBJECTIVES["classes"]
SIZES = (1, 3, 8, 9, 35)


def test_evaluation_counts_every_example_once():
    """And averages what the model reports of each as the scores are."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(35, 3)).astype("f4"), rng.integers(0, 3, 35)

    def apply(params, x, key):
        assert key is None  # no dropout
        return x * params, {"report": {"first": x[:, 0]}}

    model = Model(lambda key: 2.0, apply)
    parts = [{"x": x[:size], "y": y[:size]} for size in SIZES]
    evaluate = [make_evaluate(model, OBJECTIVE, data.take, n, batch=8) for n in SIZES]

    @jax.jit
    def run(params, parts):
        pairs = zip(evaluate, parts, strict=True)
        return [score(params, part) for score, part in pairs]

    logs = 2 * x - np.log(np.exp(2 * x).sum(-1, keepdims=True))
    expected = {
        "loss": -logs[np.arange(35), y],
        "accuracy": x.argmax(-1) == y,
        "first": x[:, 0],
    }
    for size, scores in zip(SIZES, run(2.0, parts), strict=True):
        assert scores.keys() == expected.keys()
        for name, value in scores.items():
            assert float(value) == pytest.approx(expected[name][:size].mean(), rel=1e-5)


def test_reports_of_examples_are_weighted_by_their_entries():
    """An example of three labels counts three times, as for the scores."""
    x = np.array([1.0, 5.0, 7.0], "f4")
    y = np.array([[0, 1, 1], [-100, 0, -100], [-100] * 3])

    def apply(params, x, key):
        logits = np.zeros((1, 3, 2), "f4") + 0 * x[:, None, None]
        return logits, {"report": {"x": x}}

    evaluate = make_evaluate(Model(None, apply), OBJECTIVE, data.take, 3, batch=2)
    scores = jax.jit(evaluate)(0.0, {"x": x, "y": y})
    assert float(scores["x"]) == pytest.approx((3 * 1.0 + 5.0) / 4)
    assert float(scores["loss"]) == pytest.approx(np.log(2), rel=1e-6)


def test_scores_of_examples_have_the_mean_of_the_evaluation():
    """Ignored labels count nothing, and an example of three labels counts three."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3, 4)).astype("f4"), rng.integers(0, 4, (7, 3))
    y[1, 1:] = y[4] = -100
    part = {"x": x, "y": y}
    model = Model(None, lambda params, x, key: (x * params, {}))
    parts = (model, OBJECTIVE, data.take, 7)
    examples = jax.jit(make_score_examples(*parts, batch=3))(2.0, part)
    mean = jax.jit(make_evaluate(*parts, batch=3))(2.0, part)["accuracy"]
    hits = ((x.argmax(-1) == y) & (y >= 0)).sum(axis=1)
    np.testing.assert_allclose(examples, hits * 7 / (y >= 0).sum(), rtol=1e-6)
    assert float(examples.mean()) == pytest.approx(float(mean), rel=1e-6)
