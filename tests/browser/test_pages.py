"""The pages that `labutils run` writes hold no barrier."""

import json
import shutil
from pathlib import Path

import pytest
from accessibility import barriers

from labutils.tools import report as results
from labutils.tools.parameters import load_notebooks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of the saved notebooks, and their index with a result and a failure in it."""
    out = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "notebooks", out / "notebooks")
    for folder in ("records", "html"):
        (out / folder).mkdir()
    metric = {"metric": "lstm.mel_raw.test.macro_f1", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9, "seed": "0"}
    record = {"notebook": "06_evaluation", "dataset": {"name": "demo", "kind": "procedural"}, "metrics": [metric]}
    (out / "records" / "06_evaluation.json").write_text(json.dumps(record))
    notebooks = load_notebooks(out / "notebooks")
    for notebook in notebooks:
        notebook.state = "ok"
    notebooks[-1].state, notebooks[-1].reason = "FAILED", "cell [3] 'x': ValueError: y"
    (out / "logs").mkdir()  # where a run leaves what failed
    shutil.move(notebooks[-1].path, out / "logs")
    results.write(notebooks, out)
    return out


def test_pages_of_a_run_have_no_serious_barrier(page, pages):
    assert len(list(pages.glob("**/*.html"))) == 11
    assert not barriers(page, pages)


def test_a_barrier_would_be_found(page, tmp_path):
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><html><title>x</title><img src='x.png'></html>")
    found = "\n".join(barriers(page, tmp_path))
    assert "image-alt" in found and "html-has-lang" in found
