"""How good is a model, and how sure are we? Reports, intervals, paired comparisons (notebooks 06 and 08).

Predictions may carry a first axis of seeds, [S, N]: metrics are then means over the seeds, and intervals resample
clips and seeds alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

NUM_RESAMPLES = 1000
# The report's figures on the real data (575 test clips; affect: about 112 clips held out), by our metric names.
REPORT = {
    "lstm.mel_raw.test.accuracy": 0.28, "lstm.mel_raw.test.macro_f1": 0.14, "lstm.mel_raw.test.weighted_f1": 0.21,
    "lstm.mel_beat.test.accuracy": 0.38, "lstm.mel_beat.test.macro_f1": 0.27, "lstm.mel_beat.test.weighted_f1": 0.33,
    "lstm.chroma_raw.test.accuracy": 0.18, "lstm.chroma_raw.test.macro_f1": 0.03,
    "lstm.chroma_raw.test.weighted_f1": 0.05,
    "lstm.fused_raw.test.accuracy": 0.29, "lstm.fused_raw.test.macro_f1": 0.13,
    "lstm.fused_raw.test.weighted_f1": 0.19,
    "lstm.fused_beat.test.accuracy": 0.37, "lstm.fused_beat.test.macro_f1": 0.27,
    "lstm.fused_beat.test.weighted_f1": 0.32,
    "cnn.mel_raw.test.accuracy": 0.38, "cnn.mel_raw.test.macro_f1": 0.29, "cnn.mel_raw.test.weighted_f1": 0.33,
    "cnn.affect.valence.test.spearman": 0.17, "cnn.affect.energy.test.spearman": 0.74,
    "cnn.affect.danceability.test.spearman": 0.42, "lstm.affect.valence.test.spearman": -0.14,
    "lstm.affect.energy.test.spearman": 0.14, "lstm.affect.danceability.test.spearman": 0.26,
    "transfer.finetuned.danceability.test.spearman": 0.54, "multitask.valence.test.spearman": -0.06,
    "multitask.energy.test.spearman": 0.46, "multitask.danceability.test.spearman": -0.04,
}  # fmt: skip


class Estimate(NamedTuple):
    """A metric with its 95 % interval. Notebook 06."""

    value: float
    low: float  # nan where no interval was computed
    high: float
    n: int  # clips
    seeds: int = 1  # models averaged

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def confusion(y_true, y_pred, num_classes: int) -> np.ndarray:
    """Counts [C, C], true class by predicted class. Notebook 06."""
    flat = np.asarray(y_true) * num_classes + np.asarray(y_pred)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(y_true, y_pred) -> float:
    """Share of clips whose class is right, in [0, 1]. Notebook 06."""
    return float(np.mean(np.asarray(y_true) == np.asarray(y_pred)))


def macro_f1(y_true, y_pred) -> float:
    """Mean of the classes' F1, in [0, 1]: each class counts the same, however rare. Notebook 06.

    Classes that occur neither in truth nor in prediction are left out, as in scikit-learn.
    """
    counts = confusion(y_true, y_pred, int(max(np.max(y_true), np.max(y_pred))) + 1)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * np.diag(counts)[total > 0] / total[total > 0]))


def weighted_f1(y_true, y_pred) -> float:
    """Mean of the classes' F1 weighted by their number of clips, in [0, 1]. Notebook 06."""
    counts = confusion(y_true, y_pred, int(max(np.max(y_true), np.max(y_pred))) + 1)
    total = np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return float(np.average(2 * np.diag(counts) / total, weights=counts.sum(axis=1)))


def spearman(y_true, y_pred) -> float:
    """Spearman's rank correlation in [-1, 1]; 0 where the predictions are all equal and rank nothing. Notebook 08.

    Of arrays [N]; of stacks [..., N], as the bootstrap draws them, one value per row.
    """
    a, b = (ranks(values) - (np.shape(values)[-1] + 1) / 2 for values in (y_true, y_pred))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    rho = np.divide((a * b).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0)
    return float(rho) if rho.ndim == 0 else rho


def ranks(values) -> np.ndarray:
    """Rank of each value, 1 the smallest; equal values share the mean of theirs: [..., N] -> float. Notebook 08."""
    from scipy.stats import rankdata

    return rankdata(values, axis=-1)


def mean_spearman(y_true, y_pred) -> float:
    """Mean over the axes of Spearman's rho, from arrays [..., N, A] (or [N]). The competition's score. Notebook 08."""
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim == 1:
        return spearman(y_true, y_pred)
    means = np.mean(spearman(y_true.swapaxes(-1, -2), y_pred.swapaxes(-1, -2)), axis=-1)
    return float(means) if means.ndim == 0 else means


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


def over_seeds(metric, y_true, y_pred) -> float:
    """Mean of `metric` over the first axis of `y_pred`, one row per seed. Notebook 06."""
    return float(np.mean([metric(y_true, row) for row in y_pred]))


def bootstrap(metric, y_true, y_pred, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """A metric with its 95 % percentile bootstrap interval (Efron, 1979). Notebook 06.

    Parameters
    ----------
    metric : function (y_true, y_pred) -> float.
    y_true : [N] or [N, A].   y_pred : [S, N] or [S, N, A] for S seeds, or as y_true for one.

    Returns
    -------
    Estimate : the mean over seeds; clips are drawn with replacement, seeds likewise where there are several, so the
        interval covers the luck of the test clips and of the training seed.
    """
    y_true, y_pred = _with_seeds(y_true, y_pred)
    rng = np.random.default_rng(seed)
    clips, seeds = map(np.stack, zip(*(_draw(rng, y_pred) for _ in range(num_resamples))))
    low, high = np.quantile(_drawn(metric, y_true, y_pred, clips, seeds), [0.025, 0.975])
    return Estimate(over_seeds(metric, y_true, y_pred), float(low), float(high), len(y_true), len(y_pred))


def paired_difference(metric, y_true, y_pred_a, y_pred_b, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0):
    """Difference metric(b) - metric(a) on the same clips, its 95 % interval and a p-value. Notebook 06.

    Returns
    -------
    Estimate : the difference, with the interval of a bootstrap that draws the same clips for both models.
    p_value : two-sided, of a permutation test that swaps the two models' predictions clip by clip (all seeds of
        a clip together); the smallest possible value is 1 / (num_resamples + 1).
    """
    y_true, a = _with_seeds(y_true, y_pred_a)
    _, b = _with_seeds(y_true, y_pred_b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} seeds against {len(b)}: compare models trained with the same number of seeds")
    rng = np.random.default_rng(seed)
    observed = over_seeds(metric, y_true, b) - over_seeds(metric, y_true, a)
    luck = [(*_draw(rng, a), rng.random(len(y_true)) < 0.5) for _ in range(num_resamples)]
    clips, seeds, swap = map(np.stack, zip(*luck))
    draws = _drawn(metric, y_true, b, clips, seeds) - _drawn(metric, y_true, a, clips, seeds)
    swap = swap.reshape(*swap.shape, *[1] * (a.ndim - 2))  # [R, N] or [R, N, 1]
    after, before = np.where(swap, a[:, None], b[:, None]), np.where(swap, b[:, None], a[:, None])  # [S, R, N, ...]
    null = _rows(metric, y_true[None], after) - _rows(metric, y_true[None], before)
    low, high = np.quantile(draws, [0.025, 0.975])
    p_value = (1 + np.sum(np.abs(null) >= abs(observed) - 1e-12)) / (num_resamples + 1)
    return Estimate(float(observed), float(low), float(high), len(y_true), len(a)), float(p_value)


def median_difference(a, b, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """Median of `b` minus median of `a`, two groups of different clips, with its 95 % interval. Notebook 01.

    The bootstrap draws the clips of each group with replacement.
    """
    a, b = np.asarray(a), np.asarray(b)
    rng = np.random.default_rng(seed)
    draws = [np.median(rng.choice(x, (num_resamples, len(x))), axis=1) for x in (a, b)]
    low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
    return Estimate(float(np.median(b) - np.median(a)), float(low), float(high), len(a) + len(b))


def neighbour_purity(points, labels, k: int) -> np.ndarray:
    """Share of each point's k nearest neighbours that have its label: [N, D], [N] -> [N]. Notebook 10.

    A point is not its own neighbour.
    """
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    return (np.asarray(labels)[neighbours] == np.asarray(labels)[:, None]).mean(axis=1)


def _with_seeds(y_true, y_pred) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    return y_true, y_pred if y_pred.ndim > y_true.ndim else y_pred[None]


def _draw(rng, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips and seeds of one bootstrap resample."""
    num_seeds, num_clips = y_pred.shape[:2]
    return rng.integers(0, num_clips, num_clips), rng.integers(0, num_seeds, num_seeds)


def _drawn(metric, y_true, y_pred, clips, seeds) -> np.ndarray:
    """The metric of each resample [R], mean over its seeds: clips [R, N] and seeds [R, S] index y_pred [S, N, ...]."""
    return _rows(metric, y_true[clips], y_pred[seeds.T[..., None], clips])


def _rows(metric, y_true, y_pred) -> np.ndarray:
    """The metric of each resample [R], mean over seeds: truth [R, N, ...] or [1, N, ...], predictions [S, R, N, ...].

    Rank correlations take the stacks at once, and rank the truth once for all seeds.
    """
    if metric is mean_spearman and y_true.ndim == 2:
        metric = spearman
    if metric in (spearman, mean_spearman):
        return metric(y_true, y_pred).mean(axis=0)
    truth = np.broadcast_to(y_true, y_pred.shape[1 : 1 + y_true.ndim])
    return np.mean([[metric(*pair) for pair in zip(truth, one)] for one in y_pred], axis=0)
