"""The variance of fixed examples, against known effects and plain formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ffnlab.errors import InputError
from ffnlab.stats import compare, mean_interval, power, ratio_scores
from ffnlab.stats.two_way import example_covariance


def draw(rng, replicates=6, examples=50, blocks=2):
    shape = (blocks, replicates, examples)
    effects = rng.normal(size=(blocks, 1, examples)) + rng.normal(size=shape)
    return effects + rng.normal(size=(blocks, replicates, 1))


def test_the_covariance_is_that_of_the_analysis_of_variance():
    scores = draw(np.random.default_rng(0))
    blocks, replicates, examples = scores.shape
    expected = np.zeros((blocks, blocks))
    for i in range(blocks):
        for j in range(blocks):
            columns = [scores[k].mean(axis=0) for k in (i, j)]
            between = np.cov(*columns)[0, 1]
            rests = [
                scores[k]
                - scores[k].mean(axis=0)
                - scores[k].mean(axis=1)[:, None]
                + scores[k].mean()
                for k in (i, j)
            ]
            inside = (rests[0] * rests[1]).sum() / ((replicates - 1) * (examples - 1))
            expected[i, j] = (between - inside / replicates) / examples
    assert_allclose(example_covariance(list(scores)), expected, rtol=1e-10)


def test_it_is_unbiased_where_blocks_have_unequal_replicates():
    rng = np.random.default_rng(1)
    total = np.zeros((2, 2))
    for _ in range(400):
        shared = rng.normal(size=30)
        rows = [
            shared + 0.5 * rng.normal(size=30) + rng.normal(size=(n, 30))
            for n in (4, 8)
        ]
        total += example_covariance(rows) / 400
    assert_allclose(total, np.array([[1.25, 1.0], [1.0, 1.25]]) / 30, rtol=0.1)


def test_it_is_never_negative():
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = list(rng.normal(size=(3, 4, 5)))  # no effect of an example at all
        assert np.linalg.eigvalsh(example_covariance(rows)).min() > -1e-12
    assert (example_covariance([rng.normal(size=(1, 5))]) == 0).all()


def test_a_mean_of_fixed_examples_has_the_wider_interval():
    scores = np.array([0.8, 0.82, 0.84, 0.81])
    alone = mean_interval(scores)
    for variance in (1e-6, 1e-4, 1.0):
        low, high = mean_interval(scores, example_variance=variance)
        assert (low + high) / 2 == pytest.approx(scores.mean())
        assert high - low > 2 * 1.95 * np.sqrt(variance)
        assert low < alone.low or variance < 1e-4
    low, high = mean_interval(scores, example_variance=1e6)  # almost normal
    assert_allclose((high - low) / 2, 1.959964e3, rtol=1e-4)


def test_two_way_errors_are_those_of_both_draws():
    rng = np.random.default_rng(3)
    arrays = draw(rng, replicates=10, examples=200, blocks=4)
    examples = dict(zip("abcd", arrays, strict=True))
    scores = {name: each.mean(axis=1) for name, each in examples.items()}
    one = {row.name: row for row in compare(scores, "a", True)}
    two = {row.name: row for row in compare(scores, "a", True, examples=examples)}
    for name in "bcd":
        differences = examples[name] - examples["a"]
        variance = example_covariance([differences])[0, 0]
        expected = np.hypot(one[name].error, np.sqrt(variance))
        assert_allclose(two[name].error, expected, rtol=0.02)
        assert two[name].p_new_data is None
        low, high = two[name].interval
        assert high - low > np.subtract(*one[name].interval[::-1])


def test_examples_that_do_not_differ_leave_the_error_as_it_is():
    rng = np.random.default_rng(4)
    arrays = rng.normal(size=(3, 16, 1)) + np.zeros((1, 1, 9))
    examples = dict(zip("abc", arrays, strict=True))
    scores = {name: each.mean(axis=1) for name, each in examples.items()}
    for one, two in zip(
        compare(scores, "a", True),
        compare(scores, "a", True, examples=examples),
        strict=True,
    ):
        assert one == two


def test_stages_and_examples_together():
    rng = np.random.default_rng(5)
    arrays = draw(rng, replicates=32, examples=60, blocks=3)
    arrays[1] += 4.0
    examples = dict(zip("abc", arrays, strict=True))
    examples["b"] = examples["b"][:16]
    scores = {name: each.mean(axis=1) for name, each in examples.items()}
    rows = {
        row.name: row
        for row in compare(scores, "a", True, examples=examples, stages=(16, 32))
    }
    assert rows["b"].verdict == "better" and rows["b"].replicates == 16
    first = {name: each[:16] for name, each in examples.items()}
    early = {name: each[:16] for name, each in scores.items()}
    before = compare(early, "a", True, examples=first, stages=(16, 32))
    assert {row.name: row for row in before}["b"] == rows["b"]
    # More replicates do not take away what the examples leave open.
    needed = power.replicates_needed(0.1, 0.2, 2.0, 32, None, example_error=0.19)
    assert needed is None
    assert power.replicates_needed(0.1, 0.2, 2.0, 32, None) < 1000


@pytest.mark.parametrize("shape", [(3, 5), (6,), (6, 1)])
def test_examples_of_another_shape_are_refused(shape):
    scores = {"a": np.arange(6.0), "b": np.ones(6)}
    examples = {"a": np.zeros((6, 5)), "b": np.zeros(shape)}
    if shape[-1] == 1:
        examples["a"] = np.zeros(shape)
    with pytest.raises(InputError, match=r"^examples of [ab]: \[.*\] must be \[repl"):
        compare(scores, "a", True, examples=examples)


def test_ratio_scores_have_the_mean_and_variance_of_the_ratio():
    rng = np.random.default_rng(5)
    below = rng.poisson(2.0, size=400)
    above = rng.binomial(below, 0.4)
    scores = ratio_scores(above, below)
    assert scores.mean() == pytest.approx(above.sum() / below.sum())
    draws = rng.integers(0, 400, size=(4000, 400))
    ratios = above[draws].sum(axis=1) / below[draws].sum(axis=1)
    assert scores.var() / 400 == pytest.approx(ratios.var(), rel=0.1)
    assert ratio_scores([0, 0], [0, 0]).tolist() == [0, 0]


def f1_scores(rng, true, runs):
    """Draws the scores of the runs of one tagger on sentences with some entities."""
    easy = rng.beta(1.0, 1.0, size=true.size)  # by sentence, and alike for all runs
    luck = rng.normal(size=(runs, 1))
    chance = 1 / (1 + np.exp(-(np.log(easy / (1 - easy)) + 0.2 * luck)))
    right = rng.binomial(true, chance)
    predicted = right + rng.poisson(0.5, size=right.shape)
    rows = zip(2 * right, predicted + true, strict=True)
    return np.stack([ratio_scores(*row) for row in rows])


def test_claims_of_f1_count_the_draw_of_the_sentences():
    """Two taggers that are equal over all sentences, each with its own easy ones."""
    rng, claims = np.random.default_rng(6), {"one": 0, "two": 0}
    for _ in range(400):
        true = rng.poisson(1.0, size=100)
        examples = {name: f1_scores(rng, true, 8) for name in "ab"}
        scores = {name: each.mean(axis=1) for name, each in examples.items()}
        for kind, given in (("one", None), ("two", examples)):
            rows = compare(scores, "a", True, examples=given)
            (row,) = [row for row in rows if row.name == "b"]
            claims[kind] += row.verdict in ("better", "worse")
    assert claims["one"] > 80 and 4 < claims["two"] < 36  # of 400; 20 are expected
