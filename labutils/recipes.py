"""The models the notebooks train, by name, in one place: data, architecture and settings (notebooks 05-10).

Notebook 06 evaluates the models of 05, 09 starts from those of 07: all of them ask an `Experiment`, and the cache of
`training.fit_or_load` makes sure that the same call trains once.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from . import models
from .data import DataError, SpectrogramDataset, check_choice, deal, stratified_split, warn_shared_groups
from .training import Fitted, Settings, fit_or_load, predict

VAL_FRACTION = 0.15  # of the training split, for early stopping; another seed, another part
TEST_FRACTION = 0.25  # of the affect training split, where the test split has no labels; the same for all seeds
# Clips that a repaired model sees in training, epochs times clips; with 2,000 danceability suffered.
ENOUGH_CLIPS = {"genre": 4000, "affect": 3000}
MIN_EPOCHS = 6
BACKBONES = {"lstm": models.LSTMBackbone, "cnn": models.CNNBackbone, "ast": models.ASTBackbone}
LSTM = {"hidden": 64, "statistics": True}
CNN = {"channels": (16, 32, 64), "bands_per_step": 2, "statistics": True}
AST = {"width": 48, "dropout": 0.3, "statistics": True}
PLAIN = {"normalise": False, "dropout": 0.0}  # as in the report
REPORT = Settings(num_epochs=50, lr=1e-3, weight_decay=1e-2, optimizer="adam", schedule="halving", grad_clip=0.0)
# Architecture and settings by (recipe, model, time axis): "repaired" is ours in a few seconds a model, "best" takes
# some times as long and in the end trains on the validation clips too, "report" is the report's. docs/ablation.md has
# the evidence. The statistics beside the vector help with genres and harm affect: `Experiment.backbone` leaves them
# out there.
RECIPES = {
    ("repaired", "lstm", "raw"): (LSTM | {"frames_per_step": 8}, Settings(num_epochs=20, lr=4e-3)),
    ("repaired", "lstm", "beat"): (LSTM, Settings(num_epochs=20, lr=4e-3)),
    ("repaired", "cnn", "raw"): (CNN | {"frames_per_step": 4}, Settings(num_epochs=24, batch_size=16, lr=4e-3)),
    ("repaired", "cnn", "beat"): (CNN, Settings(num_epochs=24, batch_size=16, lr=4e-3)),
    ("repaired", "ast", "raw"): (AST | {"patch_frames": 8}, Settings(num_epochs=20, batch_size=16, lr=2e-3)),
    ("repaired", "ast", "beat"): (AST | {"patch_frames": 1}, Settings(num_epochs=20, lr=2e-3)),
    ("report", "lstm", "raw"): (
        PLAIN | {"hidden": 512, "pooling": "last_index"},
        dataclasses.replace(REPORT, batch_size=128),
    ),
    ("report", "lstm", "beat"): (
        PLAIN | {"hidden": 256, "pooling": "last_index"},
        dataclasses.replace(REPORT, batch_size=512),
    ),
    ("report", "cnn", "raw"): (
        PLAIN | {"channels": (4, 8, 12, 16), "padding": 0, "num_frames": 1293},
        dataclasses.replace(REPORT, batch_size=32, lr=1e-4, weight_decay=0.1),
    ),
}
FINER = {("lstm", "raw"): {"frames_per_step": 4}}
RECIPES |= {
    ("best", kind, time): (
        {**options, **FINER.get((kind, time), {})},
        dataclasses.replace(settings, batch_size=16, monitor="last", refit=True),
    )
    for (recipe, kind, time), (options, settings) in RECIPES.items()
    if recipe == "repaired"
}


class Splits(NamedTuple):
    """Data sets to train on, to stop on, and to report on. For `genre_splits`, `affect_splits`."""

    train: SpectrogramDataset
    val: SpectrogramDataset
    test: SpectrogramDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One data set, one recipe, one seed: what all models of a notebook share, and the calls that make them.

    Notebook 05. `session.experiment` is made of a notebook's parameters. The same call trains once: what it makes
    comes from the cache of `training.fit_or_load` from then on. In every call, `changes` override options of the
    backbone, such as hidden=32 or pooling="last", or of the `Settings`, such as lr or num_epochs.

    Raises
    ------
    DataError : a recipe or a class mapping that does not exist.
    """

    root: str | Path  # the data set
    recipe: str = "repaired"
    seed: int = 0  # of the train/validation split, the initial weights, shuffling and dropout
    num_epochs: int = 0  # of each model, at most; 0: the recipe's own
    class_mapping: str | dict = "auto"  # see `SpectrogramDataset`
    device: str = "cpu"

    def __post_init__(self):
        check_choice("recipe", self.recipe, {recipe for recipe, _, _ in RECIPES})

    def but(self, **changes) -> Experiment:
        """The same experiment with other fields. Notebook 05."""
        return dataclasses.replace(self, **changes)

    def seeds(self, count: int) -> list[Experiment]:
        """The same experiment `count` times, with the seeds seed, seed + 1, ... Notebook 05."""
        return [self.but(seed=self.seed + i) for i in range(count)]

    def genre_splits(self, *, feature="mel", time="raw") -> Splits:
        """Genre data: the training split in two by the seed, and the data set's own test split. Notebook 04.

        Raises
        ------
        DataError : the data set has one class only.
        """
        options = {"time": time, "feature": feature, "class_mapping": self.class_mapping}
        whole, test = (SpectrogramDataset(self.root, "genre", split, **options) for split in ("train", "test"))
        if len(whole.classes) < 2:
            found = whole.classes[0]
            raise DataError(f"{self.root}: only one class ({found}); add another genre or change class_mapping")
        warn_shared_groups(whole, test)
        first, second = stratified_split(whole.labels, VAL_FRACTION, self.seed, whole.groups)
        return Splits(whole.subset(first), whole.subset(second), test)

    def affect_splits(self, axis=None, *, feature="mel", time="raw", fraction=1.0) -> Splits:
        """Affect data: the labelled test split where there is one, else a quarter of the training split held out.

        Notebook 08. The held-out quarter is the same for every seed, axis and feature: all models meet the same clips.

        Parameters
        ----------
        axis : one axis, or None for all.
        fraction : share in (0, 1] of the training clips that keep their labels (notebook 09), or {axis: share}: that
            keep the label of this axis, NaN without it (notebook 10). Clips without any label are left out.

        Raises
        ------
        DataError : an axis that the data set does not have.
        """
        options = {"time": time, "feature": feature, "axis": axis}
        whole, test = (SpectrogramDataset(self.root, "affect", split, **options) for split in ("train", "test"))
        every_axis = SpectrogramDataset(self.root, "affect", "train", time=time).labels
        if test.labelled:
            warn_shared_groups(whole, test)
        else:
            rest, held_out = stratified_split(every_axis, TEST_FRACTION, groups=whole.groups)
            whole, test, every_axis = whole.subset(rest), whole.subset(held_out), every_axis[rest]
        first, second = stratified_split(every_axis, VAL_FRACTION, self.seed, whole.groups)
        train, val = whole.subset(first), whole.subset(second)
        shares = fraction if isinstance(fraction, dict) else dict.fromkeys(train.axes, fraction)
        labels = train.labels.reshape(len(train), -1)  # a view of a copy: `subset` takes rows
        for name, share in shares.items():
            if share < 1:
                rest, _ = stratified_split(every_axis[first], share, self.seed, train.groups)
                labels[rest, train.axes.index(check_choice("axis", name, train.axes))] = np.nan
        return Splits(train.subset(np.flatnonzero(~np.isnan(labels).all(axis=1))), val, test)

    def backbone(self, kind: str, clips: SpectrogramDataset, **changes):
        """A backbone for these clips by name ("lstm", "cnn", "ast"), its weights drawn by the seed. Notebook 05.

        For affect it has no statistics beside its vector, and repaired CNNs see coarser frames and bands, in a third
        of the time (notebook 08).
        """
        options = _recipe(self.recipe, kind, clips.time)[0]
        if clips.task == "affect":
            coarse = (self.recipe, kind, clips.time) == ("repaired", "cnn", "raw")
            options = options | {"statistics": False} | ({"frames_per_step": 8, "bands_per_step": 4} if coarse else {})
        torch.manual_seed(self.seed)
        backbone = BACKBONES[kind](clips.num_features, **{**options, **changes})
        # convolutions train 1.5 times as fast in this order of memory; nothing else changes
        return backbone.to(self.device, memory_format=torch.channels_last)

    def model(self, kind: str, clips: SpectrogramDataset, **changes):
        """An untrained model for these clips: a classifier, or a regressor of one axis or of all. Notebook 05."""
        backbone = self.backbone(kind, clips, **changes)
        if clips.task == "genre":
            model = models.Classifier(backbone, len(clips.classes))
        elif clips.labels.ndim == 1:
            model = models.Regressor(backbone)
        else:
            model = models.MultitaskRegressor(backbone, len(clips.axes))
        return model.to(self.device)

    def settings(self, kind: str, clips: SpectrogramDataset, **changes) -> Settings:
        """How a model of this kind is trained on these clips. Notebook 05.

        Where neither the experiment nor `changes` say how many epochs: the recipe's own, for affect twice as many
        with "best"; less where a "repaired" model then sees `ENOUGH_CLIPS` clips.
        """
        own = _recipe(self.recipe, kind, clips.time)[1]
        num_epochs = self.num_epochs or own.num_epochs
        if not self.num_epochs and self.recipe == "best" and clips.task == "affect":
            num_epochs = 2 * own.num_epochs
        if not self.num_epochs and self.recipe == "repaired":
            num_epochs = min(num_epochs, max(MIN_EPOCHS, -(-ENOUGH_CLIPS[clips.task] // len(clips))))
        return dataclasses.replace(own, **{"seed": self.seed, "num_epochs": num_epochs, **changes})

    def training_clips(self, kind: str, splits: Splits) -> SpectrogramDataset:
        """The clips that a final model sees: where the recipe says `refit`, the validation clips too. Notebook 06."""
        return splits.train.joined(splits.val) if self.settings(kind, splits.train).refit else splits.train

    def genre(self, kind: str, *, feature="mel", time="raw", **changes) -> Fitted:
        """A genre classifier, trained or from the cache. Notebooks 05 and 07."""
        splits = self.genre_splits(feature=feature, time=time)
        return self._train(f"{kind}.{feature}_{time}", kind, splits, changes)

    def affect(self, kind: str, axis=None, *, feature="mel", time="raw", fraction=1.0, weights=None,
               **changes) -> Fitted:  # fmt: skip
        """A regressor of one axis, or of all with a head each, trained or from the cache. Notebooks 08 and 10.

        `axis`, `fraction`: see `affect_splits`. `weights`: of the axes' losses [A], default all 1, or "learned".
        """
        splits = self.affect_splits(axis, feature=feature, time=time, fraction=fraction)
        loss = nn.MSELoss
        if isinstance(weights, str):
            check_choice("weights", weights, ("learned",))
            loss = partial(models.UncertaintyLoss, np.nanvar(splits.train.labels, axis=0))
        elif axis is None:
            loss = partial(models.MultitaskLoss, weights or [1.0] * len(splits.train.axes))
        return self._train(f"{kind}.{axis or 'multitask'}", kind, splits, changes, loss)

    def _train(self, name: str, kind: str, splits: Splits, changes: dict, loss=nn.CrossEntropyLoss) -> Fitted:
        """Fit on the training part, watched on the validation part; then, with `refit`, once more on both together.

        The second model is trained for as many epochs as were good for the first one; the history is the first one's.
        """
        trained, built = _sort(changes)
        settings = self.settings(kind, splits.train, **trained)

        def fit(clips, **options):
            model, changed = self.model(kind, splits.train, **built), dataclasses.replace(settings, **options)
            return fit_or_load(name, model, clips, splits.val, changed, loss_function=loss())

        fitted = fit(splits.train, refit=False)
        if not settings.refit:
            return fitted
        final = fit(splits.train.joined(splits.val), monitor="last", num_epochs=fitted.best["epoch"])
        seconds, loaded = fitted.seconds + final.seconds, fitted.loaded and final.loaded
        return dataclasses.replace(final, history=fitted.history, seconds=seconds, loaded=loaded)

    def cross_validate(self, kind: str, *, axis=None, feature="mel", time="raw", num_folds=5, num_repeats=2,
                       **changes):  # fmt: skip
        """Predictions of the training clips by models that did not train on them: repeated k-fold cross-validation.

        Notebook 05. The way to compare recipes: it uses every training clip and no test clip. In each repeat the clips
        are dealt into `num_folds` parts of the same mix of labels, and each part is predicted by a model trained on
        the rest, to its last epoch.

        Returns
        -------
        labels : [N].   predictions : one row per repeat, logits [R, N, C] or values [R, N].
        """
        task = "genre" if axis is None else "affect"
        options = {"time": time, "feature": feature, "axis": axis, "class_mapping": self.class_mapping}
        clips = SpectrogramDataset(self.root, task, **options)
        trained, built = _sort(changes | {"monitor": "last", "refit": False})
        repeats = []
        for repeat in range(num_repeats):
            fold_of = deal(clips.labels, num_folds, self.seed + repeat, clips.groups)
            outputs = {}  # by clip
            for fold in range(num_folds):
                one = self.but(seed=self.seed + repeat * num_folds + fold)
                rest, held_out = (np.flatnonzero(part) for part in (fold_of != fold, fold_of == fold))
                train, test = clips.subset(rest), clips.subset(held_out)
                model = one.model(kind, train, **built)
                model = fit_or_load(f"{kind}.fold", model, train, test, one.settings(kind, train, **trained)).model
                outputs |= zip(held_out, predict(model, test))
            repeats.append([outputs[i] for i in range(len(clips))])
        return clips.labels, np.array(repeats, np.float32)


def solve_head(model: models.Regressor, dataset: SpectrogramDataset) -> models.Regressor:
    """Give a regressor the best linear head for its backbone as it is, and return it. Notebook 09.

    Ridge regression (Hoerl and Kennard, 1970) of the labels [N] on the backbone's outputs [N, D] in evaluation mode,
    standardised; the penalty is chosen by leave-one-out error on the same clips. The backbone does not change.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    outputs = predict(model.backbone, dataset)
    scaler = StandardScaler().fit(outputs)
    ridge = RidgeCV(np.logspace(0, 5, 11)).fit(scaler.transform(outputs), dataset.labels)
    slopes = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(slopes[None]))
        model.head.bias.fill_(float(ridge.intercept_ - slopes @ scaler.mean_))
    return model


def _recipe(recipe: str, kind: str, time: str):
    if (recipe, kind, time) not in RECIPES:
        valid = "; ".join(" ".join(key) for key in RECIPES)
        raise DataError(f"there is no recipe {recipe!r} for {kind!r} on {time!r} data; there are: {valid}")
    return RECIPES[recipe, kind, time]


def _sort(changes: dict) -> tuple[dict, dict]:
    """Changes of the settings and changes of the backbone's options, told apart by their names."""
    ours = {field.name for field in dataclasses.fields(Settings)}
    return {k: v for k, v in changes.items() if k in ours}, {k: v for k, v in changes.items() if k not in ours}
