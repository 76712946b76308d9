"""What the notebooks' models say of any recording: genre and affect over time (notebook 10).

A recording is cut into windows as long as the clips that the models were trained on. Each window gets its own
log-mel spectrogram, in dB below its own maximum, so that the models meet it as they met their training clips.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from . import audio, plots, recipes
from .data import FOLDERS, Batch, DataError, pad_collate
from .files import blame
from .training import device_of


class Ensemble(NamedTuple):
    """The CNNs of 07, 08 and 10 on one data set. For `load_models`."""

    genre: list  # S classifiers; empty where the data set has no genres
    classes: list[str]
    affect: list  # groups of regressors that give all axes together; empty where the data set has no axes
    axes: list[str]
    num_frames: int  # of a window: the median of the training clips
    trained: int  # models that were not in the cache


class Prediction(NamedTuple):
    """What an ensemble says of one recording. For `predict`."""

    times: np.ndarray  # [W] middle of each window, in seconds
    seconds: float  # of the recording
    genre: np.ndarray  # [S, W, C] probabilities
    classes: list[str]
    affect: np.ndarray  # [M, W, A] values, about 0 to 1
    axes: list[str]


class Recording:
    """A file of any length, decoded block by block; slices, float32 [N], equal those of `audio.load`. For `predict`.

    The samples lie in a temporary file, so three hours need no more memory than three minutes.

    Raises
    ------
    AudioError : see `audio.load`.
    """

    def __init__(self, path):
        import soundfile
        import soxr

        if not Path(path).is_file():
            raise audio.AudioError(f"{path}: not found; give an audio file (wav, flac, ogg or mp3)")
        self.file = tempfile.TemporaryFile()  # removed with the object, and by the system after a kill
        with blame(path, "convert it to wav, flac, ogg or mp3", audio.AudioError), soundfile.SoundFile(path) as source:
            stream = soxr.ResampleStream(source.samplerate, audio.SAMPLE_RATE, 1)
            for block in source.blocks(2**20, dtype="float32", always_2d=True):
                self.file.write(stream.resample_chunk(block.mean(axis=1)).tobytes())
            self.file.write(stream.resample_chunk(np.empty(0, np.float32), last=True).tobytes())
        self.length = self.file.tell() // 4
        audio.check_samples(self[: audio.MIN_SAMPLES], str(path))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self.length)
        self.file.seek(4 * start)
        return np.frombuffer(self.file.read(4 * (stop - start)), np.float32)


def load_models(experiment: recipes.Experiment, num_seeds: int = 2) -> Ensemble:
    """The genre CNNs of 07, the affect CNNs of 08 and the multitask CNNs of 10, trained or from the cache.

    Notebook 10. They are made by the same calls as there, so what a notebook trained is not trained again.

    Raises
    ------
    DataError : the data set has neither genres nor axes.
    """
    has = {task: (Path(experiment.root) / FOLDERS[task, "raw"] / "train").is_dir() for task in ("genre", "affect")}
    genre, affect, classes, axes, seeds = [], [], [], [], experiment.seeds(num_seeds)
    if has["affect"]:
        train = experiment.affect_splits().train
        axes = train.axes
        affect = [[one.affect("cnn", axis) for axis in axes] for one in seeds] + [[one.affect("cnn")] for one in seeds]
    if has["genre"]:
        train = experiment.genre_splits().train
        classes = train.classes
        genre = [one.genre("cnn") for one in seeds]
    if not any(has.values()):
        raise DataError(f"{experiment.root}: has no training clips with raw frames; give another data set")
    fits = [*genre, *(fit for group in affect for fit in group)]
    return Ensemble([fit.model for fit in genre], classes, [[fit.model for fit in group] for group in affect], axes,
                    int(np.median(train.lengths)), sum(not fit.loaded for fit in fits))  # fmt: skip


def predict(ensemble: Ensemble, samples: np.ndarray | Recording, *, hop: float = 0.25) -> Prediction:
    """Genre probabilities and affect values of each window of a recording. Notebook 10.

    Parameters
    ----------
    samples : float32 [N] at 22,050 Hz, or a `Recording`; one shorter than a window is one window.
    hop : from one window to the next, as a share of the window's length.

    Raises
    ------
    AudioError : see `audio.check_samples`.
    """
    audio.check_samples(samples[: audio.MIN_SAMPLES])
    size = (ensemble.num_frames - 1) * audio.HOP_LENGTH  # N samples give 1 + N // HOP_LENGTH frames
    last = max(len(samples) - size, 0)
    step = max(round(hop * size), 1)
    starts = np.unique(np.append(np.arange(0, max(last - step // 2, 1), step), last))  # the last to the very end
    genre, affect = [], []
    for some in np.split(starts, range(64, len(starts), 64)):
        pieces = [samples[start : start + size] for start in some]
        if not np.isfinite(np.concatenate(pieces)).all():
            raise audio.AudioError("audio: holds NaN or infinite samples; export it again")
        windows = pad_collate([(audio.log_mel(piece).T, 0) for piece in pieces])
        genre.append([_outputs(model, windows).softmax(dim=1).numpy() for model in ensemble.genre])
        affect.append([np.column_stack([_outputs(model, windows) for model in group]) for group in ensemble.affect])
    genre, affect = (np.concatenate(part, axis=1) if part[0] else np.array([]) for part in (genre, affect))
    times, seconds = (starts + min(size, len(samples)) / 2) / audio.SAMPLE_RATE, len(samples) / audio.SAMPLE_RATE
    return Prediction(times, seconds, genre, ensemble.classes, affect, ensemble.axes)


def summary(found: Prediction) -> pd.DataFrame:
    """The whole recording: a row per genre, the most probable first, and per axis. Notebook 10.

    Columns: the mean over windows and models, then the lowest and the highest of the models' own means.
    """
    rows = {}
    for kind, values, names in (("genre", found.genre, found.classes), ("affect", found.affect, found.axes)):
        means = values.mean(axis=1) if names else np.empty((0, 0))  # [models, names]
        order = np.argsort(-means.mean(axis=0), kind="stable") if kind == "genre" and names else range(len(names))
        rows |= {(kind, names[i]): (means[:, i].mean(), means[:, i].min(), means[:, i].max()) for i in order}
    index = pd.MultiIndex.from_tuples(rows)
    return pd.DataFrame(list(rows.values()), index, columns=["mean", "lowest model", "highest model"])


def draw(found: Prediction, title: str = ""):
    """Genre probabilities over time, and affect over time with the spread of the models: Axes [1 or 2]. Notebook 10."""
    axes = plots.panels(bool(found.axes) + bool(found.classes), size=(9, 3.2), share="x")
    if found.classes:
        order = [found.classes.index(name) for kind, name in summary(found).index if kind == "genre"]
        edges = [0, *(found.times[1:] + found.times[:-1]) / 2, found.seconds]
        names = [found.classes[i] for i in order]
        plots.plot_probabilities(edges, found.genre.mean(axis=0)[:, order], names, ax=axes[0])
    if found.axes:
        one = len(found.times) == 1  # a single window is drawn as a level over the whole recording
        values, times = np.repeat(found.affect, 1 + one, axis=1), [0, found.seconds] if one else found.times
        curves = {axis: values[:, :, a] for a, axis in enumerate(found.axes)}
        plots.plot_curves(
            times, curves, markers=True, ax=axes[-1], title="Mean of the models, and from the lowest to the highest",
            ylabel="affect (0 to 1)", xlim=(0, found.seconds), ylim=(min(0, values.min()), max(1, values.max())),
        )  # fmt: skip
    axes[0].figure.suptitle(title)
    return axes


@torch.inference_mode()
def _outputs(model, windows: Batch) -> torch.Tensor:
    """Outputs of a model for some windows."""
    windows = windows.to(device_of(model))
    return model(windows.x, windows.lengths).cpu()
