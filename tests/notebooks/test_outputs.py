"""The comparison of saved outputs can fail: a tampered output must not pass nbval."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def a_checked_cell():
    """A notebook of one cell of 06 whose output is compared: counts made by hand, which need no data."""
    notebook = nbformat.read(NOTEBOOKS / "06_evaluation.ipynb", 4)
    notebook.cells = [cell for cell in notebook.cells if cell.source.startswith("def show_binary(")]
    (cell,) = notebook.cells
    assert "nbval-check-output" in cell.metadata.tags and cell.outputs
    return notebook


def nbval(notebook, path: Path) -> int:
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True).returncode


@pytest.mark.parametrize("tampered", [False, True])
def test_a_tampered_output_fails_and_an_honest_one_passes(tmp_path, tampered):
    notebook = a_checked_cell()
    if tampered:
        output = notebook.cells[0].outputs[0]
        output["text"] = output["text"][:-2] + "x\n"
    assert nbval(notebook, tmp_path / "notebook.ipynb") == (1 if tampered else 0)
