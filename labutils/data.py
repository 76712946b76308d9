"""Data sets in the lab's layout: finding, reading, splitting, batching (notebook 04).

A data set is a folder with up to four folders in it, `fma_genre_spectrograms`, `multitask_dataset` and their
`_beat` twins; each holds `train/` and `test/` with one `<id>.fused.full.npy` per clip, float [140, T], and
`train_labels.txt`, `test_labels.txt`. Nothing here assumes which genres, which axes or how long the clips are.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from .audio import NUM_FEATURES, NUM_MELS
from .store import SUFFIX, DataError, DataWarning, Store, clip_id

FOLDERS = {
    ("genre", "raw"): "fma_genre_spectrograms",
    ("genre", "beat"): "fma_genre_spectrograms_beat",
    ("affect", "raw"): "multitask_dataset",
    ("affect", "beat"): "multitask_dataset_beat",
}
FEATURES = {"mel": slice(0, NUM_MELS), "chroma": slice(NUM_MELS, NUM_FEATURES), "fused": slice(0, NUM_FEATURES)}
KAGGLE_INPUT = Path("/kaggle/input")
# The lab's mapping of 20 genres to 10; None: the genre is dropped.
FMA_MAPPING = {
    **{genre: "Rock" for genre in ("Rock", "Psych-Rock", "Post-Rock")},
    **{genre: "Folk" for genre in ("Folk", "Psych-Folk")},
    **{genre: "Metal" for genre in ("Metal", "Punk")},
    **{genre: "Electronic" for genre in ("Electronic", "Chiptune")},
    **{genre: genre for genre in ("Trip-Hop", "Pop", "Hip-Hop", "Classical", "Blues", "Jazz")},
    **{genre: None for genre in ("Indie-Rock", "Post-Punk", "Soundtrack", "International", "Old-Time")},
}


def find_root(data_root: str | os.PathLike = "") -> Path | None:
    """The data set to use: the argument, else $LABUTILS_DATA, else a Kaggle mount, else None.

    Notebook 04.

    Raises
    ------
    DataError : a folder was named but holds no data set.
    """
    named = str(data_root) or os.environ.get("LABUTILS_DATA", "")
    if named:
        root = Path(named).expanduser().resolve()
        for place in (root, root / "data"):
            if any((place / folder).is_dir() for folder in FOLDERS.values()):
                return place
        state = "exists but holds none of " + ", ".join(FOLDERS.values()) if root.is_dir() else "does not exist"
        raise DataError(f"{root}: {state}; give the folder that holds them as data_root, or leave it empty")
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for place in sorted(KAGGLE_INPUT.glob(f"{depth}/{FOLDERS['genre', 'raw']}")):
            return place.parent
    return None


def read_labels(path) -> pd.DataFrame:
    """A label file as a table: index `Id` (str), columns `Genre` (str) or one float column per axis.

    Notebook 04. Tab- or comma-separated, all spellings of the ids.

    Raises
    ------
    DataError : missing, empty or headerless file, a value that is not a number, one id with two labels.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: label file not found; expected a header 'Id<TAB>Genre' or 'Id,<axis>,...'")
    first = path.read_text(encoding="utf-8").split("\n", 1)[0].strip("\ufeff \r")
    separator = "\t" if "\t" in first else ","
    if first.split(separator)[0].strip().lower() != "id" or separator not in first:
        found = f"begins with {first[:40]!r}" if first else "is empty"
        raise DataError(f"{path}: {found}; the first line must be a header 'Id<TAB>Genre' or 'Id,<axis>,...'")
    table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    table.columns = [column.strip() for column in table.columns]
    table.index = pd.Index(map(clip_id, table.pop(table.columns[0]).tolist()), name="Id", dtype=object)
    if table.empty:
        raise DataError(f"{path}: has a header but no labels; add one line per clip")
    if list(table.columns) != ["Genre"]:
        for axis in table.columns:
            numbers = pd.to_numeric(table[axis], errors="coerce")
            if numbers.isna().any():
                row = int(np.flatnonzero(numbers.isna())[0])
                raise DataError(f"{path}, line {row + 2}: {axis} is {table[axis].iloc[row]!r}, not a number")
            table[axis] = numbers.astype(np.float32)
    if len(twice := table.index[table.index.duplicated()]):
        table = table[~table.reset_index().duplicated().to_numpy()]
        if table.index.duplicated().any():
            raise DataError(f"{path}: id {twice[0]} has two different labels; keep one")
    return table


class SpectrogramDataset(Dataset):
    """Clips of one split with their labels, for genre recognition or affect regression.

    Notebook 04. An item is `(frames, label)`: frames float32 [T, F]; label an int64 class number, or float32
    axis values [A], or one float32 value when `axis` is given (NaN where the split has no labels).

    Parameters
    ----------
    root : folder of the data set.
    task : "genre" or "affect".   split : "train" or "test".
    time : "raw" (23.2 ms frames) or "beat" (one column per beat).
    feature : "mel" (F = 128), "chroma" (12) or "fused" (140).
    axis : one axis name, or None for all axes (affect only).
    class_mapping : dict genre -> class (None drops the genre); "fma" for the lab's; "none"; "auto": the lab's if
        it knows every genre of the data set, else none.

    Raises
    ------
    DataError : missing folders or labels, unknown genre or axis, nothing left.
    """

    def __init__(
        self, root, task="genre", split="train", *, time="raw", feature="mel", axis=None, class_mapping="auto"
    ):  # fmt: skip
        _choice("task", task, ("genre", "affect"))
        folder = Path(root) / FOLDERS[task, _choice("time", time, ("raw", "beat"))]
        if not (folder / split).is_dir():
            raise DataError(f"{folder / split}: folder not found; the data set has no {time} {task} {split} split")
        self.task, self.split, self.time, self.feature = task, split, time, feature
        self.columns = FEATURES[_choice("feature", feature, FEATURES)]
        self.num_features = self.columns.stop - self.columns.start
        self.store = Store.of(folder / split)
        _warn(list(self.store.problems.values()), "arrays left out")
        read = functools.cache(lambda part: read_labels(folder / f"{part}_labels.txt"))
        if task == "affect" and split == "test" and not (folder / "test_labels.txt").exists():
            self.labelled, self.axes = False, list(read("train").columns)
            table = pd.DataFrame(np.nan, index=self.store.ids, columns=self.axes, dtype=np.float32)
        else:
            self.labelled, table = True, read(split)
            self.axes = [] if task == "genre" else list(table.columns)
        if (task == "genre") != ("Genre" in table):
            raise DataError(f"{folder}/{split}_labels.txt: columns {list(table.columns)} do not fit task {task!r}")
        self.problems = _match(set(table.index) - set(self.store.problems), self.store.ids, folder / split)
        _warn(self.problems, "labels and files that do not match")
        if task == "genre":
            parts = [part for part in ("train", "test") if (folder / f"{part}_labels.txt").exists()]
            known = {genre for part in parts for genre in read(part)["Genre"].unique()}
            mapping = _mapping(class_mapping, known, folder)
            mapped = [mapping[genre] for genre in table["Genre"]]
            table = table.assign(Genre=mapped)[[genre is not None for genre in mapped]]
            self.genres = mapping
        rows = pd.Index(self.store.ids).get_indexer(table.index)  # -1: no array
        order = np.argsort(rows)[(rows < 0).sum() :]
        table, self.rows = table.iloc[order], rows[order]
        if table.empty:
            raise DataError(f"{folder}/{split}: no clip has both an array and a label; check the ids in the label file")
        self.ids = list(table.index)
        if task == "genre":
            trained = {mapping[genre] for genre in read("train")["Genre"].unique()}
            self.classes = sorted(trained - {None} | set(table["Genre"].unique()))
            self.labels = pd.Categorical(table["Genre"], self.classes).codes.astype(np.int64)
        else:
            self.classes, self.labels = [], table[self.axes].to_numpy(np.float32)
            if axis is not None:
                self.axes = [_choice("axis", axis, self.axes)]
                self.labels = table[axis].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def frames(self, i: int) -> np.ndarray:
        """Clip i as a read-only view [T, F] of the packed file; nothing is copied."""
        return self.store.frames(self.rows[i])[:, self.columns]

    def __getitem__(self, i: int):
        return torch.from_numpy(np.array(self.frames(i))), torch.as_tensor(self.labels[i])

    def __getitems__(self, indices):
        """A list of items without copying: what DataLoader hands to `pad_collate`."""
        frames = self.frames if self.kept is None else self.kept.__getitem__
        return [(frames(i), self.labels[i]) for i in indices]

    kept = None  # after `keep_on`: the clips as tensors [T, F] on a device

    def keep_on(self, device) -> SpectrogramDataset:
        """The same clips as one tensor on `device`, where batches are then put together: no more reading, no transfer.

        For a GPU, if it has twice the memory free that they take; if it has not, the clips stay in their file.
        """
        part, size = copy.copy(self), 4 * self.num_features * int(self.lengths.sum())
        if torch.device(device).type != "cuda" or 2 * size < torch.cuda.mem_get_info(device)[0]:
            whole = np.concatenate([self.frames(i) for i in range(len(self))])
            part.kept = torch.from_numpy(whole).to(device).split(self.lengths.tolist())
        return part

    @property
    def lengths(self) -> np.ndarray:
        """Number of frames of each clip, int64 [N]."""
        return np.diff(self.store.offsets)[self.rows]

    @property
    def fingerprint(self) -> str:
        """Changes with the content of the clips, the labels, the choice of rows or the feature."""
        parts = (self.store.fingerprint, self.feature, self.axes, self.classes, self.ids, self.labels.tobytes())
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()

    def subset(self, indices) -> SpectrogramDataset:
        """The clips `indices` (int [M]) as a data set of its own that shares the packed file."""
        part = copy.copy(self)
        part.rows, part.labels = self.rows[indices], self.labels[indices]
        part.ids = [self.ids[i] for i in indices]
        part.kept = self.kept and [self.kept[i] for i in indices]
        return part

    def joined(self, other: SpectrogramDataset) -> SpectrogramDataset:
        """These clips and then those of another part of the same data set."""
        both = copy.copy(self)
        both.rows, both.labels = np.append(self.rows, other.rows), np.append(self.labels, other.labels, axis=0)
        both.ids, both.kept = self.ids + other.ids, self.kept and other.kept and self.kept + other.kept
        return both

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over all frames of all clips, float32 [F] each, in one pass."""
        total, squares = np.zeros(self.num_features), np.zeros(self.num_features)
        for i in range(len(self)):
            frames = self.frames(i).astype(np.float64)
            total += frames.sum(axis=0)
            squares += np.einsum("tf,tf->f", frames, frames)
        mean = total / self.lengths.sum()
        deviation = np.sqrt(np.maximum(squares / self.lengths.sum() - mean**2, 1e-6))
        return mean.astype(np.float32), deviation.astype(np.float32)


class Batch(NamedTuple):
    """Clips padded with zeros to the longest of them. Notebook 04."""

    x: torch.Tensor  # [B, T, F] float32
    lengths: torch.Tensor  # [B] int64, frames before the padding
    y: torch.Tensor  # [B] or [B, A]

    def to(self, device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def pad_collate(items) -> Batch:
    """Make a `Batch` of items `(frames [T, F], label)`; a `collate_fn` for DataLoader. Notebook 04."""
    lengths = [len(frames) for frames, _ in items]
    y = torch.as_tensor(np.stack([np.asarray(label) for _, label in items]))
    if isinstance(items[0][0], torch.Tensor):  # also on a GPU
        return Batch(pad_sequence([frames for frames, _ in items], batch_first=True), torch.tensor(lengths), y)
    x = np.empty((len(items), max(lengths), items[0][0].shape[1]), np.float32)
    for row, (frames, _) in zip(x, items):
        row[: len(frames)], row[len(frames) :] = frames, 0
    return Batch(torch.from_numpy(x), torch.tensor(lengths), y)


def _strata(labels: np.ndarray) -> np.ndarray:
    """Groups whose mix a split keeps, int [N]: the classes, or the quintiles of the mean over the axes."""
    if labels.dtype.kind != "f":
        return labels
    values = labels.reshape(len(labels), -1).mean(axis=1)
    return np.argsort(np.argsort(values)) * 5 // max(len(values), 1)


def stratified_split(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle and split clips into two parts with the same mix of labels.

    Notebook 04.

    Parameters
    ----------
    labels : int [N] classes, or float [N] / [N, A] axis values (then strata are quintiles of their mean).
    fraction : share of the second part, in (0, 1).   seed : which of the possible splits.

    Returns
    -------
    first, second : sorted int arrays; disjoint, together all N. A class of two clips or more is in both parts.
    """
    rng = np.random.default_rng(seed)
    labels, second = _strata(labels), []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        share = round(fraction * len(members))
        second.extend(members[: min(max(share, 1), len(members) - 1)])
    second = np.sort(np.array(second, dtype=int))
    if len(second) == 0:
        raise DataError(f"{len(labels)} clips are too few to hold {fraction:.0%} of them out; add clips")
    return np.setdiff1d(np.arange(len(labels)), second), second


def deal(labels: np.ndarray, num_folds: int, seed: int = 0) -> np.ndarray:
    """The fold of each clip, int [N] in [0, num_folds): equal parts with the same mix of labels.

    Notebook 05. `labels` as for `stratified_split`. Each group is shuffled and dealt out like cards, on from where
    the last group ended, so that folds differ by one clip at most.
    """
    rng = np.random.default_rng(seed)
    labels, order = _strata(labels), rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.empty(len(labels), dtype=int)
    fold_of[order] = np.arange(len(labels)) % num_folds
    return fold_of


def pick_clips(dataset: SpectrogramDataset, genres: list[str], seed: int = 0) -> list[int]:
    """One random clip of each genre; a genre that does not occur is replaced by the largest other one.

    Notebook 01. Names match in upper or lower case. Returns indices into `dataset`: one per genre, fewer only where
    the data set has fewer genres, and at least two.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if (counts > 0).sum() < 2:
        only = dataset.classes[int(counts.argmax())]
        raise DataError(f"only one genre ({only}) has clips; two are needed to compare")
    number_of = {name.lower(): number for number, name in enumerate(dataset.classes) if counts[number]}
    chosen = list(dict.fromkeys(number_of[genre.lower()] for genre in genres if genre.lower() in number_of))
    largest = [int(c) for c in np.argsort(-counts, kind="stable") if c not in chosen and counts[c]]
    chosen += largest[: max(len(genres), 2) - len(chosen)]
    rng = np.random.default_rng(seed)
    return [int(rng.choice(np.flatnonzero(dataset.labels == label))) for label in chosen]


def provenance(root) -> dict:
    """What is known of a data set: the content of its `dataset.json`, or its folder's name. Notebook 04."""
    path = Path(root) / "dataset.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    name = Path(root).name if Path(root).name != "data" else Path(root).parent.name
    return {"name": name, "kind": "arrays", **record}


def _choice(what: str, value: str, valid):
    if value not in valid:
        raise DataError(f"{what} {value!r} is unknown; choose one of {', '.join(map(str, valid))}")
    return value


def _mapping(class_mapping, known: set, folder: Path) -> dict:
    """Genre -> class (None: dropped) for every genre of the data set in `folder`."""
    if class_mapping in ("none", None) or (class_mapping == "auto" and not known <= set(FMA_MAPPING)):
        return {genre: genre for genre in known}
    mapping = class_mapping if isinstance(class_mapping, dict) else FMA_MAPPING
    if unknown := sorted(known - set(mapping)):
        raise DataError(
            f"{folder}: genre {unknown[0]!r} is not in the class mapping ({len(unknown)} unknown in all); "
            "add it to the mapping, map it to None to drop it, or set class_mapping to 'none'"
        )
    return {genre: mapping[genre] for genre in known}


def _match(labelled, ids, folder: Path) -> list[str]:
    """Complaints about labels without a file and files without a label."""
    labelled, ids = set(labelled), set(ids)
    missing = [f"{folder / name}{SUFFIX}: has a label but no file" for name in sorted(labelled - ids)]
    return missing + [f"{folder / name}{SUFFIX}: has no label" for name in sorted(ids - labelled)]


def _warn(problems: list[str], what: str) -> None:
    if problems:
        warnings.warn(f"{len(problems)} {what}, the first: {problems[0]}", DataWarning, stacklevel=3)
