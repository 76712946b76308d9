"""All ten notebooks run headlessly on a tiny data set, and leave the results that the documentation promises."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labutils.corpus import build, weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of all notebooks with `params/smoke.yaml`, and with the pretrained network."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABUTILS_HOME", str(home))
        weights.get()  # `make test-machines` and the single files run without it
    root = build.make_demo(home / "demo-tiny", size="tiny", seconds=4.0)
    command = [sys.executable, "-m", "labutils", "run", "--data", str(root), "--out", str(out), "--jobs", "2"]
    command += ["--params", str(ROOT / "params" / "smoke.yaml")]  # the notebooks: found from the package
    environment = {**os.environ, "LABUTILS_HOME": str(home)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    done.out = out
    return done


def documented():
    """Metric names of docs/metrics.md as patterns; <word> stands for anything without a dot."""
    names = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), flags=re.M)
    return [re.compile(re.sub(r"<[a-z_]+>", "[^.]+", name.replace(".", r"\."))) for name in names]


def test_all_ten_notebooks_pass(run):
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert len(list((run.out / "notebooks").glob("*.ipynb"))) == len(list((run.out / "records").glob("*.json"))) == 10


def test_results_table_has_the_promised_columns_and_names(run):
    with open(run.out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["notebook", "metric", "value", "ci_low", "ci_high", "n", "seed", "dataset"]
    assert {row["dataset"] for row in rows} == {"demo-tiny"} and len({row["notebook"] for row in rows}) == 10
    patterns = documented()
    unknown = [row["metric"] for row in rows if not any(pattern.fullmatch(row["metric"]) for pattern in patterns)]
    assert not unknown
    for row in rows:
        if row["ci_low"]:
            assert (
                float(row["ci_low"]) <= float(row["value"]) + 1e-6
                and float(row["value"]) <= float(row["ci_high"]) + 1e-6
            ), row


def test_the_headline_metrics_are_there(run):
    names = {
        row["metric"]
        for path in (run.out / "records").glob("*.json")
        for row in json.loads(path.read_text())["metrics"]
    }
    expected = {
        f"lstm.{feature}_{time}.test.macro_f1" for feature in ("mel", "chroma", "fused") for time in ("raw", "beat")
    }
    expected |= {"lstm.mel_beat.test.accuracy", "cnn.mel_raw.test.macro_f1", "ast.mel_raw.test.macro_f1"}
    expected |= {f"cnn.affect.{axis}.test.spearman" for axis in ("valence", "energy", "danceability")}
    expected |= {f"multitask.{axis}.test.spearman" for axis in ("valence", "energy", "danceability")}
    expected |= {"pretrained.msd.test.macro_f1", "pretrained.msd.cv.macro_f1", "pretrained.affect.energy.test.spearman"}
    expected |= {f"transfer.{way}.danceability.test.spearman" for way in ("scratch", "frozen", "finetuned")}
    assert expected <= names


def test_the_index_links_executed_notebooks_that_keep_their_alternative_texts(run):
    index = (run.out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"#:]+)"', index)
    assert len([link for link in links if link.endswith(".html")]) >= 10 and all(
        (run.out / link).exists() for link in links
    )
    assert "nothing about real music" in index
    assert re.search(r'<img src="results.png" alt="[A-Z][^"]{20,}"', index) and (run.out / "results.png").exists()
    page = (run.out / "html" / "01_mel_spectrograms.html").read_text(encoding="utf-8")
    assert re.search(r'<img[^>]+alt="[A-Z][^"]{20,}"', page)
