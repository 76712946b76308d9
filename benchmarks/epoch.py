"""What an epoch of each model costs, and what the device waits for: `python benchmarks/epoch.py ROOT [DEVICE]`.

ROOT is a data set of genres in the lab's layout, such as `labutils data build` makes; DEVICE is cuda where there is
one, else cpu. An epoch as `training.fit` runs it, loader and optimiser included, beside four others. The clips read
from their file, and the loader alone: near the epoch, the device waits for clips. One batch again and again: near the
epoch, it does not. Batches four times as large: much faster per epoch, the device waits for the next order (Python).
On a CPU clips always come from their file, so the first two are the same work and show the noise.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from labutils import process, training
from labutils.recipes import BACKBONES, Experiment

COLUMNS = ("as trained", "clips from the file", "loader alone", "one batch again and again", "batches 4 x as large")


def seconds(work, device: str, repeats: int = 3) -> float:
    """The shortest of some runs, after one to warm up; on a GPU until it has finished."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def row(root: str, kind: str, device: str) -> list[float]:
    """Seconds of an epoch on raw mel, for each of `COLUMNS`."""
    experiment = Experiment(root=root)
    clips = experiment.genre_splits().train
    kept = clips if device == "cpu" else clips.keep_on(device)
    model = experiment.model(kind, clips)
    training.fit_normalisation(model, clips)
    model.to(device).train()
    settings = experiment.settings(kind, clips)
    optimizer, loss = training.make_optimizer(model, settings), training.default_loss(clips)

    def train(batches):
        for batch in batches:
            training.train_step(model, batch.to(device), loss, optimizer, settings.grad_clip)

    def batches(source, scale=1):
        return training.loader(source, scale * settings.batch_size, shuffle=True)

    again = [next(iter(batches(kept))).to(device)] * len(batches(kept))
    calls = (
        lambda: train(batches(kept)),
        lambda: train(batches(clips)),
        lambda: sum(len(batch.to(device).y) for batch in batches(kept)),
        lambda: train(again),
        lambda: train(batches(kept, 4)),
    )
    return [seconds(call, device) for call in calls]


def main(root: str, device: str) -> None:
    process.tune_process()
    print(f"| epoch of | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for kind in BACKBONES:
        cells = " | ".join(f"{value:.3f} s" for value in row(root, kind, device))
        print(f"| {kind.upper()} | {cells} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "cuda" if torch.cuda.is_available() else "cpu")
