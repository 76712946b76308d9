"""How good is a model, and how sure are we? Reports, intervals, paired comparisons (notebooks 06 and 08).

Predictions may carry a first axis of seeds, [S, N]: metrics are then means over the seeds, and intervals know the luck
of the clips and of training alike. What differs, and what does not, is said in one place: `Estimate.verdict`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

NUM_RESAMPLES = 1000
LEVEL = 0.05  # of every verdict: the share of differences of nothing that may be taken for something
# The report's figures on the real data (575 test clips; affect: about 112 clips held out), by our metric names.
REPORT = pd.read_csv(Path(__file__).parent / "assets" / "report.csv", index_col="metric")["value"].to_dict()


class Estimate(NamedTuple):
    """A metric with its uncertainty. Notebook 06.

    The interval is `value` plus and minus `error` times a quantile of Student's t: a spread that was measured on a few
    models is itself uncertain, and the fewer there are, the wider the interval.
    """

    value: float
    error: float  # standard error: of the luck of the clips and, over several seeds, of the training; nan: not known
    n: int  # clips
    seeds: int = 0  # trained models averaged; 0: no luck of training in it
    freedom: float = np.inf  # degrees of freedom of `error`
    limits: tuple[float, float] = (-np.inf, np.inf)  # lowest and highest value that there can be

    def interval(self, comparisons: int = 1) -> tuple[float, float]:
        """The 95 % interval; of one of several `comparisons` so much wider that all hold with 95 % (Bonferroni)."""
        from scipy.stats import t

        margin = float(t.isf(LEVEL / comparisons / 2, self.freedom)) * self.error
        return max(self.value - margin, self.limits[0]), min(self.value + margin, self.limits[1])

    @property
    def low(self) -> float:
        return self.interval()[0]

    @property
    def high(self) -> float:
        return self.interval()[1]

    def verdict(self, higher: str = "higher", lower: str = "lower", comparisons: int = 1) -> str:
        """What a difference shows: `higher` or `lower` where the interval leaves out 0, else that there is no evidence.

        `comparisons`: how many are made side by side. With fewer models than `seeds_needed` nothing is decided.
        """
        needed = seeds_needed(comparisons)
        if 0 < self.seeds < needed:
            return f"not decided with {self.seeds} seed{'s' * (self.seeds > 1)}; {needed} are needed"
        low, high = self.interval(comparisons)
        return higher if low > 0 else lower if high < 0 else "no evidence of a difference"

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def __format__(self, spec: str) -> str:
        """As text, or with a format for each number: f"{estimate:+.3f}"."""
        if not spec:
            return str(self)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def seeds_needed(comparisons: int = 1) -> int:
    """Models of each kind from which on a verdict may be given: 4, and one more for each 4 times the comparisons.

    Notebook 06. With fewer the t interval promises too much where the luck of training outweighs that of the clips:
    in a simulation with four times its variance, differences of nothing were found in at most 1.2 times the stated
    share of cases from this number on (tests/unit/test_intervals.py).
    """
    return 4 + math.ceil(math.log(comparisons, 4))


def confusion(y_true, y_pred, num_classes: int) -> np.ndarray:
    """Counts [C, C], true class by predicted class, of arrays [N]; of stacks [..., N] as many. Notebook 06."""
    cells = np.asarray(y_true) * num_classes + np.asarray(y_pred)
    rows = cells.reshape(-1, cells.shape[-1])
    flat = rows + num_classes**2 * np.arange(len(rows))[:, None]
    counts = np.bincount(flat.ravel(), minlength=len(rows) * num_classes**2)
    return counts.reshape(*cells.shape[:-1], num_classes, num_classes)


def accuracy(y_true, y_pred) -> float:
    """Share of clips whose class is right, in [0, 1]. Notebook 06."""
    return _plain((np.asarray(y_true) == np.asarray(y_pred)).mean(axis=-1))


def macro_f1(y_true, y_pred) -> float:
    """Mean of the classes' F1, in [0, 1]: each class counts the same, however rare. Notebook 06.

    Classes that occur neither in truth nor in prediction are left out, as in scikit-learn.
    """
    hits, total, _ = _counts_by_class(y_true, y_pred)
    return _plain((2 * hits / np.maximum(total, 1)).sum(axis=-1) / (total > 0).sum(axis=-1))


def weighted_f1(y_true, y_pred) -> float:
    """Mean of the classes' F1 weighted by their number of clips, in [0, 1]. Notebook 06."""
    hits, total, actual = _counts_by_class(y_true, y_pred)
    return _plain((2 * hits / np.maximum(total, 1) * actual).sum(axis=-1) / actual.sum(axis=-1))


def _counts_by_class(y_true, y_pred) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class [..., C]: right answers, clips that have it plus clips that were given it, clips that have it."""
    counts = confusion(y_true, y_pred, int(max(np.max(y_true), np.max(y_pred))) + 1)
    actual = counts.sum(axis=-1)
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2) + actual, actual


def _plain(values):
    """A number for one array, an array of numbers for a stack."""
    return float(values) if np.ndim(values) == 0 else values


def spearman(y_true, y_pred) -> float:
    """Spearman's rank correlation in [-1, 1]; 0 where the predictions are all equal and rank nothing. Notebook 08.

    Of arrays [N]; of stacks [..., N], as the bootstrap draws them, one value per row.
    """
    a, b = (ranks(values) - (np.shape(values)[-1] + 1) / 2 for values in (y_true, y_pred))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return _plain(np.divide((a * b).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0))


def ranks(values) -> np.ndarray:
    """Rank of each value, 1 the smallest; equal values share the mean of theirs: [..., N] -> float. Notebook 08."""
    from scipy.stats import rankdata

    return rankdata(values, axis=-1)


def mean_spearman(y_true, y_pred) -> float:
    """Mean over the axes of Spearman's rho, from arrays [..., N, A]. The competition's score. Notebook 08."""
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    return _plain(np.mean(spearman(y_true.swapaxes(-1, -2), y_pred.swapaxes(-1, -2)), axis=-1))


# The metrics that take stacks of arrays at once, with their lowest and highest value
STACKED = {accuracy: (0, 1), macro_f1: (0, 1), weighted_f1: (0, 1), spearman: (-1, 1), mean_spearman: (-1, 1)}


def classification_report(y_true, y_pred, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support per class, then accuracy and the three averages. Notebook 06.

    A class that is never predicted has precision 0. Index: the classes, "accuracy", "macro avg", "micro avg",
    "weighted avg".
    """
    from sklearn.metrics import precision_recall_fscore_support as scores

    columns, labels = ["precision", "recall", "f1", "support"], np.arange(len(classes))
    rows = dict(zip(classes, zip(*scores(y_true, y_pred, labels=labels, zero_division=0))))
    rows["accuracy"] = (np.nan, np.nan, accuracy(y_true, y_pred), len(y_true))
    for average in ("macro", "micro", "weighted"):
        mean = scores(y_true, y_pred, labels=labels, average=average, zero_division=0)[:3]
        rows[f"{average} avg"] = (*mean, len(y_true))
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"support": int})


def bootstrap(metric, y_true, y_pred, *, groups=None, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """A metric with its uncertainty: the bootstrap (Efron, 1979) for the luck of the clips, the spread over seeds for
    the luck of training. Notebook 06.

    Parameters
    ----------
    metric : function (y_true, y_pred) -> float.
    y_true : [N] or [N, A].
    y_pred : as y_true for one model, or [S, N] or [S, N, A] for S seeds: the mean over them is reported.
    groups : [N], whose clips are drawn together, such as artists (`SpectrogramDataset.groups`); None: each by itself.

    Returns
    -------
    Estimate : its variance is that of the mean under resampling of the clips plus, for two seeds or more, that of the
        seeds' scores, divided by S. Degrees of freedom: Satterthwaite (1946).
    """
    found = paired_difference(metric, y_true, None, y_pred, groups=groups, num_resamples=num_resamples, seed=seed)
    return found._replace(limits=STACKED.get(metric, found.limits))


def paired_difference(metric, y_true, y_pred_a, y_pred_b, *, groups=None, num_resamples: int = NUM_RESAMPLES,
                      seed: int = 0) -> Estimate:  # fmt: skip
    """Difference metric(b) - metric(a) on the same clips, with its uncertainty. Notebook 06.

    As for `bootstrap`, with the same clips drawn for both, and seed i of `b` against seed i of `a`. A model without
    seeds, [N], may stand against one with several.

    Raises
    ------
    ValueError : the numbers of seeds differ.
    """
    y_true = np.asarray(y_true)
    sides = [np.asarray(side) for side in (y_pred_a, y_pred_b) if side is not None]
    seeds = {len(side) for side in sides if side.ndim > y_true.ndim}
    if len(seeds) > 1:
        raise ValueError(f"{sides[0].shape[0]} seeds against {sides[1].shape[0]}: compare as many models of each kind")
    sides = [side if side.ndim > y_true.ndim else side[None] for side in sides]
    units = np.arange(len(y_true)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    clips = _draw_clips(units, num_resamples, np.random.default_rng(seed))  # [R, N]
    by_seed, by_draw = 0.0, 0.0  # of b minus a
    for sign, side in zip((-1, 1)[-len(sides) :], sides):
        by_seed = by_seed + sign * _scores(metric, y_true[None], side[:, None])[:, 0]  # [S]
        by_draw = by_draw + sign * _scores(metric, y_true[clips], side[:, clips]).mean(axis=0)  # [R]
    variances = [(np.var(by_draw, ddof=1), units.max())]
    if len(by_seed) > 1:
        variances.append((np.var(by_seed, ddof=1) / len(by_seed), len(by_seed) - 1))
    total = sum(variance for variance, _ in variances)
    freedom = total**2 / sum(variance**2 / max(free, 1) for variance, free in variances) if total else np.inf
    return Estimate(float(np.mean(by_seed)), float(total**0.5), len(y_true), max(seeds, default=0), float(freedom))


def permutation_test(metric, y_true, y_pred_a, y_pred_b, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> float:
    """P-value of the difference between these trained models: two-sided, the answers to each clip swapped. Notebook 06.

    All seeds of a clip are swapped together: nothing is said of models of other seeds. Rank correlations compare ranks,
    so the predictions are ranked before they are swapped. The smallest value is 1 / (num_resamples + 1).
    """
    y_true, (a, b) = np.asarray(y_true), (np.asarray(side) for side in (y_pred_a, y_pred_b))
    a, b = (side if side.ndim > y_true.ndim else side[None] for side in (a, b))
    if metric in (spearman, mean_spearman):
        a, b = (np.apply_along_axis(ranks, 1, side) for side in (a, b))
    swap = np.random.default_rng(seed).random((num_resamples, len(y_true))) < 0.5
    swap = np.concatenate([np.zeros((1, len(y_true)), bool), swap])  # first as it is
    swap = swap.reshape(*swap.shape, *[1] * (y_true.ndim - 1))  # [R, N] or [R, N, 1]
    after, before = np.where(swap, a[:, None], b[:, None]), np.where(swap, b[:, None], a[:, None])  # [S, R, N, ...]
    found = (_scores(metric, y_true[None], after) - _scores(metric, y_true[None], before)).mean(axis=0)
    return float(np.mean(np.abs(found) >= abs(found[0]) - 1e-12))


def temperature(logits, labels) -> float:
    """What logits [N, C] are divided by to make their probabilities fit the labels [N] best. Notebook 06.

    Guo et al. (2017), arXiv:1706.04599: the likelihood of held-out clips is largest there. Above 1 the model boasts.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits, rows = np.asarray(logits, dtype=float), np.arange(len(labels))

    def loss(log_value: float) -> float:
        return -log_softmax(logits / np.exp(log_value), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def calibration_error(labels, probabilities, num_bins: int = 10) -> float:
    """Expected calibration error, in [0, 1]: labels [N], probabilities [N, C]. Notebook 06.

    Clips are sorted into bins by the probability of their answer; in each bin the share of right answers and the mean
    probability should be equal, and their distances are averaged, weighted by the clips of each bin.
    """
    probabilities = np.asarray(probabilities)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    return float(sum(abs(np.sum(right[bins == b]) - np.sum(sure[bins == b])) for b in np.unique(bins)) / len(sure))


def median_difference(a, b, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """Median of `b` minus median of `a`, two groups of different clips, with its uncertainty. Notebook 01.

    The bootstrap draws the clips of each group with replacement.
    """
    a, b = np.asarray(a), np.asarray(b)
    rng = np.random.default_rng(seed)
    draws = [np.median(rng.choice(x, (num_resamples, len(x))), axis=1) for x in (a, b)]
    error, freedom = np.std(draws[1] - draws[0], ddof=1), min(len(a), len(b)) - 1
    return Estimate(float(np.median(b) - np.median(a)), float(error), len(a) + len(b), freedom=max(freedom, 1))


def _draw_clips(units: np.ndarray, num_resamples: int, rng) -> np.ndarray:
    """Bootstrap resamples of the clips [R, N]; clips of one unit come together, and the last unit may be cut."""
    num_units, num_clips = units.max() + 1, len(units)
    draws = rng.integers(0, num_units, (num_resamples, num_clips))
    if num_units == num_clips:
        return np.argsort(units)[draws]
    members = [np.flatnonzero(units == unit) for unit in range(num_units)]
    return np.stack([np.concatenate([members[unit] for unit in row])[:num_clips] for row in draws])


def _scores(metric, y_true, y_pred) -> np.ndarray:
    """The metric of each seed and resample [S, R]: truth [R, N, ...] or [1, N, ...], predictions [S, R, N, ...]."""
    if metric in STACKED:
        return np.asarray(metric(y_true, y_pred))
    truth = np.broadcast_to(y_true, y_pred.shape[1 : 1 + y_true.ndim])
    return np.array([[metric(*pair) for pair in zip(truth, one)] for one in y_pred])
