"""The models the notebooks train, by name, in one place: data, architecture and settings (notebooks 05-10).

Notebook 06 evaluates the models of 05, 09 starts from those of 07: all of them call the functions here, and the
cache of `training.fit_or_load` makes sure that the same call trains once.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from . import models
from .data import DataError, SpectrogramDataset, check_choice, deal, stratified_split, warn_shared_groups
from .training import Fitted, Settings, fit_or_load, freeze, predict

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
# the evidence. The statistics beside the vector help with genres and harm affect: `train_affect` leaves them out.
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
        dataclasses.replace(how, batch_size=16, monitor="last", refit=True),
    )
    for (recipe, kind, time), (options, how) in RECIPES.items()
    if recipe == "repaired"
}


class Splits(NamedTuple):
    """Data sets to train on, to stop on, and to report on. Notebook 04."""

    train: SpectrogramDataset
    val: SpectrogramDataset
    test: SpectrogramDataset


def genre_splits(root, *, feature="mel", time="raw", seed=0, class_mapping="auto") -> Splits:
    """Genre data: the training split in two by `seed`, and the data set's own test split. Notebook 04."""
    whole, test = (
        SpectrogramDataset(root, "genre", split, time=time, feature=feature, class_mapping=class_mapping)
        for split in ("train", "test")
    )
    if len(whole.classes) < 2:
        raise DataError(f"{root}: only one class ({whole.classes[0]}); add another genre or change class_mapping")
    warn_shared_groups(whole, test)
    first, second = stratified_split(whole.labels, VAL_FRACTION, seed, whole.groups)
    return Splits(whole.subset(first), whole.subset(second), test)


def affect_splits(root, *, feature="mel", time="raw", axis=None, seed=0, fraction=1.0, scarce=None) -> Splits:
    """Affect data: the labelled test split where there is one, else a quarter of the training split held out.

    Notebook 08. `axis`: one axis or None for all; `fraction`: share of the training clips to use (notebook 09), or,
    where `scarce` names an axis, share of them that keep their label of this axis: the others get NaN (notebook 10).
    The held-out quarter is the same for every seed, axis and feature, so that all models meet the same clips.

    Raises
    ------
    DataError : an axis that the data set does not have.
    """
    options = {"time": time, "feature": feature, "axis": axis}
    whole, test = (SpectrogramDataset(root, "affect", split, **options) for split in ("train", "test"))
    every_axis = SpectrogramDataset(root, "affect", "train", time=time).labels
    if test.labelled:
        warn_shared_groups(whole, test)
    else:
        rest, held_out = stratified_split(every_axis, TEST_FRACTION, groups=whole.groups)
        whole, test, every_axis = whole.subset(rest), whole.subset(held_out), every_axis[rest]
    first, second = stratified_split(every_axis, VAL_FRACTION, seed, whole.groups)
    train, val = whole.subset(first), whole.subset(second)
    if fraction < 1:
        rest, kept = stratified_split(every_axis[first], fraction, seed, train.groups)
        if scarce:
            column = train.axes.index(check_choice("scarce", scarce, train.axes))
            train.labels[rest, column] = np.nan  # a copy: `subset` takes rows
        else:
            train = train.subset(kept)
    return Splits(train, val, test)


def training_clips(splits: Splits, how: Settings) -> SpectrogramDataset:
    """The clips that the final model sees: with `refit` the validation clips too. Notebook 06."""
    return splits.train.joined(splits.val) if how.refit else splits.train


def make_backbone(kind: str, dataset: SpectrogramDataset, *, recipe="repaired", seed=0, **changes):
    """A backbone by name ("lstm", "cnn", "ast"), its weights drawn by `seed`; `changes` override its options.

    Notebook 05.
    """
    torch.manual_seed(seed)
    backbone = BACKBONES[kind](dataset.num_features, **{**_recipe(recipe, kind, dataset.time)[0], **changes})
    return backbone.to(memory_format=torch.channels_last)  # convolutions train 1.5 times as fast, nothing else changes


def settings(kind: str, time: str, *, recipe="repaired", seed=0, num_epochs=0, **changes) -> Settings:
    """The training settings of a recipe; `num_epochs` 0 keeps the recipe's own. Notebook 05."""
    if num_epochs:
        changes["num_epochs"] = num_epochs
    return dataclasses.replace(_recipe(recipe, kind, time)[1], seed=seed, **changes)


def settings_for(kind: str, train_set: SpectrogramDataset, *, recipe="repaired", num_epochs=0, **changes) -> Settings:
    """The settings of a recipe for this many clips: what `train_genre` and `train_affect` use. Notebook 08.

    `num_epochs` 0: the recipe's own, for affect twice as many with "best"; less where a "repaired" model then sees
    `ENOUGH_CLIPS` clips.
    """
    how = settings(kind, train_set.time, recipe=recipe, num_epochs=num_epochs, **changes)
    if num_epochs or "num_epochs" in changes or recipe == "report":
        return how
    if recipe == "best":
        return dataclasses.replace(how, num_epochs=how.num_epochs * (2 if train_set.task == "affect" else 1))
    enough = max(MIN_EPOCHS, -(-ENOUGH_CLIPS[train_set.task] // len(train_set)))
    return dataclasses.replace(how, num_epochs=min(how.num_epochs, enough))


def train_genre(root, kind: str, *, feature="mel", time="raw", recipe="repaired", seed=0, num_epochs=0,
                class_mapping="auto", device="cpu", **changes) -> Fitted:  # fmt: skip
    """A genre classifier, trained or from the cache. Notebooks 05 and 07.

    `changes` override options of the backbone, such as hidden=32 or pooling="last", or of the `Settings`, such as lr.
    """
    splits = genre_splits(root, feature=feature, time=time, seed=seed, class_mapping=class_mapping)
    trained, built = _apart(changes)
    how = settings_for(kind, splits.train, recipe=recipe, seed=seed, num_epochs=num_epochs, **trained)

    def make_model():
        backbone = make_backbone(kind, splits.train, recipe=recipe, seed=seed, **built)
        return models.Classifier(backbone, len(splits.train.classes)), None

    return _train(f"{kind}.{feature}_{time}", make_model, splits, how, device)


def affect_options(recipe: str, kind: str, time: str, start=None) -> dict:
    """What affect models change in the backbone of a recipe. Notebook 08.

    They have no statistics, and repaired CNNs see coarser frames and bands, in a third of the time; those that start
    from a genre classifier `start` are built as it is.
    """
    if start is not None:
        same = ("frames_per_step", "bands_per_step") if kind == "cnn" else ("frames_per_step",)
        return {"statistics": start.backbone.statistics is not None} | {k: getattr(start.backbone, k) for k in same}
    coarse = {"frames_per_step": 8, "bands_per_step": 4} if (recipe, kind, time) == ("repaired", "cnn", "raw") else {}
    return {"statistics": False, **coarse}


def train_affect(root, kind: str, axis=None, *, feature="mel", time="raw", recipe="repaired", seed=0, num_epochs=0,
                 fraction=1.0, scarce=None, start=None, frozen=False, weights=None, device="cpu",
                 **changes) -> Fitted:  # fmt: skip
    """A regressor of one axis, or of all with a head each, trained or from the cache. Notebooks 08-10.

    Parameters
    ----------
    axis : axis name; None: all axes, with the `weights` [A] of their losses (default: all 1), or with "learned" ones.
    fraction, scarce : see `affect_splits`.   start : a genre classifier whose backbone to start from.
    frozen : keep the backbone as it is and train the head only.
    num_epochs : see `settings_for`.   changes : see `train_genre`.
    """
    splits = affect_splits(root, feature=feature, time=time, axis=axis, seed=seed, fraction=fraction, scarce=scarce)
    trained, built = _apart(changes)
    how = settings_for(kind, splits.train, recipe=recipe, seed=seed, num_epochs=num_epochs, **trained)
    built = affect_options(recipe, kind, time, start) | built

    def make_model():
        backbone = make_backbone(kind, splits.train, recipe=recipe, seed=seed, **built)
        if start is not None:
            backbone.load_state_dict(start.backbone.state_dict())
        if frozen:
            freeze(backbone)
        if axis is not None:
            return models.Regressor(backbone), None
        model = models.MultitaskRegressor(backbone, len(splits.train.axes))
        if isinstance(weights, str):
            check_choice("weights", weights, ("learned",))
            return model, models.UncertaintyLoss(np.nanvar(splits.train.labels, axis=0))
        return model, models.MultitaskLoss(weights or [1.0] * len(splits.train.axes))

    return _train(f"{kind}.{axis or 'multitask'}", make_model, splits, how, device)


def _apart(changes: dict) -> tuple[dict, dict]:
    """Changes of the settings and changes of the backbone's options, told apart by their names."""
    ours = {field.name for field in dataclasses.fields(Settings)}
    return {k: v for k, v in changes.items() if k in ours}, {k: v for k, v in changes.items() if k not in ours}


def _train(name: str, make_model, splits: Splits, how: Settings, device) -> Fitted:
    """Fit on the training part, watched on the validation part; then, with `refit`, once more on both together.

    The second model is trained for as many epochs as were good for the first one; the history is the first one's.
    """
    first = dataclasses.replace(how, refit=False)
    model, loss = make_model()
    fitted = fit_or_load(name, model, splits.train, splits.val, first, loss_function=loss, device=device)
    if not how.refit:
        return fitted
    again = dataclasses.replace(how, monitor="last", num_epochs=fitted.best["epoch"])
    model, loss = make_model()
    clips = training_clips(splits, how)
    final = fit_or_load(name, model, clips, splits.val, again, loss_function=loss, device=device)
    seconds = fitted.seconds + final.seconds
    loaded = fitted.loaded and final.loaded
    return dataclasses.replace(fitted, model=final.model, loss=final.loss, seconds=seconds, loaded=loaded)


def cross_validate(root, kind: str, *, axis=None, feature="mel", time="raw", recipe="repaired", seed=0, num_epochs=0,
                   num_folds=5, num_repeats=2, class_mapping="auto", device="cpu", **changes):  # fmt: skip
    """Predictions of the training clips by models that did not train on them: repeated k-fold cross-validation.

    Notebook 05. The way to compare recipes: it uses every training clip and no test clip. In each repeat the clips
    are dealt into `num_folds` parts of the same mix of labels, and each part is predicted by a model trained on the
    rest, to its last epoch. `changes`: see `train_genre`.

    Returns
    -------
    labels : [N].   predictions : one row per repeat, logits [R, N, C] or values [R, N].
    """
    task = "genre" if axis is None else "affect"
    options = {"time": time, "feature": feature, "axis": axis, "class_mapping": class_mapping}
    clips = SpectrogramDataset(root, task, **options)
    trained, built = _apart(changes)
    if axis is not None:
        built = affect_options(recipe, kind, time) | built
    repeats = []
    for repeat in range(num_repeats):
        fold_of = deal(clips.labels, num_folds, seed + repeat, clips.groups)
        outputs = {}  # by clip
        for fold in range(num_folds):
            rest, held_out = (np.flatnonzero(part) for part in (fold_of != fold, fold_of == fold))
            train, test = clips.subset(rest), clips.subset(held_out)
            number = seed + repeat * num_folds + fold
            how = settings_for(kind, train, recipe=recipe, seed=number, num_epochs=num_epochs, **trained)
            how = dataclasses.replace(how, monitor="last", refit=False)
            backbone = make_backbone(kind, train, recipe=recipe, seed=number, **built)
            model = models.Regressor(backbone) if axis else models.Classifier(backbone, len(clips.classes))
            model = fit_or_load(f"{kind}.fold", model, train, test, how, device=device).model
            outputs |= zip(held_out, predict(model, test, device=device))
        repeats.append([outputs[i] for i in range(len(clips))])
    return clips.labels, np.array(repeats, np.float32)


def solve_head(model: models.Regressor, dataset: SpectrogramDataset, *, device="cpu") -> models.Regressor:
    """Give a regressor the best linear head for its backbone as it is, and return it. Notebook 09.

    Ridge regression (Hoerl and Kennard, 1970) of the labels [N] on the backbone's outputs [N, D] in evaluation mode,
    standardised; the penalty is chosen by leave-one-out error on the same clips. The backbone does not change.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    outputs = predict(model.backbone, dataset, device=device)
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
        raise ValueError(f"there is no recipe {recipe!r} for {kind!r} on {time!r} data; there are: {valid}")
    return RECIPES[recipe, kind, time]
