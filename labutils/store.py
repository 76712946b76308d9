"""Packed arrays: one memory-mapped file per folder of clips, made once, read without copying (notebook 04)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock

from .audio import NUM_FEATURES
from .progress import progress

SUFFIX = ".fused.full.npy"
SPELLING = re.compile(r"(?=\.)(\.(fused|full|beatsync))*(\.npy)?(\.gz)?$")


class DataError(ValueError):
    """A data set that cannot be used; the message names the file and the fix."""


class DataWarning(UserWarning):
    """Part of a data set was left out; the message counts it and names the first file."""


def home() -> Path:
    """Folder for generated data, packed arrays and trained models.

    $LABUTILS_HOME if set; `data/` of the checkout the package lies in; else `~/.cache/labutils`. Notebook 04.
    """
    if os.environ.get("LABUTILS_HOME"):
        return Path(os.environ["LABUTILS_HOME"]).expanduser().resolve()
    return checkout / "data" if (checkout := _checkout()) else Path.home() / ".cache" / "labutils"


def results_home() -> Path:
    """Folder for results that were given none.

    `home()/runs` if $LABUTILS_HOME is set; `runs/` of the checkout the package lies in; else `runs/` of the folder
    that Python works in. All notebooks.
    """
    return (home() if os.environ.get("LABUTILS_HOME") else _checkout() or Path.cwd()) / "runs"


def _checkout() -> Path | None:
    """The checkout that the package lies in, if it has one and files can be written there."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").exists() and os.access(folder, os.W_OK) else None


@contextlib.contextmanager
def whole_file(path: Path):
    """A path to write to in the block: the file takes its place at `path` whole, or not at all after an error.

    All notebooks. Makes the folders on the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f"{path.suffix}.part{os.getpid()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # it is in its place, or was never made
            part.unlink()


def save_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. All notebooks."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def clip_id(name: str) -> str:
    """The id in a label file's spelling: '123.full.fused.npy.gz' -> '123'. Notebook 04."""
    return SPELLING.sub("", str(name).strip())


class Store:
    """The arrays of one folder, packed time-major into one memory-mapped file.

    Notebook 04. `frames(i)` is a read-only view [T_i, 140] float32: nothing is read before it is used. Made once
    per content of the folder under `home()/stores`; opening it again costs milliseconds.
    """

    def __init__(self, path: Path):
        index = np.load(path / "index.npz", allow_pickle=False)
        meta = json.loads((path / "meta.json").read_text())
        self.ids, self.offsets = index["ids"].tolist(), index["offsets"]
        self.fingerprint, self.problems = meta["fingerprint"], meta["problems"]
        self.array = np.asarray(np.memmap(path / "frames.f32", np.float32, "r")).reshape(-1, NUM_FEATURES)

    def frames(self, i: int) -> np.ndarray:
        return self.array[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, folder: Path) -> Store:
        """Open the store of a folder of .npy files, packing it first if its files are new or changed."""
        with os.scandir(folder) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(SUFFIX)]
        stats = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
        key = hashlib.blake2b(repr((2, str(folder), stats)).encode(), digest_size=12).hexdigest()
        path = home() / "stores" / key
        if not (path / "meta.json").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not (path / "meta.json").exists():
                    _pack(folder, [name for name, _, _ in stats], path)
        return cls(path)


def _pack(folder: Path, names: list[str], path: Path) -> None:
    """Write the store of `folder` at `path`, atomically: a killed run leaves nothing half-made."""
    part = path.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    names.sort(key=lambda name: (len(name), name))  # numeric order of the ids
    ids, lengths, problems, digest = [], [], {}, hashlib.blake2b(digest_size=12)
    with open(part / "frames.f32", "wb") as file:
        for name in progress(names, desc=f"packing {folder.parent.name}/{folder.name}"):
            try:
                frames = _read_array(folder / name)
            except DataError as error:
                problems[clip_id(name)] = str(error)
                continue
            frames.tofile(file)
            digest.update(name.encode() + frames.tobytes())
            ids.append(clip_id(name))
            lengths.append(len(frames))
    if not ids:
        reason = next(iter(problems.values())) if problems else f"no file *{SUFFIX} in it"
        raise DataError(f"{folder}: no usable array ({reason})")
    np.savez(part / "index.npz", ids=np.array(ids), offsets=np.cumsum([0, *lengths]))
    meta = {"fingerprint": digest.hexdigest(), "problems": problems, "folder": str(folder)}
    (part / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(path, ignore_errors=True)
    os.replace(part, path)


def _read_array(path: Path) -> np.ndarray:
    """One clip as float32 [T, 140], or DataError naming the file and the fix."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = "holds pickled objects" if "pickle" in str(error).lower() else f"is damaged ({error})"
        raise DataError(f"{path}: {reason}; save it again with np.save as a plain float array") from error
    if array.ndim != 2 or array.shape[0] != NUM_FEATURES:
        raise DataError(f"{path}: shape {array.shape}, expected (140, T); transpose or extract it again")
    if array.dtype.kind != "f":
        raise DataError(f"{path}: type {array.dtype}, expected float32; convert it")
    if array.shape[1] == 0:
        raise DataError(f"{path}: has no frames; extract it again from a longer excerpt")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: holds NaN or infinite values; extract it again")
    return np.ascontiguousarray(array.T, dtype=np.float32)
