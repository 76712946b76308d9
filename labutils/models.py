"""Backbones and heads (notebooks 05, 07-10).

A backbone maps a padded batch [B, T, F] with its lengths [B] to one vector per clip [B, D]; a head maps that to
genre logits or affect values. Every backbone carries its own input standardisation and gives the same result
whatever the padding: a clip's prediction does not depend on the batch it is in.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

GROUP = 64  # clips that a CPU reads side by side in an LSTM


def length_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """True on real frames, False on padding: lengths [B] -> bool [B, T]. Notebook 04."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def masked_mean_max(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean and maximum over the real frames: [B, T, D] -> [B, 2 D]. Notebook 05."""
    mask = length_mask(lengths, x.shape[1])[..., None]
    mean = (x * mask).sum(dim=1) / lengths[:, None]
    return torch.cat([mean, x.masked_fill(~mask, -torch.inf).amax(dim=1)], dim=1)


def pooled_statistics(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean, deviation and mean absolute change over the real frames: [B, T, F] -> [B, 3 F]. Notebook 05."""
    mask, count = length_mask(lengths, x.shape[1])[..., None], lengths[:, None]
    mean = (x * mask).sum(dim=1) / count
    deviation = (((x - mean[:, None]) ** 2 * mask).sum(dim=1) / count + 1e-6).sqrt()
    change = ((x[:, 1:] - x[:, :-1]).abs() * mask[:, 1:]).sum(dim=1) / (count - 1).clamp(min=1)
    return torch.cat([mean, deviation, change], dim=1)


def reverse_sequences(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence within its length, padding stays: [B, T, D] -> [B, T, D]. Notebook 05."""
    steps = torch.arange(x.shape[1], device=x.device)
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    index = index + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, index.flatten()).view_as(x)  # whole rows: 8 times as fast as `gather`


class InputNorm(nn.Module):
    """Standardise features with the training split's mean and deviation, keep padding at zero. For `Backbone`.

    Until `fit` is called it is the identity. The statistics are buffers: they travel with the checkpoint.
    """

    def __init__(self, num_features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))

    def fit(self, dataset) -> None:
        mean, deviation = dataset.mean_and_deviation()
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation * length_mask(lengths, x.shape[1])[..., None]


def average_frames(x: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Mean of each run of `frames` frames, the last run of a clip may be shorter: [B, T, F] -> [B, T', F].

    Notebook 05. Needs zeros in the padding. Returns the averages and their lengths, T' = ceil(T / frames).
    """
    if frames == 1:
        return x, lengths
    whole = x.shape[1] // frames * frames
    sums = x[:, :whole].unflatten(1, (-1, frames)).sum(dim=2)
    if whole < x.shape[1]:  # padding x instead would copy all of it
        sums = torch.cat([sums, x[:, whole:].sum(dim=1, keepdim=True)], dim=1)
    starts = torch.arange(sums.shape[1], device=x.device) * frames
    counts = (lengths[:, None] - starts).clamp(1, frames)
    return sums / counts[..., None], (lengths + frames - 1) // frames


class BiLSTM(nn.Module):
    """A bidirectional LSTM layer on padded sequences, equal to the packed one in outputs and gradients.

    Notebook 05. Two one-way LSTMs; the second reads each clip reversed within its length. On a CPU this costs what
    a padded LSTM costs, where `pack_padded_sequence` grows with the square of T as soon as lengths differ.
    [B, T, D] -> [B, T, 2 H]; steps beyond a clip's length are not defined.
    """

    def __init__(self, num_features: int, hidden: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(num_features, hidden, batch_first=True)
        self.backward_lstm = nn.LSTM(num_features, hidden, batch_first=True)

    def read(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The states of both directions, each in its own reading order: [B, T, H] from the first frame to the last
        and [B, T, H] from the last to the first. Both have seen the whole clip at index length - 1."""
        return self.forward_lstm(x)[0], self.backward_lstm(reverse_sequences(x, lengths))[0]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        ahead, back = self.read(x, lengths)
        return torch.cat([ahead, reverse_sequences(back, lengths)], dim=2)


class Backbone(nn.Module):
    """What all backbones share: fewer frames, standardised, read, with statistics beside: [B, T, F], [B] -> [B, D].

    For `LSTMBackbone`, `CNNBackbone` and for `ASTBackbone`. A subclass says in `read` how a clip becomes a vector.

    Parameters
    ----------
    num_outputs : length of the vector that `read` returns.   dropout : on the output vector.
    frames_per_step : this many frames are averaged into one step.   normalise : fit the input standardisation.
    statistics : put the `pooled_statistics` of the input, standardised over the batch, beside the vector
        (D grows by 3 F): what averages can tell need not go through the network.
    """

    def __init__(self, num_features, num_outputs, *, frames_per_step=1, dropout=0.0, normalise=True, statistics=False):
        super().__init__()
        self.frames_per_step, self.normalise = frames_per_step, normalise
        self.norm, self.dropout = InputNorm(num_features), nn.Dropout(dropout)
        self.statistics = nn.BatchNorm1d(3 * num_features) if statistics else None
        self.num_outputs = num_outputs + 3 * num_features * statistics

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, lengths = average_frames(x, lengths, self.frames_per_step)  # [B, T', F]
        x = self.norm(x, lengths)  # [B, T', F]
        vector = self.read(x, lengths)  # [B, num_outputs of the subclass]
        if self.statistics is not None:
            vector = torch.cat([vector, self._standardised(pooled_statistics(x, lengths))], dim=1)  # [B, D]
        return self.dropout(vector)

    def _standardised(self, statistics: Tensor) -> Tensor:
        """Over the batch in training; with the running mean and deviation else, and where the batch is one clip."""
        norm = self.statistics
        if norm.training and len(statistics) > 1:
            return norm(statistics)
        return F.batch_norm(statistics, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def extra_repr(self) -> str:
        """Every option that is a plain value: the cache of trained models tells models apart by their text."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, (bool, int, float, str, tuple))}
        return ", ".join(f"{name}={value}" for name, value in plain.items() if name != "training")


class LSTMBackbone(Backbone):
    """Bidirectional LSTM over frames or beats. Notebook 05.

    Parameters
    ----------
    hidden : units per direction.   num_layers : stacked BiLSTM layers.
    pooling : "mean_max" over time (4 hidden values); "last": each direction's last state (2 hidden);
        "last_index": both directions read at the last frame, as in the report, where the backward direction
        has seen one frame only (2 hidden).
    options : see `Backbone`.
    """

    def __init__(self, num_features, hidden=64, *, num_layers=1, pooling="mean_max", dropout=0.2, **options):
        if pooling not in ("mean_max", "last", "last_index"):
            raise ValueError(f"pooling {pooling!r} is unknown; choose mean_max, last or last_index")
        super().__init__(num_features, hidden * (4 if pooling == "mean_max" else 2), dropout=dropout, **options)
        self.pooling = pooling
        sizes = [num_features] + [2 * hidden] * (num_layers - 1)
        self.layers = nn.ModuleList(BiLSTM(size, hidden) for size in sizes)

    def read(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The pooled states of the last layer. A CPU reads a large batch in groups of like length: less padding."""
        if len(x) > GROUP and x.device.type == "cpu":
            order = lengths.argsort(stable=True)
            parts = [self.read(x[rows, : lengths[rows].max()], lengths[rows]) for rows in order.split(GROUP)]
            return torch.cat(parts)[order.argsort()]
        for layer in self.layers[:-1]:
            x = layer(x, lengths)  # [B, T', 2 H]
        final, clips = self.layers[-1], torch.arange(len(x), device=x.device)
        if self.pooling == "last_index":
            ahead = final.forward_lstm(x)[0][clips, lengths - 1]  # [B, H]
            back = final.backward_lstm(x[clips, lengths - 1][:, None])[0][:, 0]  # [B, H], its first step
            return torch.cat([ahead, back], dim=1)  # [B, 2 H]
        states = torch.cat(final.read(x, lengths), dim=2)  # [B, T', 2 H]; the order in time does not matter below
        if self.pooling == "mean_max":
            return masked_mean_max(states, lengths)  # [B, 4 H]
        return states[clips, lengths - 1]  # [B, 2 H]


def pair_maxima(x: Tensor) -> Tensor:
    """What `MaxPool2d(2, ceil_mode=True)` gives: [B, C, T, F] -> [B, C, ceil(T / 2), ceil(F / 2)].

    For `CNNBackbone`. Maxima of pairs along T, then along F; a last one without a partner stays. Several times as
    fast on a CPU, but slower where a gradient is asked for.
    """
    for axis in (2, 3):
        whole = x.shape[axis] // 2 * 2
        pairs, rest = x.split([whole, x.shape[axis] - whole], axis)
        first, second = pairs.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([torch.maximum(first, second), rest], axis) if rest.shape[axis] else torch.maximum(first, second)
    return x


class CNNBackbone(Backbone):
    """Blocks of Conv -> BatchNorm -> ReLU -> MaxPool on the spectrogram as a one-channel image. Notebook 07.

    The frequency axis is kept up to the output; over time mean and maximum of the real frames are taken (2 C F'
    values). With `num_frames` the time axis is kept too, as in the report: every clip is cut or padded to that many
    frames and the last maps are flattened.

    Parameters
    ----------
    channels : output channels of the blocks.   padding : of the 3 x 3 kernels; the report used 0.
    bands_per_step : average this many bands before the first block.   options : see `Backbone`.
    """

    def __init__(self, num_features, channels=(16, 32, 64, 64), *, padding=1, bands_per_step=1, num_frames=None,
                 frames_per_step=1, dropout=0.2, **options):  # fmt: skip
        self.bands_per_step, self.num_frames, self.padding = bands_per_step, num_frames, padding
        self.depth = len(channels)
        self.minimum = self._size_before(1)
        bands = self._size_after(max(num_features // bands_per_step, self.minimum))
        steps = 2 if num_frames is None else self._size_after(max(num_frames // frames_per_step, self.minimum))
        num_outputs = channels[-1] * bands * steps
        super().__init__(num_features, num_outputs, frames_per_step=frames_per_step, dropout=dropout, **options)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, padding=padding), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)
            )
            for i, o in pairwise([1, *channels])
        )  # fmt: skip

    def _size_after(self, size):
        """Length of an axis after the blocks; works on ints and on tensors of lengths."""
        for _ in range(self.depth):
            size = (size - 2 * (1 - self.padding) + 1) // 2
        return size

    def _size_before(self, size: int) -> int:
        """The smallest axis that the blocks map to `size`."""
        for _ in range(self.depth):
            size = 2 * size - 1 + 2 * (1 - self.padding)
        return size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.num_frames is not None:
            x = F.pad(x, (0, 0, 0, max(self.num_frames - x.shape[1], 0)))[:, : self.num_frames]
            lengths = lengths.clamp(max=self.num_frames)
        return super().forward(x, lengths)

    def feature_maps(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The last block's maps [B, C, T', F'] of standardised steps [B, T, F], and their lengths [B]."""
        x = F.avg_pool1d(x, self.bands_per_step) if self.bands_per_step > 1 else x  # [B, T, F1]
        if min(x.shape[1:]) < self.minimum:
            x = F.pad(x, (0, max(self.minimum - x.shape[2], 0), 0, max(self.minimum - x.shape[1], 0)))
        x, lengths = x[:, None], lengths.clamp(min=self.minimum)  # [B, 1, T, F1]
        ragged = bool((lengths < x.shape[2]).any())  # without padding there is nothing to hide
        for conv, batch_norm, relu, max_pool in self.blocks:
            if torch.is_inference_mode_enabled() and not batch_norm.training:  # the same, for half the cost
                conv, batch_norm, max_pool = fuse_conv_bn_eval(conv, batch_norm), nn.Identity(), pair_maxima
            x = batch_norm(conv(x))  # [B, C, T, F]
            lengths = lengths - 2 * (1 - self.padding)
            if ragged:
                padded = (lengths < x.shape[2]).nonzero()[:, 0]
                x[padded, :, lengths[padded]] = -torch.inf  # a frame after the clip must not win the maximum
            x = relu(max_pool(x))  # [B, C, T/2, F/2]; same as max_pool(relu(x)), on a quarter of the numbers
            lengths = (lengths + 1) // 2
            if ragged:
                x = x * length_mask(lengths, x.shape[2])[:, None, :, None]
        return x, lengths

    def read(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The last block's maps, flattened or pooled over time."""
        x, lengths = self.feature_maps(x, lengths)  # [B, C, T', F']
        if self.num_frames is not None:
            return x.flatten(1)  # [B, C T' F']
        return masked_mean_max(x.transpose(1, 2).flatten(2), lengths)  # [B, 2 C F']


class ASTBackbone(Backbone):
    """A small audio spectrogram transformer. Notebook 07; Gong, Chung and Glass (2021), arXiv:2104.01778.

    The spectrogram is cut into patches of `patch_frames` x F, each becomes one token with a sinusoidal position;
    padding is masked out of the attention; the output is the class token's vector. `options`: see `Backbone`.
    """

    def __init__(self, num_features, width=64, *, depth=2, num_heads=4, patch_frames=4, dropout=0.1, **options):
        super().__init__(num_features, width, **options)
        self.patch_frames, self.num_heads = patch_frames, num_heads
        self.embed = nn.Linear(patch_frames * num_features, width)
        self.class_token = nn.Parameter(0.02 * torch.randn(width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def read(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The class token's vector."""
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.patch_frames))  # [B, T, F]
        x = self.embed(x.unflatten(1, (-1, self.patch_frames)).flatten(2))  # [B, P, width]
        x = x + sinusoids(x.shape[1], x.shape[2], x.device)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)  # [B, 1 + P, width]
        real = length_mask((lengths + self.patch_frames - 1) // self.patch_frames + 1, x.shape[1])
        return self.encoder(x, src_key_padding_mask=~real)[:, 0]  # [B, width]


def sinusoids(num_positions: int, width: int, device=None) -> Tensor:
    """Position codes [P, width] of Vaswani et al. (2017): sines and cosines of falling frequency. Notebook 07."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-9.21 / width))  # 1 to 1/10000
    angles = torch.arange(num_positions, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Classifier(nn.Module):
    """Genre logits [B, C] from a backbone. Notebook 05."""

    def __init__(self, backbone: nn.Module, num_classes: int):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.num_outputs, num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.backbone(x, lengths))


class Regressor(Classifier):
    """One affect value per clip, [B], from a backbone. Notebook 08."""

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(x, lengths).squeeze(1)


class MultitaskRegressor(nn.Module):
    """One value per axis, [B, A], from a shared backbone with one head per axis. Notebook 10."""

    def __init__(self, backbone: nn.Module, num_axes: int):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Linear(backbone.num_outputs, 1) for _ in range(num_axes))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        shared = self.backbone(x, lengths)
        return torch.cat([head(shared) for head in self.heads], dim=1)


def axis_losses(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each axis over its labelled clips: [B, A], [B, A] -> [A]. Notebook 10.

    A target of NaN is a label that is not known. An axis without any label in the batch has the loss 0.
    """
    known = ~targets.isnan()
    squares = (predictions - torch.where(known, targets, predictions)) ** 2
    return squares.sum(dim=0) / known.sum(dim=0).clamp(min=1)


class MultitaskLoss(nn.Module):
    """Weighted sum of the `axis_losses`: predictions [B, A], targets [B, A] -> scalar. Notebook 10."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return (self.weights * axis_losses(predictions, targets)).sum()


class UncertaintyLoss(nn.Module):
    """The `axis_losses` weighted by learned variances: predictions [B, A], targets [B, A] -> scalar. Notebook 10.

    Kendall, Gal and Cipolla (2018), arXiv:1705.07115: each axis has a variance v, and the loss is the sum of
    (loss / v + log v) / 2, smallest where v is the axis's loss. `training.fit` trains them with the model.

    Parameters
    ----------
    variances : [A], where to begin; the variance of the labels is the loss of predicting their mean.
    """

    SPEED = 10  # the parameter is log v / SPEED: a step of Adam moves log v by SPEED times the learning rate

    def __init__(self, variances):
        super().__init__()
        logs = torch.as_tensor(variances, dtype=torch.float32).clamp(min=1e-6).log()
        self.log_variances = nn.Parameter(logs / self.SPEED)

    @property
    def variances(self) -> Tensor:
        """The learned variances [A]."""
        return (self.SPEED * self.log_variances).exp()

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        losses = axis_losses(predictions, targets)
        return (losses / self.variances + self.variances.log()).sum() / 2
