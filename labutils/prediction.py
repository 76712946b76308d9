"""What the best models of a data set say of any recording: genre, affect and tags over time (notebook 10).

A recording is cut into windows as long as the clips that the models were trained on, and each window is heard as a
training clip was. Which kind of model speaks is decided by clips that were held out, and how sure it may sound, too.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from . import audio, evaluation, plots, pretrained, recipes
from .data import FOLDERS, DataError, SpectrogramDataset, pad_collate
from .files import blame
from .training import device_of

NUM_TAGS = 6  # in the picture


class Windows:
    """Some windows of a recording, float32 [samples] at 22,050 Hz: each is heard once, however many models ask.

    For `predict`. `network`: the pretrained one, None where it is not here.
    """

    def __init__(self, sounds: list[np.ndarray], network):
        self.sounds, self.network = sounds, network

    def __len__(self) -> int:
        return len(self.sounds)

    @functools.cached_property
    def mels(self) -> list[np.ndarray]:
        """Log-mel frames [T, 128] of each."""
        return [audio.log_mel(sound).T for sound in self.sounds]

    @functools.cached_property
    def heard_in_audio(self) -> np.ndarray:
        """What the pretrained network makes of each, all layers: [W, 1756]."""
        return pretrained.clip_rows([pretrained.from_audio(sound) for sound in self.sounds], self.network)

    @functools.cached_property
    def heard_in_mel(self) -> np.ndarray:
        """The same from log-mel, as for data sets without audio."""
        return pretrained.clip_rows([pretrained.from_mel(mel) for mel in self.mels], self.network)


class Network:
    """The genre CNN of 07, or the affect CNNs of 08, of one experiment. For `load_models`.

    `held_out`: validation clips are not trained on, so that they can tell how good this kind of model is.
    """

    name = "CNN"

    def __init__(self, one: recipes.Experiment, axes: list[str], held_out: bool = False):
        changes = {"refit": False} if held_out else {}
        fits = [one.affect("cnn", axis, **changes) for axis in axes] if axes else [one.genre("cnn", **changes)]
        self.models, self.trained = [fit.model for fit in fits], sum(not fit.loaded for fit in fits)

    def of_clips(self, clips: SpectrogramDataset, num_frames: int | None = None) -> np.ndarray:
        """Logits [N, C] or affect values [N, A] of clips, or of their first frames."""
        return self._outputs([clips.frames(i)[:num_frames] for i in range(len(clips))])

    def of_sounds(self, windows: Windows) -> np.ndarray:
        """The same of windows of a recording."""
        return self._outputs(windows.mels)

    @torch.inference_mode()
    def _outputs(self, mels: list[np.ndarray]) -> np.ndarray:
        parts = [mels[i : i + 64] for i in range(0, len(mels), 64)]
        batches = [pad_collate([(mel, 0) for mel in part]).to(device_of(self.models[0])) for part in parts]
        rows = [[model(batch.x, batch.lengths).cpu().numpy() for model in self.models] for batch in batches]
        return np.concatenate([np.column_stack(row) for row in rows])


class Probe:
    """A linear model on the vectors of the pretrained network (09): logistic regression, or ridge for affect.

    For `load_models`. It hears a recording as it heard the data set: from audio, or from log-mel.
    """

    name = "probe on the pretrained network"

    def __init__(self, one: recipes.Experiment, axes: list[str], held_out: bool = False):
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        splits = one.affect_splits() if axes else one.genre_splits()
        clips = splits.train if held_out else splits.train.joined(splits.val)
        self.source, self.layer = pretrained.source_of(clips), "pooled" if axes else "penultimate"
        linear = RidgeCV(np.logspace(0, 5, 11)) if axes else LogisticRegression(C=0.05, max_iter=2000)
        vectors = pretrained.embed(clips, layer=self.layer)
        self.linear = make_pipeline(StandardScaler(), linear).fit(vectors, clips.labels)
        self.network, self.trained = pretrained.load(), 0

    def of_clips(self, clips: SpectrogramDataset, num_frames: int | None = None) -> np.ndarray:
        """Log probabilities [N, C] or affect values [N, A] of clips, or of their first frames."""
        if num_frames is None:
            return self._outputs(pretrained.embed(clips, layer=self.layer))
        share = audio.HOP_LENGTH / audio.SAMPLE_RATE * pretrained.SAMPLE_RATE / pretrained.HOP_LENGTH
        inputs = (pretrained.clip_input(clips, i, self.source) for i in range(len(clips)))
        cut = [x[: round(num_frames * share)] for x in inputs]
        return self._outputs(pretrained.clip_vectors(cut, self.network, self.layer))

    def of_sounds(self, windows: Windows) -> np.ndarray:
        """The same of windows of a recording."""
        rows = windows.heard_in_mel if self.source == "mel" else windows.heard_in_audio
        return self._outputs(rows[:, pretrained.LAYERS[self.layer]])

    def _outputs(self, vectors: np.ndarray) -> np.ndarray:
        classifies = hasattr(self.linear, "predict_log_proba")
        return self.linear.predict_log_proba(vectors) if classifies else self.linear.predict(vectors)


@dataclasses.dataclass
class Ensemble:
    """The kind of model that did best on held-out clips, one per seed, for genre and for affect. For `load_models`."""

    genre: list  # S models; empty where the data set has no genres
    classes: list[str]
    affect: list  # S models that give all axes; empty where the data set has no axes
    axes: list[str]
    num_frames: int  # of a window: the median of the training clips
    rehearsals: list  # S pairs: a model of the same kind as `genre`, and validation clips that it did not train on
    found: list[str]  # what the held-out clips said, a line for each kind of model
    trained: int = 0  # models that were not in the cache
    temperatures: dict[int, float] = dataclasses.field(default_factory=dict)  # by number of frames, once asked for

    def held_out(self, num_frames: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels [M] and logits [M, C] of the validation clips of all seeds, or of their first frames."""
        logits = [model.of_clips(clips, num_frames) for model, clips in self.rehearsals]
        return np.concatenate([clips.labels for _, clips in self.rehearsals]), np.concatenate(logits)

    def temperature(self, num_samples: int) -> float:
        """What logits are divided by so that probabilities fit the held-out clips, cut to the length of a recording."""
        num_frames = min(1 + num_samples // audio.HOP_LENGTH, self.num_frames)
        if num_frames not in self.temperatures:
            labels, logits = self.held_out(num_frames if num_frames < self.num_frames else None)
            self.temperatures[num_frames] = evaluation.temperature(logits, labels)
        return self.temperatures[num_frames]


class Prediction(NamedTuple):
    """What an ensemble says of one recording. For `predict`."""

    times: np.ndarray  # [W] middle of each window, in seconds
    seconds: float  # of the recording
    genre: np.ndarray  # [S, W, C] probabilities
    classes: list[str]
    affect: np.ndarray  # [S, W, A] values, about 0 to 1
    axes: list[str]
    tags: pd.DataFrame  # [W, 50] probabilities of the pretrained network's tags; no columns without it


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
    """The CNNs of 07 and 08 or, where they answer held-out clips better, probes on the pretrained network (09).

    Notebook 10. Networks are made by the same calls as there, so what a notebook trained is not trained again.

    Raises
    ------
    DataError : the data set has neither genres nor axes.
    """
    folders = {task: Path(experiment.root) / FOLDERS[task, "raw"] / "train" for task in ("genre", "affect")}
    if not any(folder.is_dir() for folder in folders.values()):
        raise DataError(f"{experiment.root}: has no training clips with raw frames; give another data set")
    seeds, result = experiment.seeds(num_seeds), Ensemble([], [], [], [], 0, [], [])
    for task in ("affect", "genre"):
        if folders[task].is_dir():
            splits = [one.affect_splits() if task == "affect" else one.genre_splits() for one in seeds]
            _learn(splits, seeds, result)
    return result


def _learn(splits: list[recipes.Splits], seeds: list[recipes.Experiment], result: Ensemble) -> None:
    """Put the models of one task into `result`, of the kind that answers held-out clips best."""
    train, held_out, scores, models = splits[0].train, [part.val for part in splits], {}, {}
    labels = np.concatenate([clips.labels for clips in held_out])
    for kind in (Network, Probe) if pretrained.available() else (Network,):
        models[kind] = [kind(one, train.axes, held_out=True) for one in seeds]
        outputs = np.concatenate([model.of_clips(clips) for model, clips in zip(models[kind], held_out)])
        if train.task == "genre":
            scores[kind], metric = evaluation.macro_f1(labels, outputs.argmax(axis=1)), "macro F1"
        else:
            scores[kind], metric = evaluation.mean_spearman(labels, outputs), "mean rho"
        result.found.append(f"{train.task}, {kind.name}: {metric} {scores[kind]:.2f} on {len(labels)} held-out answers")
    best = max(scores, key=scores.get)
    chosen = [best(one, train.axes) for one in seeds]
    result.trained += sum(model.trained for group in (chosen, *models.values()) for model in group)
    result.num_frames = int(np.median(train.lengths))
    if train.task == "genre":
        result.genre, result.classes, result.rehearsals = chosen, train.classes, list(zip(models[best], held_out))
    else:
        result.affect, result.axes = chosen, train.axes


def predict(ensemble: Ensemble, samples: np.ndarray | Recording, *, hop: float = 0.25) -> Prediction:
    """Genre probabilities, affect values and tags of each window of a recording. Notebook 10.

    The probabilities are calibrated: logits are divided by a temperature (Guo et al., 2017) at which held-out clips,
    cut to the recording's length, get probabilities as high as their answers are right.

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
    temperature = ensemble.temperature(len(samples)) if ensemble.genre else 1.0
    network = pretrained.load() if pretrained.available() else None
    genre, affect, tags = [], [], []
    for some in np.split(starts, range(64, len(starts), 64)):
        sounds = [samples[start : start + size] for start in some]
        if not np.isfinite(np.concatenate(sounds)).all():
            raise audio.AudioError("audio: holds NaN or infinite samples; export it again")
        windows = Windows(sounds, network)
        genre.append([softmax(model.of_sounds(windows) / temperature, axis=1) for model in ensemble.genre])
        affect.append([model.of_sounds(windows) for model in ensemble.affect])
        if network is not None:
            tags.append(windows.heard_in_audio[:, pretrained.LAYERS["tags"]])
    genre, affect = (np.concatenate(part, axis=1) if part[0] else np.array([]) for part in (genre, affect))
    times, seconds = (starts + min(size, len(samples)) / 2) / audio.SAMPLE_RATE, len(samples) / audio.SAMPLE_RATE
    tags = pd.DataFrame(np.concatenate(tags), columns=network.tags) if tags else pd.DataFrame(index=range(len(starts)))
    return Prediction(times, seconds, genre, ensemble.classes, affect, ensemble.axes, tags)


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
    """Genre, affect with the spread of the models, and the strongest tags over time: Axes [1 to 3]. Notebook 10."""
    shown = [bool(found.classes), bool(found.axes), len(found.tags.columns) > 0]
    axes = plots.panels(sum(shown), size=(9, 3.2), share="x")
    waiting, edges = iter(axes), [0, *(found.times[1:] + found.times[:-1]) / 2, found.seconds]
    if found.classes:
        order = [found.classes.index(name) for kind, name in summary(found).index if kind == "genre"]
        names = [found.classes[i] for i in order]
        plots.plot_probabilities(edges, found.genre.mean(axis=0)[:, order], names, ax=next(waiting))
    if found.axes:
        one = len(found.times) == 1  # a single window is drawn as a level over the whole recording
        values, times = np.repeat(found.affect, 1 + one, axis=1), [0, found.seconds] if one else found.times
        curves = {axis: values[:, :, a] for a, axis in enumerate(found.axes)}
        plots.plot_curves(
            times, curves, markers=True, ax=next(waiting), ylabel="affect (0 to 1)", xlim=(0, found.seconds),
            title="Mean of the models, and from the lowest to the highest",
            ylim=(min(0, values.min()), max(1, values.max())),
        )  # fmt: skip
    if shown[2]:
        strongest = found.tags.mean().nlargest(NUM_TAGS).index
        plots.plot_probabilities(edges, found.tags[strongest], list(strongest), ax=next(waiting), ylabel="tag")
    axes[0].figure.suptitle(title)
    return axes
