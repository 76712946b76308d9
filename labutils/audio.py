"""From audio to features: log-mel, chroma CQT, beats and the beat-synchronous median (notebooks 01-03).

The features are those of the lab: 22,050 Hz, FFT of 2,048 samples, hop of 512 samples (23.2 ms), 128 mel
bands in dB below the clip's own maximum, 12 chroma bins from a constant-Q transform. librosa does the signal
processing; this module shares one short-time Fourier transform between the steps that need it.

On one processor the arrays are equal to the bit for any number of processes and threads; between processors, which
round differently, mel agrees to 1e-4 dB and chroma to 1e-5, save where a tie moves a beat (in 1 of 561 clips, a frame).
"""

from __future__ import annotations

import functools

import numpy as np

from .median import running_median

SAMPLE_RATE = 22050  # Hz
N_FFT = 2048  # samples
HOP_LENGTH = 512  # samples between two frames: 23.2 ms
NUM_MELS = 128
NUM_CHROMA = 12
NUM_FEATURES = NUM_MELS + NUM_CHROMA  # rows of the lab's fused array
MIN_SAMPLES = 2 * N_FFT  # below this there is nothing to analyse (0.19 s)


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file and the fix."""


def _one_thread(function):
    """Holds numpy's matrix products in `function` to one thread, as several split them and round otherwise (10 us)."""

    @functools.wraps(function)
    def limited(*args, **options):
        with _blas().limit(limits=1):
            return function(*args, **options)

    return limited


@functools.cache
def _blas():
    """The libraries of matrix products in this process, looked for once (5 ms)."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def load(path, seconds: float | None = None) -> np.ndarray:
    """Decode an audio file to mono at 22,050 Hz.

    Notebook 10. Reads what libsndfile reads: wav, flac, ogg, mp3.

    Parameters
    ----------
    path : path of the file.
    seconds : read at most this many seconds from the start (None: all).

    Returns
    -------
    samples : float32 [N], in [-1, 1].

    Raises
    ------
    AudioError : the file does not decode, is too short or holds values that are not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            frames = -1 if seconds is None else int(seconds * file.samplerate)
            samples, rate = file.read(frames, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded ({error}); convert it to wav, flac, ogg or mp3") from error
    samples = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != SAMPLE_RATE and len(samples):
        import librosa

        samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE)
    check_samples(samples, name=str(path))
    return samples


def check_samples(samples: np.ndarray, name: str = "audio") -> None:
    """Raise AudioError unless `samples` [N] is a finite mono signal of at least 0.19 s. For `load`, `features`."""
    if samples.ndim != 1:
        raise AudioError(f"{name}: expected mono samples [N], found shape {samples.shape}; average the channels")
    if len(samples) < MIN_SAMPLES:
        raise AudioError(
            f"{name}: {len(samples) / SAMPLE_RATE:.2f} s is too short for features, "
            f"at least {MIN_SAMPLES / SAMPLE_RATE:.2f} s are needed; leave it out or use a longer excerpt"
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; export it again")


def stft(samples: np.ndarray) -> np.ndarray:
    """Short-time Fourier transform, complex64 [1025, T], T = 1 + N // 512. Notebook 01."""
    import librosa

    return librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH)


@_one_thread
def mel_power(spectrum: np.ndarray) -> np.ndarray:
    """Mel spectrogram [128, T] in power from a spectrum [1025, T] (complex). Notebook 01."""
    import librosa

    return librosa.feature.melspectrogram(S=np.abs(spectrum) ** 2.0, sr=SAMPLE_RATE, n_mels=NUM_MELS)


def to_db(power: np.ndarray) -> np.ndarray:
    """Decibels below the array's own maximum, in [-80, 0]. Notebook 01."""
    import librosa

    return librosa.power_to_db(power, ref=np.max)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram float32 [128, T], dB below the clip's maximum, in [-80, 0]. Notebook 01."""
    return to_db(mel_power(stft(samples)))


@_one_thread
def chroma(samples: np.ndarray, spectrum: np.ndarray | None = None) -> np.ndarray:
    """Chromagram float32 [12, T] in [0, 1] from a constant-Q transform; each frame's maximum is 1.

    Notebook 03. The constant-Q bins follow the clip's own tuning, estimated from its spectrum.
    """
    import librosa

    spectrum = stft(samples) if spectrum is None else spectrum
    # Pitches are sought up to 4 kHz: half of the spectrum is enough, once the peaks of the whole are known.
    magnitude = np.abs(spectrum)
    lower, loud = magnitude[: N_FFT // 4 + 1], 0.1 * magnitude.max(axis=0)
    tuning = librosa.estimate_tuning(S=lower, sr=SAMPLE_RATE / 2, ref=loud, bins_per_octave=36)
    return librosa.feature.chroma_cqt(y=samples, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, tuning=tuning)


def percussive(spectrum: np.ndarray) -> np.ndarray:
    """The percussive part of a spectrum, complex [1025, T], by median filtering.

    Notebook 02. Fitzgerald (2010): a drum hit is smooth along frequency, a held tone along time. The result equals
    that of `librosa.decompose.hpss` to the bit; only the way to the medians differs, and the harmonic part is left out.
    """
    import librosa

    magnitude, phase = librosa.magphase(spectrum)
    audible = np.maximum(magnitude, np.finfo(magnitude.dtype).tiny)  # two silences share a mask of one half
    harmonic = running_median(audible.T).T
    percussive = np.asfortranarray(running_median(audible))  # the memory order of the others
    larger = np.maximum(harmonic, percussive)
    harmonic, percussive = (harmonic / larger) ** 2, (percussive / larger) ** 2
    return magnitude * (percussive / (harmonic + percussive)) * phase


@_one_thread
def beat_frames(samples: np.ndarray, spectrum: np.ndarray | None = None) -> np.ndarray:
    """Frame numbers of the beats, int [K], found in the percussive part of the clip.

    Notebook 02. Dynamic programming over the onset strength (Ellis, 2007). A clip without any onset, such as a
    held chord, has no beats: the array is empty and the whole clip counts as one beat.
    """
    import librosa

    spectrum = stft(samples) if spectrum is None else spectrum
    drums = librosa.istft(percussive(spectrum), hop_length=HOP_LENGTH, length=len(samples), dtype=samples.dtype)
    _, beats = librosa.beat.beat_track(y=drums, sr=SAMPLE_RATE, hop_length=HOP_LENGTH)
    return beats


def beat_synchronous(array: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """Median of each interval between beats: [F, T] -> [F, K + 1]; without beats, of the whole clip. Notebook 02."""
    import librosa

    return librosa.util.sync(array, beats if len(beats) else [0], aggregate=np.median)


@_one_thread
def features(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lab's two arrays of a clip: raw frames and beat-synchronous.

    Notebooks 01-03.

    Parameters
    ----------
    samples : float32 [N] at 22,050 Hz, at least 0.19 s.

    Returns
    -------
    raw : float32 [140, T]; rows 0-127 log-mel in dB in [-80, 0], rows 128-139 chroma in [0, 1].
    beat : float32 [140, K + 1], K beats. The mel part is the median of the *power*, then in dB below the
        maximum of these medians, as in the lab's files; the chroma part is the median.

    Raises
    ------
    AudioError : see `check_samples`.
    """
    check_samples(samples)
    spectrum = stft(samples)
    mel, pitch = mel_power(spectrum), chroma(samples, spectrum)
    beats = beat_frames(samples, spectrum)
    raw = np.concatenate([to_db(mel), pitch])
    beat = np.concatenate([to_db(beat_synchronous(mel, beats)), beat_synchronous(pitch, beats)])
    return raw.astype(np.float32), beat.astype(np.float32)


def frame_times(num_frames: int) -> np.ndarray:
    """Start of each frame in seconds, with the end of the last: float [T + 1]. Notebook 02."""
    return np.arange(num_frames + 1) * (HOP_LENGTH / SAMPLE_RATE)


def beat_times(raw: np.ndarray, beat: np.ndarray) -> tuple[np.ndarray, bool]:
    """Where the beats of a beat-synchronous array lie in time, in seconds.

    Notebook 02. The lab's files hold no beat times, but they hold their trace: each beat-synchronous column is
    the median of a run of raw frames. We look for the run whose chroma median matches, column by column.

    Parameters
    ----------
    raw : [140, T]; beat : [140, K], the same clip.

    Returns
    -------
    times : float [K + 1], boundaries from 0 to the clip's duration.
    exact : False where no runs fit (the two arrays are of different clips or were made in another way); the
        boundaries are then evenly spaced.
    """
    raw, beat = raw[NUM_MELS:], beat[NUM_MELS:]
    num_frames, num_beats = raw.shape[1], beat.shape[1]
    edges = [0]
    for column in range(num_beats - 1):
        for stop in range(edges[-1] + 1, num_frames - (num_beats - 2 - column)):
            if np.abs(np.median(raw[:, edges[-1] : stop], axis=1) - beat[:, column]).max() < 1e-5:
                edges.append(stop)
                break
        else:
            break
    edges.append(num_frames)
    last = np.median(raw[:, edges[-2] :], axis=1)
    exact = len(edges) == num_beats + 1 and bool(np.abs(last - beat[:, -1]).max() < 1e-5)
    if not exact:
        edges = np.linspace(0, num_frames, num_beats + 1)
    return np.asarray(edges) * (HOP_LENGTH / SAMPLE_RATE), exact


@_one_thread
def sonify(log_mel_db: np.ndarray, iterations: int = 24) -> np.ndarray:
    """A rough sound from a log-mel spectrogram [128, T]: float32 [N], peak 0.9.

    Notebook 01. For data sets that come without audio: what the features kept can be heard. The power is spread
    back over the FFT bins of each band, the phase is found by Griffin and Lim's (1984) iterations.
    """
    import librosa

    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=NUM_MELS)
    power = bank.T @ librosa.db_to_power(log_mel_db) / np.maximum(bank.T @ bank.sum(axis=1), 1e-10)[:, None]
    samples = librosa.griffinlim(np.sqrt(power), n_iter=iterations, hop_length=HOP_LENGTH, random_state=0)
    return (0.9 * samples / max(np.abs(samples).max(), 1e-9)).astype(np.float32)
