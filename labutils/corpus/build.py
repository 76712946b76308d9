"""Writing data sets in the lab's layout, from audio files or from the procedural demo (notebook 04)."""

from __future__ import annotations

import contextlib
import functools
import getpass
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from .. import __version__, audio, median, process, training
from ..data import FOLDERS, SpectrogramDataset, provenance
from ..progress import progress
from ..store import SUFFIX, DataError, home, save_text, whole_file
from . import demo

FIRST_ID = 1000
NO_AXES = ("file", "genre", "split", "group")  # columns of the table of clips; all others are axes
# The spellings of the ids in the lab's label files, by folder and split.
SPELLINGS = {
    ("genre", "raw", "train"): "{}.fused.full.npy.gz",
    ("genre", "raw", "test"): "{}.full.fused.npy.gz",
    ("genre", "beat", "train"): "{}.beatsync.fused.npy.gz",
    ("genre", "beat", "test"): "{}.beatsync.fused.npy.gz",
}


def make_demo(out=None, *, size="default", seed: int = 0, seconds: float = 10.0, jobs: int | None = None) -> Path:
    """Make the procedural demo corpus, or finish it, or just return it when it is complete.

    Notebook 04. As in the lab's data, the affect labels of the test split are held back; `clips.csv` has them, and
    `groups.csv` the artist of each clip.

    Parameters
    ----------
    out : folder; None: `home()/demo` (`home()/demo-tiny`).   size : "default" or "tiny".
    seed : another seed, other clips.   seconds : length of a clip.   jobs : processes, None: one per core.

    Returns
    -------
    root : the data set's folder.
    """
    recipe = {"kind": "procedural", "size": size, "seed": seed, "seconds": seconds, "code": _code()}
    place = Path(out or home() / ("demo" if size == "default" else f"demo-{size}"))
    if (place / "recipe.json").exists():
        same = json.loads((place / "recipe.json").read_text()) == {"layout": 1, **recipe}
        if same and (place / "dataset.json").exists():
            return place
        if not same and not out:
            print(f"{place} was made with another recipe; making it anew", flush=True)
            shutil.rmtree(place)
    table = demo.plan(size=size, seed=seed)
    name = "demo" if size == "default" else f"demo-{size}"
    record = {"name": name, "best_attainable_rho": demo.best_attainable_rho()}
    clips = [functools.partial(demo.render, row, seconds=seconds) for row in table.to_dict("records")]
    return _write(table[[*NO_AXES, *demo.AXES]], clips, place, recipe, record, jobs, hidden_splits=("test",))


def from_audio(audio_folder, labels, out, *, jobs: int | None = None) -> Path:
    """Write the lab's layout from a folder of audio and a table of labels.

    Notebook 04. Restartable: clips that are done are skipped. Files that fail are listed with the reason in
    `ROOT/failed.csv`, the others are used.

    Parameters
    ----------
    audio_folder : folder with the files named in the table (wav, flac, ogg, mp3).
    labels : csv with the columns `file`, `genre`, `split` (train or test), optionally `group` (artist or recording;
        goes to `ROOT/groups.csv`, without the empty ones), and any number of axis columns; a test clip with empty
        axis cells goes to the unlabelled affect test split.
    out : folder to write.   jobs : processes, None: one per core.

    Raises
    ------
    DataError : a table that cannot be used, or no clip that can.
    """
    folder, out = Path(audio_folder), Path(out)
    if not folder.is_dir():
        raise DataError(f"{folder}: folder not found; give the folder that holds the audio files as --audio")
    table = _read_table(Path(labels))
    recipe = {"kind": "audio", "table": hashlib.blake2b(Path(labels).read_bytes(), digest_size=12).hexdigest()}
    record = {"name": out.resolve().name, "audio": str(folder.resolve())}
    clips = [functools.partial(audio.load, folder / name) for name in table["file"]]
    return _write(table, clips, out, recipe, record, jobs)


def load_audio(root, clip_id: str) -> np.ndarray | None:
    """The sound of a clip, float32 [N] at 22,050 Hz, or None where the data set came without audio.

    Notebook 01. Demo clips are rendered again, clips built from files are read from there if they still are there.
    """
    root = Path(root)
    record = provenance(root)
    if record["kind"] == "arrays" or not (root / "clips.csv").exists():
        return None
    table = pd.read_csv(root / "clips.csv", dtype={"id": str}).set_index("id")
    name = table.at[clip_id, "file"]
    if record["kind"] == "procedural":
        plan = demo.plan(size=record["size"], seed=record["seed"]).set_index("file", drop=False)
        return demo.render(plan.loc[name].to_dict(), seconds=record["seconds"])
    path = Path(record["audio"]) / name
    return audio.load(path) if path.exists() else None


def compile_librosa() -> None:
    """Let librosa and our running median compile their numba code, once, before several processes use it.

    Before the first features of notebook 01. It takes a minute, and two processes that do it at the same time can
    leave a compiled file that crashes every later one; hence the lock, and a mark that it is done, both in a folder
    of the user's own inside the temporary folder.

    Raises
    ------
    DataError : somebody else has put something in the place of this folder.
    """
    spec = importlib.util.find_spec("librosa")
    stamp = f"{spec.origin} {Path(spec.origin).stat().st_mtime_ns} {sys.version} {_code()}"
    mark = _own_folder() / hashlib.blake2b(stamp.encode(), digest_size=8).hexdigest()
    with FileLock(f"{mark}.lock"):
        if not mark.exists():
            print("Compiling librosa's numba code, once in a new environment ...", end=" ", flush=True)
            start = time.perf_counter()
            noise = np.random.default_rng(0).normal(0, 0.1, 4 * audio.SAMPLE_RATE)
            audio.features(noise.astype(np.float32))
            print(f"{time.perf_counter() - start:.0f} s", flush=True)
            mark.touch()


def difficulty(root) -> dict[str, float]:
    """How hard a data set is for simple models: what `labutils data difficulty` prints.

    Accuracy on the test split of a support vector machine on pooled mel and on pooled chroma statistics, with the
    share of the largest class; Spearman's rho of a ridge regression on pooled mel statistics per axis, on a quarter
    of the affect training clips. Notebook 06.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from ..data import stratified_split
    from ..evaluation import accuracy, spearman

    found = {}
    for feature in ("mel", "chroma"):
        train, test = (SpectrogramDataset(root, split=split, feature=feature) for split in ("train", "test"))
        machine = make_pipeline(StandardScaler(), SVC(C=10)).fit(training.clip_statistics(train), train.labels)
        found[f"svm.{feature}.test.accuracy"] = accuracy(test.labels, machine.predict(training.clip_statistics(test)))
    found["majority.test.accuracy"] = float(np.bincount(test.labels).max() / len(test))
    affect = SpectrogramDataset(root, "affect", feature="mel")
    first, second = stratified_split(affect.labels, 0.25, groups=affect.groups)
    x = training.clip_statistics(affect)
    for column, axis in enumerate(affect.axes):
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
        ridge.fit(x[first], affect.labels[first, column])
        found[f"ridge.{axis}.spearman"] = spearman(affect.labels[second, column], ridge.predict(x[second]))
    return found


def _own_folder() -> Path:
    """The folder `labutils-<user>` inside the temporary one, which all users of the machine share; made if missing."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # Windows: a temporary folder for each user
    folder = Path(tempfile.gettempdir()) / f"labutils-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    owner = folder.lstat().st_uid if hasattr(os, "getuid") else user
    if owner != user or not folder.is_dir():
        raise DataError(f"{folder}: is not a folder that belongs to you; set TMPDIR to one that does")
    return folder


def _code() -> str:
    """Changes with the code that composes, renders and analyses the demo: old clips are never taken for new ones."""
    source = b"".join(Path(module.__file__).read_bytes() for module in (demo, audio, median))
    return hashlib.blake2b(source, digest_size=6).hexdigest()


def _read_table(path: Path) -> pd.DataFrame:
    """The table of clips, checked: text in file, genre, split and, where it is there, group; all others are numbers."""
    if not path.is_file():
        raise DataError(f"{path}: file not found; expected a csv with the columns file, genre, split and any axes")
    try:
        table = pd.read_csv(path, dtype={"file": str, "genre": str, "split": str})
        if "group" in table:  # read again, as an artist may be called None
            names = pd.read_csv(path, usecols=["group"], dtype=str, keep_default_na=False)["group"]
            table["group"] = names.str.strip()
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as csv ({error})") from error
    if missing := [name for name in ("file", "genre", "split") if name not in table]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; the header has {', '.join(table.columns)}")
    if clash := [name for name in table if name.lower() == "id"]:
        raise DataError(f"{path}: column {clash[0]!r} stands for the ids that the build gives; rename or remove it")
    if table.empty:
        raise DataError(f"{path}: has no rows; add one line per clip")
    for name in ("file", "genre", "split"):
        if table[name].isna().any():
            raise DataError(f"{path}, line {int(table[name].isna().idxmax()) + 2}: {name} is empty; fill it in")
    if not (known := table["split"].isin(["train", "test"])).all():
        line = int((~known).idxmax())
        raise DataError(f"{path}, line {line + 2}: split is {table.at[line, 'split']!r}; write train or test")
    if table["file"].duplicated().any():
        raise DataError(f"{path}: {table['file'][table['file'].duplicated()].iloc[0]} is listed twice; keep one line")
    for axis in table.columns.difference(NO_AXES, sort=False):
        if not pd.api.types.is_numeric_dtype(table[axis]):
            raise DataError(f"{path}: column {axis!r} holds text; axis columns are numbers, remove or convert it")
    if not (table["split"] == "train").any():
        raise DataError(f"{path}: no clip is in the train split; mark most clips as train")
    return table


def _write(table, clips, out: Path, recipe: dict, record: dict, jobs, hidden_splits=()) -> Path:
    """Extract the features of all clips into the layout at `out`; `dataset.json` is written last."""
    import joblib

    recipe = {"layout": 1, **recipe}
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        _check_recipe(out, recipe)
        if (out / "dataset.json").exists():
            return out
        axes = [name for name in table.columns if name not in NO_AXES]
        table = table.assign(id=[str(FIRST_ID + i) for i in range(len(table))]).set_index("id")
        labelled = table[axes].notna().all(axis=1) if axes else pd.Series(False, index=table.index)
        in_affect = labelled | ((table["split"] == "test") & bool(axes))
        compile_librosa()
        work = [
            joblib.delayed(_write_clip)(out, clip_id, split, affect, get_samples)
            for clip_id, split, affect, get_samples in zip(table.index, table["split"], in_affect, clips)
        ]
        done = joblib.Parallel(n_jobs=jobs or joblib.cpu_count(), return_as="generator_unordered")(work)
        done = progress(done, desc=f"features -> {out.name}", total=len(work), unit="clip")
        failed = dict(reason for reason in done if reason)
        _report_failures(out, table, failed)
        table, labelled, in_affect = (part.drop(index=list(failed)) for part in (table, labelled, in_affect))
        if table.empty:
            raise DataError(f"{out}: no clip could be used; see {out / 'failed.csv'}")
        _write_label_files(out, table, axes, in_affect & labelled, hidden_splits)
        save_text(out / "clips.csv", table.reset_index().to_csv(index=False))
        if "group" in table:
            save_text(out / "groups.csv", table.loc[table["group"] != "", "group"].rename_axis("Id").to_csv())
        counts = {"clips": len(table), "failed": len(failed)}
        record = {**record, **recipe, **counts, "made_by": f"labutils {__version__}"}
        save_text(out / "dataset.json", json.dumps(record, indent=1))
    return out


def _check_recipe(out: Path, recipe: dict) -> None:
    """Refuse to mix clips of two recipes in one folder."""
    path = out / "recipe.json"
    if path.exists():
        if (before := json.loads(path.read_text())) != recipe:
            changed = [name for name in {**recipe, **before} if before.get(name) != recipe.get(name)]
            raise DataError(f"{out}: holds a data set made with another {', '.join(changed)}; use another folder")
    elif any(entry.name != ".lock" for entry in out.iterdir()):
        raise DataError(f"{out}: is not empty and was not made by labutils; give a new or empty folder")
    else:
        save_text(path, json.dumps(recipe))


def _write_clip(out: Path, clip_id: str, split: str, affect: bool, get_samples) -> tuple[str, str] | None:
    """Features of one clip into its folders, unless they are there; returns (id, reason) on failure."""
    tasks = ("genre", "affect") if affect else ("genre",)
    folders = [(task, kind) for task in tasks for kind in ("raw", "beat")]
    paths = {folder: out / FOLDERS[folder] / split / f"{clip_id}{SUFFIX}" for folder in folders}
    if all(path.exists() for path in paths.values()):
        return None
    process.tune_process()  # two processes that give memory back and forth wait for each other
    try:
        raw, beat = audio.features(get_samples())
    except audio.AudioError as error:
        return clip_id, str(error)
    for (_, kind), path in paths.items():
        with whole_file(path) as part, open(part, "wb") as file:
            np.save(file, raw if kind == "raw" else beat)
    return None


def _report_failures(out: Path, table: pd.DataFrame, failed: dict[str, str]) -> None:
    if not failed:
        (out / "failed.csv").unlink(missing_ok=True)
        return
    rows = pd.DataFrame({"file": table.loc[list(failed), "file"], "reason": list(failed.values())})
    save_text(out / "failed.csv", rows.to_csv())
    print(f"{len(failed)} of {len(table)} clips failed, the first: {rows['reason'].iloc[0]}; see {out / 'failed.csv'}")


def _write_label_files(out: Path, table: pd.DataFrame, axes: list[str], in_affect: pd.Series, hidden_splits) -> None:
    for (task, kind), folder in FOLDERS.items():
        for split in ("train", "test"):
            rows = table[(table["split"] == split) & (in_affect if task == "affect" else True)]
            if rows.empty or (task == "affect" and split in hidden_splits):
                continue
            spelling = SPELLINGS.get((task, kind, split), "{}")
            labels = rows[axes] if task == "affect" else rows[["genre"]].rename(columns={"genre": "Genre"})
            labels.index = pd.Index([spelling.format(clip_id) for clip_id in labels.index], name="Id")
            text = labels.to_csv(sep="\t" if task == "genre" else ",")
            save_text(out / folder / f"{split}_labels.txt", text)
