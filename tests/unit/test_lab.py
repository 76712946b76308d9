"""The first and last cell of every notebook."""

import json
import sys

import numpy as np
import pytest

from labutils import lab
from labutils.evaluation import Estimate
from labutils.tools import info


@pytest.fixture
def session(layout, tmp_path, capsys):
    names = {
        "data_root": str(layout),
        "output_dir": str(tmp_path / "out"),
        "seed": 3,
        "axes": ["a"],
        "changes": {"hidden": 8},
        "In": ["lab.start()"],
        "Out": {1: 2},
        "_hidden": 1,
        "np": np,
    }
    found = lab.start("05_lstm", names)
    found.printed = capsys.readouterr().out
    return found


def test_start_says_what_is_used(session, layout):
    assert session.root == layout and session.device in ("cpu", "cuda")
    assert "layout (arrays)" in session.printed and "torch" in session.printed
    assert set(session.parameters) == {"data_root", "output_dir", "seed", "axes", "changes"}


def test_record_holds_parameters_data_versions_and_metrics(session, tmp_path):
    lab.record(session, {"x.test.accuracy": Estimate(0.5, 0.05, 24, seeds=2), "x.frames": 7})
    path = tmp_path / "out" / "records" / "05_lstm.json"
    record = json.loads(path.read_text())
    assert record["parameters"]["seed"] == 3 and record["dataset"]["name"] == "layout" and "torch" in record["versions"]
    first, second = record["metrics"]
    interval = {"ci_low": 0.402002, "ci_high": 0.597998}
    assert first == {"metric": "x.test.accuracy", "value": 0.5, **interval, "n": 24, "seed": "3 4"}
    assert second["value"] == 7 and second["ci_low"] is None
    assert not list(path.parent.glob("*.part*"))


def test_only_procedural_data_carry_the_warning(session):
    assert "nothing about real music" not in session.note
    session.dataset["kind"] = "procedural"
    assert "These numbers say nothing about real music" in session.note


def test_output_folder_from_the_environment(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("LABUTILS_OUTPUT", str(tmp_path / "there"))
    assert lab.start("x", {"data_root": str(layout)}).output_dir == tmp_path / "there"


def test_without_an_output_folder_it_lies_in_the_home_that_was_named(layout):
    from labutils.store import home

    assert lab.start("x", {"data_root": str(layout)}).output_dir == home() / "runs" / "layout"


def test_source_shows_the_package_itself():
    assert "def record(" in lab.source(lab.record).data


def test_describe_lists_problems(layout):
    (layout / "fma_genre_spectrograms" / "train" / "100.fused.full.npy").write_bytes(b"")
    text = info.describe(layout)
    assert "100.fused.full.npy: " in text and "23 clips of" in text and "without labels" in text


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        lab.start("x", {"data_root": str(tmp_path / "nowhere")})


def test_plain_import_is_light():
    import subprocess

    code = "import sys, labutils; print([m for m in ('numpy', 'torch', 'librosa', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
