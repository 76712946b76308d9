"""Training and prediction of the LSTM and the CNN against the way they are usually written (notebooks 05 and 07)."""

from __future__ import annotations

import functools
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from harness import Case
from loading import OneFilePerItem, plain_loader, raw_clips
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from labutils import models, process, training
from labutils.data import SpectrogramDataset

NUM_MELS = 128
FIGURE = Path(__file__).with_name("lstm_cost.png")


class PackedLSTM(nn.Module):
    """A bidirectional LSTM under `pack_padded_sequence`. Reads its state at the last index, or mean and maximum."""

    def __init__(self, num_features: int, hidden: int, *, last_index: bool = False):
        super().__init__()
        self.lstm = nn.LSTM(num_features, hidden, batch_first=True, bidirectional=True)
        self.last_index = last_index

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        if self.last_index:
            return states[torch.arange(len(x)), lengths - 1]
        real = (torch.arange(states.shape[1]) < lengths[:, None])[..., None]
        mean = (states * real).sum(1) / lengths[:, None]
        return torch.cat([mean, states.masked_fill(~real, -torch.inf).amax(1)], 1)

    def copy_from(self, ours: models.LSTMBackbone) -> PackedLSTM:
        """Take over the weights of our LSTM."""
        for suffix, lstm in (("", ours.layers[0].forward_lstm), ("_reverse", ours.layers[0].backward_lstm)):
            for name, weight in lstm.named_parameters():
                getattr(self.lstm, name + suffix).data.copy_(weight.data)
        return self


class PlainCNN(nn.Module):
    """Four layers of Conv -> BatchNorm -> ReLU -> MaxPool; mean and maximum over time, frequency kept."""

    def __init__(self, channels=(4, 8, 12, 16)):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)
                )
                for i, o in pairwise((1, *channels))
            )
        )

    def forward(self, x, lengths):
        maps = self.blocks(x[:, None]).transpose(1, 2).flatten(2)  # [B, T', C F']
        return torch.cat([maps.mean(1), maps.amax(1)], 1)

    def copy_from(self, ours: models.CNNBackbone) -> PlainCNN:
        """Take over the weights of our CNN."""
        self.blocks.load_state_dict(ours.blocks.state_dict())
        return self


def batch(size: int, shortest: int, longest: int, seed: int = 0):
    """Standard normal clips [B, T, 128] with lengths in a range, zero beyond, the first of full length."""
    rng = np.random.default_rng(seed)
    lengths = torch.tensor([longest, *rng.integers(shortest, longest + 1, size - 1)])
    x = torch.from_numpy(rng.standard_normal((size, longest, NUM_MELS), dtype=np.float32))
    return x * models.length_mask(lengths, longest)[..., None], lengths


def step(model: nn.Module, x, lengths) -> None:
    """Forward and backward pass, without the optimiser."""
    model.zero_grad()
    model(x, lengths).square().mean().backward()


def backbone(kind: str, *arguments, **options) -> nn.Module:
    """Ours, without dropout and standardisation, so that outputs can be compared."""
    torch.manual_seed(0)
    kinds = {"lstm": models.LSTMBackbone, "cnn": models.CNNBackbone}
    model = kinds[kind](NUM_MELS, *arguments, dropout=0.0, normalise=False, **options)
    return model.to(memory_format=torch.channels_last)


@functools.cache
def matmul_peak() -> float:
    """The most floating point operations per second of PyTorch's matrix products here: one thread, float32.

    Of its BLAS, which makes `a @ b`, and of oneDNN, which runs `nn.LSTM`: one may be held to older instructions.
    """
    torch.set_num_threads(1)
    a, b, zeros = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.zeros(1024)
    products = [functools.partial(torch.mm, a, b)]
    if torch.backends.mkldnn.is_available():
        products.append(functools.partial(nn.functional.linear, a.to_mkldnn(), b.to_mkldnn(), zeros.to_mkldnn()))
    best = float("inf")
    for product in products * 10:
        start = time.process_time()
        product()
        best = min(best, time.process_time() - start)
    return 2 * 1024**3 / best


def share_of_peak(steps: int, hidden: int, products: int):
    """For `Case.bound`: the share of the matmul peak at which so many steps of one-way LSTMs ran."""
    operations = products * 2 * steps * (NUM_MELS + hidden) * 4 * hidden
    return lambda seconds: f"{operations / seconds / matmul_peak():.0%} of the matmul peak"


def lstm_case(name: str, work: str, size: int, shortest: int, longest: int, hidden: int, **options) -> Case:
    last_index = options.pop("last_index", False)
    x, lengths = batch(size, shortest, longest)
    ours = backbone("lstm", hidden, pooling="last_index" if last_index else "mean_max")
    plain = PackedLSTM(NUM_MELS, hidden, last_index=last_index).copy_from(ours)
    steps = int(lengths.sum()) * (1 if last_index else 2)  # the backward direction at the last index needs one a clip
    return Case(
        name, work, lambda: step(plain, x, lengths), lambda: step(ours, x, lengths),
        clock="cpu", repeats=1, bound=share_of_peak(steps, hidden, products=3), **options,
    )  # fmt: skip


def cnn_case() -> Case:
    x, lengths = batch(32, 1293, 1293)
    ours = backbone("cnn", (4, 8, 12, 16))
    plain = PlainCNN().copy_from(ours)
    return Case(
        "cnn", "CNN training step, channels 4-8-12-16, batch 32, 1293 x 128",
        lambda: step(plain, x, lengths), lambda: step(ours, x, lengths), clock="cpu", target=2,
        bound=lambda _: "memory passes over the first maps (see below)",
    )  # fmt: skip


def prediction_case(kind: str, plain: nn.Module, num_clips: int) -> Case:
    """A whole test set, loader included; plain: one `np.load` per item, gradients on."""
    ours = backbone(kind, *{"lstm": (64,), "cnn": ((4, 8, 12, 16),)}[kind])
    plain = plain.copy_from(ours)
    root = raw_clips()
    packed = SpectrogramDataset(root, feature="mel").subset(np.arange(num_clips))

    def loop():
        outputs = []
        for x, lengths, _ in plain_loader(OneFilePerItem(root, "mel", num_clips=num_clips), shuffle=False):
            outputs.append(plain(x, lengths))
        return torch.cat(outputs).detach().numpy()

    return Case(
        f"predict_{kind}", f"{kind.upper()} prediction of {num_clips} clips of 30 s, loading included",
        loop, lambda: training.predict(ours, packed), unit="clips", amount=num_clips, repeats=2, target=5,
        bound=share_of_peak(num_clips * 1293 * 2, 64, products=1) if kind == "lstm" else None,
    )  # fmt: skip


def cases() -> list[Case]:
    return [
        lstm_case(
            "lstm_long", "LSTM training step, T = 1285-1293, batch 32, 64 units; plain: packed",
            32, 1285, 1293, 64, target=25,
        ),
        lstm_case(
            "lstm_last_index", "the same, read at the last index as in the report",
            32, 1285, 1293, 64, target=50, last_index=True,
        ),
        lstm_case(
            "lstm_beat", "LSTM training step on beats, T = 40-129, batch 512, 256 units; plain: packed",
            512, 40, 129, 256, target=8,
        ),
        cnn_case(),
        prediction_case("lstm", PackedLSTM(NUM_MELS, 64), 128),
        prediction_case("cnn", PlainCNN(), 256),
    ]  # fmt: skip


def epoch_seconds(model: nn.Module, num_clips: int, length: int, size: int = 32, repeats: int = 1) -> float:
    """Processor time of an epoch over random clips whose lengths differ by a few frames, without loading; the shortest
    of `repeats`."""
    batches = [batch(size, length - 8, length, seed) for seed in range(num_clips // size)]
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for x, lengths in batches:
            step(model, x, lengths)
        times.append(time.process_time() - start)
    return min(times)


def growth() -> str:
    """Cost of an LSTM epoch against the length and the number of clips, as a figure and in words."""
    import matplotlib

    matplotlib.use("Agg")
    from labutils import plots

    process.tune_process()
    ours = backbone("lstm", 64)
    plain = PackedLSTM(NUM_MELS, 64).copy_from(ours)
    lengths, counts = [162, 323, 646, 1293], [32, 64, 128, 256]
    epoch_seconds(ours, 32, 162)
    by_length = {"labutils": [epoch_seconds(ours, 32, length, repeats=2) for length in lengths]}
    by_length["packed"] = [epoch_seconds(plain, 32, length, repeats=2) for length in lengths]
    by_count = {"labutils": [epoch_seconds(ours, count, 162, repeats=2) for count in counts]}
    by_count["packed"] = [epoch_seconds(plain, count, 162, repeats=2) for count in counts]
    axes = plots.panels(1, 2, size=(4.2, 3), share=False)
    panels = (("32 clips", "length (frames)", lengths, by_length), ("162 frames", "clips", counts, by_count))
    for ax, (title, xlabel, x, curves) in zip(axes, panels):
        plots.plot_curves(x, curves, ax=ax, title=title, xlabel=xlabel, ylabel="processor time (s)")
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(x, x)
        ax.minorticks_off()
        ax.legend()
    axes[0].figure.savefig(FIGURE, dpi=110, bbox_inches="tight")
    powers = {name: np.polyfit(np.log(lengths), np.log(times), 1)[0] for name, times in by_length.items()}
    by_clips = np.polyfit(np.log(counts), np.log(by_count["labutils"]), 1)[0]
    return (
        f"![Processor time of an LSTM epoch over the length of the clips and over their number, both axes logarithmic, "
        f"for ours and for the packed form]({FIGURE.name})\n\nAn LSTM epoch costs (length) to the power of "
        f"{powers['labutils']:.2f}, packed {powers['packed']:.2f}; and (number of clips) to the power of "
        f"{by_clips:.2f}.\n"
    )


def threads() -> str:
    """One epoch on one thread, on two, and two epochs side by side in two processes, as a table."""
    lines = ["| epoch | one thread | two threads | two processes, one thread each, per epoch |", "|---|---|---|---|"]
    for kind in ("lstm", "cnn"):
        alone = min(_timed_epochs(kind, 1, 1) for _ in range(2))
        double = min(_timed_epochs(kind, 2, 1) for _ in range(2))
        side_by_side = min(_timed_epochs(kind, 1, 2) for _ in range(2)) / 2
        lines.append(f"| {kind.upper()} | {alone:.1f} s | {double:.1f} s | {side_by_side:.1f} s |")
    return "\n".join(lines) + "\n"


def _timed_epochs(kind: str, num_threads: int, processes: int) -> float:
    """Wall-clock seconds until `processes` processes have each run one epoch with so many threads."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_epoch, args=(kind, num_threads, barrier, answers)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    times = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return max(times)


def _epoch(kind: str, num_threads: int, barrier, answers) -> None:
    """In a process of `_timed_epochs`: warm up, wait for the others, run the epoch."""
    process.tune_process(num_threads)
    options = {"lstm": {"hidden": 64}, "cnn": {"channels": (16, 32, 32, 32)}}[kind]
    model, length = backbone(kind, **options), 323
    epoch_seconds(model, 32, length)
    barrier.wait()
    start = time.perf_counter()
    epoch_seconds(model, 256, length)
    answers.put(time.perf_counter() - start)


REPORTS = (growth, threads)
