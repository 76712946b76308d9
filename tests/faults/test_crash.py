"""Commands that die at random moments: the next call ends in the same state as one that was never disturbed.

`FAULTS_KILLS` is the number of deaths of each command (normally 1 of the short ones; `make fuzz`: 50 of each). A death
is kill -9 of the whole group or of the command alone, SIGTERM, SIGHUP or Ctrl-C, at a seeded moment.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_layout
from test_promises import ROOT, alive, write_notebook

from labutils import audio

KILLS = int(os.environ.get("FAULTS_KILLS", "1"))
DEATHS = ("group", signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
VOLATILE = ("html", "logs", "notebooks", "run.json", "index.html")  # of a run: they hold times and seconds


def prepare(folder: Path) -> dict[str, list[str]]:
    """What each command needs, and the command."""
    (folder / "music").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["file,genre,split,calm"]
    for i in range(12):
        soundfile.write(folder / "music" / f"{i}.wav", rng.normal(0, 0.1, audio.SAMPLE_RATE), audio.SAMPLE_RATE)
        rows.append(f"{i}.wav,{'ab'[i % 2]},{'train' if i < 8 else 'test'},0.{i}")
    (folder / "clips.csv").write_text("\n".join(rows))
    write_layout(folder / "set")
    for i in range(1, 4):
        write_notebook(folder / "nb", f"0{i}_notebook", "import time; time.sleep(0.3)")
    ours = ["--notebooks", str(ROOT / "notebooks"), "--only", "05,06"]
    music = ["--audio", "music", "--labels", "clips.csv"]
    return {
        "build": ["data", "build", *music, "--jobs", "2"],
        "build alone": ["data", "build", *music, "--jobs", "1"],
        "run": ["run", "--notebooks", "nb", "--data", "set", "--jobs", "2"],
        "bundle": ["publish", "bundle", *ours],
        "scripts": ["publish", "scripts", *ours],
        "handout": ["publish", "handout", *ours],
        "predict": ["predict", "music/0.wav", "music/1.wav", "--data", "set"],
        "demo": ["data", "demo", "--size", "tiny", "--seconds", "1", "--jobs", "2"],
    }


def state(out: Path) -> dict[str, str]:
    """The digest of every file in OUT, but for those that hold times."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and (name := path.relative_to(out).as_posix()).split("/")[0] not in VOLATILE
    }


def start(folder: Path, command: list[str], out: str):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LABUTILS_HOME": str(folder / "home")}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "labutils", *command, "--out", out], cwd=folder, stdout=log,
                                stderr=log, env=environment, start_new_session=True)  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signals")
@pytest.mark.parametrize("name", ["build", "run", "bundle", "build alone", "scripts", "handout", "predict", "demo"])
def test_death_at_any_moment(tmp_path, name):
    if KILLS < 5 and name not in ("build", "run", "bundle"):
        pytest.skip("make fuzz")
    command, moments = prepare(tmp_path)[name], random.Random(name)
    begun = time.monotonic()
    assert start(tmp_path, command, "whole").wait(900) == 0, (tmp_path / "log").read_text()
    seconds, expected = time.monotonic() - begun, state(tmp_path / "whole")
    assert expected
    for i in range(KILLS):
        out, death = f"out{i}", moments.choice(DEATHS)
        process = start(tmp_path, command, out)
        time.sleep(moments.uniform(0.1, 1) * seconds)
        if process.poll() is None:
            if death == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(death)
        process.wait(300)
        deadline = time.monotonic() + 60
        while (orphans := alive(str(tmp_path / "home"))) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not orphans, f"{name}, death {i} by {death}: {orphans}"
        assert start(tmp_path, command, out).wait(900) == 0, (tmp_path / "log").read_text()
        found = state(tmp_path / out)
        differing = {file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file)}
        known = {"dataset.json", "files.csv", "results.csv"} if name in ("build", "build alone") else set()
        assert not differing - known, f"{name}, death {i} by {death}: {differing}"
        assert not [path for path in tmp_path.rglob("*") if ".part" in path.name or path.name.endswith(".lock")]
