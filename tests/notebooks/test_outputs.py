"""The comparison of saved outputs can fail: a tampered output must not pass nbval."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def first_checked(name: str):
    """The notebook up to the first cell whose output is compared."""
    notebook = nbformat.read(NOTEBOOKS / name, 4)
    checked = [i for i, cell in enumerate(notebook.cells) if "nbval-check-output" in cell.metadata.get("tags", [])]
    notebook.cells = notebook.cells[: checked[0] + 1]
    return notebook


def nbval(notebook, path: Path) -> int:
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True).returncode


@pytest.mark.parametrize("tampered", [False, True])
def test_a_tampered_output_fails_and_an_honest_one_passes(tmp_path, monkeypatch, layout, tampered):
    monkeypatch.delenv("LABUTILS_HOME")  # the default data, as the saved outputs have it
    notebook = first_checked("04_data_loading.ipynb")
    if tampered:
        output = notebook.cells[-1].outputs[0]
        output["text"] = output["text"][:-2] + "x\n"
    assert nbval(notebook, tmp_path / "notebook.ipynb") == (1 if tampered else 0)
