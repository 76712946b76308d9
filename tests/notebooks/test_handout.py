"""A student copy, run as it is handed out, stops at its stubs and nowhere else: two are run, all are read."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from labutils.corpus import build
from labutils.tools import handout, parameters

ROOT = Path(__file__).resolve().parents[2]
RUN = ("02_beat_synchronous", "08_affect_regression")  # one without training and one with


@pytest.fixture(scope="module")
def notebooks():
    """All notebooks with the parameters of `params/smoke.yaml`."""
    every = parameters.load_notebooks(ROOT / "notebooks")
    parameters.assign(every, every, parameters.read_file(ROOT / "params" / "smoke.yaml"), {})
    return every


@pytest.fixture(scope="module")
def copies(notebooks):
    return handout.copies({n.name: load_notebook_node(str(n.path)) for n in notebooks})["student"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory, notebooks, copies):
    """The student copies `RUN` after a run on tiny data that goes on after errors."""
    home = tmp_path_factory.mktemp("home")
    data = build.make_demo(home / "demo-tiny", size="tiny", seconds=4.0)
    places = {"LABUTILS_HOME": home, "LABUTILS_DATA": data, "LABUTILS_OUTPUT": home / "out"}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])

    def run(notebook):
        content = parameterize_notebook(copy.deepcopy(copies[notebook.name]), notebook.parameters)
        client = NotebookClient(content, allow_errors=True, timeout=600, kernel_name="python3")
        return client.execute(cwd=str(home), env=environment)

    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(RUN, pool.map(run, [n for n in notebooks if n.name in RUN]), strict=True))
    return done, home / "out" / "records"


def test_every_exercise_of_every_copy_is_a_stub_that_can_be_run(copies):
    for name, content in copies.items():
        exercises = [cell for cell in content.cells if "exercise" in cell.metadata.get("tags", [])]
        assert len(copies) == 10 and 2 <= len(exercises) <= 4
        for cell in content.cells:
            if cell.cell_type == "code":
                compile(cell.source, f"{name} {cell.id}", "exec")
                stub = "raise NotImplementedError(" in cell.source
                assert stub == (cell in exercises) and "SOLUTION" not in cell.source, cell.id
                assert not ({"exercise", "check"} & set(cell.metadata.get("tags", [])) and cell.outputs), cell.id


@pytest.mark.parametrize("name", RUN)
def test_a_student_copy_stops_only_at_its_stubs(executed, copies, name):
    content, handed_out, record = executed[0][name], copies[name], executed[1] / f"{name}.json"
    stubs = {line.strip() for cell in content.cells for line in cell.source.splitlines() if "NotImplemented" in line}
    stopped = {}
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                stopped[cell.id] = f'raise {output.ename}("{output.evalue}")'
    assert set(stopped.values()) == stubs and 2 <= len(stubs) <= 4, stopped
    checks = {cell.id for cell in content.cells if "check" in cell.metadata.get("tags", [])}
    emptied = {cell.id for cell in handed_out.cells if cell.cell_type == "code" and not cell.outputs}
    silent = {cell.id for cell in content.cells if cell.cell_type == "code" and not cell.outputs}
    assert checks <= set(stopped) <= emptied  # what a solution made was taken out of the copy, and only that
    assert emptied - set(stopped) <= silent | {"04-36"}  # 04-36 shows the package's own form of an exercise
    assert record.exists()
