"""Recipes: which clips a model sees, for how long, and how recipes are compared without test clips."""

import dataclasses

import numpy as np
import pytest
import torch

from labutils import data, recipes, training
from labutils.recipes import Experiment

SMALL = {"channels": (4, 4), "statistics": False}


def test_deal_gives_equal_folds_with_the_same_mix():
    labels = np.repeat([0, 1, 2], [20, 11, 6])
    fold_of = data.deal(labels, 5, seed=3)
    assert sorted(np.bincount(fold_of)) == [7, 7, 7, 8, 8]
    for label, count in enumerate((20, 11, 6)):
        shares = np.bincount(fold_of[labels == label], minlength=5)
        assert shares.max() - shares.min() <= 1 and shares.sum() == count
    assert not np.array_equal(fold_of, data.deal(labels, 5, seed=4))
    values = np.linspace(0, 1, 50)
    folds = data.deal(values, 5)
    assert all(abs(values[folds == fold].mean() - 0.5) < 0.15 for fold in range(5))


def test_joined_clips_are_those_of_both_parts_in_order(layout):
    splits = Experiment(root=layout).genre_splits()
    both = splits.train.joined(splits.val)
    assert both.ids == splits.train.ids + splits.val.ids and len(both) == 24
    assert np.array_equal(both.labels, np.append(splits.train.labels, splits.val.labels))
    assert np.array_equal(both.frames(len(splits.train)), splits.val.frames(0))
    table = Experiment(root=layout).affect_splits()
    assert table.train.joined(table.val).labels.shape == (19, 2)


def test_refit_trains_on_all_clips_for_the_epochs_that_were_good(layout, monkeypatch):
    calls = []

    def spy(name, model, train_set, val_set, settings, **options):
        fitted = training.fit_or_load(name, model, train_set, val_set, settings, **options)
        calls.append((len(train_set), settings))
        return fitted

    monkeypatch.setattr(recipes, "fit_or_load", spy)
    first = Experiment(root=layout).genre("cnn", num_epochs=4, **SMALL)
    final = Experiment(root=layout).genre("cnn", num_epochs=4, refit=True, **SMALL)
    clips, (alone, watched, again) = [n for n, _ in calls], [settings for _, settings in calls]
    assert clips == [21, 21, 24] and watched == alone and not watched.refit
    assert again.monitor == "last" and again.num_epochs == first.best["epoch"]
    assert final.history == first.history  # the honest one: its validation clips were not trained on
    weights = [fitted.model.head.weight for fitted in (first, final)]
    assert not torch.equal(*weights)


def test_monitor_last_keeps_the_last_epoch_and_never_stops_early(layout):
    fitted = Experiment(root=layout).genre("cnn", num_epochs=6, monitor="last", patience=1, **SMALL)
    assert len(fitted.history) == 6 and fitted.best["epoch"] == 6


def test_epochs_follow_the_number_of_clips(layout):
    clips = Experiment(root=layout).genre_splits().train  # 21 clips: the recipe's own epochs are the limit
    ours = Experiment(root=layout)
    own = recipes.RECIPES["repaired", "cnn", "raw"][1].num_epochs
    assert ours.settings("cnn", clips).num_epochs == own
    many = clips.subset(np.tile(np.arange(21), 20))  # 420 clips
    assert ours.settings("cnn", many).num_epochs == -(-recipes.ENOUGH_CLIPS["genre"] // 420)
    assert ours.settings("cnn", many, num_epochs=3).num_epochs == 3
    assert ours.but(num_epochs=30).settings("cnn", many).num_epochs == 30
    assert ours.but(recipe="report").settings("cnn", many).num_epochs == 50
    affect = Experiment(root=layout).affect_splits().train
    assert ours.but(recipe="best").settings("cnn", affect).num_epochs == 2 * own


def test_changes_of_settings_and_of_the_backbone_are_told_apart(layout):
    fitted = Experiment(root=layout).genre("lstm", time="beat", num_epochs=1, hidden=8, lr=0.0)
    assert fitted.model.backbone.layers[0].forward_lstm.hidden_size == 8
    start = Experiment(root=layout).backbone("lstm", Experiment(root=layout).genre_splits(time="beat").train, hidden=8)
    moved = fitted.model.backbone.layers[0].forward_lstm.weight_hh_l0 - start.layers[0].forward_lstm.weight_hh_l0
    assert not moved.abs().max()
    with pytest.raises(TypeError, match="colour"):
        Experiment(root=layout).genre("lstm", num_epochs=1, colour="red")


def test_affect_models_have_no_statistics_and_see_coarser_frames(layout):
    ours = Experiment(root=layout)
    genre, affect = (ours.backbone("cnn", splits.train) for splits in (ours.genre_splits(), ours.affect_splits()))
    assert genre.statistics is not None and affect.statistics is None
    assert (genre.frames_per_step, affect.frames_per_step, affect.bands_per_step) == (4, 8, 4)


def test_an_experiment_is_frozen_and_its_seeds_follow_each_other(layout):
    ours = Experiment(root=layout, seed=3)
    assert [one.seed for one in ours.seeds(3)] == [3, 4, 5] and ours.seeds(1) == [ours]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.seed = 4
    with pytest.raises(data.DataError, match=r"recipe 'magic' is unknown; choose one of .*repaired"):
        ours.but(recipe="magic")


def test_a_model_fits_its_clips(layout):
    ours = Experiment(root=layout)
    kinds = [type(ours.model("cnn", clips)).__name__ for clips in (
        ours.genre_splits().train, ours.affect_splits("energy").train, ours.affect_splits().train)]  # fmt: skip
    assert kinds == ["Classifier", "Regressor", "MultitaskRegressor"]


@pytest.mark.parametrize("axis", [None, "energy"])
def test_cross_validation_predicts_every_clip_by_models_that_did_not_see_it(layout, axis, monkeypatch):
    seen = []

    def constant(name, model, train_set, val_set, settings, **options):
        assert settings.monitor == "last" and not set(train_set.ids) & set(val_set.ids)
        seen.append((set(train_set.ids), set(val_set.ids), settings.seed))
        return training.Fitted(model.eval(), None, [], 0.0)

    monkeypatch.setattr(recipes, "fit_or_load", constant)
    labels, outputs = Experiment(root=layout).cross_validate("cnn", axis=axis, num_folds=4, num_repeats=2, **SMALL)
    assert outputs.shape == ((2, 24, 3) if axis is None else (2, 24)) and len(labels) == 24
    assert np.isfinite(outputs).all() and len(seen) == 8 and len({seed for *_, seed in seen}) == 8
    for repeat in (seen[:4], seen[4:]):
        assert len(set.union(*(held_out for _, held_out, _ in repeat))) == 24
        assert all(len(held_out) == 6 and len(rest) == 18 for rest, held_out, _ in repeat)


def test_every_repaired_recipe_has_a_best_one_that_trains_on_all_clips():
    for (recipe, kind, time), (_, how) in list(recipes.RECIPES.items()):
        if recipe == "repaired":
            _, best = recipes.RECIPES["best", kind, time]
            assert best.refit and best.monitor == "last"
            assert dataclasses.replace(best, refit=False, monitor="loss", batch_size=how.batch_size) == how
