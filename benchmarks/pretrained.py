"""MusiCNN from sound to vectors: as its authors wrote it down, layer after layer, against ours (notebook 09)."""

from __future__ import annotations

import numpy as np
import torch
from features import CLIP_SECONDS, clip
from harness import Case
from torch import Tensor, nn
from torch.nn import functional as F

from labutils import audio, pretrained


class PlainMusiCNN(nn.Module):
    """Convolution, ReLU, batch norm; then the maximum over the bands. Weights are those of ours."""

    def __init__(self, ours: pretrained.MusiCNN):
        super().__init__()
        self.convolutions, self.dense = ours.convolutions, ours.dense
        self.norms = nn.ModuleList(self._batch_norm(norm) for norm in ours.norms)

    @staticmethod
    def _batch_norm(ours: pretrained.Affine) -> nn.BatchNorm2d:
        """A batch norm that multiplies and adds what ours does."""
        norm = nn.BatchNorm2d(len(ours.scale), eps=1e-3).eval()
        norm.running_var.fill_(1 - 1e-3)
        norm.weight, norm.bias = ours.scale, ours.shift
        return norm

    def forward(self, x: Tensor) -> pretrained.Activations:
        x, branches = self.norms[0](x[:, None]), []  # [B, 1, T, 96]
        for conv, norm in zip(self.convolutions[:5], self.norms[1:6]):
            frames = conv.kernel_size[0]
            padded = F.pad(x, (0, 0, (frames - 1) // 2, frames // 2))
            branches.append(norm(F.relu(conv(padded))).amax(dim=3).mT)  # [B, T, C]
        maps = [torch.cat(branches, dim=2)]  # [B, T, 561]
        for conv, norm in zip(self.convolutions[5:], self.norms[6:9]):
            new = norm(F.relu(conv(F.pad(maps[-1][:, None], (0, 0, 3, 3)))))[..., 0].mT  # [B, T, 64]
            maps.append(new if len(maps) == 1 else new + maps[-1])
        middle = torch.cat(maps, dim=2)  # [B, T, 753]
        pooled = torch.stack([middle.amax(dim=1), middle.mean(dim=1)], dim=2).flatten(1)  # [B, 1506]
        normed = self.norms[9](pooled[..., None, None])[..., 0, 0]
        penultimate = self.norms[10](F.relu(self.dense[0](normed))[..., None, None])[..., 0, 0]  # [B, 200]
        return pretrained.Activations(maps[0], middle, pooled, penultimate, self.dense[1](penultimate))


@torch.inference_mode()
def plain_vector(samples: np.ndarray, model: PlainMusiCNN) -> np.ndarray:
    """The penultimate vector of a clip, all its windows at once."""
    cut, _ = pretrained.windows(pretrained.from_audio(samples))
    return model(torch.from_numpy(cut)).penultimate.mean(dim=0).numpy()


def cases() -> list[Case]:
    """The row of the table. The weights are random: what they are costs nothing."""
    ours = pretrained.MusiCNN([""] * 50).eval()
    plain, samples = PlainMusiCNN(ours), audio.load(clip())
    return [
        Case(
            name="pretrained",
            work=f"MusiCNN's vectors of a clip of {CLIP_SECONDS:.0f} s, from its samples, on one core",
            plain=lambda: plain_vector(samples, plain),
            fast=lambda: pretrained.clip_vectors([pretrained.from_audio(samples)], ours),
            unit="clips",
            clock="cpu",
            target=2.0,
        )
    ]
