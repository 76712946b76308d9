"""Do intervals and verdicts keep their promise? Simulated tests whose truth is known: notebook 06.

A recipe is right on clip i with probability p_i; a training run of it shifts all p_i by some luck of its own.
"""

import numpy as np
import pytest
from scipy import stats

from labutils import evaluation

CLIPS, RESAMPLES = 150, 100


def answers(rng, ability, num_seeds, luck):
    """Right or wrong [S, N] of `num_seeds` models of one recipe on the same clips; `luck` in units of the logit."""
    shift = rng.normal(0, luck, (num_seeds, 1))
    return (rng.random((num_seeds, len(ability))) < 1 / (1 + np.exp(-ability - shift))).astype(int)


def share_called_different(call, num_draws, *, num_seeds, luck, comparisons=1):
    """How often two sets of seeds of one recipe are called different."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(num_draws):
        ability = rng.normal(0.6, 1.5, CLIPS)
        a, b = (answers(rng, ability, num_seeds, luck) for _ in range(2))
        found += call(np.ones(CLIPS, int), a, b)
    return found / num_draws


def by_verdict(truth, a, b):
    difference = evaluation.paired_difference(evaluation.accuracy, truth, a, b, num_resamples=RESAMPLES)
    return difference.verdict() in ("higher", "lower")


@pytest.mark.parametrize(("num_seeds", "luck"), [(4, 0.0), (4, 0.3), (5, 0.3), (5, 0.8)])
def test_two_sets_of_seeds_of_one_recipe_are_rarely_called_different(num_seeds, luck):
    assert share_called_different(by_verdict, 1000, num_seeds=num_seeds, luck=luck) <= 0.06


def test_a_permutation_test_knows_nothing_of_the_luck_of_training():
    def by_permutation(truth, a, b):
        return evaluation.permutation_test(evaluation.accuracy, truth, a, b, num_resamples=RESAMPLES) <= 0.05

    assert share_called_different(by_permutation, 200, num_seeds=2, luck=0.3) > 0.15


@pytest.mark.parametrize("comparisons", [1, 4, 16])
def test_so_many_seeds_are_needed(comparisons):
    """With training four times as lucky as the clips, the t interval keeps its level from `seeds_needed` on only."""
    level = evaluation.LEVEL / comparisons

    def share(num_seeds, num_draws=100_000):
        rng = np.random.default_rng(0)  # of measured variances; over the difference itself the normal law integrates
        clips, seeds = rng.chisquare(134, num_draws) / 134, 4 * rng.chisquare(num_seeds - 1, num_draws)
        seeds = seeds / (num_seeds - 1) / num_seeds
        freedom = (clips + seeds) ** 2 / (clips**2 / 134 + seeds**2 / (num_seeds - 1))
        margin = np.sqrt(clips + seeds) * stats.t.isf(level / 2, freedom)
        return np.mean(2 * stats.norm.sf(margin / np.sqrt(1 + 4 / num_seeds))) / level

    needed = evaluation.seeds_needed(comparisons)
    assert share(needed) <= 1.2 < share(needed - 1)


def coverage(truth, draw, num_draws=400):
    """Share of intervals that hold `truth`; `draw(rng)` gives an Estimate."""
    rng = np.random.default_rng(0)
    estimates = [draw(rng) for _ in range(num_draws)]
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


def classes_and_answers(rng, size):
    """Ten classes as uneven as the lab's, and answers that are right in 60 %, else any class."""
    truth = rng.choice(10, size, p=np.array([11, 11, 22, 22, 11, 11, 22, 11, 28, 10]) / 159)
    return truth, np.where(rng.random(size) < 0.6, truth, rng.integers(0, 10, size))


def test_coverage_of_accuracy_and_macro_f1():
    truth_of = evaluation.macro_f1(*classes_and_answers(np.random.default_rng(1), 200_000))
    for metric, truth in ((evaluation.accuracy, 0.64), (evaluation.macro_f1, truth_of)):
        found = coverage(truth, lambda rng, m=metric: evaluation.bootstrap(
            m, *classes_and_answers(rng, CLIPS), num_resamples=RESAMPLES))  # fmt: skip
        assert 0.92 <= found <= 0.98, metric


def test_coverage_of_rho_and_of_the_mean_rho():
    def draw(rng):
        truth = rng.normal(size=(CLIPS, 3))
        guess = 0.6 * truth + 0.8 * rng.normal(size=(CLIPS, 3))
        return evaluation.bootstrap(evaluation.mean_spearman, truth, guess, num_resamples=RESAMPLES)

    assert 0.92 <= coverage(6 / np.pi * np.arcsin(0.6 / 2), draw) <= 0.98


def test_coverage_over_seeds_and_of_a_paired_difference():
    def draw(rng):
        ability = rng.normal(0.6, 1.5, CLIPS)
        a, b = (answers(rng, ability + gain, 5, 0.3) for gain in (0.0, 0.5))
        return evaluation.paired_difference(evaluation.accuracy, np.ones(CLIPS, int), a, b, num_resamples=RESAMPLES)

    grid = np.random.default_rng(1).normal([[0.6]], (1.5**2 + 0.3**2) ** 0.5, (400_000, 1))
    gain = np.mean(1 / (1 + np.exp(-grid - 0.5)) - 1 / (1 + np.exp(-grid)))
    assert 0.93 <= coverage(gain, draw) <= 0.99


def test_coverage_with_groups():
    def draw(rng, grouped=True):
        artists = np.repeat(np.arange(50), 3)
        right = rng.random(150) < 1 / (1 + np.exp(-rng.normal(0, 2, 50)[artists]))
        groups = artists if grouped else None
        return evaluation.bootstrap(evaluation.accuracy, np.ones(150), right, groups=groups, num_resamples=RESAMPLES)

    assert 0.92 <= coverage(0.5, draw) <= 0.98
    assert coverage(0.5, lambda rng: draw(rng, grouped=False)) < 0.9


def test_coverage_of_a_difference_of_medians():
    def draw(rng):
        return evaluation.median_difference(rng.exponential(size=40), 0.5 + rng.exponential(size=60), num_resamples=200)

    assert 0.91 <= coverage(0.5, draw) <= 0.99
