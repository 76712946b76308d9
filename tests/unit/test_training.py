"""The training loop, prediction and the cache of models: notebooks 05, 07 to 10."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from labutils import evaluation, models, recipes, training
from labutils.data import DataError, SpectrogramDataset
from labutils.recipes import Experiment
from labutils.training import Settings

FAST = Settings(num_epochs=4, batch_size=8, lr=1e-2)


def classifier(seed=0, **options):
    torch.manual_seed(seed)
    return models.Classifier(models.LSTMBackbone(128, 8, **options), 3)


@pytest.fixture
def sets(layout):
    return Experiment(root=layout).genre_splits()


def test_fit_learns_and_keeps_the_best_epoch(sets):
    model = classifier()
    history = training.fit(model, sets.train, sets.val, Settings(num_epochs=12, batch_size=8, lr=1e-2))
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]
    best = max(history, key=lambda row: row["val_score"])
    loss, _ = training.validate(model, sets.val, nn.CrossEntropyLoss())
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)
    assert (training.predict(model, sets.test).argmax(axis=1) == sets.test.labels).mean() > 0.8


def test_same_seed_same_bits_other_seed_other_weights(sets):
    weights = []
    for seed in (0, 0, 1):
        model = classifier()
        training.fit(model, sets.train, sets.val, Settings(num_epochs=2, batch_size=8, seed=seed))
        weights.append(model.head.weight.detach().numpy())
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


def test_the_epoch_loss_is_a_mean_over_clips_not_over_batches(layout):
    clips = SpectrogramDataset(layout).subset(np.arange(9))  # batches of 8 and 1
    model = classifier(dropout=0.0)
    training.fit_normalisation(model, clips)
    expected, _ = training.validate(model, clips, nn.CrossEntropyLoss())
    history = training.fit(model, clips, clips, Settings(num_epochs=1, batch_size=8, lr=1e-12, weight_decay=0))
    assert history[0]["train_loss"] == pytest.approx(expected, rel=1e-4)


def test_early_stopping_stops_after_patience_and_keeps_the_best_epoch(sets, monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.9])  # an equal score is no better one: the second epoch is the best
    monkeypatch.setattr(training, "validate", lambda *_: (1.0, next(scores)))
    kept = []
    monkeypatch.setattr(training, "train_mode", lambda model: kept.append(model.head.weight.detach().clone()))
    model = classifier()
    history = training.fit(model, sets.train, sets.val, Settings(num_epochs=50, patience=2, batch_size=8))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert torch.equal(model.head.weight, kept[2])  # as it was before the third epoch


def test_the_monitored_score_is_that_of_the_weights(layout):
    clips, loss = Experiment(root=layout).genre_splits().val, nn.CrossEntropyLoss()
    model = classifier()
    training.fit_normalisation(model, clips)
    said = training.predict(model, clips).argmax(axis=1)
    assert training.validate(model, clips, loss, "macro_f1")[1] == evaluation.macro_f1(clips.labels, said)
    value, score = training.validate(model, clips, loss)
    assert score == -value
    clips = Experiment(root=layout).affect_splits().val
    model = models.MultitaskRegressor(models.LSTMBackbone(128, 8), 2)
    expected = evaluation.mean_spearman(clips.labels, training.predict(model, clips))
    assert training.validate(model, clips, nn.MSELoss(), "spearman")[1] == expected


@pytest.mark.parametrize(
    ("option", "valid"),
    [("optimizer", "adamw, adam"), ("schedule", "one_cycle, halving"), ("monitor", "loss, last, macro_f1, spearman")],
)
def test_a_mistyped_option_names_the_valid_ones(option, valid):
    with pytest.raises(DataError, match=f"{option} 'cosine' is unknown; choose one of {valid}"):
        Settings(**{option: "cosine"})


def test_a_loss_that_is_not_finite_is_an_error(sets):
    model = classifier()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite in epoch 1"):
        training.fit(model, sets.train, sets.val, FAST)


def test_overfit_batch_reaches_zero_and_a_planted_bug_does_not(sets):
    settings = Settings(batch_size=6, lr=1e-2)
    assert training.overfit_batch(classifier(), sets.train, settings, num_steps=120)[-3:].max() < 0.05

    class Detached(models.Classifier):
        def forward(self, x, lengths):
            return self.head(self.backbone(x, lengths).detach() * 0)

    torch.manual_seed(0)
    broken = Detached(models.LSTMBackbone(128, 8), 3)
    assert training.overfit_batch(broken, sets.train, settings, num_steps=120)[-3:].min() > 0.5


def test_predict_is_in_order_in_evaluation_mode_and_leaves_no_gradient(sets):
    model = classifier(dropout=0.9)
    whole = training.predict(model, sets.test, batch_size=5)
    again = training.predict(model, sets.test, batch_size=24)
    alone = np.concatenate([training.predict(model, sets.test.subset(np.array([i]))) for i in range(len(sets.test))])
    assert np.allclose(whole, again, atol=1e-5) and np.allclose(whole, alone, atol=1e-5) and not model.training


@pytest.mark.parametrize("statistics", [False, True])
def test_a_frozen_backbone_does_not_move_not_even_its_batch_norm(layout, statistics):
    model = models.Regressor(models.CNNBackbone(128, (4, 4), statistics=statistics))
    splits = Experiment(root=layout).affect_splits(axis="energy")
    training.fit_normalisation(model, splits.train)
    training.freeze(model.backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.fit(model, splits.train, splits.val, FAST)
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert moved and all(name.startswith("head") for name in moved)


def test_fit_or_load_trains_once_and_gives_the_same_model(sets):
    first = training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    second = training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    assert not first.loaded and second.loaded and second.history == first.history
    assert np.array_equal(training.predict(first.model, sets.test), training.predict(second.model, sets.test))
    assert second.best["val_score"] == max(row["val_score"] for row in second.history)


@pytest.mark.parametrize("what", ["settings", "weights", "architecture", "data", "frozen"])
def test_a_change_of_anything_trains_again(sets, what):
    training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    model, settings, train = classifier(), FAST, sets.train
    if what == "settings":
        settings = Settings(num_epochs=3, batch_size=8)
    elif what == "weights":
        model = classifier(seed=1)
    elif what == "architecture":
        model = classifier(frames_per_step=2)
    elif what == "data":
        train = train.subset(np.arange(len(train) - 1))
    else:
        training.freeze(model.backbone)
    assert not training.fit_or_load("x", model, train, sets.val, settings).loaded


@pytest.mark.parametrize("module", ["models", "training", "data", "store", "evaluation"])
def test_a_change_of_any_source_that_can_change_the_weights_trains_again(sets, module, monkeypatch, tmp_path):
    def key():
        return training._key(classifier(), sets.train, sets.val, FAST, nn.CrossEntropyLoss())

    before = key()
    source = importlib.import_module(f"labutils.{module}")
    (tmp_path / "changed.py").write_text(Path(source.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(source, "__file__", str(tmp_path / "changed.py"))
    assert key() != before


def test_a_damaged_checkpoint_is_trained_again_with_a_warning(sets):
    training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    (path,) = (training.home() / "models").glob("x-*.pt")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        assert not training.fit_or_load("x", classifier(), sets.train, sets.val, FAST).loaded


def test_no_checkpoint_can_execute_code(sets, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    (path,) = (training.home() / "models").glob("x-*.pt")
    torch.save({"weights": Payload()}, path)
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        training.fit_or_load("x", classifier(), sets.train, sets.val, FAST)
    assert not (tmp_path / "executed").exists()


def test_affect_splits_hold_out_the_same_clips_for_every_seed_and_axis(layout):
    one = Experiment(root=layout).affect_splits("energy")
    two = Experiment(root=layout, seed=5).affect_splits("valence", feature="fused")
    assert one.test.ids == two.test.ids and len(one.test) == 5 and one.train.ids != two.train.ids
    for splits in (one, two):
        assert not set(splits.test.ids) & {*splits.train.ids, *splits.val.ids}
    half = Experiment(root=layout).affect_splits(axis="energy", fraction=0.5)
    assert set(half.train.ids) < set(one.train.ids) and half.val.ids == one.val.ids


def test_a_solved_head_is_the_best_linear_one_and_leaves_the_backbone_alone(layout):
    train = Experiment(root=layout).affect_splits(axis="energy").train
    model = Experiment(root=layout).model("cnn", train)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    recipes.solve_head(model, train)
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    error = ((training.predict(model, train) - train.labels) ** 2).mean()
    assert error <= train.labels.var() + 1e-6  # the mean of the labels is a linear head, too


def test_multitask_trains_all_axes(layout):
    fitted = Experiment(root=layout).affect("lstm", time="beat", num_epochs=2, weights=[1.0, 2.0])
    test = Experiment(root=layout).affect_splits(time="beat").test
    assert training.predict(fitted.model, test).shape == (5, 2)


def test_learned_weights_move_and_come_back_from_the_cache(layout):
    trained, loaded = (Experiment(root=layout).affect("cnn", weights="learned", num_epochs=2) for _ in range(2))
    labels = Experiment(root=layout).affect_splits().train.labels
    moved = trained.loss.variances.detach()
    assert moved.shape == (2,) and not np.allclose(moved, labels.var(axis=0), rtol=1e-2)
    assert loaded.loaded and torch.equal(loaded.loss.variances, moved)


def test_a_scarce_axis_keeps_a_share_of_its_labels_and_the_others_keep_all(layout):
    whole, scarce = (Experiment(root=layout).affect_splits(fraction=fraction) for fraction in (1.0, {"energy": 0.3}))
    few = Experiment(root=layout).affect_splits("energy", fraction={"energy": 0.3})
    known = ~np.isnan(scarce.train.labels)
    assert scarce.train.ids == whole.train.ids and known[:, 0].all() and 0 < known[:, 1].sum() < len(known) / 2
    assert few.train.ids == Experiment(root=layout).affect_splits("energy", fraction=0.3).train.ids
    assert few.train.ids == [clip for clip, there in zip(scarce.train.ids, known[:, 1]) if there]
    assert np.array_equal(scarce.train.labels[known], whole.train.labels[known])
    assert not np.isnan(scarce.val.labels).any() and not np.isnan(scarce.test.labels).any()
    history = Experiment(root=layout).affect("cnn", fraction={"energy": 0.3}, num_epochs=1).history
    assert np.isfinite(history[0]["val_loss"])


def test_one_class_only_is_an_error_that_says_so(tmp_path):
    from conftest import write_layout

    from labutils.data import DataError

    root = write_layout(tmp_path / "x", genres=("Rock",))
    with pytest.raises(DataError, match=r"only one class \(Rock\)"):
        Experiment(root=root).genre_splits()


def test_a_split_without_test_data_is_an_error_that_names_it(layout):
    import shutil

    from labutils.data import DataError

    shutil.rmtree(layout / "fma_genre_spectrograms" / "test")
    with pytest.raises(DataError, match="test: folder not found"):
        Experiment(root=layout).genre_splits()


def test_an_unknown_recipe_lists_the_valid_ones(layout):
    with pytest.raises(DataError, match="repaired"):
        Experiment(root=layout, recipe="magic")
    with pytest.raises(DataError, match="repaired lstm raw"):
        Experiment(root=layout, recipe="report").genre("ast")
