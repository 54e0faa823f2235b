"""Metrics of numbers and of sets of labels equal those of SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from ffnlab.finetune.target_metrics import (
    best_threshold,
    multi_label_report,
    pearson,
    ranks,
    regression_report,
)


def draw(seed, ties=False):
    rng = np.random.default_rng(seed)
    gold = rng.normal(2.5, 1.5, 60)
    predicted = (gold + rng.normal(0, 1, 60)).astype(np.float32)
    return (np.round(predicted), np.round(gold)) if ties else (predicted, gold)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_correlations_and_error_are_those_of_the_libraries(ties, scale):
    predicted, gold = (np.float64(scale) * each for each in draw(0, ties))
    report = regression_report(predicted, gold)
    close = {"rel": 1e-12, "abs": 0}
    assert report["pearson"] == pytest.approx(
        stats.pearsonr(predicted, gold)[0], **close
    )
    assert report["spearman"] == pytest.approx(
        stats.spearmanr(predicted, gold)[0], **close
    )
    assert report["mse"] == pytest.approx(
        metrics.mean_squared_error(gold, predicted), **close
    )
    assert report["correlation"] == (report["pearson"] + report["spearman"]) / 2
    assert ranks(predicted).tolist() == stats.rankdata(predicted).tolist()


def test_there_is_no_correlation_with_what_is_constant_or_not_finite():
    gold = np.arange(5.0)
    for predicted in (np.ones(5), gold * np.nan, np.array([1, 2, np.inf, 3, 4])):
        report = regression_report(predicted, gold)
        assert report["pearson"] == report["spearman"] == report["correlation"] == 0.0
    assert pearson(np.ones(1), np.ones(1)) == 0.0
    assert regression_report(gold, np.ones(5))["spearman"] == 0.0


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7])
def test_f1s_are_those_of_scikit_learn(rate):
    rng = np.random.default_rng(1)
    gold, predicted = rng.random((40, 5)) < 0.3, rng.random((40, 5)) < rate
    gold[:, 4] = predicted[:, 3] = False  # labels without a true or predicted text
    report = multi_label_report(predicted, gold, list("abcde"))
    for key, average in (("micro", "micro"), ("macro", "macro")):
        wanted = metrics.f1_score(gold, predicted, average=average, zero_division=0.0)
        assert report[key] == pytest.approx(wanted, abs=1e-15)
    columns = metrics.precision_recall_fscore_support(gold, predicted, zero_division=0)
    for row, scores in zip(
        np.transpose(columns), report["types"].values(), strict=True
    ):
        assert [*scores.values()] == pytest.approx(row.tolist(), abs=1e-15)
    micro = metrics.precision_recall_fscore_support(
        gold, predicted, average="micro", zero_division=0
    )
    assert [report["precision"], report["recall"]] == pytest.approx(micro[:2])
    assert report["subset"] == metrics.accuracy_score(gold, predicted)


def test_labels_that_training_does_not_show_are_missed():
    gold = np.eye(2, dtype=bool)
    plain = multi_label_report(gold, gold, ["a", "b"])
    report = multi_label_report(gold, gold, ["a", "b"], np.array([0, 2]))
    assert plain["micro"] == plain["subset"] == 1.0
    assert (report["recall"], report["precision"]) == (0.5, 1.0)
    assert report["micro"] == pytest.approx(2 / 3) and report["subset"] == 0.5
    assert report["types"] == plain["types"]


@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_is_better_than_the_best(seed):
    rng = np.random.default_rng(seed)
    gold = rng.random((30, 4)) < 0.3
    shares = np.round(np.clip(0.3 * gold + 0.7 * rng.random((30, 4)), 0, 1), 2)
    best = best_threshold(shares, gold)

    def f1(threshold):
        return metrics.f1_score(gold, shares >= threshold, average="micro")

    known = [f1(threshold) for threshold in np.linspace(0.001, 0.999, 999)]
    assert f1(best) == pytest.approx(max(known), abs=1e-12)
    assert np.abs(shares - best).min() > 0.001  # it lies between probabilities
    assert 0 < best < 1


def test_a_threshold_without_a_choice_is_a_half():
    shares = np.array([[0.2, 0.9]])
    assert best_threshold(shares, np.array([[False, False]])) == 0.5
    assert best_threshold(np.array([[np.nan, 0.9]]), np.array([[True, False]])) == 0.5
    assert best_threshold(np.full((2, 2), 0.25), np.eye(2) > 0) == 0.125
