"""Files, written whole and never trusted: what is damaged or strange is named, with the fix (all notebooks)."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from .audio import AudioError

SEALS = "files.csv"  # size, digest and source of each file of a folder that we made
MARKS = (".labutils", "run.json", "recipe.json", "records")  # one of them: the folder's content was made by us


class DataError(ValueError):
    """A data set that cannot be used; the message names the file and the fix."""


class DataWarning(UserWarning):
    """Part of a data set was left out; the message counts it and names the first file."""


@contextlib.contextmanager
def blame(path, fix: str, kind=DataError):
    """Any error in the block becomes one of this kind that names the file and the fix, if it does not yet.

    For `read_table`.
    """
    try:
        yield
    except (DataError, AudioError, kind):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise kind(f"{path}: cannot be read ({reason}); {fix}") from error


def save_json(path: Path, content: dict) -> None:
    """Write a dict, with the digest by which `read_json` knows it again. For `record`."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    save_text(path, json.dumps({**content, "sha256": digest}, indent=1))


def read_json(path: Path, fix: str) -> dict:
    """The dict in a file of ours; DataError if it is damaged. For `provenance`."""
    with blame(path, fix):
        content = {**json.loads(path.read_text(encoding="utf-8"))}
        digest = content.pop("sha256", None)
        if digest and digest != hashlib.sha256(json.dumps(content).encode()).hexdigest():
            raise DataError(f"{path}: is not as it was written; {fix}")
        return content


def read_table(path) -> pd.DataFrame:
    """A text file with a header line, tab- or comma-separated, in UTF-8: all cells are text. For `read_labels`.

    Raises
    ------
    DataError : the file cannot be read, has rows longer or shorter than the header, or a name in it twice.
    """
    with blame(path, "save it as a table in UTF-8 text, with a header and one line per clip"):
        text = Path(path).read_bytes().decode("utf-8-sig")
        header = text.lstrip().partition("\n")[0]
        names = [name.strip() for name in header.split("\t" if "\t" in header else ",")]
        table = pd.read_csv(io.StringIO(text), sep="\t" if "\t" in header else ",", dtype=str, keep_default_na=False)
        table.columns = table.columns.str.strip()
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"{path}: the header names {twice[0]!r} twice; keep one column")
        if not isinstance(table.index, pd.RangeIndex) or table.isna().any(axis=None):
            raise DataError(f"{path}: a line has more or fewer cells than the header; fill them in or take them out")
    return table


def to_numbers(path, column: pd.Series, *, empty: bool = False) -> pd.Series:
    """A column of text as finite numbers; NaN for empty cells, where they may be `empty`. For `read_labels`.

    Raises
    ------
    DataError : a cell that is no such number; the message names the line.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = ~(numbers.abs() <= np.finfo(np.float32).max) & ~(empty & (column.str.strip() == ""))
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(f"{path}, line {row + 2}: {column.name} is {column.iloc[row]!r}, not a number; correct it")
    return numbers


def check_names(path, column: pd.Series) -> None:
    """Raise DataError unless each cell is a name: printable characters, 1 to 200 of them. For `read_labels`."""
    if column.empty:
        raise DataError(f"{path}: has a header but no rows; add one line per clip")
    wrong = ~column.map(lambda name: name.strip() != "" and name.isprintable() and len(name) <= 200)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        found = f"is {column.iloc[row][:40]!r}, not a name" if column.iloc[row].strip() else "is empty"
        raise DataError(f"{path}, line {row + 2}: {column.name} {found}; fill it in with printable text")


@contextlib.contextmanager
def whole_file(path: Path):
    """A path to write to in the block: the file takes its place at `path` whole, or not at all after an error.

    For `save_text`. Makes the folders on the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f"{path.suffix}.part{os.getpid()}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # before the name leads to it: also a power cut leaves the old or the new
        os.replace(part, path)
    except OSError as error:
        raise error if error.filename else OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # it is in its place, or was never made
            part.unlink()


def save_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. For `record`."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(path: Path, **options):
    """Only one process at a time has the lock of `path`; parts that a killed one left there are removed.

    For `fit_or_load`. `options` are those of `FileLock`; any user of the machine may take the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", mode=0o666, **options):
        try:
            for part in path.parent.glob(f"{glob.escape(path.name)}.part*"):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                os.unlink(f"{path}.lock")


def output_folder(out, *sources) -> Path:
    """A folder to write results to, made if missing, and cleared of the parts that killed processes left. For `run`.

    Raises
    ------
    DataError : it is, holds or lies in one of the `sources`; or it holds files that we did not make.
    """
    import psutil

    out = Path(out).expanduser()
    for source in (Path(source).resolve() for source in sources):
        if out.resolve().is_relative_to(source) or source.is_relative_to(out.resolve()):
            raise DataError(f"{out}: results there would mix with the source {source}; give another folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    strange = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    if strange and not any((out / mark).exists() for mark in MARKS):
        raise DataError(f"{out}: holds {strange[0]} and was not made by labutils; give a new or empty folder as --out")
    with contextlib.suppress(FileExistsError):
        (out / MARKS[0]).touch(exist_ok=False)
    for part in out.rglob("*.part[0-9]*"):
        pid = part.name.rpartition(".part")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            part.unlink(missing_ok=True)
    return out


def safe_name(text) -> str:
    """A name from data as the name of a folder or file: never a path, a link or markup. For `provenance`."""
    return re.sub(r"[^\w .-]+", "_", str(text))[:80].strip(" .") or "data"


def inside(folder: Path, name: str) -> Path:
    """The file of this name in a folder. For `from_audio`.

    Raises
    ------
    DataError : the name or a link leads out of the folder, or to no regular file.
    """
    path = folder / name
    with blame(path, "give the name of a file"):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path}: leads out of {folder}; copy the file into it")
        if not path.is_file():
            raise DataError(f"{path}: not found, or not a file; put it there or take it out of the table")
    return path


def seal(path: Path) -> list[str]:
    """Size and SHA-256 of a file, empty texts where there is none. For `from_audio`."""
    if not os.path.isfile(path):  # False also for a name that no file can have
        return ["", ""]
    with open(path, "rb") as file:
        return [str(os.fstat(file.fileno()).st_size), hashlib.file_digest(file, "sha256").hexdigest()]


def read_seals(folder: Path) -> dict[str, list[str]]:
    """Size, digest and source of the files in a folder that we made, by their paths in it. For `damaged`."""
    path = folder / SEALS
    rows = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return {name: rest for name, *rest in (row.split(",") for row in rows) if len(rest) == 3}


def save_seals(folder: Path, seals: dict[str, list[str]]) -> None:
    """Write what `read_seals` reads. For `from_audio`."""
    save_text(folder / SEALS, "".join(f"{name},{','.join(rest)}\n" for name, rest in sorted(seals.items())))


def damaged(folder: Path) -> list[str]:
    """The files in a folder that are missing or not as we made them. For `describe`."""
    return [name for name, (*sealed, _) in read_seals(folder).items() if seal(folder / name) != sealed]
