"""Writing the lab's layout from audio and from the demo: notebook 04. Restartable, and honest about failures."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from labutils import audio, training
from labutils.corpus import build
from labutils.data import FOLDERS, DataError, SpectrogramDataset
from labutils.tools import info


def write_music(folder, num_clips=6):
    """Short wav files with a csv of labels; the last test clip has no affect labels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_clips):
        tone = 0.3 * np.sin(2 * np.pi * (220 + 60 * i) * np.arange(audio.SAMPLE_RATE) / audio.SAMPLE_RATE)
        soundfile.write(folder / f"{i}.wav", tone + rng.normal(0, 0.01, len(tone)), audio.SAMPLE_RATE)
        split = "test" if i >= num_clips - 2 else "train"
        rows.append({"file": f"{i}.wav", "genre": "ab"[i % 2], "split": split, "tension": i / 10, "calm": 1 - i / 10})
    rows[-1].update(tension=None, calm=None)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "clips.csv", index=False)
    return folder, table


@pytest.fixture
def music(tmp_path):
    return write_music(tmp_path / "music")


def from_audio(folder, out):
    return build.from_audio(folder, folder / "clips.csv", out, jobs=1)


def test_builds_the_layout_that_the_reader_reads(music, tmp_path):
    folder, table = music
    root = from_audio(folder, tmp_path / "out")
    for name in FOLDERS.values():
        assert (root / name / "train").is_dir()
    train, test = (SpectrogramDataset(root, split=split, feature="fused") for split in ("train", "test"))
    assert train.ids == ["1000", "1001", "1002", "1003"] and test.ids == ["1004", "1005"]
    raw, beat = audio.features(audio.load(folder / "2.wav"))
    assert np.array_equal(train.frames(2).T, raw)
    assert np.array_equal(SpectrogramDataset(root, time="beat", feature="fused").frames(2).T, beat)
    assert SpectrogramDataset(root, "affect").labels[1].tolist() == pytest.approx([0.1, 0.9])
    labelled = SpectrogramDataset(root, "affect", "test")
    assert labelled.ids == ["1004"] and labelled.labelled
    kept = pd.read_csv(root / "clips.csv")
    assert list(kept.columns) == ["id", *table.columns] and len(kept) == 6
    assert "tension" in info.describe(root) and "a 2, b 2" in info.describe(root)


def test_the_label_files_use_the_labs_three_spellings(music, tmp_path):
    root = from_audio(music[0], tmp_path / "out")
    first = {
        (name, split): (root / name / f"{split}_labels.txt").read_text().splitlines()[1]
        for name in list(FOLDERS.values())[:2]
        for split in ("train", "test")
    }
    assert list(first.values()) == [
        "1000.fused.full.npy.gz\ta", "1004.full.fused.npy.gz\ta",
        "1000.beatsync.fused.npy.gz\ta", "1004.beatsync.fused.npy.gz\ta",
    ]  # fmt: skip
    assert (root / "multitask_dataset" / "train_labels.txt").read_text().startswith("Id,tension,calm\n1000,0.0,1.0\n")


def test_a_restart_skips_what_is_done_and_leaves_no_parts(music, tmp_path, monkeypatch):
    calls, features = [], audio.features

    def counted(samples):
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return features(samples)

    monkeypatch.setattr(audio, "features", counted)
    with pytest.raises(KeyboardInterrupt):
        from_audio(music[0], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    calls.clear()
    calls.extend([0] * 10)
    root = from_audio(music[0], tmp_path / "out")
    assert len(calls) == 10 + 4  # the clips that were missing
    assert len(SpectrogramDataset(root)) == 4 and not list(root.rglob("*.part*"))
    from_audio(music[0], tmp_path / "out")
    assert len(calls) == 14  # complete: nothing is done again


def test_files_that_fail_are_listed_and_the_others_used(music, tmp_path, capsys):
    folder, _ = music
    (folder / "1.wav").write_bytes(b"noise")
    (folder / "3.wav").unlink()
    soundfile.write(folder / "2.wav", np.zeros(100), audio.SAMPLE_RATE)
    root = from_audio(folder, tmp_path / "out")
    failed = pd.read_csv(root / "failed.csv")
    assert failed["file"].tolist() == ["1.wav", "2.wav", "3.wav"]
    assert "convert it" in failed["reason"][0] and "too short" in failed["reason"][1]
    assert "3 of 6 clips failed, the first:" in capsys.readouterr().out
    assert SpectrogramDataset(root).ids == ["1000"] and json.loads((root / "dataset.json").read_text())["failed"] == 3


def test_no_clip_at_all_is_an_error(music, tmp_path):
    folder, _ = music
    for path in folder.glob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no clip could be used"):
        from_audio(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="genre"), "column 'genre' is missing"),
        (lambda t: t.iloc[:0], "has a header but no rows"),
        (lambda t: t.assign(split="validation"), "line 2: split is 'validation'; write train or test"),
        (lambda t: t.assign(genre=[None, *"bababa"[: len(t) - 1]]), "line 2: genre is empty"),
        (lambda t: t.assign(calm="very"), "line 2: calm is 'very', not a number"),
        (lambda t: pd.concat([t, t.iloc[:1]]), r"0\.wav is listed twice"),
        (lambda t: t.assign(split="test"), "no clip is in the train split"),
        (lambda t: t.assign(id=range(len(t))), "column 'id' stands for the ids .* rename or remove it"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_line_and_the_fix(music, tmp_path, change, message):
    folder, table = music
    change(table).to_csv(folder / "clips.csv", index=False)
    with pytest.raises(DataError, match=rf"clips\.csv.*{message}"):
        from_audio(folder, tmp_path / "out")


def test_missing_audio_folder_or_table(music, tmp_path):
    with pytest.raises(DataError, match="folder not found"):
        build.from_audio(tmp_path / "none", music[0] / "clips.csv", tmp_path / "out")
    with pytest.raises(DataError, match="file not found"):
        build.from_audio(music[0], tmp_path / "none.csv", tmp_path / "out")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"cannot be read .*UTF-8"):
        build.from_audio(music[0], tmp_path / "empty.csv", tmp_path / "out")


def test_two_recipes_are_never_mixed_in_one_folder(music, tmp_path):
    folder, table = music
    from_audio(folder, tmp_path / "out")
    table.iloc[::-1].to_csv(folder / "clips.csv", index=False)
    with pytest.raises(DataError, match="made with another table; use another folder"):
        from_audio(folder, tmp_path / "out")
    with pytest.raises(DataError, match="would mix with the source"):
        from_audio(folder, folder)


def test_a_table_without_axes_gives_a_genre_data_set(music, tmp_path):
    folder, table = music
    table[["file", "genre", "split"]].to_csv(folder / "clips.csv", index=False)
    root = from_audio(folder, tmp_path / "out")
    assert len(SpectrogramDataset(root)) == 4 and not (root / "multitask_dataset").exists()
    assert "multitask_dataset: missing" in info.describe(root)


def test_a_group_column_becomes_groups_and_no_axis(music, tmp_path):
    folder, table = music
    table.assign(group=["Ana", "None", "", "Ana", " Bo", "Cy"]).to_csv(folder / "clips.csv", index=False)
    root = from_audio(folder, tmp_path / "out")
    assert (root / "groups.csv").read_text() == "Id,group\n1000,Ana\n1001,None\n1003,Ana\n1004,Bo\n1005,Cy\n"
    assert SpectrogramDataset(root).groups.tolist() == ["Ana", "None", "clip 1002", "Ana"]
    assert SpectrogramDataset(root, "affect").axes == ["tension", "calm"]
    assert list(pd.read_csv(root / "clips.csv").columns) == ["id", *table.columns, "group"]
    assert "in train and in test" not in info.describe(root)


def test_a_group_in_both_splits_is_counted_and_named(music, tmp_path):
    folder, table = music
    (folder / "3.wav").unlink()  # Cy's only clip in train: what is not used tears nothing apart
    table.assign(group=["Ana", "Bo", "", "Cy", "Bo", "Cy"]).to_csv(folder / "clips.csv", index=False)
    root = from_audio(folder, tmp_path / "out")
    assert "problem: 1 groups have clips in train and in test, the first: Bo" in info.describe(root)
    assert (root / "groups.csv").read_text().splitlines()[1:] == ["1000,Ana", "1001,Bo", "1004,Bo", "1005,Cy"]


def test_without_a_group_column_there_are_no_groups(music, tmp_path):
    root = from_audio(music[0], tmp_path / "out")
    assert not (root / "groups.csv").exists() and SpectrogramDataset(root).groups is None


def test_librosa_is_compiled_once_and_marked_in_a_folder_of_the_users_own(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(audio, "features", calls.append)
    build.compile_librosa()
    build.compile_librosa()
    [folder] = tmp_path.iterdir()
    assert len(calls) == 1 and len(list(folder.iterdir())) == 2
    if hasattr(os, "getuid"):
        assert folder.name == f"labutils-{os.getuid()}" and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="each Windows user has a temporary folder")
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_temporary_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch, make):
    somebody = os.getuid() + (make is Path.mkdir)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    make(tmp_path / f"labutils-{somebody}")
    with pytest.raises(DataError, match=rf"labutils-{somebody}: .* set TMPDIR"):
        build.compile_librosa()


def test_the_sound_of_a_clip_is_found_again(music, tmp_path):
    root = from_audio(music[0], tmp_path / "out")
    assert np.array_equal(build.load_audio(root, "1003"), audio.load(music[0] / "3.wav"))
    (music[0] / "3.wav").unlink()
    assert build.load_audio(root, "1003") is None


def test_pooled_statistics(layout):
    clips = SpectrogramDataset(layout)
    frames, pooled = clips.frames(0), training.clip_statistics(clips)
    assert pooled.shape == (24, 3 * 128)
    expected = [frames.mean(axis=0), frames.std(axis=0), np.abs(np.diff(frames, axis=0)).mean(axis=0)]
    assert pooled[0] == pytest.approx(np.concatenate(expected), rel=1e-4)


def test_a_small_demo_reads_like_the_labs_data_and_sounds_the_same_again(tmp_path, monkeypatch):
    plan = build.demo.plan("tiny", seed=1).groupby("genre").head(1)
    monkeypatch.setattr(build.demo, "plan", lambda size, seed: plan)
    root = build.make_demo(tmp_path / "demo", size="tiny", seed=1, seconds=1.5, jobs=1)
    record = json.loads((root / "dataset.json").read_text())
    assert (
        record["kind"] == "procedural"
        and record["clips"] == len(plan)
        and set(record["best_attainable_rho"]) == set(build.demo.AXES)
    )
    affect = SpectrogramDataset(root, "affect")
    assert affect.axes == list(build.demo.AXES) and len(affect) == (plan["split"] == "train").sum()
    assert not (root / "multitask_dataset" / "test_labels.txt").exists()
    assert affect.groups.tolist() == plan[plan["split"] == "train"]["group"].tolist()
    raw, _ = audio.features(build.load_audio(root, affect.ids[0]))
    assert np.array_equal(raw.T, SpectrogramDataset(root, "affect", feature="fused").frames(0))
    with pytest.raises(DataError, match="made with another seed"):
        build.make_demo(root, size="tiny", seed=2, seconds=1.5)
