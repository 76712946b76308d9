"""Published copies run where they are meant to run: bundles in a closed place like Kaggle, scripts on their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from labutils.tools import parameters, publish

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "isolation"))

import closed  # noqa: E402 (after its folder is on the path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny data set as Kaggle mounts the lab's: arrays in `data/`, no audio, no provenance.

    It is made by the package that a bundle carries, in the closed place.
    """
    root, place = tmp_path_factory.mktemp("input") / "music-lab" / "data", tmp_path_factory.mktemp("maker")
    (bundle,) = publish.bundle(smoke("01"), "plain", place)
    lines = [nbformat.read(bundle, as_version=4).cells[1].source, "from labutils.corpus import build"]
    lines += [f"build.make_demo({str(root)!r}, size='tiny', seconds=4.0, jobs=2)", "print(build.__file__)"]
    (place / "make.py").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "make.py"]
    done = subprocess.run(command, cwd=place, env=closed.environment(place), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].startswith(str(place / ".cache")), done.stderr
    for name in ("dataset.json", "clips.csv", "recipe.json"):
        (root / name).unlink()
    return root


def smoke(*names: str) -> list:
    """These notebooks with the parameters of `params/smoke.yaml`."""
    every = parameters.load_notebooks(ROOT / "notebooks")
    chosen = parameters.select(every, ",".join(names))
    parameters.assign(chosen, every, yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text()), {})
    return chosen


@pytest.mark.parametrize("name", ["01", "05"])
def test_a_bundle_runs_in_an_empty_folder_with_what_is_preinstalled(name, data, tmp_path):
    (notebook,) = smoke(name)
    (bundle,) = publish.bundle([notebook], "kaggle", tmp_path / "kaggle", user="u")
    folder = tmp_path / "working"
    folder.mkdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    done = closed.run(bundle, folder, data=data, parameters=notebook.parameters)
    assert f"(arrays) in {data}" in closed.printed(done), "the attached data set is found"
    record = json.loads((folder / "runs" / "records" / f"{notebook.name}.json").read_text())
    assert record["metrics"] and record["parameters"]["num_resamples"] == 100
    (package,) = (folder / ".cache" / "labutils" / "packages").iterdir()
    assert (package / "labutils" / "__pycache__").is_dir(), "the package is the one that the notebook carries"
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize(("code", "error"), [
    ("import yaml", "ModuleNotFoundError"),
    ("import papermill.cli", "ModuleNotFoundError"),
    ("import ruff", "ModuleNotFoundError"),
    ("import urllib.request as r; r.urlopen('http://localhost:9')", "the network is closed"),
    ("import socket; socket.create_connection(('127.0.0.1', 9))", "the network is closed"),
    ("open({inside!r}, 'w')", "PermissionError"),
    ("import os; os.mkdir({inside!r})", "PermissionError"),
    ("open({outside!r}, 'w'); import torch, librosa", ""),
])  # fmt: skip
def test_the_closed_place_is_closed(code, error, tmp_path):
    (tmp_path / "data").mkdir()
    code = code.format(inside=str(tmp_path / "data" / "x"), outside=str(tmp_path / "x"))
    variables = closed.environment(tmp_path, tmp_path / "data")
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert (done.returncode != 0) == bool(error) and error in done.stderr


def test_scripts_run_without_a_notebook(data, tmp_path):
    chosen = smoke("01", "05")
    main = publish.scripts(chosen, tmp_path / "scripts")[-1]
    values = {name: value for notebook in chosen for name, value in notebook.parameters.items()}
    command = [sys.executable, main, f"data_root={data}", *(f"{name}={value}" for name, value in values.items())]
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "LABUTILS_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not list((tmp_path / "empty").iterdir()), "what is made lies beside the scripts"
    output = tmp_path / "scripts" / "output"
    assert len(list(output.glob("figures/*.png"))) > 10 and len(list(output.glob("figures/*.mp3"))) == 4
    for notebook in chosen:
        record = json.loads((output / "records" / f"{notebook.name}.json").read_text())
        assert record["metrics"] and record["parameters"].items() >= notebook.parameters.items()
        assert record["dataset"]["root"] == str(data)
    assert "all 2 scripts ran" in done.stdout and "<IPython" not in done.stdout
