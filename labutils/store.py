"""Packed arrays: one memory-mapped file per folder of clips, made once, read without copying (notebook 04)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np

from .audio import NUM_FEATURES
from .files import DataError, blame, locked, read_json, read_seals, save_json, seal
from .progress import progress

SUFFIX = ".fused.full.npy"
SPELLING = re.compile(r"(?=\.)(\.(fused|full|beatsync))*(\.npy)?(\.gz)?$")
LARGEST = 1e4  # no decibel and no chroma of a real file is beyond it, but those of a damaged one are


def home() -> Path:
    """Folder for generated data, packed arrays and trained models.

    $LABUTILS_HOME if set; `data/` of the checkout the package lies in; else `~/.cache/labutils`. For `Store`.
    """
    if os.environ.get("LABUTILS_HOME"):
        return Path(os.environ["LABUTILS_HOME"]).expanduser().resolve()
    return checkout / "data" if (checkout := _checkout()) else Path.home() / ".cache" / "labutils"


def results_home() -> Path:
    """Folder for results that were given none.

    `home()/runs` if $LABUTILS_HOME is set; `runs/` of the checkout the package lies in; else `runs/` of the folder
    that Python works in. For `lab.start`.
    """
    return (home() if os.environ.get("LABUTILS_HOME") else _checkout() or Path.cwd()) / "runs"


def _checkout() -> Path | None:
    """The checkout that the package lies in, if it has one and files can be written there."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").exists() and os.access(folder, os.W_OK) else None


def clip_id(name: str) -> str:
    """The id in a label file's spelling: '123.full.fused.npy.gz' -> '123'. For `read_labels`."""
    return SPELLING.sub("", str(name).strip())


class Store:
    """The arrays of one folder, packed time-major into one memory-mapped file.

    For `SpectrogramDataset`. `frames(i)` is a read-only view [T_i, 140] float32: nothing is copied. Made once per
    content of the folder under `home()/stores`; opening it again costs milliseconds, and once a process the time to
    check its digest.

    Raises
    ------
    DataError : the store is damaged.
    """

    def __init__(self, path: Path):
        with blame(path, "remove it, and it is made again"):
            meta = read_json(path / "meta.json", "remove it")
            if _seal(path / "frames.f32", (path / "frames.f32").stat().st_mtime_ns) != meta["frames"]:
                raise DataError(f"{path}: is damaged; remove it, and it is made again")
            self.ids, self.offsets = meta["ids"], np.array(meta["offsets"])
            self.fingerprint, self.problems = meta["fingerprint"], meta["problems"]
        self.array = np.asarray(np.memmap(path / "frames.f32", np.float32, "r")).reshape(-1, NUM_FEATURES)

    def frames(self, i: int) -> np.ndarray:
        return self.array[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, folder: Path) -> Store:
        """Open the store of a folder of .npy files, packing it first if its files are new or changed, or it damaged."""
        with os.scandir(folder) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(SUFFIX) and entry.is_file()]
        stats = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
        key = hashlib.blake2b(repr((4, str(folder), stats)).encode(), digest_size=12).hexdigest()
        path = home() / "stores" / key
        with contextlib.suppress(DataError):
            return cls(path)
        with locked(path):
            with contextlib.suppress(DataError):  # another process has made it meanwhile
                return cls(path)
            _pack(folder, [name for name, _, _ in stats], path)
        return cls(path)


@functools.cache
def _seal(path: Path, changed: int) -> list[str]:
    """The seal of a file that is `changed` at this time, computed once a process."""
    return seal(path)


def _pack(folder: Path, names: list[str], path: Path) -> None:
    """Write the store of `folder` at `path`, atomically: a killed run leaves nothing half-made."""
    part = path.with_suffix(".part")
    part.mkdir()
    names.sort(key=lambda name: (len(name), name))  # numeric order of the ids
    ids, lengths, problems, digest = [], [], {}, hashlib.blake2b(digest_size=12)
    place, seals = f"{folder.parent.name}/{folder.name}", read_seals(folder.parents[1])
    with open(part / "frames.f32", "wb") as file:
        for name in progress(names, desc=f"packing {place}"):
            try:
                frames = _read_array(folder / name, seals.get(f"{place}/{name}"))
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
    meta = {"fingerprint": digest.hexdigest(), "problems": problems, "folder": str(folder), "ids": ids}
    meta |= {"offsets": np.cumsum([0, *lengths]).tolist(), "frames": seal(part / "frames.f32")}
    save_json(part / "meta.json", meta)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(part, path)


def _read_array(path: Path, sealed=None) -> np.ndarray:
    """One clip as float32 [T, 140], as it was made where it is `sealed`; or DataError naming the file and the fix."""
    with blame(path, "save it again with np.save as a plain float array"):
        if sealed and seal(path) != sealed[:2]:
            raise DataError(f"{path}: is not as it was made; call `labutils data build` or `data demo` again")
        array = np.lib.format.read_array(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if array.ndim != 2 or array.shape[0] != NUM_FEATURES:
        raise DataError(f"{path}: shape {array.shape}, expected (140, T); transpose or extract it again")
    if array.dtype.kind != "f":
        raise DataError(f"{path}: type {array.dtype}, expected float32; convert it")
    if array.shape[1] == 0:
        raise DataError(f"{path}: has no frames; extract it again from a longer excerpt")
    if not (np.abs(array) < LARGEST).all():
        raise DataError(f"{path}: holds NaN, infinite values or some beyond {LARGEST:g}; extract it again")
    return np.ascontiguousarray(array.T, dtype=np.float32)
