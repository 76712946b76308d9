"""`labutils run`: order, failures, parameters, what is left behind. The notebooks are tiny and made here."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labutils.tools import parameters
from labutils.tools import report as results
from labutils.tools import run as batch
from labutils.tools.cli import main
from labutils.tools.parameters import Notebook, UsageError

PARAMETERS = {"data_root": "", "output_dir": "", "seed": 0, "lr": 0.001, "title": "a title", "quick": False}
RECORD = """
import json, pathlib, time
folder = pathlib.Path(output_dir or __import__("os").environ["LABUTILS_OUTPUT"]) / "records"
used = {{"seed": seed, "lr": lr, "title": title, "quick": quick, "data_root": data_root}}
metrics = [
    {{"metric": "{name}.finished", "value": time.time(), "ci_low": None, "ci_high": None, "n": 0, "seed": str(seed)}},
    {{"metric": "{metric}", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 10, "seed": str(seed)}},
]
record = {{"notebook": "{name}", "parameters": used, "metrics": metrics}}
record["dataset"] = {{"name": "tiny", "kind": "procedural", "root": data_root}}
(folder / "{name}.json").write_text(json.dumps(record))
"""


def write_notebook(folder: Path, name: str, *cells: str, needs=(), metric="lstm.mel_raw.test.accuracy", extra=None):
    """A notebook with a parameters cell, the given cells, and a record; `extra`: more parameters."""
    values = {**PARAMETERS, **(extra or {})}
    source = "\n".join(f"{key} = {value!r}  # comment" for key, value in values.items())
    first = new_code_cell(source, metadata={"tags": ["parameters"]})
    last = new_code_cell(RECORD.format(name=name, metric=metric).strip())
    notebook = new_notebook(cells=[new_markdown_cell(f"# {name}"), first, *map(new_code_cell, cells), last])
    notebook.metadata = {"labutils": {"needs": list(needs)}, "title": name}
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def test_no_start_compiles_the_grammar_of_web_addresses(tmp_path):
    command = "from labutils.tools.cli import main; main(['run', '--notebooks', 'nowhere'])"
    for code, own in ((batch.START, "papermill.cli"), (command, "labutils.tools.parameters")):
        call = [sys.executable, "-X", "importtime", "-c", code, "--version"]
        end, start = os.pipe()  # stays open as long as the run lives
        imported = subprocess.run(call, stdin=end, capture_output=True, text=True, cwd=tmp_path).stderr
        os.close(start)
        assert own in imported and "nbformat" in imported and "lark" not in imported


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder that passes for a data set; generated files go to the temporary folder."""
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path / "home"))
    root = tmp_path / "tiny"
    (root / "fma_genre_spectrograms").mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps({"name": "tiny", "kind": "procedural"}))
    return root


@pytest.fixture
def command(tmp_path, data):
    """The arguments that every run here shares."""
    return ["run", "--data", str(data), "--notebooks", str(tmp_path / "nb"), "--out", str(tmp_path / "out")]


def load(out: Path, name: str) -> dict:
    return json.loads((out / "records" / f"{name}.json").read_text())


def finished(out: Path, name: str) -> float:
    return load(out, name)["metrics"][0]["value"]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_run_order_failures_and_what_is_left_behind(tmp_path, command, capsys):
    folder, out = tmp_path / "nb", tmp_path / "out"
    write_notebook(folder, "01_last", needs=["02_first"])
    write_notebook(folder, "02_first", "import time; time.sleep(0.5)")
    write_notebook(folder, "03_broken", "x = 1\nraise ValueError('no <beats> found\\nmore')")
    write_notebook(folder, "04_skipped", needs=["03_broken"])
    write_notebook(folder, "05_skipped_too", needs=["04_skipped"])
    stale = [out / "records" / "03_broken.json", out / "records" / "04_skipped.json"]
    stale[0].parent.mkdir(parents=True)
    for path in stale:
        path.write_text("{}")

    assert main([*command, "--jobs", "2"]) == 1
    printed = capsys.readouterr().out

    assert finished(out, "02_first") < finished(out, "01_last"), "the order comes from the needs"
    assert all(path.read_text() == "{}" for path in stale), "what an earlier run left is deleted by no failure"
    assert re.search(r"^  ok +01_last +\d+ s$", printed, re.M)
    assert re.search(r"^  FAILED +03_broken .*cell \[3\] 'x = 1': ValueError: no <beats> found$", printed, re.M)
    assert re.search(r"^  skipped +04_skipped .*needs 03_broken, which did not succeed$", printed, re.M)
    assert re.search(r"^  skipped +05_skipped_too .*needs 04_skipped", printed, re.M)
    assert re.search(r"lstm\.mel_raw\.test\.accuracy +0\.50 +\[0\.40, 0\.60\] +0\.28", printed)
    assert results.DEMO_NOTE in printed
    assert str(out / "results.csv") in printed and str(out / "index.html") in printed

    table = pd.read_csv(out / "results.csv")
    assert list(table.columns) == "notebook metric value ci_low ci_high n seed dataset".split()
    assert set(table["notebook"]) == {"01_last", "02_first"}, "but it is not mistaken for a result of this run"
    assert set(table["dataset"]) == {"tiny"}

    index = (out / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert {"html/01_last.html", "html/03_broken.html", "results.csv"} <= set(links)
    assert all((out / link).is_file() for link in links)
    assert results.DEMO_NOTE in index and "0.28" in index and "no &lt;beats&gt; found" in index
    assert not list(out.rglob("*.part*"))


def test_the_picture_of_results_shows_what_was_measured_and_nothing_else(tmp_path, monkeypatch):
    names = ["cnn.mel_raw.test.macro_f1", "cnn.affect.mood.test.spearman", "cnn.affect.mean.test.spearman", "other"]
    table = pd.DataFrame({"metric": names, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9})
    drawn, path, plot_results = {}, tmp_path / "results.png", results.plot_results

    def spy(panels, references, **kwargs):
        drawn.update(panels=panels, references=references)
        return plot_results(panels, references, **kwargs)

    monkeypatch.setattr(results, "plot_results", spy)
    results.draw(table, "note", path)
    assert path.read_bytes().startswith(b"\x89PNG") and list(drawn["panels"]) == ["genre", "mood"]
    values = {panel: {row: e.value for row, e in rows.items() if e.n} for panel, (_, rows) in drawn["panels"].items()}
    assert values == {"genre": {"CNN mel raw": 0.5}, "mood": {"CNN": 0.5}}
    assert drawn["references"]["genre"]["CNN mel raw"] == 0.29 and drawn["references"]["mood"] == {}
    results.draw(table[table["metric"] == "other"], "note", path)
    assert not list(tmp_path.iterdir()), "no picture of an earlier run stays"


def test_only_adds_to_earlier_results_and_pairs_override_the_file(tmp_path, command, capsys):
    folder, out = tmp_path / "nb", tmp_path / "out"
    for name in ("01_one", "02_two", "03_three"):
        write_notebook(folder, name)
    file = tmp_path / "params.yaml"
    file.write_text("seed: 1\ntitle: from the file\n02:\n  seed: 2\n  quick: true\n")
    pairs = ["-p", "title=from a pair", "-p", "lr=1e-2"]
    assert main([*command, "--params", str(file), *pairs, "--only", "1,02_two"]) == 0
    one, two = (load(out, name)["parameters"] for name in ("01_one", "02_two"))
    assert (one["seed"], one["quick"], one["title"], one["lr"]) == (1, False, "from a pair", 0.01)
    assert (two["seed"], two["quick"], two["title"]) == (2, True, "from a pair")
    assert one["data_root"] == str(tmp_path / "tiny")
    assert not (out / "records" / "03_three.json").exists()

    assert main([*command, "--only", "03"]) == 0
    assert set(pd.read_csv(out / "results.csv")["notebook"]) == {"01_one", "02_two", "03_three"}
    assert "html/01_one.html" in (out / "index.html").read_text()


def test_time_limit_ends_the_kernel_too(tmp_path, command, capsys, monkeypatch):
    pid_file, part = tmp_path / "pid", tmp_path / "pid.part"
    write_notebook(tmp_path / "nb", "01_endless", f"""
import os, pathlib, time
pathlib.Path({str(part)!r}).write_text(str(os.getpid()))
os.replace({str(part)!r}, {str(pid_file)!r})
while True: time.sleep(1)
""".strip())  # fmt: skip
    # The clock leaps ahead once the cell runs, so that the test neither waits nor depends on a machine's speed.
    clock = SimpleNamespace(sleep=time.sleep, monotonic=lambda: time.monotonic() + 1000 * pid_file.exists())
    monkeypatch.setattr(batch, "time", clock)
    assert main([*command, "--time-limit", "500"]) == 1
    printed = capsys.readouterr().out
    assert "stopped after 500 s, the limit: raise --time-limit" in printed
    assert "in cell [3] 'import os, pathlib, time'" in printed
    deadline = time.monotonic() + 10
    while (alive := is_running(int(pid_file.read_text()))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive, "the kernel outlives the notebook"


def test_a_killed_kernel_is_a_failure_not_a_hang(tmp_path, command, capsys):
    write_notebook(tmp_path / "nb", "01_killed", "import os; os.kill(os.getpid(), 9)")
    assert main([*command, "--time-limit", "60"]) == 1
    assert "DeadKernelError" in capsys.readouterr().out


def test_in_place_writes_outputs_only(tmp_path, command, monkeypatch):
    folder, out = tmp_path / "nb", tmp_path / "out"
    write_notebook(folder, "01_one", "print(1 + 1)")
    write_notebook(folder, "02_broken", "1 / 0")
    path = folder / "01_one.ipynb"
    before, broken = nbformat.read(path, as_version=4), (folder / "02_broken.ipynb").read_bytes()
    assert main([*command, "--in-place"]) == 1
    after = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in after.cells if cell.cell_type == "code"] == [1, 2, 3]
    assert after.cells[2].outputs[0].text == "2\n"
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.metadata == before.metadata and "papermill" not in path.read_text()
    assert str(tmp_path) not in path.read_text()
    assert (folder / "02_broken.ipynb").read_bytes() == broken, "a notebook that failed stays as it is"
    assert load(out, "01_one")["parameters"]["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "sede=1"], r"parameter sede; did you mean seed\? Valid names: lr, num_epochs, quick, seed, title"),
        (["-p", "seed=many"], r"seed of 01_one: 'many' is not a whole number \(default: 0\)"),
        (["-p", "seed=true"], "True is not a whole number"),
        (["-p", "lr=fast"], "'fast' is not a number"),
        (["-p", "title=3"], "3 is not text"),
        (["-p", "seed"], "write it as NAME=VALUE"),
        (["-p", "data_root=x"], "set by --data"),
        (["-p", "num_epochs=3", "--only", "01"], "unknown parameter num_epochs"),
        (["--only", "07"], "--only 07: no such notebook; there are 01_one, 02_two"),
        (["--params", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--in-place", "-p", "seed=1"], "leave --params and -p out"),
        (["--jobs", "0"], "--jobs.*x>=1"),
        (["--time-limit", "-1"], "--time-limit.*0<x<inf"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_valid(tmp_path, command, capsys, arguments, message):
    write_notebook(tmp_path / "nb", "01_one")
    write_notebook(tmp_path / "nb", "02_two", extra={"num_epochs": 10})
    assert main([*command, *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists(), "nothing is started"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [1", "params.yaml: cannot be read (ParserError: "),
        ("- seed", "params.yaml: must hold lines NAME: VALUE"),
        ("learning_rate: 1", "unknown parameter learning_rate"),
        ("02: {seed: 1.5}", "1.5 is not a whole number"),
        ("02: {sede: 1}", "did you mean seed"),
        ("02: 3", "the section of a notebook must hold lines"),
    ],
)
def test_parameter_files_that_cannot_be_used(tmp_path, text, message):
    write_notebook(tmp_path / "nb", "02_two")
    every = parameters.load_notebooks(tmp_path / "nb")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        parameters.assign(every, every, parameters.read_file(tmp_path / "params.yaml"), {})


def test_a_parameter_file_serves_any_selection(tmp_path):
    write_notebook(tmp_path / "nb", "01_one")
    write_notebook(tmp_path / "nb", "02_two", extra={"num_epochs": 10})
    every = parameters.load_notebooks(tmp_path / "nb")
    parameters.assign(every[:1], every, {"num_epochs": 3, "seed": 4, 2: {"lr": 1}}, {})
    assert every[0].parameters == {"seed": 4}
    parameters.assign(every[1:], every, {"num_epochs": 3, "seed": 4, 2: {"lr": 1}}, {})
    assert every[1].parameters == {"num_epochs": 3, "seed": 4, "lr": 1.0}


def test_a_missing_data_set_is_one_line_and_exit_code_1(tmp_path, capsys):
    write_notebook(tmp_path / "nb", "01_one")
    assert main(["run", "--notebooks", str(tmp_path / "nb"), "--data", str(tmp_path / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labutils: error: ") and "absent: does not exist" in error and error.count("\n") == 1


def test_notebooks_that_need_each_other_are_refused():
    one, two = (Notebook(name, Path(name), 1, [need], {}) for name, need in (("a", "b"), ("b", "a")))
    with pytest.raises(UsageError, match="in a circle"):
        batch._order([one, two])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="no notebooks there"):
        parameters.load_notebooks(tmp_path)
