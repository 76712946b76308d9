"""Loading: the packed store against one `np.load` per item and against reading everything first (notebook 04)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from harness import Case
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from labutils import data, training
from labutils.data import SpectrogramDataset
from labutils.store import home

NUM_CLIPS, BATCH = 1024, 32


class OneFilePerItem(Dataset):
    """The usual first version: a file is read when its item is asked for."""

    def __init__(self, root: Path, feature: str = "fused", split: str = "train", num_clips: int | None = None):
        folder = root / data.FOLDERS["genre", "raw"]
        labels = data.read_labels(folder / f"{split}_labels.txt")["Genre"][:num_clips]
        self.files = [folder / split / f"{name}.fused.full.npy" for name in labels.index]
        self.labels = np.unique(labels, return_inverse=True)[1]
        self.rows = data.FEATURES[feature]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int):
        return torch.from_numpy(np.ascontiguousarray(np.load(self.files[i])[self.rows].T)), self.labels[i]


class AllFilesFirst(OneFilePerItem):
    """The course's loader: every file is read into a list in `__init__`."""

    def __init__(self, root: Path, **options):
        super().__init__(root, **options)
        self.items = [super(AllFilesFirst, self).__getitem__(i) for i in range(len(self.files))]

    def __getitem__(self, i: int):
        return self.items[i]


def collate(items):
    """A batch as in PyTorch's tutorials: padded clips, lengths, labels."""
    clips, labels = zip(*items)
    return pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips]), torch.tensor(labels)


def plain_loader(dataset: Dataset, *, shuffle: bool = True) -> DataLoader:
    return DataLoader(dataset, BATCH, shuffle=shuffle, collate_fn=collate)


def raw_clips(num_clips: int = NUM_CLIPS) -> Path:
    """A data set of noise in the lab's layout, 30 s a clip; made once."""
    root = home() / "bench" / f"raw{num_clips}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not (root / "done").exists():
            rng = np.random.default_rng(0)
            noise = rng.uniform(-80, 0, (140, 1293)).astype(np.float32)
            folder = root / data.FOLDERS["genre", "raw"]
            for split, n in (("train", num_clips), ("test", 8)):
                (folder / split).mkdir(parents=True, exist_ok=True)
                for i in range(n):
                    length = 1293 if i == 0 else int(rng.integers(1285, 1294))
                    np.save(folder / split / f"{i}.fused.full.npy", np.roll(noise, i, axis=1)[:, :length])
                lines = [f"{i}.fused.full.npy.gz\t{('Rock', 'Folk')[i % 2]}\n" for i in range(n)]
                (folder / f"{split}_labels.txt").write_text("".join(["Id\tGenre\n", *lines]))
            (root / "done").touch()
    return root


def copy_seconds(num_bytes: int) -> float:
    """The time that this machine needs to copy so many bytes, batch by batch, from a packed file that is in memory."""
    source = SpectrogramDataset(raw_clips(), feature="fused").store.array
    block = np.empty((BATCH * 1293, 140), np.float32)
    starts = range(0, len(source) - len(block), len(block))
    for start in starts:
        np.copyto(block, source[start : start + len(block)])
    begin = time.perf_counter()
    for start in starts:
        np.copyto(block, source[start : start + len(block)])
    return (time.perf_counter() - begin) * num_bytes / (len(starts) * block.nbytes)


def cases() -> list[Case]:
    root = raw_clips()
    packed = SpectrogramDataset(root, feature="fused")
    size = int(packed.lengths.sum()) * 140 * 4

    def epoch(batches):
        return sum(len(batch[0]) for batch in batches)

    def share(seconds):
        return f"{copy_seconds(size) / seconds:.0%} of the bandwidth of a memory copy"

    return [
        Case(
            "loading", f"warm loading, {NUM_CLIPS} raw clips, batches of {BATCH}; plain: one `np.load` per item",
            lambda: epoch(plain_loader(OneFilePerItem(root))),
            lambda: epoch(training.loader(packed, BATCH, shuffle=True)),
            unit="clips", amount=NUM_CLIPS, target=10, bound=share,
        ),
        Case(
            "first_batch", "the first batch of them; plain: every file read in `__init__`",
            lambda: next(iter(plain_loader(AllFilesFirst(root)))),
            lambda: next(iter(training.loader(SpectrogramDataset(root, feature="fused"), BATCH, shuffle=True))),
            unit="first batches", target=50,
        ),
    ]  # fmt: skip
