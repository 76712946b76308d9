"""A student copy, run as it is handed out, stops at its stubs and nowhere else."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from labutils import build, handout, parameters

ROOT = Path(__file__).resolve().parents[2]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The student copies after a run on tiny data with `params/smoke.yaml` that goes on after errors."""
    home = tmp_path_factory.mktemp("home")
    data = build.make_demo(home / "demo-tiny", size="tiny", seconds=4.0)
    notebooks = parameters.load_notebooks(ROOT / "notebooks")
    parameters.assign(notebooks, notebooks, parameters.read_file(ROOT / "params" / "smoke.yaml"), {})
    places = {"LABUTILS_HOME": home, "LABUTILS_DATA": data, "LABUTILS_OUTPUT": home / "out"}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])

    copies = handout.copies({n.name: load_notebook_node(str(n.path)) for n in notebooks})["student"]

    def run(notebook):
        content = parameterize_notebook(copy.deepcopy(copies[notebook.name]), notebook.parameters)
        client = NotebookClient(content, allow_errors=True, timeout=600, kernel_name="python3")
        return client.execute(cwd=str(home), env=environment)

    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(NAMES, pool.map(run, notebooks), strict=True))
    return done, copies, home / "out" / "records"


@pytest.mark.parametrize("name", NAMES)
def test_a_student_copy_stops_only_at_its_stubs(executed, name):
    content, handed_out, record = executed[0][name], executed[1][name], executed[2] / f"{name}.json"
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
