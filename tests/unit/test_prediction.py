"""Predictions for a recording of one's own: notebook 10."""

import shutil

import numpy as np
import pytest
import soundfile

from labutils import audio, evaluation, prediction
from labutils.recipes import Experiment
from labutils.tools.cli import main

RATE = audio.SAMPLE_RATE


def noise(seconds, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32)


@pytest.fixture
def ensemble(layout):
    return prediction.load_models(Experiment(root=layout, num_epochs=1))


def test_the_models_are_those_of_the_cache_and_windows_are_as_long_as_training_clips(layout, ensemble):
    assert ensemble.trained == 6 and len(ensemble.genre) == len(ensemble.affect) == 2  # 2 of genre, 2 of each axis
    assert [line.split(":")[0] for line in ensemble.found] == ["affect, CNN", "genre, CNN"]
    assert prediction.load_models(Experiment(root=layout, num_epochs=1)).trained == 0
    assert ensemble.num_frames == int(np.median(Experiment(root=layout).genre_splits().train.lengths))


def test_probabilities_sum_to_1_and_windows_cover_the_recording(ensemble):
    found = prediction.predict(ensemble, noise(3.0))
    count, half = len(found.times), (ensemble.num_frames - 1) * audio.HOP_LENGTH / RATE / 2
    assert found.genre.shape == (2, count, 3) and found.affect.shape == (2, count, 2) and count > 4
    assert np.allclose(found.genre.sum(axis=2), 1, atol=1e-5) and np.isfinite(found.affect).all()
    assert found.times[[0, -1]] == pytest.approx([half, 3 - half], abs=1e-3) and (np.diff(found.times) > 0).all()
    assert np.diff(found.times).min() > 0.24 * half, "the last two windows nearly coincide"  # half of a hop of 0.25
    table = prediction.summary(found)
    assert table.loc["genre", "mean"].sum() == pytest.approx(1, abs=1e-5) and len(table.loc["affect"]) == 2
    assert (table["lowest model"] <= table["mean"]).all() and (table["mean"] <= table["highest model"]).all()
    assert table.loc["genre", "mean"].is_monotonic_decreasing


@pytest.mark.parametrize("seconds", [0.2, 0.5])
def test_a_recording_shorter_than_a_window_is_one_window(ensemble, seconds):
    found = prediction.predict(ensemble, noise(seconds))
    assert found.genre.shape == (2, 1, 3) and found.times == pytest.approx([seconds / 2], abs=1e-3)
    above, below = prediction.draw(found)
    assert above.get_xlim() == below.get_xlim() == pytest.approx((0, seconds), abs=1e-3)


def test_a_window_is_read_as_a_training_clip_is(ensemble):
    size = (ensemble.num_frames - 1) * audio.HOP_LENGTH
    first, second = noise(1, seed=1)[:size], 0.01 * noise(1, seed=2)[:size]  # quiet, but its own maximum is 0 dB
    found = prediction.predict(ensemble, np.concatenate([first, second]), hop=1.0)
    alone = prediction.predict(ensemble, second)
    assert found.genre.shape[1] == 2
    assert np.allclose(found.genre[:, 1], alone.genre[:, 0], atol=1e-5)
    assert audio.features(second)[0].shape == (140, ensemble.num_frames)


def test_too_short_or_broken_samples_are_an_error(ensemble):
    with pytest.raises(audio.AudioError, match="too short"):
        prediction.predict(ensemble, noise(0.1))
    with pytest.raises(audio.AudioError, match="NaN"):
        prediction.predict(ensemble, np.full(RATE, np.nan, np.float32))


def test_a_data_set_of_genres_only_or_affect_only(layout):
    shutil.rmtree(layout / "multitask_dataset")
    genres = prediction.predict(prediction.load_models(Experiment(root=layout, num_epochs=1), 1), noise(2))
    assert genres.axes == [] and list(prediction.summary(genres).index.get_level_values(0)) == ["genre"] * 3
    assert len(prediction.draw(genres)) == 1


def test_bad_files_are_named_and_the_others_go_on(layout, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    for path in ("song.wav", "other/song.wav"):
        soundfile.write(tmp_path / path, noise(2), RATE)
    soundfile.write(tmp_path / "click.wav", noise(0.05), RATE)
    (tmp_path / "text.mp3").write_text("not a sound")
    monkeypatch.chdir(tmp_path)
    load = prediction.load_models
    monkeypatch.setattr(prediction, "load_models", lambda ours, _: load(ours.but(num_epochs=1), 1))
    files = ["absent.wav", "song.wav", "text.mp3", "click.wav", "other/song.wav"]
    assert main(["predict", *files, "--data", str(layout), "--out", "figures"]) == 0
    printed, errors = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "figures").glob("*.png")) == ["song.wav-2.png", "song.wav.png"]
    for reason in ("absent.wav: not found", "text.mp3: cannot be read", "click.wav: 0.05 s is too short"):
        assert f"labutils: error: {reason}" in errors
    assert "models trained now" in printed and printed.count("figure: ") == 2 and "Jazz" in printed
    assert main(["predict", "song.wav", "--data", str(layout)]) == 0
    assert "0 models trained now" in capsys.readouterr().out and (tmp_path / "predictions" / "song.wav.png").exists()


def test_nothing_is_trained_when_no_file_is_there(layout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "absent.wav", "--data", str(layout)]) == 1
    assert "absent.wav: not found" in capsys.readouterr().err


class Oracle(prediction.Network):
    """A model that knows the labels of clips, and is half as sure as it should be."""

    name = "oracle"

    def __init__(self, one, axes, held_out=False):
        self.axes, self.trained = axes, 0

    def of_clips(self, clips, num_frames=None):
        return clips.labels if self.axes else 2.0 * np.eye(len(clips.classes))[clips.labels]

    def of_sounds(self, sounds):
        return np.zeros((len(sounds), len(self.axes) or 3))


def test_the_kind_that_answers_held_out_clips_best_speaks(layout, monkeypatch):
    monkeypatch.setattr(prediction, "Probe", Oracle)
    monkeypatch.setattr(prediction.pretrained, "available", lambda: True)
    ours = prediction.load_models(Experiment(root=layout, num_epochs=1), 1)
    assert isinstance(ours.genre[0], Oracle) and isinstance(ours.affect[0], Oracle)
    assert ours.found[-1] == "genre, oracle: macro F1 1.00 on 3 held-out answers"


def test_probabilities_are_as_sure_as_held_out_clips_allow(ensemble):
    labels, logits = ensemble.held_out()
    assert logits.shape == (len(labels), 3) and len(labels) == 6
    short = ensemble.held_out(num_frames=10)[1]
    assert short.shape == logits.shape and not np.allclose(short, logits)
    assert ensemble.temperature(10 * RATE) == pytest.approx(evaluation.temperature(logits, labels))
