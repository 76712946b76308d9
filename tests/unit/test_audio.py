"""Known answers of the features: notebooks 01 to 03."""

import os
import subprocess
import sys

import machines
import numpy as np
import pytest
import soundfile
import threadpoolctl
from features import fast_features, plain_arrays, plain_features

from labutils import audio, median
from labutils.corpus import demo

RATE = audio.SAMPLE_RATE


def sine(frequency, seconds=2.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def clicks(bpm, seconds=12.0):
    """Bursts of noise at a tempo."""
    rng = np.random.default_rng(0)
    samples = np.zeros(int(seconds * RATE), np.float32)
    burst = rng.normal(0, 0.3, 400).astype(np.float32) * np.exp(-np.arange(400) / 80).astype(np.float32)
    for start in np.arange(0.25, seconds - 0.1, 60 / bpm):
        samples[int(start * RATE) :][:400] += burst
    return samples


@pytest.mark.parametrize("frequency", [110.0, 440.0, 2000.0, 8000.0])
def test_a_sine_lands_in_its_mel_band(frequency):
    import librosa

    centres = librosa.mel_frequencies(audio.NUM_MELS + 2, fmax=RATE / 2)[1:-1]
    loudest = audio.log_mel(sine(frequency)).mean(axis=1).argmax()
    assert abs(loudest - np.abs(centres - frequency).argmin()) <= 1


def test_a4_lands_in_chroma_a():
    chroma = audio.chroma(sine(440.0, 3.0))
    assert chroma.shape[0] == 12
    assert chroma.mean(axis=1).argmax() == 9  # C = 0
    assert (chroma.argmax(axis=0) == 9).mean() > 0.95


def test_an_octave_folds_into_the_same_pitch_class():
    low, high = (audio.chroma(sine(f, 3.0)).mean(axis=1).argmax() for f in (261.63, 1046.5))
    assert low == high == 0


@pytest.mark.parametrize("bpm", [90, 120, 150])
def test_beats_of_a_click_track_come_at_its_tempo(bpm):
    times = audio.beat_frames(clicks(bpm)) * audio.HOP_LENGTH / RATE
    assert 60 / np.median(np.diff(times)) == pytest.approx(bpm, rel=0.03)


def test_features_have_the_labs_shape_and_range():
    raw, beat = audio.features(clicks(120, 10.0))
    assert raw.shape == (140, 1 + 10 * RATE // 512) and raw.dtype == beat.dtype == np.float32
    assert beat.shape[0] == 140 and 10 < beat.shape[1] < 30
    for array in (raw, beat):
        assert array[:128].max() == 0 and array[:128].min() >= -80
        assert array[128:].min() >= 0 and array[128:].max() <= 1


def tune(seconds, cents=0.0, bpm=100):
    """A chord, detuned, over a click track."""
    chord = sum(sine(f * 2 ** (cents / 1200), seconds) for f in (130.81, 329.63, 440.0))
    return (clicks(bpm, seconds) + 0.2 * chord[: int(seconds * RATE)]).astype(np.float32)


SIGNALS = {
    "in tune, 30 s": lambda: tune(30.0),
    "30 cents flat, 6 s": lambda: tune(6.0, -30),
    "17 cents sharp, 6 s": lambda: tune(6.0, 17, bpm=140),
    "odd sample count": lambda: tune(6.0, 8)[:-7],
    "one sample beyond a hop": lambda: tune(6.0, 40)[: 200 * 512 + 1],
    "loud noise": lambda: np.random.default_rng(0).normal(0, 0.5, 6 * RATE).astype(np.float32),
    "silence between bursts": lambda: clicks(120, 6.0),
    "music, then silence": lambda: np.concatenate([tune(4.0), np.zeros(2 * RATE, np.float32)]),
    "silence": lambda: np.zeros(6 * RATE, np.float32),
    "shorter than the median's width": lambda: tune(0.3),
}


def check_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty", "ignore:n_fft=")
def test_features_equal_separate_librosa_calls_to_the_bit(signal):
    samples = SIGNALS[signal]()
    check_equal(audio.features(samples), plain_arrays(samples, RATE))


def test_features_of_a_stereo_file_equal_those_of_librosa_load(tmp_path):
    import librosa

    rng = np.random.default_rng(1)
    music = librosa.resample(tune(6.0, 12), orig_sr=RATE, target_sr=44100)
    stereo = np.stack([music, 0.7 * music + rng.normal(0, 0.01, len(music))], axis=1)
    soundfile.write(tmp_path / "a.flac", stereo, 44100)
    assert np.array_equal(audio.load(tmp_path / "a.flac"), librosa.load(tmp_path / "a.flac")[0])
    check_equal(fast_features(tmp_path / "a.flac"), plain_features(tmp_path / "a.flac"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Three clips of the default data, and a file of them."""
    path = tmp_path_factory.mktemp("rendered") / "samples.npz"
    clips = [demo.render(row, seconds=10.0) for row in demo.plan("tiny").head(3).to_dict("records")]
    np.savez(path, *clips)
    return clips, path


@pytest.fixture(scope="module")
def reference(rendered):
    """Their features on one thread."""
    with threadpoolctl.threadpool_limits(1):
        return [audio.features(samples) for samples in rendered[0]]


def features_elsewhere(path, jobs=1, **environment):
    """Features of the clips of a file, in a process of its own or in `jobs` more."""
    code = """if True:
        import sys, joblib, numpy as np
        from labutils import audio, median
        clips = np.load(sys.argv[1])
        work = [joblib.delayed(audio.features)(clips[name]) for name in clips.files]
        pairs = joblib.Parallel(n_jobs=int(sys.argv[2]))(work)
        np.savez(sys.argv[3], *[array for pair in pairs for array in pair])"""
    out = path.with_name("features.npz")
    subprocess.run([sys.executable, "-c", code, path, str(jobs), out], env={**os.environ, **environment}, check=True)
    with np.load(out) as arrays:
        return list(zip(*[iter(arrays.values())] * 2))


def blas_threads():
    return {library.num_threads for library in audio._blas().lib_controllers}


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_no_step_depends_on_the_number_of_threads(rendered, threads):
    def steps(samples):
        spectrum = audio.stft(samples)
        found = [audio.mel_power(spectrum), audio.chroma(samples, spectrum), audio.beat_frames(samples, spectrum)]
        return [*found, audio.log_mel(samples), audio.sonify(audio.to_db(found[0]), 1), *audio.features(samples)]

    clips = [*rendered[0][:1], SIGNALS["in tune, 30 s"]()]
    with threadpoolctl.threadpool_limits(1):
        expected = [steps(samples) for samples in clips]
    with threadpoolctl.threadpool_limits(threads, "blas"):
        for samples, arrays in zip(clips, expected, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(steps(samples), arrays, strict=True))
        assert blas_threads() == {threads}


@pytest.mark.parametrize("threads, jobs", [(1, 1), (2, 1), (4, 2)])
def test_features_do_not_depend_on_processes_and_their_threads(rendered, reference, threads, jobs):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    pairs = features_elsewhere(rendered[1], jobs, **dict.fromkeys(names, str(threads)))
    for found, expected in zip(pairs, reference, strict=True):
        check_equal(found, expected)


def test_features_on_a_processor_without_newer_instructions_are_nearly_the_same(rendered, reference):
    """As the docstring of `labutils.audio` has it."""
    old = features_elsewhere(rendered[1], **machines.environment("sse"))
    for found, expected in zip(old, reference, strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs)[:128].max() < 1e-4 and np.abs(ours - theirs)[128:].max() < 1e-5


@pytest.mark.parametrize("signal", ["30 cents flat, 6 s", "music, then silence", "silence"])
def test_the_percussive_part_equals_that_of_librosa_to_the_bit(signal):
    import librosa

    spectrum = audio.stft(SIGNALS[signal]())
    assert np.array_equal(audio.percussive(spectrum), librosa.decompose.hpss(spectrum)[1])


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (40, 130), (200, 128)])
def test_the_running_median_is_that_of_the_sorted_window(shape):
    lines = np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)  # many equal values
    padded = np.pad(lines, ((15, 15), (0, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 31, axis=0)
    for order, dtype in (("C", np.float32), ("F", np.float32), ("C", np.float64)):
        medians = median.running_median(np.array(lines, dtype, order=order))
        assert medians.dtype == dtype and np.array_equal(medians, np.median(windows, axis=-1))


def test_a_clip_without_beats_counts_as_one_beat():
    raw, beat = audio.features(np.zeros(2 * RATE, np.float32))
    assert beat.shape == (140, 1) and np.isfinite(raw).all() and np.isfinite(beat).all()


def test_features_of_the_shortest_allowed_clip():
    raw, beat = audio.features(sine(440, audio.MIN_SAMPLES / RATE))
    assert raw.shape[1] == 1 + audio.MIN_SAMPLES // 512 and beat.shape[1] >= 1


def test_beat_times_are_recovered_from_the_arrays():
    samples = (clicks(110, 8.0) + 0.2 * sine(300, 8.0)).astype(np.float32)
    raw, beat = audio.features(samples)
    times, exact = audio.beat_times(raw, beat)
    assert exact and len(times) == beat.shape[1] + 1
    assert times[1:-1] == pytest.approx(audio.beat_frames(samples) * 512 / RATE)
    assert times[0] == 0 and times[-1] == pytest.approx(raw.shape[1] * 512 / RATE)


def test_beat_times_of_arrays_that_do_not_belong_together_are_even():
    rng = np.random.default_rng(0)
    times, exact = audio.beat_times(rng.random((140, 50)), rng.random((140, 5)))
    assert not exact and np.diff(times) == pytest.approx(np.full(5, 10 * 512 / RATE))


def test_sonified_mel_keeps_the_loudest_band():
    samples = audio.sonify(audio.log_mel(sine(440, 2.0)), iterations=8)
    assert (
        abs(int(audio.log_mel(samples).mean(axis=1).argmax()) - int(audio.log_mel(sine(440)).mean(axis=1).argmax()))
        <= 1
    )
    assert np.abs(samples).max() <= 0.91


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_load_reads_the_common_formats(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", sine(440, 2.0), RATE)
    samples = audio.load(tmp_path / f"a.{suffix}")
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(2 * RATE, abs=2400)


def test_load_mixes_stereo_and_resamples(tmp_path):
    left = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 44100)
    assert np.abs(audio.load(tmp_path / "a.wav")).max() < 1e-3
    soundfile.write(tmp_path / "b.wav", left, 44100)
    assert len(audio.load(tmp_path / "b.wav")) == RATE


def test_audio_that_does_not_decode_names_file_and_fix(tmp_path):
    path = tmp_path / "broken.mp3"
    path.write_bytes(b"this is not music" * 20)
    with pytest.raises(audio.AudioError, match=r"broken\.mp3.*convert"):
        audio.load(path)
    with pytest.raises(audio.AudioError, match="missing"):
        audio.load(tmp_path / "missing.wav")


def test_audio_that_is_too_short_or_not_finite_is_refused(tmp_path):
    soundfile.write(tmp_path / "short.wav", sine(440, 0.05), RATE)
    with pytest.raises(audio.AudioError, match=r"short\.wav.*0\.05 s is too short"):
        audio.load(tmp_path / "short.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(audio.AudioError, match="too short"):
        audio.load(tmp_path / "empty.wav")
    with pytest.raises(audio.AudioError, match="NaN"):
        audio.features(np.full(RATE, np.nan, np.float32))
    with pytest.raises(audio.AudioError, match="mono"):
        audio.features(np.zeros((2, RATE), np.float32))
