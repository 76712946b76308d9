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
    assert estimate.n == 200 and estimate.seeds == 0 and estimate.freedom == 199
    assert estimate.low == pytest.approx(estimate.value - 1.96 * error, abs=0.015)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * error, abs=0.015)
    assert evaluation.bootstrap(evaluation.accuracy, truth, guess) == estimate  # seeded


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
    assert evaluation.paired_difference(evaluation.accuracy, truth, guess, better).low > 0
    assert evaluation.permutation_test(evaluation.accuracy, truth, guess, better) < 0.01
    same = evaluation.paired_difference(evaluation.accuracy, truth, guess, guess)
    assert same.value == same.low == same.high == 0 and same.verdict() == "no evidence of a difference"
    assert evaluation.permutation_test(evaluation.accuracy, truth, guess, guess) == 1


def test_the_paired_interval_is_sharper_than_two_separate_ones(answers):
    truth, guess = answers
    other = guess.copy()
    other[:8] = truth[:8]
    difference = evaluation.paired_difference(evaluation.accuracy, truth, guess, other)
    single = evaluation.bootstrap(evaluation.accuracy, truth, guess)
    assert difference.high - difference.low < 0.5 * (single.high - single.low)


@pytest.mark.parametrize("metric", evaluation.STACKED)
def test_metrics_of_stacks_are_those_of_their_rows(metric):
    rng = np.random.default_rng(0)
    shape = (3, 5, 40, 2) if metric is evaluation.mean_spearman else (3, 5, 40)
    truth, guess = rng.integers(0, 4, shape), rng.integers(0, 4, shape)
    rows = [[metric(*pair) for pair in zip(*pairs)] for pairs in zip(truth, guess)]
    assert np.allclose(metric(truth, guess), rows)
    assert np.allclose(metric(truth[:1, :1], guess), [[metric(truth[0, 0], row) for row in part] for part in guess])


def test_a_metric_of_ones_own_is_called_row_by_row(answers):
    truth, guess = answers
    own = evaluation.bootstrap(lambda y, x: float(np.mean(y == x)), truth, guess)
    assert own == evaluation.bootstrap(evaluation.accuracy, truth, guess)._replace(limits=own.limits)


def test_the_permutation_test_does_not_depend_on_the_scale_of_predictions():
    rng = np.random.default_rng(0)
    truth = rng.random((60, 2))
    a, b = (truth + rng.normal(0, spread, truth.shape) for spread in (0.6, 0.3))
    values = [evaluation.permutation_test(evaluation.mean_spearman, truth, a, scale * b) for scale in (1, 100)]
    assert values[0] == values[1] < 0.05


def test_models_with_other_numbers_of_seeds_cannot_be_compared(answers):
    truth, guess = answers
    with pytest.raises(ValueError, match="2 seeds against 3: compare as many"):
        evaluation.paired_difference(evaluation.accuracy, truth, np.stack([guess] * 2), np.stack([guess] * 3))


def test_a_model_without_seeds_stands_against_several(answers):
    truth, guess = answers
    rows = np.stack([np.where(np.arange(200) % k, guess, truth) for k in (3, 4, 5, 6)])
    alone = evaluation.paired_difference(evaluation.accuracy, truth, guess, rows)
    repeated = evaluation.paired_difference(evaluation.accuracy, truth, np.stack([guess] * 4), rows)
    assert alone == repeated and alone.seeds == 4


def test_clips_of_a_group_are_drawn_together_and_widen_the_interval(answers):
    truth, guess = answers
    right = np.repeat(np.random.default_rng(0).random(40) < 0.6, 5)  # five clips of an artist: all right or all wrong
    artists = np.repeat([f"artist {i}" for i in range(40)], 5)
    alone = evaluation.bootstrap(evaluation.accuracy, np.ones(200), right)
    together = evaluation.bootstrap(evaluation.accuracy, np.ones(200), right, groups=artists)
    assert together.error == pytest.approx(alone.error * 5**0.5, rel=0.1) and together.freedom == 39
    single = evaluation.bootstrap(evaluation.accuracy, truth, guess, groups=np.arange(200))
    assert single == evaluation.bootstrap(evaluation.accuracy, truth, guess)


def test_an_interval_ends_where_the_metric_does():
    estimate = evaluation.bootstrap(evaluation.accuracy, np.ones(30), np.array([np.ones(30), np.arange(30) < 20]))
    assert estimate.low >= 0 and estimate.high == 1 and estimate.interval(100)[0] == 0


def test_an_estimate_reads_well():
    estimate = evaluation.Estimate(0.5, 0.05, 100)
    assert str(estimate) == f"{estimate}" == "0.50 [0.40, 0.60]" and f"{estimate:+.1f}" == "+0.5 [+0.4, +0.6]"


def test_a_verdict_needs_seeds_and_counts_the_comparisons():
    words = ("b is better", "a is better")
    assert evaluation.Estimate(0.1, 0.04, 100, seeds=5, freedom=50).verdict(*words) == "b is better"
    assert evaluation.Estimate(-0.1, 0.04, 100, seeds=5, freedom=50).verdict(*words) == "a is better"
    assert evaluation.Estimate(0.1, 0.04, 100, seeds=5, freedom=50).verdict(*words, comparisons=4) == (
        "no evidence of a difference"
    )
    assert evaluation.Estimate(0.9, 0.01, 100, seeds=2).verdict(*words) == "not decided with 2 seeds; 4 are needed"
    assert evaluation.Estimate(0.1, 0.04, 100).verdict(*words) == "b is better"  # nothing was trained by chance
    assert [evaluation.seeds_needed(count) for count in (1, 2, 4, 5, 16, 17)] == [4, 5, 5, 6, 6, 7]


def test_the_temperature_undoes_a_known_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 5))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((4000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    assert evaluation.temperature(logits, labels) == pytest.approx(1, abs=0.05)
    assert evaluation.temperature(3 * logits, labels) == pytest.approx(3, abs=0.15)
    assert evaluation.calibration_error(labels, chances) < 0.03


def test_the_calibration_error_is_known_where_every_answer_is_sure():
    sure = np.tile([0.95, 0.05], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)  # six of ten right
    assert evaluation.calibration_error(labels, sure) == pytest.approx(0.35)
    assert evaluation.calibration_error(np.zeros(10, int), np.eye(2)[np.zeros(10, int)]) == 0
