"""Broken files of every kind: each gives a right result or an error that names the file and the fix, soon.

A case is a valid file, mutated by Hypothesis: bits, cuts, copies, and words that hurt. `FAULTS_CASES` (500) is the
number of cases over all kinds; `make fuzz` tries 10,000. `FAULTS_TABLE=path` writes what came out, a row for each kind.
"""

import contextlib
import csv
import functools
import io
import json
import os
import time
import warnings
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from conftest import fused, write_layout

from labutils import audio, data, files, store
from labutils.corpus import build
from labutils.data import DataError
from labutils.tools import handout, parameters, publish, report

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

CASES = int(os.environ.get("FAULTS_CASES", "500"))
WORDS = [word.encode("latin-1") for word in (
    "inf", "-inf", "nan", "1e999", "1e36", "-1", "", "0", "null", "true", "\0", "\xff\xfe", "\xef\xbb\xbf", "..", "NA",
    "../../etc/passwd", "/dev/zero", "<script>", "$^$", '"', "'", ",", "\t", "\n", "\r\n", "{", "[[[[", "]", "*a", "&a",
    "!!python/object/apply:os.system [id]", "\xe2\x80\xae", "x" * 10_000, "9" * 400, "PK\x03\x04", "\x93NUMPY", "Id",
    "\x1b[31m", "%",
)]  # fmt: skip
OUTCOMES = {}


@st.composite
def mutated(draw, content: bytes) -> bytes:
    """`content` after one to four mutations."""
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, max(len(content) - 1, 0)))
        until = min(where + draw(st.integers(1, 40)), len(content))
        kind = draw(st.sampled_from(["bit", "cut", "drop", "word", "word", "insert", "copy", "zero", "swap"]))
        if kind == "bit" and content:
            content = content[:where] + bytes([content[where] ^ 1 << draw(st.integers(0, 7))]) + content[where + 1 :]
        elif kind == "cut":
            content = content[:where]
        elif kind == "drop":
            content = content[:where] + content[until:]
        elif kind == "word":
            content = content[:where] + draw(st.sampled_from(WORDS)) + content[until:]
        elif kind == "insert":
            content = content[:where] + draw(st.binary(max_size=8)) + content[where:]
        elif kind == "copy":
            content = content[:until] + content[where:]
        elif kind == "zero":
            content = content[:where] + bytes(until - where) + content[until:]
        elif kind == "swap":
            content = content[until:] + content[:until]
    return content


def finite(values) -> bool:
    values = np.asarray(values)
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())


def printable(names) -> bool:
    return all(name.isprintable() and name.strip() and len(name) <= 200 for name in names)


class Kind:
    """A kind of file: where it lies, what it holds, how it is read, and whether what came out of it is sound."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.setup()
        self.content = self.path.read_bytes()


class GenreLabels(Kind):
    def setup(self):
        self.path = write_layout(self.folder / "set") / "fma_genre_spectrograms" / "train_labels.txt"

    def read(self):
        table = data.read_labels(self.path)
        genres = ["Genre"] == list(table.columns)
        assert table.index.is_unique and (printable(table["Genre"]) if genres else finite(table.to_numpy()))


class AffectLabels(GenreLabels):
    def setup(self):
        self.path = write_layout(self.folder / "set") / "multitask_dataset" / "train_labels.txt"


class Groups(Kind):
    def setup(self):
        self.path = self.folder / "groups.csv"
        self.path.write_text("Id,group\n" + "".join(f"{i},artist {i // 3}\n" for i in range(20)))

    def read(self):
        assert all(isinstance(name, str) for pair in data.read_groups(self.folder).items() for name in pair)


class Description(Kind):
    def setup(self):
        self.path, self.record = (
            self.folder / "dataset.json",
            {"name": "mine", "kind": "audio", "audio": "/x", "clips": 3},
        )
        files.save_json(self.path, self.record)

    def read(self):
        found = data.provenance(self.folder)
        assert found == self.record or "sha256" not in self.path.read_text(errors="replace")
        assert printable([found["name"]]) and "/" not in found["name"]


class Record(Kind):
    def setup(self):
        rows = [
            {"metric": f"m{i}", "value": 0.5, "ci_low": 0.1, "ci_high": None, "n": 9, "seed": "0"} for i in range(3)
        ]
        self.record = {"notebook": "05", "dataset": {"name": "x", "kind": "arrays"}, "metrics": rows}
        self.path = self.folder / "records" / "05.json"
        files.save_json(self.path, self.record)
        self.expected = report.collect(self.folder)[0].to_csv()

    def read(self):
        table, printed = None, io.StringIO()
        with contextlib.redirect_stderr(printed):
            table, _ = report.collect(self.folder)
        if table.empty:
            assert str(self.path) in printed.getvalue()
            raise DataError(printed.getvalue())
        assert table.to_csv() == self.expected or "sha256" not in self.path.read_text(errors="replace")
        assert report.headlines(table) is not None


class RunList(Kind):
    """A list that we make and can do without: damaged, it counts as empty, and all notebooks run again."""

    def setup(self):
        self.path = self.folder / "run.json"
        self.state = {"state": "ok", "reason": "", "key": "k", "sealed": "s", "seconds": 1.0}
        files.save_json(self.path, {"05": self.state})

    def read(self):
        found = report.states(self.folder)
        assert found in ({}, {"05": self.state}) or "sha256" not in self.path.read_text(errors="replace")
        report._index(self.folder, report.headlines(report.collect(self.folder)[0]), "", 0)


class NotebookFile(Kind):
    def setup(self):
        self.path = self.folder / "01_one.ipynb"
        cells = [nbformat.v4.new_markdown_cell("# 01 One\n\n[x](../docs/a.md)", id="a")]
        cells += [nbformat.v4.new_code_cell("seed = 0  # any", metadata={"tags": ["parameters"]}, id="b")]
        cells += [nbformat.v4.new_code_cell("import labutils", metadata={"tags": ["bootstrap"]}, id="c")]
        cells += [nbformat.v4.new_code_cell("print(seed)\nseed", id="d")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"labutils": {"needs": []}}), self.path)

    def read(self):
        every = parameters.load_notebooks(self.folder, plain=True)
        parameters.assign(every, every, {}, {})
        publish.as_script(every[0].content, every[0].name)
        handout.copies({notebook.name: notebook.content for notebook in every})


class Array(Kind):
    def setup(self):
        self.path = self.folder / f"7{store.SUFFIX}"
        np.save(self.path, fused(np.random.default_rng(0), 12))

    def read(self):
        frames = store._read_array(self.path)
        assert frames.shape[1] == 140 and len(frames) and finite(frames) and np.abs(frames).max() < store.LARGEST


class SealedArray(Array):
    def setup(self):
        super().setup()
        self.sealed, self.frames = [*files.seal(self.path), "source"], store._read_array(self.path)

    def read(self):
        assert np.array_equal(store._read_array(self.path, self.sealed), self.frames)


class StoreFrames(Kind):
    """A store that we made: damaged, it is made again."""

    name = "frames.f32"

    def setup(self):
        self.source = write_layout(self.folder / "set", per_genre=2) / "fma_genre_spectrograms" / "train"
        first = store.Store.of(self.source)
        self.expected, self.ids = np.array(first.array), first.ids
        (self.path,) = (self.folder / "home").glob(f"stores/*/{self.name}")

    def read(self):
        store._seal.cache_clear()  # as in another process
        found = store.Store.of(self.source)
        assert np.array_equal(found.array, self.expected) and found.ids == self.ids


class StoreMeta(StoreFrames):
    name = "meta.json"


class ClipTable(Kind):
    def setup(self):
        self.path = self.folder / "clips.csv"
        rows = "".join(f"{i}.wav,{'ab'[i % 2]},{'train' if i % 3 else 'test'},g{i},0.{i},\n" for i in range(1, 9))
        self.path.write_text("file,genre,split,group,calm,tense\n" + rows)

    def read(self):
        table = build._read_table(self.path)
        assert printable(table["file"]) and printable(table["genre"]) and set(table["split"]) <= {"train", "test"}
        axes = table[table.columns.difference(build.NO_AXES)].to_numpy(float)
        assert not np.isinf(axes).any() and printable(table.columns)


class Parameters(Kind):
    def setup(self):
        self.path = self.folder / "params.yaml"
        self.path.write_text("seed: 1\nlr: 0.1\ngenres: [Rock, Jazz]\n05:\n  num_epochs: 3\n  title: x\n")

    def read(self):
        defaults = {"seed": 0, "lr": 0.5, "genres": ["Pop"], "num_epochs": 1, "title": ""}
        notebook = parameters.Notebook("05_lstm", Path("05_lstm.ipynb"), 1, [], defaults)
        try:
            parameters.assign([notebook], [notebook], parameters.read_file(self.path), {})
        except parameters.UsageError as error:  # of one name: it is named, and the command names the file
            raise DataError(f"{self.path}: {error}") from error
        assert all(type(value) is type(defaults[name]) for name, value in notebook.parameters.items())
        assert np.isfinite(notebook.parameters.get("lr", 0.0))


class Sound(Kind):
    form = "a.wav"

    def setup(self):
        self.path = self.folder / self.form
        noise = np.random.default_rng(0).normal(0, 0.1, audio.SAMPLE_RATE // 3)
        soundfile.write(self.path, noise, audio.SAMPLE_RATE)

    def read(self):
        name = self.path.name
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            paths = [f"{folder}/train/1{store.SUFFIX}" for folder in data.FOLDERS.values()][:2]
            _, made = build._write_clip(
                self.folder, "1", name, paths, functools.partial(build._load, self.folder, name)
            )
        if isinstance(made, str):
            raise DataError(made)
        assert all(finite(store._read_array(self.folder / path)) for path in paths)


class FlacSound(Sound):
    form = "a.flac"


class OggSound(Sound):
    form = "a.ogg"


class Seals(Kind):
    def setup(self):
        self.path, self.whole = self.folder / files.SEALS, self.folder / "a" / "b.txt"
        files.save_text(self.whole, "whole")
        files.save_text(self.folder / "c.txt", "whole")
        names = ("a/b.txt", "c.txt")
        files.save_seals(self.folder, {name: [*files.seal(self.folder / name), "source"] for name in names})
        files.save_json(self.folder / "dataset.json", {"name": "x", "kind": "audio"})

    def read(self):
        assert all(isinstance(problem, str) for problem in build.verify(self.folder))
        assert self.whole.read_text() == "whole"


KINDS = {kind.__name__: kind for kind in (
    GenreLabels, AffectLabels, Groups, Description, Record, RunList, NotebookFile, Array, SealedArray, StoreFrames,
    StoreMeta, ClipTable,
    Parameters, Sound, FlacSound, OggSound, Seals,
)}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_broken_files(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path / "home"))
    kind, outcomes = KINDS[name](tmp_path), OUTCOMES.setdefault(name, Counter())
    kind.read()  # whole, it can be read

    @hypothesis.settings(max_examples=max(CASES // len(KINDS), 1), deadline=None, database=None, derandomize=True,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(st.data())
    def one(choices):
        path, content = kind.path, choices.draw(mutated(kind.content))
        path.unlink(missing_ok=True)  # a new file: another may still be mapped
        path.write_bytes(content)
        start = time.monotonic()
        try:
            kind.read()
            outcomes["sound"] += 1
        except (DataError, audio.AudioError, parameters.UsageError) as error:
            assert path.name in str(error), error
            outcomes["named"] += 1
        assert time.monotonic() - start < 30

    one()
    assert outcomes.total() >= min(CASES // len(KINDS), 10)


@hypothesis.settings(max_examples=max(CASES // 10, 10), deadline=None, database=None, derandomize=True)
@hypothesis.given(st.text())
def test_any_name_stays_in_its_folder(text):
    name, here = files.safe_name(text), Path("/results")
    assert (here / name).resolve().parent == here and len(name.encode()) <= 255 and name.isprintable()
    with contextlib.suppress(DataError):
        assert files.inside(Path(__file__).parent, text).resolve().parent == Path(__file__).parent
    assert not set("<>&\"'") & set(name)


def test_write_the_table():
    """The table of docs/faults.md."""
    if path := os.environ.get("FAULTS_TABLE"):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([name, found["named"], found["sound"]] for name, found in OUTCOMES.items())
    assert json.dumps(OUTCOMES)
