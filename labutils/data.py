"""Data sets in the lab's layout: finding, reading, splitting, batching (notebook 04).

A data set is a folder with up to four folders in it, `fma_genre_spectrograms`, `multitask_dataset` and their
`_beat` twins; each holds `train/` and `test/` with one `<id>.fused.full.npy` per clip, float [140, T], and
`train_labels.txt`, `test_labels.txt`. Nothing here assumes which genres, which axes or how long the clips are.
"""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from .audio import NUM_FEATURES, NUM_MELS
from .files import DataError, DataWarning, check_names, read_json, read_table, safe_name, to_numbers
from .store import SUFFIX, Store, clip_id

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

    For `find_data`.

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

    For `SpectrogramDataset`. Tab- or comma-separated, all spellings of the ids.

    Raises
    ------
    DataError : missing, empty or headerless file, a value that is not a finite number, one id with two labels.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: label file not found; expected a header 'Id<TAB>Genre' or 'Id,<axis>,...'")
    table = read_table(path)
    if table.columns[0].lower() != "id" or len(table.columns) < 2:
        found = f"begins with {', '.join(table.columns)[:40]!r}"
        raise DataError(f"{path}: {found}; the first line must be a header 'Id<TAB>Genre' or 'Id,<axis>,...'")
    check_names(path, table[table.columns[0]])
    check_names(path, pd.Series(table.columns, name="the header"))
    table.index = pd.Index(map(clip_id, table.pop(table.columns[0])), name="Id", dtype=object)
    if list(table.columns) == ["Genre"]:
        check_names(path, table["Genre"])
    else:
        table = table.apply(lambda column: to_numbers(path, column).astype(np.float32))
    if len(twice := table.index[table.index.duplicated()]):
        table = table[~table.reset_index().duplicated().to_numpy()]
        if table.index.duplicated().any():
            raise DataError(f"{path}: id {twice[0]} has two different labels; keep one")
    return table


def read_groups(root) -> dict[str, str] | None:
    """Which clips belong together: the group of each clip id in `ROOT/groups.csv`, None where there is no such file.

    For `SpectrogramDataset`. Header `Id,group`; a group is an artist, or a recording of which there are several
    excerpts. A clip that is not listed is a group of its own.

    Raises
    ------
    DataError : another header, or one id in two groups.
    """
    path = Path(root) / "groups.csv"
    if not path.exists():
        return None
    table = read_table(path)
    if list(table.columns) != ["Id", "group"]:
        raise DataError(f"{path}: the header is {','.join(table.columns)!r}; it should be 'Id,group'")
    ids = table["Id"].map(clip_id)
    if ids.duplicated().any():
        raise DataError(f"{path}: id {ids[ids.duplicated()].iloc[0]} is listed twice; keep one line")
    return dict(zip(ids, table["group"]))


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

    Attributes
    ----------
    ids, labels, groups : of the N clips; groups [N] is None where the data set names none.
    classes, axes : names of the classes, or of the axes.   genres : dict genre -> class of this data set.

    Raises
    ------
    DataError : missing folders or labels, unknown genre or axis, nothing left.
    """

    def __init__(
        self, root, task="genre", split="train", *, time="raw", feature="mel", axis=None, class_mapping="auto"
    ):  # fmt: skip
        check_choice("task", task, ("genre", "affect"))
        self.folder = Path(root) / FOLDERS[task, check_choice("time", time, ("raw", "beat"))]
        if not (self.folder / split).is_dir():
            raise DataError(f"{self.folder / split}: folder not found; the data set has no {time} {task} {split} split")
        self.task, self.split, self.time, self.feature = task, split, time, feature
        self.columns = FEATURES[check_choice("feature", feature, FEATURES)]
        self.num_features = self.columns.stop - self.columns.start
        self.store = Store.of(self.folder / split)
        _warn(list(self.store.problems.values()), "arrays left out")
        tables = self._read_tables()
        self.problems = _match(set(tables[split].index) - set(self.store.problems), self.store.ids, self.folder / split)
        _warn(self.problems, "labels and files that do not match")
        self.classes, self.axes, table = [], list(tables[split].columns), tables[split]
        if task == "genre":
            table = self._map_genres(tables, class_mapping)
        elif axis is not None:
            self.axes = [check_choice("axis", axis, self.axes)]
        self.ids = [name for name in self.store.ids if name in table.index]
        if not self.ids:
            raise DataError(f"{self.folder / split}: no clip has both an array and a label; check the label file's ids")
        self.rows, table = pd.Index(self.store.ids).get_indexer(self.ids), table.loc[self.ids]
        if task == "genre":
            self.labels = pd.Categorical(table["Genre"], self.classes).codes.astype(np.int64)
        else:
            self.labels = table[self.axes if axis is None else axis].to_numpy(np.float32)
        groups = read_groups(root)
        self.groups = None if groups is None else np.array([groups.get(name) or f"clip {name}" for name in self.ids])

    def _read_tables(self) -> dict[str, pd.DataFrame]:
        """Labels by split: of this one, of genres also the other's. Affect test clips may have none: then NaN."""
        paths = {part: self.folder / f"{part}_labels.txt" for part in ("train", "test")}
        self.labelled = self.task == "genre" or self.split == "train" or paths["test"].exists()
        if not self.labelled:
            axes = read_labels(paths["train"]).columns
            return {"test": pd.DataFrame(np.nan, self.store.ids, axes, dtype=np.float32)}
        wanted = [part for part in paths if part == self.split or (self.task == "genre" and paths[part].exists())]
        tables = {part: read_labels(paths[part]) for part in wanted}
        for part, table in tables.items():
            if (self.task == "genre") != ("Genre" in table):
                raise DataError(f"{paths[part]}: columns {list(table.columns)} do not fit task {self.task!r}")
        return tables

    def _map_genres(self, tables: dict, class_mapping) -> pd.DataFrame:
        """The labels of this split as classes, without the clips of dropped genres."""
        genres = {part: table["Genre"].tolist() for part, table in tables.items()}
        known = {genre for names in genres.values() for genre in names}
        self.axes, self.genres = [], _mapping(class_mapping, known, self.folder)
        shown = genres.get("train", []) + genres[self.split]
        self.classes = sorted({self.genres[genre] for genre in shown} - {None})
        mapped = [self.genres[genre] for genre in genres[self.split]]
        return tables[self.split].assign(Genre=mapped)[[genre is not None for genre in mapped]]

    def __len__(self) -> int:
        return len(self.rows)

    def frames(self, i: int) -> np.ndarray:
        """Clip i as a read-only view [T, F] of the packed file; nothing is copied."""
        return self.store.frames(self.rows[i])[:, self.columns]

    def __getitem__(self, i: int):
        frames = torch.from_numpy(np.array(self.frames(i))) if self.kept is None else self.kept[i]
        return frames, torch.as_tensor(self.labels[i], device=frames.device)

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
        part.groups = None if self.groups is None else self.groups[indices]
        part.kept = None if self.kept is None else [self.kept[i] for i in indices]
        return part

    def joined(self, other: SpectrogramDataset) -> SpectrogramDataset:
        """These clips and then those of another part of the same data set."""
        both = copy.copy(self)
        both.rows, both.labels = np.append(self.rows, other.rows), np.append(self.labels, other.labels, axis=0)
        both.ids = self.ids + other.ids
        both.groups = None if self.groups is None else np.append(self.groups, other.groups)
        both.kept = self.kept + other.kept if self.kept is not None and other.kept is not None else None
        return both

    def mean_and_deviation(self) -> tuple[np.ndarray, np.ndarray]:
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
    """Clips padded with zeros to the longest of them. For `pad_collate`."""

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


def shared_groups(train: SpectrogramDataset, test: SpectrogramDataset) -> list[str]:
    """The groups that have clips in both parts: a score on these clips flatters. Notebook 09."""
    if train.groups is None or test.groups is None:
        return []
    return sorted(set(train.groups) & set(test.groups))


def warn_shared_groups(train: SpectrogramDataset, test: SpectrogramDataset) -> None:
    """Warn where the data set's own split tears groups apart. For `genre_splits`."""
    if shared := shared_groups(train, test):
        problems = [f"{train.folder}: {name}; move it to one part" for name in shared]
        _warn(problems, "groups with clips in train and test")


def _strata(labels: np.ndarray) -> np.ndarray:
    """Whose mix a split keeps, int [N]: the classes, or the quintiles of the mean over the axes.

    Equal on every processor: labels are added up as whole millionths, and equal sums rank in the order of the clips.
    """
    if labels.dtype.kind != "f":
        return labels
    sums = np.rint(labels.reshape(len(labels), -1).astype(np.float64) * 1e6).astype(np.int64).sum(axis=1)
    return (rankdata(sums, "ordinal").astype(int) - 1) * 5 // max(len(sums), 1)


def _units(labels: np.ndarray, groups) -> tuple[list[np.ndarray], np.ndarray]:
    """What a split may not tear apart: the clips of each group in order of its first one, and the group's stratum.

    The stratum of a group is the one that most of its clips have. Without groups each clip is a unit.
    """
    strata = _strata(labels)
    if groups is None:
        return list(np.arange(len(labels))[:, None]), strata
    members = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    members = [np.array(clips) for clips in members.values()]
    return members, np.array([np.bincount(strata[clips]).argmax() for clips in members])


def stratified_split(labels: np.ndarray, fraction: float, seed: int = 0, groups=None) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle and split clips into two parts with the same mix of labels, no group in both.

    Notebook 04.

    Parameters
    ----------
    labels : int [N] classes, or float [N] / [N, A] axis values (then strata are quintiles of their mean).
    fraction : share of the second part, in (0, 1).   seed : which of the possible splits.
    groups : [N] names, such as artists (notebook 06); None: each clip by itself.

    Returns
    -------
    first, second : sorted int arrays; disjoint, together all N. A class of two groups or more is in both parts.

    Raises
    ------
    DataError : too few clips or groups.
    """
    rng = np.random.default_rng(seed)
    (members, strata), second = _units(labels, groups), []
    for stratum in np.unique(strata):
        units = rng.permutation(np.flatnonzero(strata == stratum))
        sizes = np.cumsum([len(members[unit]) for unit in units])
        count = 1 + np.abs(sizes - fraction * sizes[-1]).argmin()  # the nearest that whole groups allow
        second += [members[unit] for unit in units[: min(count, len(units) - 1)]]
    if not second:
        things = "clips" if groups is None else "groups of clips"
        raise DataError(f"{len(members)} {things} are too few to hold {fraction:.0%} of them out; add some")
    second = np.sort(np.concatenate(second))
    return np.setdiff1d(np.arange(len(labels)), second), second


def deal(labels: np.ndarray, num_folds: int, seed: int = 0, groups=None) -> np.ndarray:
    """The fold of each clip, int [N] in [0, num_folds): about equal parts with the same mix of labels.

    Notebook 05. `labels` and `groups` as for `stratified_split`. The groups are shuffled and dealt out, stratum by
    stratum, each to the fold that has the fewest clips of this stratum, and of those to the one with the fewest at all.
    """
    rng = np.random.default_rng(seed)
    members, strata = _units(labels, groups)
    order, fold_of, total = rng.permutation(len(members)), np.empty(len(labels), dtype=int), [0] * num_folds
    for stratum in np.unique(strata):
        here = [0] * num_folds
        for unit in order[strata[order] == stratum]:
            fold = min(range(num_folds), key=lambda k: (here[k], total[k]))
            fold_of[members[unit]] = fold
            here[fold] += len(members[unit])
            total[fold] += len(members[unit])
    return fold_of


def pick_clips(dataset: SpectrogramDataset, genres: list[str], seed: int = 0) -> list[int]:
    """One random clip of each genre; a genre that does not occur is replaced by the largest other one.

    Notebook 01. Names match in upper or lower case. Returns indices into `dataset`: one per genre, fewer only where
    the data set has fewer genres, and at least two.

    Raises
    ------
    DataError : only one genre has clips.
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
    """What is known of a data set: the content of its `dataset.json`, or its folder's name. For `lab.start`.

    Raises
    ------
    DataError : a damaged `dataset.json`.
    """
    path, root = Path(root) / "dataset.json", Path(root).resolve()
    found = {"name": root.name if root.name != "data" else root.parent.name, "kind": "arrays"}
    if path.exists():
        found |= read_json(path, "remove it, or make the data set again")
    if found["kind"] not in ("procedural", "audio", "arrays"):
        raise DataError(f"{path}: the kind {str(found['kind'])[:40]!r} is unknown; make the data set again")
    return found | {"name": safe_name(found["name"])}


def check_choice(what: str, value: str, valid):
    """`value`, if it is one of the `valid` ones. For `SpectrogramDataset`.

    Raises
    ------
    DataError : it is not; the message names the valid ones.
    """
    if value not in valid:
        raise DataError(f"{what} {value!r} is unknown; choose one of {', '.join(map(str, valid))}")
    return value


def _mapping(class_mapping, known: set, folder: Path) -> dict:
    """Genre -> class (None: dropped) for every genre of the data set in `folder`."""
    if isinstance(class_mapping, str):
        check_choice("class_mapping", class_mapping, ("auto", "fma", "none"))
    if class_mapping in ("none", None) or (class_mapping == "auto" and not known <= set(FMA_MAPPING)):
        return {genre: genre for genre in sorted(known)}
    mapping = class_mapping if isinstance(class_mapping, dict) else FMA_MAPPING
    if unknown := sorted(known - set(mapping)):
        raise DataError(
            f"{folder}: genre {unknown[0]!r} is not in the class mapping ({len(unknown)} unknown in all); "
            "add it to the mapping, map it to None to drop it, or set class_mapping to 'none'"
        )
    return {genre: mapping[genre] for genre in sorted(known)}


def _match(labelled, ids, folder: Path) -> list[str]:
    """Complaints about labels without a file and files without a label."""
    labelled, ids = set(labelled), set(ids)
    missing = [f"{folder}/{name}{SUFFIX}: has a label but no file" for name in sorted(labelled - ids)]
    return missing + [f"{folder}/{name}{SUFFIX}: has no label" for name in sorted(ids - labelled)]


def _warn(problems: list[str], what: str) -> None:
    if problems:
        warnings.warn(f"{len(problems)} {what}, the first: {problems[0]}", DataWarning, stacklevel=3)
