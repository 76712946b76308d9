"""MusiCNN: its weights are found and read, its vectors are those of the original, and without it the reason is said."""

import importlib.machinery
import importlib.util
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretrained import PlainMusiCNN  # benchmarks/: the plain form

from labutils import audio, pretrained
from labutils.corpus import build, weights
from labutils.data import SpectrogramDataset
from labutils.files import DataError

# What the original network (tensorflow 2.21, compat.v1, the code of musicnn 0.1.0) says of `synthetic()`, by window
REFERENCE = Path(__file__).parent / "assets" / "musicnn.npz"


def synthetic(seconds: float = 7.0) -> np.ndarray:
    """Chords and noise bursts that fade twice a second."""
    times = np.arange(int(seconds * audio.SAMPLE_RATE)) / audio.SAMPLE_RATE
    since = times % 0.5
    chord = sum(np.sin(2 * np.pi * hertz * times) for hertz in (110, 164.81, 220, 277.18, 329.63, 440))
    noise = np.random.default_rng(0).standard_normal(len(times))
    return (0.08 * chord * np.exp(-2 * since) + 0.2 * noise * np.exp(-40 * since)).astype(np.float32)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The weights, fetched once: a test that needs them fails where they cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABUTILS_HOME", str(tmp_path_factory.mktemp("weights")))
        return weights.get()


@pytest.fixture
def weights_here(wheel, monkeypatch):
    monkeypatch.setattr(weights, "find", lambda network="msd": wheel)


@pytest.fixture
def weights_missing(monkeypatch):
    monkeypatch.setattr(weights, "find", lambda network="msd": None)


def test_without_the_weights_the_reason_and_the_way_are_said(weights_missing, layout):
    assert not pretrained.available()
    for call in (pretrained.load, lambda: pretrained.embed(SpectrogramDataset(layout))):
        with pytest.raises(DataError, match="not here: get it with `labutils pretrained`"):
            call()


@pytest.mark.parametrize(("code", "content", "message"), [
    (1, None, "could not fetch it .*no route.*try again online"),
    (0, b"another wheel", "is not the file we know"),
])  # fmt: skip
def test_what_cannot_be_fetched_leaves_nothing_behind(tmp_path, monkeypatch, weights_missing, code, content, message):
    def run(command, **options):
        if content:
            Path(command[command.index("--dest") + 1], weights.WHEEL).write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", "WARNING: Retrying\nERROR: no route to host\n")

    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=message):
        weights.get()
    assert [path.suffix for path in (tmp_path / "pretrained").iterdir()] in ([".lock"], [])


def test_weights_are_looked_for_in_the_package_in_the_home_and_on_kaggle(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "KAGGLE_INPUT", tmp_path / "kaggle")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert weights.find() is None
    attached = tmp_path / "kaggle" / "wheels" / weights.WHEEL
    kept = weights.home() / "pretrained" / weights.WHEEL
    for path in (attached, kept):
        path.parent.mkdir(parents=True)
        path.touch()
        assert weights.find() == path
    package = tmp_path / "site-packages" / "musicnn" / "__init__.py"
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: importlib.machinery.ModuleSpec(name, None, origin=str(package)),
    )
    assert weights.find() == package.parent


def test_the_fast_form_equals_the_plain_one():
    torch.manual_seed(0)
    ours = pretrained.MusiCNN(["tag"] * 50).eval()
    with torch.no_grad():
        for norm in ours.norms:  # factors of both signs
            norm.scale.normal_()
            norm.shift.normal_()
    x = 3 * torch.rand(2, 40, 96)
    for name, fast, plain in zip(pretrained.Activations._fields, ours(x), PlainMusiCNN(ours)(x)):
        assert fast.shape == plain.shape and torch.allclose(fast, plain, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("network", pretrained.NETWORKS)
def test_says_what_the_original_says(weights_here, network):
    reference = np.load(REFERENCE)
    model = pretrained.load(network)
    cut, _ = pretrained.windows(pretrained.from_audio(synthetic()))
    with torch.inference_mode():
        found = model(torch.from_numpy(cut))
    assert [layer.shape[-1] for layer in found] == [561, 753, 1506, 200, 50]
    assert np.abs(found.penultimate.numpy() - reference[f"{network}_penultimate"]).max() < 1e-3  # measured: 5e-6
    assert np.abs(found.logits.sigmoid().numpy() - reference[f"{network}_tags"]).max() < 1e-3


def test_reads_tags_and_licence_without_running_the_package(weights_here):
    msd, mtt = weights.weights("msd"), weights.weights("mtt")
    assert msd.tags[:2] == ["rock", "pop"] and mtt.tags[:2] == ["guitar", "classical"]
    assert len(msd.tags) == len(mtt.tags) == 50 and "Universitat Pompeu Fabra" in msd.notice
    assert sum(tensor.size for name, tensor in msd.tensors.items() if "power" not in name) == 792_079


@pytest.mark.parametrize("damage", ["cut", "byte"])
def test_a_damaged_wheel_is_named_with_the_way_out(wheel, tmp_path, monkeypatch, damage):
    content = bytearray(wheel.read_bytes())
    content[len(content) // 8] ^= 1  # in the tensors of msd
    path = tmp_path / weights.WHEEL
    path.write_bytes(content if damage == "byte" else content[: len(content) // 2])
    monkeypatch.setattr(weights, "find", lambda network="msd": path)
    with pytest.raises(DataError, match=f"{path}: is damaged .*; delete it, then get it with"):
        pretrained.load()


def test_an_installed_package_is_read_like_the_wheel(wheel, tmp_path, monkeypatch):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    before = weights._read(wheel, "mtt")
    monkeypatch.setattr(weights, "find", lambda network="msd": tmp_path / "musicnn")
    assert weights.weights("mtt").digest == before.digest and weights.weights("mtt").tags == before.tags
    tensors = tmp_path / "musicnn" / "MTT_musicnn" / ".data-00000-of-00001"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    weights._read.cache_clear()
    with pytest.raises(DataError, match="damaged"):
        pretrained.load("mtt")


def test_a_notebook_can_carry_a_network_in_half_precision(weights_here, tmp_path, monkeypatch):
    x = pretrained.from_audio(synthetic(3))
    whole = pretrained.load()
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "labutils" / "corpus" / "weights.py"))
    path = tmp_path / "labutils" / "assets" / "musicnn-msd.npz"
    weights.pack("msd", path)
    assert path.stat().st_size < 1.7e6
    monkeypatch.undo()
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "labutils" / "corpus" / "weights.py"))
    assert weights.find("msd") == path
    half = pretrained.load()
    assert half.tags == whole.tags and "ISC" not in half.tags
    assert weights.weights().notice.startswith("Copyright (c) Music Technology Group")
    one, two = (pretrained.clip_vectors([x], model) for model in (whole, half))
    assert np.abs(one - two).max() < 0.02


def test_windows_reach_from_the_first_frame_to_the_last():
    x = np.arange(500)[:, None].repeat(96, axis=1)
    cut, times = pretrained.windows(x)
    assert cut.shape == (3, 187, 96) and cut[0, 0, 0] == 0 and cut[-1, -1, 0] == 499
    assert times == pytest.approx((np.array([0, 156, 313]) + 93.5) * 0.016)
    assert len(pretrained.windows(x, hop=0.25)[0]) == 8
    short, times = pretrained.windows(x[:100])
    assert short.shape == (1, 187, 96) and np.array_equal(short[0, 100:], x[:87]) and times == [0.8]


def test_the_input_from_mel_is_close_to_that_from_sound():
    samples = synthetic()
    power = audio.mel_power(audio.stft(samples))
    level = 10 * np.log10(power.max())
    sound, mel = pretrained.from_audio(samples), pretrained.from_mel(audio.to_db(power).T, level)
    assert abs(len(sound) - len(mel)) <= 3 and mel.dtype == sound.dtype == np.float32
    frames = min(len(sound), len(mel))
    assert np.corrcoef(sound[:frames].ravel(), mel[:frames].ravel())[0, 1] > 0.97
    assert abs(sound[:frames].mean() - mel[:frames].mean()) < 0.3
    assert pretrained.from_mel(audio.to_db(power).T[:1]).shape == (1, 96)


def test_vectors_have_the_same_bits_for_any_number_of_threads(weights_here):
    model, found = pretrained.load(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = [pretrained.from_audio(synthetic()), pretrained.from_mel(audio.log_mel(synthetic()).T)]
        found.append(pretrained.clip_vectors(inputs, model, "pooled"))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert np.array_equal(*found)


def test_tags_over_time_are_probabilities(weights_here):
    tags, times = pretrained.tags_over_time(pretrained.from_audio(synthetic()), pretrained.load(), hop=0.25)
    assert tags.shape == (len(times), 50) == (6, 50) and 0 <= tags.min() and tags.max() <= 1
    assert (np.diff(times) > 0.7).all()


def test_vectors_of_a_data_set_are_kept_for_any_part_of_it(weights_here, layout, monkeypatch):
    dataset = SpectrogramDataset(layout).subset(np.arange(6))
    few = pretrained.embed(dataset.subset([4, 1]))
    assert few.shape == (2, 200) and few.dtype == np.float32
    all_layers = {layer: pretrained.embed(dataset, layer=layer) for layer in pretrained.LAYERS}
    assert np.array_equal(all_layers["penultimate"][[4, 1]], few)
    assert np.array_equal(np.hstack([all_layers["front"], all_layers["middle"]]), all_layers["pooled"])
    model = pretrained.load()
    frames = [pretrained.from_mel(dataset.frames(i)[:, :128]) for i in range(6)]
    assert np.array_equal(pretrained.clip_vectors(frames, model, "tags"), all_layers["tags"])
    monkeypatch.setattr(pretrained, "_rows", None)  # whatever is asked again is read
    again = SpectrogramDataset(layout, feature="chroma").subset([0, 1]).joined(dataset.subset([5]))
    assert np.array_equal(pretrained.embed(again, source="mel"), all_layers["penultimate"][[0, 1, 5]])


def test_damaged_vectors_are_made_anew(weights_here, layout):
    dataset = SpectrogramDataset(layout).subset([0])
    before = pretrained.embed(dataset)
    (path,) = (weights.home() / "pretrained").rglob("*.npy")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="damaged, made anew"):
        assert np.array_equal(pretrained.embed(dataset), before)


def test_what_was_heard_before_an_error_is_kept(weights_here, layout, monkeypatch):
    dataset, rows = SpectrogramDataset(layout).subset([0, 1, 2]), pretrained._rows

    def stops_at_the_third(cut, model, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows(cut, model)

    monkeypatch.setattr(pretrained, "_rows", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pretrained.embed(dataset)
    monkeypatch.setattr(pretrained, "_rows", None)
    assert np.isfinite(pretrained.embed(dataset.subset([0, 1]))).all()


def test_a_data_set_with_sound_is_heard(weights_here, tmp_path):
    folder, labels = tmp_path / "audio", tmp_path / "labels.csv"
    folder.mkdir()
    for name, pitch in (("a", 1.0), ("b", 0.5)):
        soundfile.write(folder / f"{name}.wav", pitch * synthetic(3), audio.SAMPLE_RATE, subtype="FLOAT")
    labels.write_text("file,genre,split\na.wav,x,train\nb.wav,y,train\n")
    dataset = SpectrogramDataset(build.from_audio(folder, labels, tmp_path / "made", jobs=1))
    heard, seen = pretrained.embed(dataset), pretrained.embed(dataset, source="mel")
    expected = pretrained.clip_vectors([pretrained.from_audio(synthetic(3))], pretrained.load())
    assert np.array_equal(heard[:1], expected) and not np.allclose(heard, seen, atol=0.01)
    (folder / "b.wav").unlink()
    pretrained.embed(dataset)  # kept
    for path in (weights.home() / "pretrained").rglob("*.npy"):
        path.unlink()
    with pytest.raises(DataError, match="the sound of clip 1001 is not here"):
        pretrained.embed(dataset)
    (folder / "a.wav").unlink()
    folder.rmdir()
    assert np.array_equal(pretrained.embed(dataset), seen)


def test_wrong_choices_are_named(weights_here, layout):
    dataset = SpectrogramDataset(layout)
    for options, name in (
        ({"network": "vgg"}, "network"),
        ({"layer": "last"}, "layer"),
        ({"source": "midi"}, "source"),
    ):
        with pytest.raises(DataError, match=f"{name} '\\w+' is unknown; choose one of"):
            pretrained.embed(dataset, **options)
    with pytest.raises(DataError, match="open the data set with time='raw'"):
        pretrained.embed(SpectrogramDataset(layout, time="beat"))
