"""Metrics, intervals and paired tests against scikit-learn, scipy and hand-made answers: notebooks 06 and 08."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from labutils import evaluation


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200)
    guess = np.where(rng.random(200) < 0.6, truth, rng.integers(0, 4, 200))
    return truth, guess


def test_metrics_equal_scikit_learns(answers):
    truth, guess = answers
    assert evaluation.accuracy(truth, guess) == pytest.approx(metrics.accuracy_score(truth, guess))
    assert evaluation.macro_f1(truth, guess) == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    assert evaluation.weighted_f1(truth, guess) == pytest.approx(metrics.f1_score(truth, guess, average="weighted"))
    assert np.array_equal(evaluation.confusion(truth, guess, 4), metrics.confusion_matrix(truth, guess))


def test_a_class_that_is_never_predicted_counts_as_zero():
    assert evaluation.macro_f1([0, 0, 1], [0, 0, 0]) == pytest.approx(0.4)


def test_the_reports_counterexample_put_right():
    truth = np.repeat([0, 1], [90, 10])
    guess = truth.copy()
    guess[:10] = 1  # 10 negatives called positive: TP 10, FP 10, FN 0
    assert evaluation.accuracy(truth, guess) == 0.9
    assert evaluation.classification_report(truth, guess, ["no", "yes"]).loc["yes", "f1"] == pytest.approx(2 / 3)


def test_report_table(answers):
    truth, guess = answers
    table = evaluation.classification_report(truth, guess, list("abcd"))
    assert list(table.index) == [*"abcd", "accuracy", "macro avg", "micro avg", "weighted avg"]
    assert table.loc["micro avg", "f1"] == pytest.approx(table.loc["accuracy", "f1"])
    assert table.loc[list("abcd"), "support"].sum() == 200


def test_spearman_equals_scipys_and_a_constant_ranks_nothing():
    rng = np.random.default_rng(0)
    truth = rng.random((50, 2))
    guess = truth + rng.normal(0, 0.3, (50, 2))
    expected = [stats.spearmanr(truth[:, a], guess[:, a]).statistic for a in range(2)]
    assert evaluation.spearman(truth[:, 0], guess[:, 0]) == pytest.approx(expected[0])
    assert evaluation.mean_spearman(truth, guess) == pytest.approx(np.mean(expected))
    assert evaluation.spearman(truth[:, 0], np.full(50, 0.5)) == 0
    assert evaluation.spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1)


def test_bootstrap_interval_of_an_accuracy_is_near_the_binomial_one(answers):
    truth, guess = answers
    estimate = evaluation.bootstrap(evaluation.accuracy, truth, guess)
    error = np.sqrt(estimate.value * (1 - estimate.value) / 200)
    assert estimate.n == 200 and estimate.seeds == 1
    assert estimate.low == pytest.approx(estimate.value - 1.96 * error, abs=0.015)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * error, abs=0.015)
    assert evaluation.bootstrap(evaluation.accuracy, truth, guess) == estimate  # seeded


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(100):
        right = (rng.random(80) < 0.7).astype(int)
        estimate = evaluation.bootstrap(evaluation.accuracy, np.ones(80, int), right, num_resamples=200)
        hits += estimate.low <= 0.7 <= estimate.high
    assert 87 <= hits <= 100


def test_seeds_widen_the_interval_when_they_disagree(answers):
    truth, guess = answers
    worse = np.where(np.arange(200) % 2, guess, (truth + 1) % 4)
    both = evaluation.bootstrap(evaluation.accuracy, truth, np.stack([guess, worse]))
    alone = evaluation.bootstrap(evaluation.accuracy, truth, guess)
    assert both.seeds == 2 and both.high - both.low > alone.high - alone.low
    assert both.value == pytest.approx((evaluation.accuracy(truth, guess) + evaluation.accuracy(truth, worse)) / 2)


def test_paired_difference_finds_a_real_one_and_not_an_imagined_one(answers):
    truth, guess = answers
    rng = np.random.default_rng(2)
    better = np.where(rng.random(200) < 0.5, truth, guess)
    difference, p_value = evaluation.paired_difference(evaluation.accuracy, truth, guess, better)
    assert difference.low > 0 and p_value < 0.01
    difference, p_value = evaluation.paired_difference(evaluation.accuracy, truth, guess, guess)
    assert difference.value == 0 and p_value == 1


def test_the_paired_interval_is_sharper_than_two_separate_ones(answers):
    truth, guess = answers
    other = guess.copy()
    other[:8] = truth[:8]
    difference, _ = evaluation.paired_difference(evaluation.accuracy, truth, guess, other)
    single = evaluation.bootstrap(evaluation.accuracy, truth, guess)
    assert difference.high - difference.low < 0.5 * (single.high - single.low)


def test_p_values_are_uniform_when_there_is_no_difference():
    rng = np.random.default_rng(3)
    values = []
    for _ in range(60):
        truth = rng.integers(0, 2, 60)
        a, b = (np.where(rng.random(60) < 0.7, truth, 1 - truth) for _ in range(2))
        values.append(evaluation.paired_difference(evaluation.accuracy, truth, a, b, num_resamples=200)[1])
    assert np.mean(np.array(values) < 0.1) < 0.25 and np.mean(values) > 0.35


def test_models_with_other_numbers_of_seeds_cannot_be_compared(answers):
    truth, guess = answers
    with pytest.raises(ValueError, match="same number of seeds"):
        evaluation.paired_difference(evaluation.accuracy, truth, guess, np.stack([guess, guess]))


def test_an_estimate_reads_well():
    assert str(evaluation.Estimate(0.5, 0.41, 0.6, 100)) == "0.50 [0.41, 0.60]"


def test_neighbour_purity_leaves_the_point_itself_out():
    points, labels = np.array([[0.0], [1.0], [3.0], [10.0], [11.0]]), np.array([0, 0, 1, 1, 1])
    assert evaluation.neighbour_purity(points, labels, 1).tolist() == [1, 1, 0, 1, 1]
    assert evaluation.neighbour_purity(points, labels, 2).tolist() == [0.5, 0.5, 0, 1, 1]
