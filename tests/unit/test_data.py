"""Reading, packing, splitting and batching: notebook 04. Bad input names the file and the fix."""

import os
import warnings

import numpy as np
import pytest
import torch
from conftest import fused, write_layout

from labutils import data, store, training
from labutils.data import DataError, DataWarning, SpectrogramDataset

RAW, BEAT = "fma_genre_spectrograms", "fma_genre_spectrograms_beat"


@pytest.mark.parametrize(
    "name", ["123", "123.fused.full.npy.gz", "123.full.fused.npy.gz", "123.beatsync.fused.npy.gz", "123.fused.full.npy"]
)
def test_all_spellings_of_an_id(name):
    assert data.clip_id(name) == "123"


@pytest.mark.parametrize("time", ["raw", "beat"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_the_labs_layout(layout, time, split):
    clips = SpectrogramDataset(layout, "genre", split, time=time, feature="fused")
    assert len(clips) == 24 and clips.classes == ["Electronic", "Jazz", "Rock"]
    frames, label = clips[0]
    folder = layout / (RAW if time == "raw" else BEAT) / split
    assert np.array_equal(frames.numpy().T, np.load(folder / f"{clips.ids[0]}.fused.full.npy"))
    assert clips.classes[label] == "Rock" and label.dtype == torch.int64


@pytest.mark.parametrize(
    ("feature", "columns"), [("mel", slice(0, 128)), ("chroma", slice(128, 140)), ("fused", slice(0, 140))]
)
def test_features_are_columns_of_the_fused_array(layout, feature, columns):
    whole, part = (SpectrogramDataset(layout, feature=name) for name in ("fused", feature))
    assert np.array_equal(part.frames(3), whole.frames(3)[:, columns]) and part.num_features == part.frames(3).shape[1]


def test_affect_labels_and_the_unlabelled_test_split(layout):
    train, test = (SpectrogramDataset(layout, "affect", split) for split in ("train", "test"))
    assert train.axes == ["valence", "energy"] and train.labels.shape == (24, 2) and train.labelled
    assert not test.labelled and np.isnan(test.labels).all() and len(test) == 24
    one = SpectrogramDataset(layout, "affect", axis="energy")
    assert np.array_equal(one.labels, train.labels[:, 1]) and one[0][1].dtype == torch.float32


def test_a_labelled_affect_test_split_is_read(layout):
    rows = [f"{500 + i},0.5,0.25" for i in range(24)]
    (layout / "multitask_dataset" / "test_labels.txt").write_text("\n".join(["Id,valence,energy", *rows]))
    test = SpectrogramDataset(layout, "affect", "test")
    assert test.labelled and test.labels[0].tolist() == [0.5, 0.25]


def test_any_genres_and_axes(tmp_path):
    root = write_layout(tmp_path / "x", genres=("fado", "gnawa"), axes=("tension", "warmth", "awe", "calm"))
    assert SpectrogramDataset(root).classes == ["fado", "gnawa"]
    assert SpectrogramDataset(root, "affect").axes == ["tension", "warmth", "awe", "calm"]


def test_class_mapping(tmp_path):
    root = write_layout(tmp_path / "x", genres=("Psych-Rock", "Rock", "Old-Time", "Jazz"))
    assert SpectrogramDataset(root).classes == ["Jazz", "Rock"] and len(SpectrogramDataset(root)) == 24
    assert SpectrogramDataset(root, class_mapping="none").classes == ["Jazz", "Old-Time", "Psych-Rock", "Rock"]
    mapping = {"Psych-Rock": "loud", "Rock": "loud", "Old-Time": "quiet", "Jazz": None}
    assert SpectrogramDataset(root, class_mapping=mapping).classes == ["loud", "quiet"]


def test_an_unknown_genre_under_a_mapping_names_it_and_the_fix(tmp_path):
    root = write_layout(tmp_path / "x", genres=("Rock", "Gnawa"))
    with pytest.raises(DataError, match=r"'Gnawa' is not in the class mapping.*class_mapping to 'none'"):
        SpectrogramDataset(root, class_mapping="fma")
    assert SpectrogramDataset(root, class_mapping="auto").classes == ["Gnawa", "Rock"]


def test_read_only_folders(layout):
    for folder, _, _ in os.walk(layout):
        os.chmod(folder, 0o555)
    try:
        assert len(SpectrogramDataset(layout)) == 24
        assert not any(name.endswith(".lock") for _, _, files in os.walk(layout) for name in files)
    finally:
        for folder, _, _ in os.walk(layout):
            os.chmod(folder, 0o755)


# ---------------------------------------------------------------- packing


def test_packing_happens_once_and_again_when_a_file_changes(layout):
    first, packed = SpectrogramDataset(layout), store.home() / "stores"
    written = {path: os.stat(path).st_mtime_ns for path in packed.glob("*/frames.f32")}
    again = SpectrogramDataset(layout)
    assert {path: os.stat(path).st_mtime_ns for path in packed.glob("*/frames.f32")} == written
    assert again.fingerprint == first.fingerprint
    np.save(layout / RAW / "train" / "100.fused.full.npy", fused(np.random.default_rng(9), 33))
    changed = SpectrogramDataset(layout)
    assert changed.lengths[0] == 33 and changed.fingerprint != first.fingerprint


def test_the_fingerprint_depends_on_content_not_on_place(tmp_path):
    one, two = write_layout(tmp_path / "a"), write_layout(tmp_path / "b")
    assert SpectrogramDataset(one).fingerprint == SpectrogramDataset(two).fingerprint
    assert SpectrogramDataset(one).fingerprint != SpectrogramDataset(one, feature="chroma").fingerprint
    assert SpectrogramDataset(one).fingerprint != SpectrogramDataset(one).subset([0, 1]).fingerprint


def test_a_killed_packing_leaves_nothing_behind(layout, monkeypatch):
    def die(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        SpectrogramDataset(layout)
    monkeypatch.undo()
    os.environ["LABUTILS_HOME"] = str(layout.parent / "home")
    try:
        assert len(SpectrogramDataset(layout)) == 24
    finally:
        del os.environ["LABUTILS_HOME"]


BAD_ARRAYS = {
    "shape": (np.zeros((128, 30), np.float32), r"shape \(128, 30\), expected \(140, T\)"),
    "dimensions": (np.zeros(140, np.float32), "expected"),
    "type": (np.zeros((140, 30), np.int16), "type int16, expected float32"),
    "nan": (np.full((140, 30), np.nan, np.float32), "NaN"),
    "no frames": (np.zeros((140, 0), np.float32), "has no frames"),
    "pickled": (np.array([{"a": 1}], dtype=object), "pickled objects"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_array_is_left_out_with_a_counted_warning_that_names_it(layout, case):
    array, reason = BAD_ARRAYS[case]
    np.save(layout / RAW / "train" / "105.fused.full.npy", array, allow_pickle=True)
    with pytest.warns(DataWarning, match=rf"1 arrays left out.*105\.fused\.full\.npy: .*{reason}"):
        clips = SpectrogramDataset(layout)
    assert len(clips) == 23 and "105" not in clips.ids


def test_a_truncated_array_is_left_out(layout):
    path = layout / RAW / "train" / "105.fused.full.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(DataWarning, match=r"105\.fused\.full\.npy: is damaged"):
        assert len(SpectrogramDataset(layout)) == 23


def test_nothing_usable_is_an_error(layout):
    for path in (layout / RAW / "train").glob("*.npy"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no usable array"):
        SpectrogramDataset(layout)


def test_clips_of_very_few_frames_pass_through_every_model(layout):
    from labutils import models

    for name, frames in (("100", 1), ("101", 2), ("102", 3)):
        np.save(layout / RAW / "train" / f"{name}.fused.full.npy", fused(np.random.default_rng(0), frames))
    clips = SpectrogramDataset(layout)
    for backbone in (models.LSTMBackbone(128, 4), models.CNNBackbone(128, (2, 2, 2, 2)), models.ASTBackbone(128, 8)):
        outputs = training.predict(models.Classifier(backbone, 3), clips)
        assert outputs.shape == (24, 3) and np.isfinite(outputs).all()


# ---------------------------------------------------------------- labels


def test_an_id_without_a_file_and_a_file_without_a_label_are_counted(layout):
    (layout / RAW / "train" / "105.fused.full.npy").unlink()
    np.save(layout / RAW / "train" / "999.fused.full.npy", fused(np.random.default_rng(0), 20))
    with pytest.warns(DataWarning, match=r"2 labels and files that do not match.*105.*has a label but no file"):
        clips = SpectrogramDataset(layout)
    assert len(clips) == 23 and any("999" in problem and "no label" in problem for problem in clips.problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; the first line must be a header"),
        ("100.fused.full.npy.gz\tRock\n", "the first line must be a header"),
        ("Id\tGenre\n", "has a header but no labels"),
        ("Id\tGenre\n1\tRock\n1\tJazz\n", "id 1 has two different labels"),
    ],
)
def test_a_broken_label_file_names_itself_and_the_fix(layout, text, message):
    (layout / RAW / "train_labels.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train_labels\.txt.*{message}"):
        SpectrogramDataset(layout)


def test_a_value_that_is_no_number_names_the_line(layout):
    path = layout / "multitask_dataset" / "train_labels.txt"
    path.write_text("Id,valence,energy\n100,0.5,high\n")
    with pytest.raises(DataError, match=r"line 2: energy is 'high', not a number"):
        SpectrogramDataset(layout, "affect")


def test_missing_folders_and_files(layout, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        data.find_root(tmp_path / "nowhere")
    with pytest.raises(DataError, match="exists but holds none of"):
        data.find_root(tmp_path)
    with pytest.raises(DataError, match="folder not found"):
        SpectrogramDataset(tmp_path)
    (layout / RAW / "test_labels.txt").unlink()
    with pytest.raises(DataError, match=r"test_labels\.txt: label file not found"):
        SpectrogramDataset(layout, split="test")


@pytest.mark.parametrize("option", ["task", "time", "feature"])
def test_unknown_choices_list_the_valid_ones(layout, option):
    with pytest.raises(DataError, match="choose one of"):
        SpectrogramDataset(layout, **{option: "nonsense"})
    with pytest.raises(DataError, match="choose one of valence, energy"):
        SpectrogramDataset(layout, "affect", axis="danceability")


def test_find_root_prefers_argument_then_environment_then_kaggle(layout, tmp_path, monkeypatch):
    mount = tmp_path / "input" / "patreco3" / "data"
    (mount / RAW).mkdir(parents=True)
    monkeypatch.setattr(data, "KAGGLE_INPUT", tmp_path / "input")
    assert data.find_root() == mount
    other = write_layout(tmp_path / "other")
    monkeypatch.setenv("LABUTILS_DATA", str(other))
    assert data.find_root() == other and data.find_root(layout) == layout
    monkeypatch.delenv("LABUTILS_DATA")
    monkeypatch.setattr(data, "KAGGLE_INPUT", tmp_path / "empty")
    assert data.find_root() is None


# ---------------------------------------------------------------- batches and splits


def test_pad_collate_pads_with_zeros_and_keeps_the_clips(layout):
    clips = SpectrogramDataset(layout)
    batch = data.pad_collate([clips[i] for i in (0, 1, 2)])
    assert batch.x.shape == (3, max(clips.lengths[:3]), 128) and batch.lengths.tolist() == clips.lengths[:3].tolist()
    for row, i in zip(batch.x, range(3)):
        assert np.array_equal(row[: clips.lengths[i]], clips.frames(i)) and (row[clips.lengths[i] :] == 0).all()
    assert batch.y.tolist() == clips.labels[:3].tolist()


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_a_loader_visits_every_clip_once(layout, batch_size):
    clips = SpectrogramDataset(layout)
    batches = list(training.loader(clips, batch_size, shuffle=True, seed=3))
    assert sorted(length for batch in batches for length in batch.lengths.tolist()) == sorted(clips.lengths)
    assert sum(len(batch.y) for batch in batches) == 24


def test_shuffling_follows_the_seed(layout):
    clips = SpectrogramDataset(layout)
    orders = [[b.lengths.tolist() for b in training.loader(clips, 6, shuffle=True, seed=s)] for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_stratified_split_is_disjoint_complete_and_stratified():
    labels = np.repeat([0, 1, 2], [60, 30, 2])
    first, second = data.stratified_split(labels, 0.2, seed=1)
    assert sorted([*first, *second]) == list(range(92))
    assert np.bincount(labels[second]).tolist() == [12, 6, 1] and np.bincount(labels[first]).min() == 1
    assert not np.array_equal(second, data.stratified_split(labels, 0.2, seed=2)[1])


def test_a_class_of_one_clip_stays_in_the_first_part():
    first, second = data.stratified_split(np.array([0, 0, 0, 0, 1]), 0.5)
    assert 4 in first and 4 not in second


def test_splitting_affect_values_balances_their_mean():
    values = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    first, second = data.stratified_split(values, 0.25)
    assert len(second) == 50 and abs(values[first].mean() - values[second].mean()) < 0.02


def test_too_few_clips_to_split():
    with pytest.raises(DataError, match="too few"):
        data.stratified_split(np.array([0]), 0.5)


def test_statistics_are_those_of_all_frames(layout):
    clips = SpectrogramDataset(layout)
    frames = np.concatenate([clips.frames(i) for i in range(len(clips))])
    mean, deviation = clips.statistics()
    assert mean == pytest.approx(frames.mean(axis=0), abs=1e-3) and deviation == pytest.approx(
        frames.std(axis=0), rel=1e-3
    )


def test_pick_clips_falls_back_to_the_largest_genres(layout):
    clips = SpectrogramDataset(layout, class_mapping="none")
    chosen = data.pick_clips(clips, ["Jazz", "Polka"], seed=0)
    assert clips.classes[clips.labels[chosen[0]]] == "Jazz" and clips.labels[chosen[0]] != clips.labels[chosen[1]]
    with pytest.raises(DataError, match="only one genre"):
        data.pick_clips(clips.subset(np.flatnonzero(clips.labels == 0)), ["Jazz", "Rock"])


def test_opening_a_clean_data_set_warns_of_nothing(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpectrogramDataset(layout)
        SpectrogramDataset(layout, "affect", "test", time="beat")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "record.json"
    store.save_text(path, "first")
    with pytest.raises(KeyboardInterrupt), store.whole_file(path) as part:
        part.write_text("half of the sec", encoding="utf-8")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
