"""From audio files to the lab's features: separate librosa calls against `labutils.audio`, one process against two."""

from __future__ import annotations

import contextlib
import functools
import io
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from harness import Case

from labutils import audio
from labutils.corpus import build

CLIP_SECONDS = 30.0
NUM_FILES = 12


def plain_features(path) -> tuple[np.ndarray, np.ndarray]:
    """The lab's two arrays of a file, one librosa call for each step."""
    import librosa

    return plain_arrays(*librosa.load(path))


def plain_arrays(samples: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The same from samples. Each call starts from them."""
    import librosa

    _, percussive = librosa.effects.hpss(samples)
    _, beats = librosa.beat.beat_track(y=percussive, sr=rate)
    beats = beats if len(beats) else [0]
    mel = librosa.feature.melspectrogram(y=samples, sr=rate)
    chroma = librosa.feature.chroma_cqt(y=samples, sr=rate)
    raw = np.concatenate([librosa.power_to_db(mel, ref=np.max), chroma])
    mel_beat = librosa.util.sync(mel, beats, aggregate=np.median)
    chroma_beat = librosa.util.sync(chroma, beats, aggregate=np.median)
    beat = np.concatenate([librosa.power_to_db(mel_beat, ref=np.max), chroma_beat])
    return raw.astype(np.float32), beat.astype(np.float32)


def fast_features(path) -> tuple[np.ndarray, np.ndarray]:
    """The same arrays from our functions."""
    return audio.features(audio.load(path))


@functools.cache
def scratch() -> tempfile.TemporaryDirectory:
    """A folder that lasts as long as the process."""
    return tempfile.TemporaryDirectory()


@functools.cache
def clip(number: int = 0, seconds: float = CLIP_SECONDS) -> Path:
    """A flac file of fading chords and noise bursts at a tempo and a tuning of its own, the same in every run."""
    import soundfile

    path = Path(scratch().name, "audio", f"{number:03}.flac")
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(number)
    times = np.arange(int(seconds * audio.SAMPLE_RATE)) / audio.SAMPLE_RATE
    beats, since = np.divmod(times, 60 / rng.uniform(90, 150))
    notes = rng.integers(0, 36, (int(beats[-1]) + 1, 3)) + rng.uniform(-0.5, 0.5)
    chords = np.sin(2 * np.pi * 110 * 2 ** (notes[beats.astype(int)].T / 12) * times).sum(axis=0)
    bursts = rng.normal(size=len(times)) * np.exp(-40 * since)
    soundfile.write(path, 0.15 * chords * np.exp(-2 * since) + 0.1 * bursts, audio.SAMPLE_RATE)
    return path


def build_files(jobs: int, count: int = NUM_FILES) -> Path:
    """A new data set from `count` files."""
    names = [clip(number).name for number in range(count)]
    out = Path(tempfile.mkdtemp(dir=scratch().name))
    lines = [f"{name},{'ab'[i % 2]},{'test' if i % 4 == 3 else 'train'}" for i, name in enumerate(names)]
    labels = out.with_suffix(".csv")
    labels.write_text("\n".join(["file,genre,split", *lines]))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        return build.from_audio(clip().parent, labels, out, jobs=jobs)


def breakdown(repeats: int = 5) -> str:
    """Share of each step in the time of our features of one clip: a table in Markdown."""
    import librosa

    path = clip()
    fast_features(path)
    runs = [_timed_parts(librosa, path) for _ in range(repeats)]
    parts = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    total = sum(parts.values())
    rows = [f"| {name} | {1000 * parts[name]:.0f} | {parts[name] / total:.0%} |" for name in sorted(parts)]
    head = [f"Our features of a {CLIP_SECONDS:.0f} s clip, step by step (medians of {repeats} runs):", ""]
    head += ["| step | ms | share |", "|---|---:|---:|"]
    return "\n".join([*head, *rows, f"| all | {1000 * total:.0f} | 100% |"]) + "\n"


def _timed_parts(librosa, path) -> dict[str, float]:
    """Seconds of each step without the steps inside it; the functions are replaced by timed ones for one call."""
    parts: dict[str, float] = {}
    stack: list[list] = []  # name and seconds of the inner steps of each call that is under way

    def timed(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            inside = bool(stack) and stack[-1][0].startswith("CQT")
            stack.append([f"CQT, {name}" if inside else name, 0.0])
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                step, inner = stack.pop()
                parts[step] = parts.get(step, 0.0) + spent - inner
                if stack:
                    stack[-1][1] += spent

        return call

    core = librosa.core
    steps = [
        (audio, "load", "decoding"),
        (audio, "running_median", "medians"),
        (audio, "percussive", "masks"),
        (audio, "mel_power", "mel"),
        (audio, "stft", "FFT"),
        (librosa, "istft", "FFT"),
        (core.spectrum, "stft", "FFT"),
        (core.constantq, "stft", "FFT"),
        (core.audio, "resample", "resampling"),
        (librosa.filters, "wavelet", "filter bank"),
        (librosa.util, "sparsify_rows", "filter bank"),
        (librosa, "estimate_tuning", "tuning"),
        (librosa.feature, "chroma_cqt", "CQT and chroma, rest"),
        (librosa.onset, "melspectrogram", "mel"),
        (librosa.beat, "beat_track", "beat tracking, rest"),
    ]
    with contextlib.ExitStack() as patches:
        for module, function, name in steps:
            patches.enter_context(mock.patch.object(module, function, timed(name, getattr(module, function))))
        timed("other", lambda: audio.features(audio.load(path)))()
    return parts


def cases() -> list[Case]:
    """The two rows of the table."""
    path = clip()
    return [
        Case(
            name="features",
            work=f"features of a {CLIP_SECONDS:.0f} s clip, raw and beat-synchronous, on one core",
            plain=lambda: plain_features(path),
            fast=lambda: fast_features(path),
            unit="clips",
            repeats=9,
            clock="cpu",
            target=5.0,
            bound=lambda _: "one core: the constant-Q transform, see the steps below",
        ),
        Case(
            name="features_files",
            work=f"a data set from {NUM_FILES} files of {CLIP_SECONDS:.0f} s: one process, two processes",
            plain=lambda: build_files(jobs=1),
            fast=lambda: build_files(jobs=2),
            unit="clips",
            amount=NUM_FILES,
            target=1.9,
            bound=lambda _: "two cores",
        ),
    ]


REPORTS = (breakdown,)
