"""Writing data sets in the lab's layout, from audio files or from the procedural demo (notebook 04)."""

from __future__ import annotations

import contextlib
import functools
import getpass
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from .. import __version__, audio, files, median, process, training
from ..data import FOLDERS, SpectrogramDataset, provenance
from ..files import SEALS, DataError, blame, inside, read_json, read_seals, read_table, save_text, seal, whole_file
from ..progress import progress
from ..store import SUFFIX, home
from . import demo

FIRST_ID = 1000
LONGEST = 1200  # seconds of a clip
RECIPE = ("kind", "table", "size", "seed", "seconds", "code")  # what of its description makes a data set another one
TASKS = ("genre", "affect")
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
    name = "demo" if size == "default" else f"demo-{size}"
    table, source = demo.plan(size=size, seed=seed), hashlib.sha256(repr(recipe).encode()).hexdigest()
    record = {"name": name, "best_attainable_rho": demo.best_attainable_rho(), **recipe}
    clips = [(functools.partial(demo.render, row, seconds=seconds), source) for row in table.to_dict("records")]
    table = table[[*NO_AXES, *demo.AXES]]
    return _write(table, clips, Path(out or home() / name), record, jobs, anew=not out)


def from_audio(audio_folder, labels, out, *, jobs: int | None = None) -> Path:
    """Write the lab's layout from a folder of audio and a table of labels.

    Notebook 04. Called again it goes on, or puts right what is missing or damaged, and takes in what was changed,
    repaired or added: only these clips are computed. Files that fail are listed with the reason and the fix in
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
    record = {"name": out.resolve().name, "audio": str(folder.resolve()), "kind": "audio"}
    record["table"] = hashlib.blake2b(Path(labels).read_bytes(), digest_size=12).hexdigest()
    clips = [(functools.partial(_load, folder, name), _source(folder, name)) for name in table["file"]]
    return _write(table, clips, out, record, jobs, inputs=(folder, labels))


def load_audio(root, clip_id: str) -> np.ndarray | None:
    """The sound of a clip, float32 [N] at 22,050 Hz, or None where the data set came without audio.

    Notebook 01. Demo clips are rendered again, clips built from files are read from there if they still are there.
    """
    root = Path(root)
    record = provenance(root)
    if record["kind"] == "arrays" or not (root / "clips.csv").exists():
        return None
    with blame(root / "dataset.json", "make the data set again"):
        name = read_table(root / "clips.csv").set_index("id").at[clip_id, "file"]
        if record["kind"] == "procedural":
            plan = demo.plan(size=record["size"], seed=record["seed"]).set_index("file", drop=False)
            return demo.render(plan.loc[name].to_dict(), seconds=record["seconds"])
        folder = Path(record["audio"])
        return _load(folder, name) if (folder / name).exists() else None


def verify(root) -> list[str]:
    """What is wrong with the files of a data set that we made; `labutils data info` prints it. Notebook 04."""
    made, root = provenance(root)["kind"] != "arrays", Path(root)
    if made and not (root / SEALS).is_file():
        return [f"{root / SEALS}: is missing, so nothing can be checked; make the data set again into the same folder"]
    lost = files.damaged(root)
    return [f"{root / name}: is missing or not as it was made; call the same command again" for name in lost]


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
    """How hard a data set is for simple models.

    Accuracy on the test split of a support vector machine on pooled mel and on pooled chroma statistics, with the
    share of the largest class; Spearman's rho of a ridge regression on pooled mel statistics per axis, on a quarter
    of the affect training clips. Notebook 04.
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
    table = read_table(path)
    if missing := [name for name in ("file", "genre", "split") if name not in table]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; the header has {', '.join(table.columns)}")
    if clash := [name for name in table if name.lower() == "id"]:
        raise DataError(f"{path}: column {clash[0]!r} stands for the ids that the build gives; rename or remove it")
    files.check_names(path, pd.Series(table.columns, name="the header"))
    for name in ("file", "genre", "split"):
        files.check_names(path, table[name])
    if not (known := table["split"].isin(["train", "test"])).all():
        line = int((~known).idxmax())
        raise DataError(f"{path}, line {line + 2}: split is {table.at[line, 'split']!r}; write train or test")
    if table["file"].duplicated().any():
        raise DataError(f"{path}: {table['file'][table['file'].duplicated()].iloc[0]} is listed twice; keep one line")
    for axis in table.columns.difference(NO_AXES, sort=False):
        table[axis] = files.to_numbers(path, table[axis], empty=True)
    if "group" in table:
        table["group"] = table["group"].str.strip()
    if not (table["split"] == "train").any():
        raise DataError(f"{path}: no clip is in the train split; mark most clips as train")
    return table


def _load(folder: Path, name: str) -> np.ndarray:
    """The samples of an audio file whose features fit into memory: .5 GB, and .14 GB a minute."""
    import soundfile

    path = inside(folder, name)
    if (seconds := soundfile.info(path).duration) > LONGEST:
        raise DataError(f"{path}: lasts {seconds / 60:.0f} minutes; cut it into excerpts of {LONGEST / 60:.0f} at most")
    return audio.load(path)


def _source(folder: Path, name: str) -> str:
    """The digest of an audio file, empty where there is none that can be used."""
    with contextlib.suppress(DataError):
        return seal(inside(folder, name))[1]
    return ""


def _write(table, clips, out: Path, record: dict, jobs, *, inputs=(), anew=False) -> Path:
    """Bring the layout at `out` to the state that the clips ask for; what is there and sound is not made again.

    `clips`: of each row, a function that returns the samples, and the digest of what they are made from. `SEALS` lists
    each clip as soon as it is done, with this digest; all files at the end. `anew`: a data set of another recipe is
    replaced.
    """
    import joblib

    recipe = {"layout": 1, **{key: value for key, value in record.items() if key in RECIPE}}
    table = table.assign(id=[str(FIRST_ID + i) for i in range(len(table))]).set_index("id")
    axes = [name for name in table.columns if name not in NO_AXES]
    labelled = table[axes].notna().all(axis=1) if axes else pd.Series(False, index=table.index)
    in_affect = labelled | ((table["split"] == "test") & bool(axes))
    paths = {
        clip: [f"{FOLDERS[task, kind]}/{split}/{clip}{SUFFIX}" for task in tasks for kind in ("raw", "beat")]
        for clip, split, tasks in zip(table.index, table["split"], in_affect.map({True: TASKS, False: TASKS[:1]}))
    }
    sources = {clip: source for clip, (_, source) in zip(table.index, clips)}
    if _sound(out, recipe, paths, sources, anew)[2]:
        return out
    out = files.output_folder(out, *inputs)
    with files.locked(out / ".data"):
        seals, todo, complete = _sound(out, recipe, paths, sources, anew)
        if complete:
            return out
        before = read_seals(out)
        if lost := sorted(before.keys() - seals.keys()):
            print(f"{len(lost)} files of {out} are missing or not as they were made, the first: {lost[0]}", flush=True)
        save_text(out / "recipe.json", json.dumps(recipe))
        files.save_seals(out, seals)
        compile_librosa()
        work = [
            joblib.delayed(_write_clip)(out, clip, file, paths[clip], get_samples)
            for clip, file, (get_samples, _) in zip(table.index, table["file"], clips)
            if clip in todo
        ]
        failed = {}
        with joblib.parallel_config("loky", initializer=_end_with, initargs=[os.getpid()]):
            done = joblib.Parallel(n_jobs=jobs or joblib.cpu_count(), return_as="generator_unordered")(work)
        with open(out / SEALS, "a", encoding="utf-8") as journal:
            for clip, made in progress(done, desc=f"features -> {out.name}", total=len(work), unit="clip"):
                if isinstance(made, str):
                    failed[clip] = made
                    continue
                seals |= {path: [*sealed, sources[clip]] for path, sealed in zip(paths[clip], made)}
                journal.writelines(f"{path},{','.join(seals[path])}\n" for path in paths[clip])
                journal.flush()
        texts = {"recipe.json": json.dumps(recipe)}
        if failed:
            rows = pd.DataFrame({"file": table["file"], "reason": pd.Series(failed)}).loc[sorted(failed)]
            texts["failed.csv"] = rows.rename_axis("id").to_csv()
            print(f"{len(failed)} of {len(table)} clips failed, the first: {rows['reason'].iloc[0]}; "
                  f"see {out / 'failed.csv'}")  # fmt: skip
        table, labelled, in_affect = (part.drop(index=list(failed)) for part in (table, labelled, in_affect))
        if not table.empty:
            texts |= _label_files(table, axes, in_affect & labelled, ("test",) * (record["kind"] == "procedural"))
            counts = {"clips": len(table), "failed": len(failed)}
            record = {**record, **recipe, **counts, "made_by": f"labutils {__version__}"}
            texts["dataset.json"] = json.dumps(record, indent=1)
        seals = {path: seals[path] for clip in table.index for path in paths[clip]}
        for name, text in texts.items():
            save_text(out / name, text)
            seals[name] = [*seal(out / name), ""]
        for path in out.rglob("*"):
            if (name := path.relative_to(out).as_posix()) in before and name not in seals:
                path.unlink()
        files.save_seals(out, seals)
        if table.empty:
            raise DataError(f"{out}: no clip could be used; see {out / 'failed.csv'}")
    return out


def _end_with(parent: int) -> None:
    """End this process when its parent does, however that died; else it would wait for work for minutes."""

    def watch():
        while os.getppid() == parent or os.name == "nt":
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _sound(out: Path, recipe: dict, paths: dict, sources: dict, anew: bool) -> tuple[dict, set, bool]:
    """The seals of the files that are as they were made, the clips that are not, and whether nothing is left to do.

    Raises
    ------
    DataError : another recipe made what is there, and it is not to be made `anew`.
    """
    if (out / "recipe.json").exists() and not anew:
        before = read_json(out / "recipe.json", "remove it if the folder is a data set of yours")
        if changed := [name for name in {**recipe, **before} if before.get(name) != recipe.get(name)]:
            raise DataError(f"{out}: holds a data set made with another {', '.join(changed)}; use another folder")
    before, lost = read_seals(out), set(files.damaged(out))
    seals = {name: sealed for name, sealed in before.items() if name not in lost}
    # What was made stays where its audio is gone since: the disk may not be there today.
    todo = {c for c in paths for path in paths[c] if path not in seals or sources[c] not in ("", seals[path][-1])}
    return seals, todo, not todo and not lost and "dataset.json" in seals


def _write_clip(out: Path, clip: str, file: str, paths: list[str], get_samples) -> tuple[str, list | str]:
    """Features of one clip into its files: their seals, or the reason why there are none."""
    process.tune_process()  # two processes that give memory back and forth wait for each other
    try:
        with blame(file, "convert it to wav, flac, ogg or mp3, or take it out of the table"):
            raw, beat = audio.features(get_samples())
            if not (np.isfinite(raw).all() and np.isfinite(beat).all()):
                raise DataError(f"{file}: is too loud for features; export it with samples in [-1, 1]")
    except (DataError, audio.AudioError) as error:
        return clip, str(error)
    made = []
    for path, array in zip(paths, (raw, beat) * 2):
        with whole_file(out / path) as part, open(part, "wb") as file:
            np.save(file, array)
        made.append(seal(out / path))
    return clip, made


def _label_files(table: pd.DataFrame, axes: list[str], in_affect: pd.Series, hidden_splits) -> dict[str, str]:
    """Texts of the label files, of the table of clips and of their groups, by their names in the data set."""
    texts = {"clips.csv": table.reset_index().to_csv(index=False)}
    if "group" in table:
        texts["groups.csv"] = table.loc[table["group"] != "", "group"].rename_axis("Id").to_csv()
    for (task, kind), folder in FOLDERS.items():
        for split in ("train", "test"):
            rows = table[(table["split"] == split) & (in_affect if task == "affect" else True)]
            if rows.empty or (task == "affect" and split in hidden_splits):
                continue
            spelling = SPELLINGS.get((task, kind, split), "{}")
            labels = rows[axes] if task == "affect" else rows[["genre"]].rename(columns={"genre": "Genre"})
            labels.index = pd.Index([spelling.format(clip_id) for clip_id in labels.index], name="Id")
            texts[f"{folder}/{split}_labels.txt"] = labels.to_csv(sep="\t" if task == "genre" else ",")
    return texts
