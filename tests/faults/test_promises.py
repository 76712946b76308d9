"""What we promise when things break: docs/faults.md names the test of each sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
from conftest import fused, write_layout

from labutils import audio, data, files, prediction, store
from labutils.data import DataError, DataWarning, SpectrogramDataset
from labutils.tools import handout, parameters, report
from labutils.tools.cli import main

ROOT = Path(__file__).resolve().parents[2]
RATE = audio.SAMPLE_RATE
RAW = "fma_genre_spectrograms"


def tree(folder: Path) -> dict:
    """Content of all files in a folder, but for what a file system may differ in."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_notebook(folder: Path, name="01_one", *cells: str):
    folder.mkdir(exist_ok=True)
    record = (
        "import json, os, pathlib\nrow = dict(metric='m', value=0.5, ci_low=None, ci_high=None, n=1, seed='0')\n"
        "record = dict(notebook='{0}', dataset=dict(name='x', kind='arrays'), metrics=[row])\n"
        "path = pathlib.Path(os.environ['LABUTILS_OUTPUT'], 'records', '{0}.json')\npath.write_text(json.dumps(record))"
    )
    first = nbformat.v4.new_code_cell("seed = 0  # any", metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell) for cell in (*cells, record.format(name))]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {name}"), first, *code])
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def music(tmp_path):
    """Six wav files of half a second with a table: four in train, two in test."""
    folder, rng = tmp_path / "music", np.random.default_rng(0)
    folder.mkdir()
    for i in range(6):
        tone = 0.3 * np.sin(2 * np.pi * (220 + 60 * i) * np.arange(RATE // 2) / RATE)
        soundfile.write(folder / f"{i}.wav", tone + rng.normal(0, 0.01, len(tone)), RATE)
    rows = [(f"{i}.wav", "ab"[i % 2], "train" if i < 4 else "test", i / 10) for i in range(6)]
    pd.DataFrame(rows, columns=["file", "genre", "split", "calm"]).to_csv(tmp_path / "clips.csv", index=False)
    return folder


def make(music, *options) -> int:
    paths = ["--audio", str(music), "--labels", str(music.parent / "clips.csv"), "--out", str(music.parent / "set")]
    return main(["data", "build", *paths, "--jobs", "1", *options])


# ---------------------------------------------------------------- nothing of yours is deleted or overwritten


@pytest.mark.parametrize("place", [".", "nb", "nb/runs", "layout", "layout/runs"])
@pytest.mark.parametrize("command", ["run", "bundle", "scripts", "handout", "predict", "build", "demo"])
def test_results_never_mix_with_sources(layout, tmp_path, monkeypatch, capsys, command, place):
    monkeypatch.chdir(tmp_path)
    source = write_notebook(tmp_path / "nb")
    soundfile.write(tmp_path / "nb" / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "nb" / "clips.csv").write_text("file,genre,split\na.wav,x,train\n")
    if command in ("bundle", "scripts", "handout", "build", "demo") and place.startswith("layout"):
        pytest.skip("no source of this command")
    if command == "demo" and place == "nb/runs":
        pytest.skip("no source of this command")
    arguments = {
        "run": ["run", "--notebooks", "nb", "--data", str(layout)],
        "bundle": ["publish", "bundle", "--notebooks", "nb"],
        "scripts": ["publish", "scripts", "--notebooks", "nb"],
        "handout": ["publish", "handout", "--notebooks", "nb"],
        "predict": ["predict", "nb/a.wav", "--data", str(layout)],
        "build": ["data", "build", "--audio", "nb", "--labels", "nb/clips.csv"],
        "demo": ["data", "demo", "--size", "tiny"],
    }[command]
    if command == "predict" and place == "nb/runs":
        pytest.skip("beside a file is not in it")
    before = tree(tmp_path)
    assert main([*arguments, "--out", place]) == 1
    assert "give a" in capsys.readouterr().err and source.exists()
    assert tree(tmp_path) == before


def test_the_source_notebook_outlives_a_run_into_its_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write_notebook(tmp_path / "notebooks")
    write_layout(tmp_path / "data" / "mine")
    assert main(["run", "--only", "01", "--out", ".", "--data", "data/mine"]) == 1
    assert source.exists() and "would mix with the source" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "scripts", "predict"])
def test_a_folder_of_somebodys_own_files_is_refused(layout, tmp_path, capsys, command):
    write_notebook(tmp_path / "nb")
    (tmp_path / "mine" / "notebooks").mkdir(parents=True)
    (tmp_path / "mine" / "notebooks" / "01_one.ipynb").write_text("my own work")
    arguments = {
        "run": ["run", "--notebooks", str(tmp_path / "nb"), "--data", str(layout)],
        "scripts": ["publish", "scripts", "--notebooks", str(tmp_path / "nb")],
        "predict": ["predict", "x.wav", "--data", str(layout)],
    }[command]
    before = tree(tmp_path / "mine")
    assert main([*arguments, "--out", str(tmp_path / "mine")]) == 1
    assert "holds notebooks and was not made by labutils" in capsys.readouterr().err
    assert tree(tmp_path / "mine") == before


NAMES = [
    "..",
    "../..",
    "/etc",
    "a/../../b",
    "x" * 10_000,
    "",
    ".",
    "<b>x</b>",
    "a\nb",
    "a\0b",
    "con:",
    "\u202etxt",
    "~",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_the_name_of_a_data_set_never_leads_out_of_the_folder_of_results(layout, tmp_path, name):
    files.save_json(layout / "dataset.json", {"name": name, "kind": "arrays"})
    found = data.provenance(layout)["name"]
    place = (tmp_path / "runs" / found).resolve()
    assert place.parent == tmp_path / "runs" and not set('<>&"\n\0/\\') & set(found) and 0 < len(found) <= 80
    place.mkdir(parents=True)


def test_names_of_files_never_lead_out_of_their_folder(music, tmp_path, capsys):
    secret = tmp_path / "secret.wav"
    shutil.copy(music / "0.wav", secret)
    (music / "link.wav").symlink_to(secret)
    (music / "device.wav").symlink_to("/dev/zero")
    os.mkfifo(music / "fifo.wav")
    (music / "folder.wav").mkdir()
    names = ["../secret.wav", str(secret), "link.wav", "device.wav", "fifo.wav", "folder.wav", "y" * 190, "5.wav"]
    rows = [(name, "ab"[i % 2], "train") for i, name in enumerate(names)]
    pd.DataFrame(rows, columns=["file", "genre", "split"]).to_csv(tmp_path / "clips.csv", index=False)
    assert make(music) == 0
    failed = pd.read_csv(tmp_path / "set" / "failed.csv")
    assert failed["file"].tolist() == names[:-1]
    assert failed["reason"].str.contains("leads out of").tolist() == [True] * 4 + [False] * 3
    assert failed["reason"].str.contains("; ").all() and "7 of 8 clips failed" in capsys.readouterr().out
    pd.DataFrame([("z" * 10_000, "a", "train")], columns=["file", "genre", "split"]).to_csv(tmp_path / "clips.csv")
    assert make(music) == 1 and "clips.csv" in capsys.readouterr().err


def test_a_link_of_a_notebook_never_leads_out_of_the_hand_out(tmp_path):
    write_notebook(tmp_path / "lab" / "nb") if (tmp_path / "lab").mkdir() is None else None
    (tmp_path / "secret.md").write_text("# mine")
    path = tmp_path / "lab" / "nb" / "01_one.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source += "\n\n[see](../../secret.md)"
    nbformat.write(notebook, path)
    with pytest.raises(DataError, match="leads out of"):
        handout.publish(path.parent, tmp_path / "out" / "deep")
    assert not (tmp_path / "out" / "secret.md").exists()


# ---------------------------------------------------------------- every file that is read is checked


def damages():
    """Ways to damage one file of a store: what happens to its bytes."""
    yield "cut", lambda content: content[: len(content) // 1120 * 560]
    yield "empty", lambda content: b""
    yield "zeroed", lambda content: content[:560] + bytes(560) + content[1120:]
    yield "one bit", lambda content: content[:700] + bytes([content[700 % len(content)] ^ 1]) + content[701:]
    yield "longer", lambda content: content + bytes(560)


@pytest.mark.parametrize("name", ["frames.f32", "meta.json"])
@pytest.mark.parametrize("damage", dict(damages()))
def test_a_damaged_store_is_made_again(layout, name, damage):
    first = SpectrogramDataset(layout)
    ids, fingerprint, frames = first.ids, first.fingerprint, np.array(first.store.array)
    del first  # a mapped file that is cut under the reader ends the process
    path = next(path for path in (store.home() / "stores").glob(f"*/{name}"))
    changed = dict(damages())[damage](path.read_bytes())
    if changed == path.read_bytes():
        pytest.skip("the file is shorter than that")
    time.sleep(0.02)  # the clock of the file system has ticked
    path.write_bytes(changed)
    store._seal.cache_clear()  # as in another process
    again = SpectrogramDataset(layout)
    assert again.fingerprint == fingerprint and again.ids == ids
    assert np.array_equal(again.store.array, frames)


def test_a_missing_file_of_a_store_is_made_again(layout):
    first = SpectrogramDataset(layout).fingerprint
    for name in ("frames.f32", "meta.json"):
        next((store.home() / "stores").glob(f"*/{name}")).unlink()
        store._seal.cache_clear()
        assert SpectrogramDataset(layout).fingerprint == first


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"name": "a", "sha256": "b"}', "[" * 100_000, "\xff", '{"kind": []}']
)
def test_a_damaged_description_of_a_data_set_is_named(layout, text, capsys):
    (layout / "dataset.json").write_text(text, encoding="latin-1")
    code = main(["data", "info", str(layout)])
    assert code == (text == "{}") * 0 + (text != "{}")
    assert text == "{}" or "dataset.json" in capsys.readouterr().err


def counted(monkeypatch) -> list:
    calls, features = [], audio.features
    monkeypatch.setattr(audio, "features", lambda samples: calls.append(1) or features(samples))
    return calls


def test_a_finished_build_puts_right_what_is_wrong_and_computes_nothing_else(music, tmp_path, monkeypatch, capsys):
    (music / "5.wav").rename(tmp_path / "late.wav")
    assert make(music) == 0
    (tmp_path / "late.wav").rename(music / "5.wav")
    calls, out = counted(monkeypatch), tmp_path / "set"
    assert make(music) == 0 and len(calls) == 1, "a file that came late"
    assert not (out / "failed.csv").exists() and json.loads((out / "dataset.json").read_text())["failed"] == 0
    whole, array = tree(out), out / RAW / "train" / "1001.fused.full.npy"
    assert make(music) == 0 and len(calls) == 1 and tree(out) == whole, "complete: nothing is done"
    array.write_bytes(array.read_bytes()[:999])
    assert main(["data", "info", str(out)]) == 0
    assert f"{array}: is missing or not as it was made; call the same command" in capsys.readouterr().out
    with pytest.warns(DataWarning, match="1001.*is not as it was made"):
        SpectrogramDataset(out)
    (out / "clips.csv").unlink()
    (out / RAW / "train_labels.txt").write_text("Id\tGenre\n")
    assert make(music) == 0 and len(calls) == 2 and tree(out) == whole, "damaged or missing"
    assert "3 files of" in capsys.readouterr().out
    shutil.copy(music / "0.wav", music / "1.wav")
    assert make(music) == 0 and len(calls) == 3, "another recording of the same name"
    assert np.array_equal(np.load(array), np.load(array.with_name("1000.fused.full.npy")))
    shutil.move(music, tmp_path / "away")
    music.mkdir()
    whole = tree(out)
    assert make(music) == 0 and tree(out) == whole, "a disk that is not there today costs nothing"
    shutil.copytree(tmp_path / "away", music, dirs_exist_ok=True)
    (music / "1.wav").write_bytes(b"no sound")
    assert make(music) == 0 and not array.exists() and (out / "failed.csv").exists(), "damaged since"


def test_another_folder_of_audio_gives_its_own_clips(music, tmp_path):
    assert make(music) == 0
    before = np.load(tmp_path / "set" / RAW / "train" / "1000.fused.full.npy")
    other = shutil.copytree(music, tmp_path / "other")
    shutil.copy(other / "3.wav", other / "0.wav")
    assert make(other) == 0
    assert not np.array_equal(before, np.load(tmp_path / "set" / RAW / "train" / "1000.fused.full.npy"))


def test_a_damaged_record_is_named_and_the_others_count(tmp_path, capsys):
    good = {"notebook": "a", "dataset": {"name": "x", "kind": "arrays"}}
    good["metrics"] = [{"metric": "m", "value": 1, "ci_low": None, "ci_high": None, "n": 3, "seed": "0"}]
    files.save_json(tmp_path / "records" / "a.json", good)
    broken = ["{", "[1]", "{}", '{"metrics": 3}', json.dumps(good).replace('"x"', "5").replace("1,", '"y",', 1)]
    broken.append((tmp_path / "records" / "a.json").read_text().replace('"value": 1', '"value": 2'))
    for i, text in enumerate(broken):
        (tmp_path / "records" / f"b{i}.json").write_text(text)
    table, _ = report.collect(tmp_path)
    assert table["notebook"].tolist() == ["a"]
    errors = capsys.readouterr().err
    assert all(f"b{i}.json" in errors for i in range(len(broken)))


# ---------------------------------------------------------------- one bad input costs one input


def bad_audio(folder: Path) -> list[str]:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(RATE) == 99, np.nan, noise), RATE, "FLOAT")
    soundfile.write(folder / "nan44.wav", np.where(np.arange(RATE) == 99, np.nan, noise), 44100, "FLOAT")
    soundfile.write(folder / "loud.wav", noise * 1e30, RATE, "FLOAT")
    soundfile.write(folder / "claims.flac", noise, RATE)
    content = bytearray((folder / "claims.flac").read_bytes())
    content[21] |= 0x0F  # the header's number of samples: 2 ** 36 - 1
    content[22:26] = b"\xff" * 4
    (folder / "claims.flac").write_bytes(content)
    (folder / "text.mp3").write_text("not a sound")
    (folder / "empty.ogg").write_bytes(b"")
    soundfile.write(folder / "short.wav", noise[:100], RATE)
    return ["nan.wav", "nan44.wav", "loud.wav", "text.mp3", "empty.ogg", "short.wav", "claims.flac"]


def test_bad_audio_costs_these_files_only(music, tmp_path, capsys):
    bad = bad_audio(music)
    with open(tmp_path / "clips.csv", "a") as table:
        table.write("".join(f"{name},a,train,0.5\n" for name in bad))
    assert make(music) == 0 and make(music, "--strict") == 1
    failed = pd.read_csv(tmp_path / "set" / "failed.csv")
    assert set(failed["file"]) >= set(bad[:-1]), "libsndfile may read what is there of the flac"
    assert all(name in reason and "; " in reason for name, reason in zip(failed["file"], failed["reason"]))
    assert f"{len(failed)} of {6 + len(bad)} clips failed" in capsys.readouterr().out
    assert len(SpectrogramDataset(tmp_path / "set")) == 4 + len(bad) - len(failed)


def test_nothing_left_is_exit_code_1(music, tmp_path, capsys):
    for path in music.iterdir():
        path.write_bytes(b"")
    assert make(music) == 1 and "no clip could be used; see" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "set" / "failed.csv")) == 6


def test_bad_arrays_cost_these_clips_only(layout):
    folder = layout / RAW / "train"
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (140, 100000000000), }"
    np.savez(folder / "zip.npz", a=np.zeros(3))
    bad = {
        "100": header.ljust(128),
        "101": (folder / "zip.npz").read_bytes(),
        "102": b"",
        "103": b"\x93NUMPY" + bytes(200),
    }
    for name, content in bad.items():
        (folder / f"{name}.fused.full.npy").write_bytes(content)
    for name, array in {"104": np.full((140, 9), 1e300), "105": np.full((140, 9), 1e36, np.float32)}.items():
        np.save(folder / f"{name}.fused.full.npy", array)
    (folder / "106.fused.full.npy").unlink()
    os.mkfifo(folder / "106.fused.full.npy")
    (folder / "107.fused.full.npy").unlink()
    (folder / "107.fused.full.npy").symlink_to("/dev/zero")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        clips = SpectrogramDataset(layout)
    assert len(clips) == 24 - 8 and all(
        "fused.full.npy: " in text and "; " in text for text in clips.store.problems.values()
    )


# ---------------------------------------------------------------- nothing from data executes


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)


EXECUTES = "seed: !!python/object/apply:os.system ['touch executed']"
BAD_YAML = [BOMB, EXECUTES, "[" * 5000, "lr: .inf", "lr: .nan", "lr: 1e999", "? {a: 1}", "seed: 2024-99-99", "\0"]


@pytest.mark.parametrize("text", BAD_YAML, ids=range(len(BAD_YAML)))
def test_yaml_neither_executes_nor_explodes(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "nb")
    every = parameters.load_notebooks(tmp_path / "nb")
    every[0].defaults["lr"] = 0.1
    (tmp_path / "p.yaml").write_text(text)
    start = time.monotonic()
    with pytest.raises(parameters.UsageError, match=r"p\.yaml|lr"):
        parameters.assign(every, every, parameters.read_file(tmp_path / "p.yaml"), {})
    assert time.monotonic() - start < 5 and not (tmp_path / "executed").exists()


def test_the_page_of_results_escapes_what_comes_from_files(tmp_path):
    evil = "<script>alert(1)</script>"
    files.save_json(tmp_path / "run.json", {evil: dict(state=evil, seconds=1, reason=evil, key="", sealed="")})
    table = pd.DataFrame([["a", "cnn.mel_raw.test.macro_f1", 0.5, 0.4, 0.6, 3, "0", evil]], columns=report.COLUMNS)
    page = report._index(tmp_path, report.headlines(table), "", 1)
    assert "<script" not in page and "&lt;script" in page


# ---------------------------------------------------------------- any death is survived


def alive(marker: str) -> list[psutil.Process]:
    """Processes with a text in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.environ().values() or marker in process.cmdline():
                found += [process] * (process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.Error, OSError):
            pass
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_dies_leaves_no_process_and_the_next_one_goes_on(layout, tmp_path, number):
    folder, out = tmp_path / "nb", tmp_path / "out"
    write_notebook(folder, "01_quick")
    write_notebook(
        folder, "02_slow", "import os, time\nif not os.path.exists('go'): open('started', 'w'), time.sleep(99)"
    )
    command = [
        sys.executable,
        "-m",
        "labutils",
        "run",
        "--notebooks",
        str(folder),
        "--data",
        str(layout),
        "--jobs",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # whoever runs the tests in the background, or with nohup, hands on that these signals are to be ignored
    before = {name: signal.signal(name, signal.SIG_DFL) for name in (signal.SIGHUP, signal.SIGINT)}
    process = subprocess.Popen([*command, "--out", str(out)], env=environment, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    for name, handler in before.items():
        signal.signal(name, handler)
    wait(lambda: (folder / "started").exists() and "01_quick" in report.states(out), 60)
    process.send_signal(number)
    process.wait(30)
    wait(lambda: not alive(str(out)), 10)
    (folder / "go").touch()
    again = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "01_quick" in again.stdout and "finished before" in again.stdout
    assert set(pd.read_csv(out / "results.csv")["notebook"]) == {"01_quick", "02_slow"}
    assert not list(out.rglob("*.part*")) and not list(out.rglob("*.lock"))


def wait(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def test_a_notebook_is_run_again_only_if_something_changed(layout, tmp_path, capsys):
    source, out = write_notebook(tmp_path / "nb"), tmp_path / "out"
    command = ["run", "--notebooks", str(tmp_path / "nb"), "--data", str(layout), "--out", str(out)]
    record, ran = out / "records" / "01_one.json", []

    def ran_again(*options) -> bool:
        assert main([*command, *options]) == 0
        return "finished before" not in capsys.readouterr().out

    assert ran_again() and not ran_again() and ran_again("--fresh") and not ran_again()
    assert ran_again("-p", "seed=1") and ran_again() and not ran_again()
    record.write_text(record.read_text().replace("0.5", "0.6"))
    assert ran_again(), "a changed record"
    (out / "run.json").write_text("{")
    assert ran_again(), "a damaged list"
    np.save(layout / RAW / "train" / "100.fused.full.npy", fused(np.random.default_rng(9), 33))
    assert ran_again(), "changed data"
    notebook = nbformat.read(source, 4)
    notebook.cells[0].source += " more words"
    nbformat.write(notebook, source)
    assert not ran_again(), "prose is no code"
    notebook.cells[1].source += "\nx = 1"
    nbformat.write(notebook, source)
    assert ran_again() and ran == []


def test_a_failed_run_leaves_the_results_of_an_earlier_one(layout, tmp_path, capsys):
    source, out = write_notebook(tmp_path / "nb"), tmp_path / "out"
    command = ["run", "--notebooks", str(tmp_path / "nb"), "--data", str(layout), "--out", str(out)]
    assert main(command) == 0
    before = {name: (out / name).read_bytes() for name in ("notebooks/01_one.ipynb", "records/01_one.json")}
    write_notebook(tmp_path / "nb", "01_one", "1 / 0")
    assert main(command) == 1 and "ZeroDivisionError" in (out / "html" / "01_one.html").read_text()
    assert before == {name: (out / name).read_bytes() for name in before}
    assert pd.read_csv(out / "results.csv").empty and source.exists()


def test_parts_and_locks_of_the_dead_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "out" / "records").mkdir(parents=True)
    mine, living = tmp_path / "out" / "records" / f"a.json.part{dead.pid}", tmp_path / "out" / f"b.part{os.getppid()}"
    mine.touch(), living.touch()
    files.output_folder(tmp_path / "out")
    assert not mine.exists() and living.exists()
    (tmp_path / "m.pt.part77").touch()
    with files.locked(tmp_path / "m.pt"):
        assert (tmp_path / "m.pt.lock").stat().st_mode & 0o777 == 0o666 or os.name == "nt", "other users may take it"
        assert not (tmp_path / "m.pt.part77").exists()
    assert not (tmp_path / "m.pt.lock").exists()


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"results\.csv"), files.whole_file(tmp_path / "results.csv") as part:
        part.touch()
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_found_before_the_work(layout, tmp_path, capsys):
    (tmp_path / "out").mkdir(mode=0o500)
    assert main(["predict", "x.wav", "--data", str(layout), "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_a_finished_data_set_needs_no_right_to_write(music, tmp_path, monkeypatch):
    assert make(music) == 0
    monkeypatch.setattr(files, "output_folder", None)
    monkeypatch.setattr(files, "locked", None)
    assert make(music) == 0


def test_a_label_file_of_a_million_lines(layout):
    rows = "".join(f"{i}\tRock\n" for i in range(1000, 1_000_000))
    path = layout / RAW / "train_labels.txt"
    path.write_text(path.read_text() + rows)
    start = time.monotonic()
    with pytest.warns(DataWarning, match="has a label but no file"):
        assert len(SpectrogramDataset(layout)) == 24
    assert time.monotonic() - start < 60


# ---------------------------------------------------------------- memory is bounded


@pytest.mark.parametrize(("rate", "form"), [(44100, "wav"), (48000, "flac"), (22050, "ogg"), (8000, "mp3")])
def test_a_recording_in_blocks_is_equal_to_one_in_one_piece(tmp_path, rate, form):
    noise = np.random.default_rng(0).normal(0, 0.1, (30 * rate, 2))
    soundfile.write(path := tmp_path / f"a.{form}", noise, rate)
    whole, blocks = audio.load(path), prediction.Recording(path)
    assert len(blocks) == len(whole) and np.array_equal(blocks[:], whole)
    assert np.array_equal(blocks[70_001:90_000], whole[70_001:90_000])


MEMORY = """
import resource, sys, torch
from labutils import lab, prediction
from labutils.recipes import Experiment
lab.choose_device()
ensemble = prediction.load_models(Experiment(root=sys.argv[1], num_epochs=1), 1)._replace(num_frames=430)
found = prediction.predict(ensemble, prediction.Recording(sys.argv[2]), hop=0.5)
print(found.seconds, len(found.times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


@pytest.mark.skipif(int(os.environ.get("FAULTS_KILLS", "1")) < 5, reason="make fuzz")
def test_three_hours_are_heard_in_less_than_a_gigabyte(layout, tmp_path):
    minute = np.random.default_rng(0).normal(0, 0.1, (60 * 44100, 2))
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 44100, 2) as file:
        for _ in range(180):
            file.write(minute)
    command = [sys.executable, "-c", MEMORY, str(layout), str(tmp_path / "long.flac")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    seconds, windows, gigabytes = map(float, done.stdout.split()[-3:])
    assert seconds == 3 * 3600 and windows > 2000 and gigabytes < 1
