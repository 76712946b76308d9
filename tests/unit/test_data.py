"""Reading, packing, splitting and batching: notebook 04. Bad input names the file and the fix."""

import os
import warnings

import numpy as np
import pytest
import torch
from conftest import fused, write_layout

from labutils import data, files, store, training
from labutils.data import DataError, DataWarning, SpectrogramDataset
from labutils.recipes import Experiment
from labutils.tools import info

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
    "pickled": (np.array([{"a": 1}], dtype=object), "allow_pickle=False"),
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
    with pytest.warns(DataWarning, match=r"105\.fused\.full\.npy: cannot be read"):
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
        ("", "cannot be read .EmptyDataError: .*; save it as a table"),
        ("100.fused.full.npy.gz\tRock\n", "the first line must be a header"),
        ("Id\tGenre\n", "has a header but no rows"),
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


def two_excerpts_each(root):
    """Clips 2 k and 2 k + 1 of each split belong to artist k."""
    ids = [str(first + i) for first in (100, 500) for i in range(24)]
    lines = [f"{name},artist {int(name) // 2}" for name in ids]
    (root / "groups.csv").write_text("\n".join(["Id,group", *lines]) + "\n")
    return root


def test_groups_are_read_and_follow_the_clips(layout):
    assert SpectrogramDataset(layout).groups is None
    clips = SpectrogramDataset(two_excerpts_each(layout))
    assert clips.groups[:3].tolist() == ["artist 50", "artist 50", "artist 51"]
    assert clips.subset([2, 0]).groups.tolist() == ["artist 51", "artist 50"]
    assert clips.subset([0]).joined(clips.subset([2])).groups.tolist() == ["artist 50", "artist 51"]
    (layout / "groups.csv").write_text("Id,group\n100.fused.full.npy.gz,x\n101,\n")
    assert SpectrogramDataset(layout).groups[:3].tolist() == ["x", "clip 101", "clip 102"]


@pytest.mark.parametrize(
    ("text", "message"), [("id;group\n", "'Id,group'"), ("Id,group\n1,a\n1,b\n", "id 1 is listed twice")]
)
def test_a_broken_table_of_groups_names_itself(layout, text, message):
    (layout / "groups.csv").write_text(text)
    with pytest.raises(DataError, match=f"groups.csv: .*{message}"):
        SpectrogramDataset(layout)


def test_groups_are_whole_in_every_split_and_fold(layout):
    root = two_excerpts_each(layout)
    for splits in (Experiment(root=root, seed=1).genre_splits(), Experiment(root=root).affect_splits(fraction=0.5)):
        parts = [set(part.groups) for part in splits]
        assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    for labels in (np.arange(60) % 3, np.linspace(0, 1, 60)):
        groups = np.arange(60) % 25  # of two or three clips
        fold_of = data.deal(labels, 5, 0, groups)
        assert all(len(set(fold_of[groups == group])) == 1 for group in range(25))
        assert np.ptp(np.bincount(fold_of)) <= 3


def test_clips_without_groups_are_dealt_like_cards():
    labels = np.repeat([0, 1, 2], [7, 8, 9])
    fold_of = data.deal(labels, 5, 3)
    assert np.ptp(np.bincount(fold_of)) <= 1
    assert all(np.ptp(np.bincount(fold_of[labels == label], minlength=5)) <= 1 for label in range(3))
    assert np.array_equal(fold_of, data.deal(labels, 5, 3, groups=[f"clip {i}" for i in range(24)]))
    ways = (data.stratified_split(labels, 0.3, 3, groups) for groups in (None, np.arange(24)))
    assert all(np.array_equal(alone, grouped) for alone, grouped in zip(*ways))


def test_a_group_in_train_and_test_is_warned_of(layout):
    (layout / "groups.csv").write_text("Id,group\n100,x\n500,x\n101,y\n102,y\n")
    with pytest.warns(DataWarning, match="1 groups with clips in train and test, the first: .*: x; move it"):
        Experiment(root=layout).genre_splits()
    assert "problem: 1 groups have clips in train and in test, the first: x" in info.describe(layout)


def test_items_lie_where_the_batches_do(layout):
    kept = SpectrogramDataset(layout).keep_on("cpu")
    kept.kept = [clip.to("meta") for clip in kept.kept]  # a device that every machine has
    frames, label = kept[3]
    assert frames.device.type == label.device.type == kept.__getitems__([3])[0][0].device.type == "meta"


def test_an_infinite_label_is_no_number(layout):
    path = layout / "multitask_dataset" / "train_labels.txt"
    path.write_text(path.read_text().replace("\n100,", "\n100,inf,", 1).replace("Id,valence,energy", "Id,a,b,c"))
    with pytest.raises(DataError, match="line 2: a is 'inf', not a number"):
        SpectrogramDataset(layout, "affect")


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
    mean, deviation = clips.mean_and_deviation()
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
    files.save_text(path, "first")
    with pytest.raises(KeyboardInterrupt), files.whole_file(path) as part:
        part.write_text("half of the sec", encoding="utf-8")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
