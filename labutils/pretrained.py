"""A network that has heard 200,000 songs: MusiCNN, its weights, its inputs and its vectors (notebook 09).

MusiCNN (Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019,
arXiv:1909.06654) names the tags of three seconds of music. Its weights come as the package `musicnn` of the Python
package index, under the ISC licence; the network here is ours, in PyTorch, and TensorFlow is not needed.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import audio
from .audio import _one_thread
from .corpus import build
from .corpus.weights import HOW, NETWORKS, available, weights  # noqa: F401 (notebooks ask for them here)
from .data import SpectrogramDataset, check_choice, provenance
from .files import DataError, whole_file
from .progress import progress
from .store import home

SAMPLE_RATE = 16000  # Hz
N_FFT = 512  # samples
HOP_LENGTH = 256  # samples between two frames: 16 ms
NUM_BANDS = 96
WINDOW = 187  # frames of a training example: 3 s
LEVEL = 27.0  # dB of the loudest mel value of a clip, where a data set does not know it: the median of real clips
SHARPENER = Path(__file__).parent / "assets" / "sharpen.npz"
# Which vector of a clip, as columns of the row that `embed` keeps; maximum and mean over time take turns in the first
LAYERS = {
    "front": slice(0, 1122),
    "middle": slice(1122, 1506),
    "pooled": slice(0, 1506),
    "penultimate": slice(1506, 1706),
    "tags": slice(1706, 1756),
}


class Sharpener(nn.Module):
    """What is missing in an input from features, [B, T, 96] -> [B, T, 96]: three convolutions of 5 frames x 5 bands.

    For `from_mel`. Trained on procedural music, of which sound and features are known (`benchmarks/sharpen.py`).
    """

    def __init__(self, channels: int = 24):
        super().__init__()
        sizes = zip((2, channels, channels), (channels, channels, 1))
        self.convolutions = nn.ModuleList(nn.Conv2d(*size, 5, padding=2) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        bands = torch.linspace(-1, 1, NUM_BANDS).expand_as(x)
        maps = torch.stack([x / 2 - 1, bands], dim=1)  # [B, 2, T, 96]
        for conv in self.convolutions[:2]:
            maps = F.relu(conv(maps))  # [B, C, T, 96]
        return (x + self.convolutions[2](maps)[:, 0]).clamp(min=0)  # [B, T, 96]


@functools.cache
def _sharpener() -> Sharpener:
    network = Sharpener()
    with np.load(SHARPENER) as file:
        network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    return network.eval()


class Activations(NamedTuple):
    """The layers of MusiCNN for B windows of T frames. For `MusiCNN`."""

    front: Tensor  # [B, T, 561] what the filters found in each frame
    middle: Tensor  # [B, T, 753] the same, and three layers over time
    pooled: Tensor  # [B, 1506] maximum and mean over time of each
    penultimate: Tensor  # [B, 200]
    logits: Tensor  # [B, 50] of the tags; their sigmoid is a probability


class Affine(nn.Module):
    """Batch norm with the statistics of its training: a factor and a summand for each channel. For `MusiCNN`."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class MusiCNN(nn.Module):
    """Filters shaped after music, three layers over time, and what is loudest and usual in them.

    Notebook 09. Five branches look at the input, each with filters of another shape: over many bands and few frames
    for timbre, over one band and many frames for rhythm. Every convolution is followed by a ReLU and batch norm.
    `load` gives the trained network; `tags` names its outputs.
    """

    FRONT = ((204, 7, 38), (204, 7, 67), (51, 128, 1), (51, 64, 1), (51, 32, 1))  # filters, frames, bands
    MIDDLE = ((64, 7, 561), (64, 7, 64), (64, 7, 64))

    def __init__(self, tags: list[str]):
        super().__init__()
        self.tags = tags
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1, out, (time, bands)) for out, time, bands in (*self.FRONT, *self.MIDDLE)
        )
        self.norms = nn.ModuleList(Affine(size) for size in (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200))
        self.dense = nn.ModuleList([nn.Linear(1506, 200), nn.Linear(200, len(tags))])

    def forward(self, x: Tensor) -> Activations:
        """Input [B, T, 96] of `from_audio` or `from_mel`. The network was trained on T = 187, but takes any."""
        return self.above_front(self.front(x))

    def front(self, x: Tensor) -> Tensor:
        """The front end, [B, T, 96] -> [B, T, 561].

        Each branch keeps its largest value over the bands. Bias, ReLU and norm keep the order of values, or turn it
        round where the norm's factor is negative, so they follow the maximum: there, of the negative values.
        """
        x, branches = self.norms[0](x), []  # [B, T, 96]
        for conv, norm in zip(self.convolutions[:5], self.norms[1:6]):
            sign = norm.scale.sign()  # [C]
            kernel = conv.weight[:, 0] * sign[:, None, None]  # [C, frames, bands]
            maxima = (timbral_maxima if kernel.shape[2] > 1 else temporal_maxima)(x, kernel)  # [B, T, C]
            branches.append(norm(F.relu(maxima * sign + conv.bias)))  # [B, T, C]
        return torch.cat(branches, dim=2)  # [B, T, 561]

    def above_front(self, front: Tensor) -> Activations:
        """All layers, given the output [B, T, 561] of the front end."""
        maps, x = [front], None
        for conv, norm in zip(self.convolutions[5:], self.norms[6:9]):
            kernel = conv.weight[:, 0].mT  # [64, C, 7]
            new = norm(F.relu(F.conv1d(maps[-1].mT, kernel, conv.bias, padding=3)).mT)  # [B, T, 64]
            x = new if x is None else x + new  # [B, T, 64]
            maps.append(x)
        middle = torch.cat(maps, dim=2)  # [B, T, 753]
        pooled = torch.stack([middle.amax(dim=1), middle.mean(dim=1)], dim=2).flatten(1)  # [B, 1506]
        penultimate = self.norms[10](F.relu(self.dense[0](self.norms[9](pooled))))  # [B, 200]
        return Activations(front, middle, pooled, penultimate, self.dense[1](penultimate))  # logits [B, 50]


def timbral_maxima(x: Tensor, kernel: Tensor) -> Tensor:
    """Largest value over the bands of a convolution: input [B, T, 96], kernel [C, 7, H] -> [B, T, C].

    For `front`. Along the bands the spectra are multiplied instead, which takes a quarter of the arithmetic. The
    positions lie symmetrically around the middle one, at which cosines add what sines add on one side and take away
    on the other, and the larger of a + b and a - b is a + |b|.
    """
    middle = (NUM_BANDS - kernel.shape[2]) / 2
    angles = 2 * math.pi / NUM_BANDS * torch.arange(NUM_BANDS // 2 + 1, device=x.device)  # [49]
    spectra = torch.fft.rfft(kernel, NUM_BANDS).conj() * torch.exp(1j * middle * angles)  # [C, 7, 49]
    real, imag = spectra.real.permute(2, 1, 0), spectra.imag.permute(2, 1, 0)  # [49, 7, C]
    to_real = torch.stack([real, -imag], dim=2).flatten(1, 2)  # [49, 14, C]
    to_imag = torch.stack([imag, real], dim=2).flatten(1, 2)  # [49, 14, C]
    steps = torch.arange(middle % 1, middle + 0.5, device=x.device)[:, None] * angles  # [P, 49]
    share = torch.tensor([1.0] + [2.0] * (len(angles) - 2) + [1.0], device=x.device) / NUM_BANDS
    cosines, sines = steps.cos() * share, steps.sin() * share  # [P, 49]
    maxima = []
    for window in F.pad(x, (0, 0, 3, 3)).split(1):  # one at a time stays in the processor's cache: twice as fast
        frames = torch.view_as_real(torch.fft.rfft(window[0])).unfold(0, x.shape[1], 1)  # [7, 49, 2, T]
        frames = frames.permute(1, 3, 0, 2).flatten(2)  # [49, T, 14]
        even = cosines @ (frames @ to_real).flatten(1)  # [P, T C]
        odd = sines @ (frames @ to_imag).flatten(1)  # [P, T C]
        maxima.append((even + odd.abs()).amax(dim=0).view(x.shape[1], -1))  # [T, C]
    return torch.stack(maxima)


def temporal_maxima(x: Tensor, kernel: Tensor) -> Tensor:
    """Largest value over the bands of a convolution: input [B, T, 96], kernel [C, K, 1] -> [B, T, C]. For `front`."""
    before, after = (kernel.shape[1] - 1) // 2, kernel.shape[1] // 2
    windows = F.pad(x, (0, 0, before, after))[:, None].split(1)  # one at a time, as above
    return torch.cat([F.conv2d(window, kernel[:, None]).amax(dim=3) for window in windows]).mT


def load(network: str = "msd") -> MusiCNN:
    """The trained network "msd" or "mtt", in evaluation mode. Notebook 09.

    Raises
    ------
    DataError : see `weights`.
    """
    found = weights(network)

    def numbered(kind: str, number: int) -> dict[str, Tensor]:
        prefix = f"{kind}_{number}/" if number else f"{kind}/"
        names = (name for name in found.tensors if name.startswith(prefix))
        return {name.removeprefix(prefix): torch.from_numpy(found.tensors[name].copy()) for name in names}

    model = MusiCNN(found.tags)
    with torch.no_grad():
        for number, layer in enumerate(model.convolutions):
            layer.weight.copy_(numbered("conv2d", number)["kernel"].permute(3, 2, 0, 1))
            layer.bias.copy_(numbered("conv2d", number)["bias"])
        for number, layer in enumerate(model.dense):
            layer.weight.copy_(numbered("dense", number)["kernel"].mT)
            layer.bias.copy_(numbered("dense", number)["bias"])
        for number, layer in enumerate(model.norms):
            norm = numbered("batch_normalization", number)
            layer.scale.copy_(norm["gamma"] / (norm["moving_variance"] + 1e-3).sqrt())
            layer.shift.copy_(norm["beta"] - norm["moving_mean"] * layer.scale)
    return model.eval()


@_one_thread
def from_audio(samples: np.ndarray) -> np.ndarray:
    """The network's input from sound: float32 [N] at 22,050 Hz -> [T, 96], T = 1 + N' // 256 at 16,000 Hz.

    Notebook 09. A mel spectrogram in power, log10(10000 x + 1). Half precision on the way, as in its training.
    """
    import librosa

    samples = librosa.resample(samples, orig_sr=audio.SAMPLE_RATE, target_sr=SAMPLE_RATE)
    power = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=NUM_BANDS
    )
    return np.log10(10000 * power.T.astype(np.float16).astype(np.float32) + 1)


def from_mel(mel: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """About the network's input from the lab's log-mel: dB below the clip's maximum [T, 128] -> [T', 96]. Notebook 09.

    How loud the clip was is lost: `level`, the dB of its maximum, is a guess. What the lab's longer window has blurred
    is sharpened twice: by `deconvolved`, which knows the window, and by `Sharpener`, which has learned from sounds.
    """
    return _run(_sharpener(), deconvolved(mel, level)[None])[0].numpy()


def deconvolved(mel: np.ndarray, level: float) -> np.ndarray:
    """The input of `from_mel` before it is sharpened, float32 [T', 96]. For `from_mel`.

    The lab's frames look at 93 ms, the network's at 32. Which course of the power over time, in steps of a third of a
    frame, would look like this through the longer window? Ten iterations of Richardson (1972) and Lucy (1974) find one.
    """
    power = torch.from_numpy(band_matrix() @ 10 ** ((mel.T + level) / 10)).float()[:, None]  # [96, 1, T]
    step = audio.HOP_LENGTH / audio.SAMPLE_RATE / 3  # s
    long, short = (_squared_hann(size, step) for size in (audio.N_FFT / audio.SAMPLE_RATE, N_FFT / SAMPLE_RATE))

    def blurred(x):  # [96, 1, 3 T - 2] -> [96, 1, T]
        return F.conv1d(x, long, stride=3, padding=long.shape[2] // 2)

    def spread(x):  # and back
        return F.conv_transpose1d(x, long, stride=3, padding=long.shape[2] // 2)

    weight = spread(torch.ones_like(power))
    sharp = spread(power) / weight
    for _ in range(10):
        sharp = sharp * spread(power / blurred(sharp).clamp(min=1e-12)) / weight
    seen = F.conv1d(sharp, short, padding=short.shape[2] // 2)[:, 0].numpy()  # [96, 3 T - 2]
    places = np.arange(0, (3 * len(mel) - 3) * step + 1e-9, HOP_LENGTH / SAMPLE_RATE) / step
    low = np.minimum(places.astype(int), max(seen.shape[1] - 2, 0))
    high, share = np.minimum(low + 1, seen.shape[1] - 1), (places - low).astype(np.float32)
    return np.log10(10000 * (seen[:, low] * (1 - share) + seen[:, high] * share).T + 1)


def _squared_hann(seconds: float, step: float) -> Tensor:
    """Share of each moment in the power of a frame, [1, 1, K]: a squared Hann window in steps of `step` seconds."""
    half = int(seconds / 2 / step)
    taps = torch.cos(math.pi * torch.arange(-half, half + 1) * step / seconds) ** 4
    return (taps / taps.sum())[None, None]


@functools.cache
def band_matrix() -> np.ndarray:
    """What power in the lab's mel bands is in the network's, for noise: float [96, 128]. For `deconvolved`.

    The power of a band lies in a triangle of frequencies. Seen through a shorter window it leaks: the expected spectrum
    is that of the autocorrelation times the window's own (Wiener and Khinchin). In steps of 3.125 Hz.
    """
    import librosa
    from scipy.signal.windows import hann

    rate, size = audio.SAMPLE_RATE, SAMPLE_RATE * 8 // 25  # 5120 points of our rate, 7056 of the lab's
    triangles = librosa.filters.mel(sr=rate, n_fft=rate * 8 // 25, n_mels=audio.NUM_MELS, norm=None)[:, : size // 2 + 1]
    gain = librosa.filters.mel(sr=rate, n_fft=audio.N_FFT, n_mels=audio.NUM_MELS).sum(axis=1, keepdims=True)
    density = triangles / gain / (hann(audio.N_FFT, sym=False) ** 2).sum() * SAMPLE_RATE / rate
    window = np.fft.irfft(np.abs(np.fft.rfft(hann(N_FFT, sym=False), size)) ** 2)
    power = np.fft.rfft(np.fft.irfft(density) * window).real[:, :: size // N_FFT]  # [128, 257]
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=NUM_BANDS) @ power.T


def windows(x: np.ndarray, hop: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Cut an input [T, 96] into windows of 3 s, evenly from its first to its last frame.

    For `embed`. `hop` is about the step as a share of a window. An input that is too short is repeated.

    Returns
    -------
    windows : [W, 187, 96].   times : [W] the middle of each, in seconds.
    """
    count = max(round((len(x) - WINDOW) / (hop * WINDOW)) + 1, 1)
    starts = np.linspace(0, max(len(x) - WINDOW, 0), count).round().astype(int)
    cut = x[(starts[:, None] + np.arange(WINDOW)) % len(x)]
    return cut, (starts + min(WINDOW, len(x)) / 2) * HOP_LENGTH / SAMPLE_RATE


def tags_over_time(x: np.ndarray, model: MusiCNN, hop: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the model's tags in each window of an input [T, 96]: [W, 50], and their times [W] in seconds.

    Notebook 09. For `hop` see `windows`.
    """
    cut, times = windows(x, hop)
    return _rows(cut, model)[:, LAYERS["tags"]], times


def clip_vectors(inputs, model: MusiCNN, layer: str = "penultimate") -> np.ndarray:
    """A vector for each input [T, 96], the mean over its windows of 3 s: float32 [N, D]. For `embed`.

    `layer`: "front" (D = 1122), "middle" (384), "pooled" (1506: both), "penultimate" (200), or "tags" (50: their
    probabilities).
    """
    check_choice("layer", layer, LAYERS)
    return clip_rows(inputs, model)[:, LAYERS[layer]]


def clip_rows(inputs, model: MusiCNN) -> np.ndarray:
    """All layers of each input [T, 96], the mean over its windows: float32 [N, 1756], see `LAYERS`. For `embed`."""
    return np.stack([_rows(windows(x)[0], model).mean(axis=0) for x in inputs])


def _rows(cut: np.ndarray, model: MusiCNN) -> np.ndarray:
    """All that is kept of each window [W, 187, 96]: float32 [W, 1756], see `LAYERS`."""
    parts = [_run(model, cut[i : i + 16]) for i in range(0, len(cut), 16)]  # long recordings need not fit in memory
    rows = [torch.cat([part.pooled, part.penultimate, part.logits.sigmoid()], dim=1) for part in parts]
    return torch.cat(rows).numpy()


@torch.inference_mode()
def _run(model: nn.Module, x: np.ndarray):
    """A network's answer, on one thread: several round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return model(torch.from_numpy(x))
    finally:
        torch.set_num_threads(threads)


def source_of(dataset: SpectrogramDataset) -> str:
    """How a data set is heard if nothing else is said: "audio" if it has any, else "mel". For `embed`."""
    root = dataset.folder.parent
    record = provenance(root)
    sounds = record["kind"] == "procedural" or ("audio" in record and Path(record["audio"]).is_dir())
    return "audio" if sounds else "mel"


def clip_input(dataset: SpectrogramDataset, i: int, source: str) -> np.ndarray:
    """The network's input [T, 96] for clip i, from its audio or from its log-mel. For `embed`.

    Raises
    ------
    DataError : the clip's audio is not here.
    """
    row = dataset.rows[i]
    if source == "mel":
        return from_mel(dataset.store.frames(row)[:, : audio.NUM_MELS])
    root = dataset.folder.parent
    samples = build.load_audio(root, dataset.ids[i])
    if samples is None:
        raise DataError(f"{root}: the sound of clip {dataset.ids[i]} is not here; bring it back, or use source='mel'")
    return from_audio(samples)


def embed(dataset: SpectrogramDataset, network="msd", layer="penultimate", *, source="auto") -> np.ndarray:
    """The vectors of a data set's clips, float32 [N, D]: see `clip_vectors`.

    Notebook 09. A clip is heard once: its vectors are kept in `home()/pretrained`, under its content.

    Parameters
    ----------
    dataset : with raw frames; any feature and task.
    source : "audio"; "mel", see `from_mel`; or "auto": from audio if the data set has any.

    Raises
    ------
    DataError : weights, audio or raw frames that are not here; an unknown network, layer or source.
    """
    check_choice("layer", layer, LAYERS)
    check_choice("source", source, ("auto", "audio", "mel"))
    if dataset.time != "raw":
        raise DataError(f"{dataset.folder}: has one column per beat; open the data set with time='raw'")
    source = source_of(dataset) if source == "auto" else source
    key = _digest(weights(network).digest.encode(), Path(__file__).read_bytes(), SHARPENER.read_bytes())
    folder = home() / "pretrained" / f"{network}-{source}-{key}"
    model, vectors = None, []
    for i, row in enumerate(progress(dataset.rows, desc=f"{network} hears {dataset.split} clips", unit="clip")):
        path = folder / f"{_digest(dataset.store.frames(row).tobytes())}.npy"
        vector = _kept(path)
        if vector is None:
            model = model or load(network)
            vector = clip_rows([clip_input(dataset, i, source)], model)[0]
            with whole_file(path) as part, open(part, "wb") as file:
                np.save(file, vector)
        vectors.append(vector)
    return np.stack(vectors)[:, LAYERS[layer]]


def _digest(*contents: bytes) -> str:
    return hashlib.blake2b(b"".join(contents), digest_size=12).hexdigest()


def _kept(path: Path) -> np.ndarray | None:
    """The vector [1756] kept at `path`; None where there is none, or a damaged one."""
    if not path.exists():
        return None
    try:
        return np.load(path, allow_pickle=False).reshape(LAYERS["tags"].stop)
    except (OSError, ValueError, EOFError) as error:
        warnings.warn(f"{path}: damaged, made anew ({error})", stacklevel=3)
        return None
