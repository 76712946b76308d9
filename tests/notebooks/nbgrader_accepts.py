"""nbgrader accepts what we publish; `make nbgrader` installs it and runs this, `make test` does without."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from labutils.corpus import build
from labutils.tools import handout, parameters

ROOT = Path(__file__).resolve().parents[2]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tiny data, and the copies in student/ and teacher/ with the short parameters of `params/smoke.yaml`."""
    home = tmp_path_factory.mktemp("home")
    build.make_demo(home / "demo-tiny", size="tiny", seconds=4.0)
    notebooks = parameters.load_notebooks(ROOT / "notebooks")
    parameters.assign(notebooks, notebooks, parameters.read_file(ROOT / "params" / "smoke.yaml"), {})
    copies = handout.copies({n.name: load_notebook_node(str(n.path)) for n in notebooks})
    for reader, chapters in copies.items():
        (home / reader).mkdir()
        for notebook in notebooks:
            content = parameterize_notebook(chapters[notebook.name], notebook.parameters)
            nbformat.write(content, home / reader / notebook.path.name)
    return home


def nbgrader(home: Path, *arguments: str) -> str:
    places = {"LABUTILS_HOME": home, "LABUTILS_DATA": home / "demo-tiny", "LABUTILS_OUTPUT": home / "out"}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])  # it calls alembic
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_teacher_copies_pass(home, name):
    printed = nbgrader(home, "validate", f"teacher/{name}.ipynb")
    assert "Success! Your notebook passes all the tests." in printed, printed


@pytest.mark.parametrize("name", NAMES)
def test_student_copies_fail_at_their_stubs_only(home, name):
    path = home / "student" / f"{name}.ipynb"
    checks = [cell for cell in nbformat.read(path, 4).cells if "check" in cell.metadata.get("tags", [])]
    printed = nbgrader(home, "validate", str(path))
    assert f"VALIDATION FAILED ON {len(checks)} CELL(S)!" in printed, printed
    assert set(re.findall(r"^ *(\w+Error)\b", printed, re.M)) == {"NotImplementedError"}, printed


def test_an_assignment_is_generated_from_the_teacher_copies(home):
    source = home / "source" / "lab"
    source.mkdir(parents=True)
    for name in NAMES:
        (source / f"{name}.ipynb").write_bytes((home / "teacher" / f"{name}.ipynb").read_bytes())
    printed = nbgrader(home, "generate_assignment", "lab")
    assert len(list((home / "release" / "lab").glob("*.ipynb"))) == len(NAMES), printed
    for name in NAMES:
        ours = nbformat.read(home / "student" / f"{name}.ipynb", 4)
        theirs = nbformat.read(home / "release" / "lab" / f"{name}.ipynb", 4)
        for mine, other in zip(ours.cells, theirs.cells, strict=True):
            fields = mine.metadata.get("nbgrader", {})
            assert fields.items() <= other.metadata.get("nbgrader", {}).items()
            if not fields.get("solution"):
                assert mine.source == other.source
