"""`labutils publish`: bundles, Kaggle's metadata, badges and scripts, without running what they hold."""

import ast
import base64
import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import labutils
from labutils.tools import parameters, publish, script
from labutils.tools import run as batch
from labutils.tools.cli import main

ROOT = Path(__file__).resolve().parents[2]
EVERY = parameters.load_notebooks(ROOT / "notebooks")
ADDRESS = "https://github.com/owner/music-lab"
PREINSTALLED = {"IPython", "PIL", "filelock", "joblib", "librosa", "matplotlib", "numba", "numpy", "pandas", "scipy"}
PREINSTALLED |= {"psutil", "seaborn", "sklearn", "soundfile", "soxr", "threadpoolctl", "torch", "tqdm"}  # on both


FIELDS = {  # of kernel-metadata.json, as github.com/Kaggle/kaggle-api documents them in docs/kernels_metadata.md
    "id": r"[\w-]+/[a-z0-9-]+",
    "title": ".{5,50}",
    "code_file": r"[^/\\]+\.(ipynb|py|r|rmd)",  # beside it
    "language": "python|r|rmarkdown",
    "kernel_type": "script|notebook",
    **dict.fromkeys(("is_private", "enable_gpu", "enable_internet"), "true|false"),  # optional there, explicit here
    **dict.fromkeys(("dataset_sources", "kernel_sources"), r"[\w-]+/[\w-]+"),  # lists of such items
    "competition_sources": r"[\w-]+",
    "model_sources": r"[\w-]+(/[\w-]+){4}",
}


def check_kernel(folder) -> list[str]:
    """What is wrong with a folder for `kaggle kernels push`, one line each; an empty list: nothing."""
    folder = Path(folder)
    try:
        found = dict(json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return [f"kernel-metadata.json: is missing or no JSON object ({error})"]
    known = {*FIELDS, "id_no", "machine_shape"}
    problems = [f"{name}: is no field of the format" for name in found if name not in known]
    for name, pattern in FIELDS.items():
        value = found.get(name, [] if name.endswith("_sources") else "")
        items = value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]
        fit = all(isinstance(item, str) and re.fullmatch(pattern, item) for item in items)
        if not fit or isinstance(value, list) != name.endswith("_sources"):
            problems.append(f"{name}: {value!r} should be {'a list of ' * name.endswith('_sources')}{pattern}")
    address = publish._slug(str(found.get("title")))
    if str(found.get("id")).split("/")[-1] != address:
        problems.append(f"id: must end with the title in lower case with dashes, {address}")
    files = sorted(path.name for path in folder.iterdir())
    if files != sorted([str(found.get("code_file")), "kernel-metadata.json"]):
        problems.append(f"the folder holds {', '.join(files)}; it should hold the code file and this one, no other")
    return problems


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(labutils, "REPOSITORY", ADDRESS)


def unpacked(path: Path) -> tuple[zipfile.ZipFile, str]:
    """The package that a bundle carries, and the cell that carries it."""
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "bootstrap" in cell.metadata.get("tags", [])]
    (package,) = re.findall(r'^PACKAGE = "(.+)"$', cell.source, flags=re.M)
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(package))), cell


def write_source(folder: Path) -> list:
    """A small notebook with all that the conversions touch."""
    cells = [
        new_markdown_cell("# 01 What?\n\n**Question.** See [06](06_evaluation.ipynb), [data](../data/README.md#x)."),
        new_code_cell("import labutils", metadata={"tags": ["bootstrap"]}),
        new_code_cell('output_dir = ""  # folder\nseed = 0  # any', metadata={"tags": ["parameters"]}),
        new_code_cell("import pandas as pd\n\nfrom labutils import plots", outputs=[new_output("stream", text="x")]),
        new_markdown_cell("- " + "many words " * 30 + "\n\nNotebook [06](06_evaluation.ipynb); [web](https://x.org)."),
        new_code_cell("x = seed + 1\npd.DataFrame(\n    {'a': [x]}\n)  # shown"),
        new_code_cell("print(x)"),
    ]
    folder.mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "01_small.ipynb")
    return parameters.load_notebooks(folder)


@pytest.mark.parametrize("notebook", EVERY, ids=lambda notebook: notebook.name)
def test_a_bundle_needs_only_what_kaggle_and_colab_preinstall(notebook, tmp_path):
    (path,) = publish.bundle([notebook], "plain", tmp_path)
    archive, _ = unpacked(path)
    sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    cells = nbformat.read(path, as_version=4).cells
    sources += [cell.source for cell in cells if cell.cell_type == "code"]
    imported = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    foreign = imported - PREINSTALLED - set(sys.stdlib_module_names) - {"labutils"}
    assert foreign <= {"ipywidgets"}, "it is used where it is there"
    assert "torch" in imported and path.stat().st_size < 250_000


def test_a_bundle_carries_the_package_whole_and_nothing_else(tmp_path):
    (path,) = publish.bundle(parameters.select(EVERY, "05"), "plain", tmp_path)
    archive, _ = unpacked(path)
    names = set(archive.namelist())
    assert {f"labutils/{name}.py" for name in ("__init__", "audio", "corpus/demo", "lab", "recipes", "store")} <= names
    assert not [name for name in names if "tools" in name or "__main__" in name]
    assert all(archive.read(name) == (ROOT / name).read_bytes() for name in names)
    archive.extractall(tmp_path / "alone")
    code = "from labutils.corpus import build; from labutils import lab, plots, recipes; print(lab.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "alone", capture_output=True, text=True, env={
        "PYTHONPATH": str(tmp_path / "alone")})  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "alone" / "labutils" / "lab.py"), done.stderr


def test_a_notebook_that_has_no_place_for_the_package_is_refused(tmp_path, capsys):
    (tmp_path / "nb").mkdir()
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 01")]), tmp_path / "nb" / "01_bare.ipynb")
    assert main(["publish", "bundle", "--notebooks", str(tmp_path / "nb"), "--out", str(tmp_path / "out")]) == 2
    assert "01_bare.ipynb: no cell is tagged bootstrap" in capsys.readouterr().err


def test_bundles_are_the_same_bytes_each_time(tmp_path):
    one, two = (publish.bundle(EVERY[:2], "plain", tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_bundle_keeps_ids_and_code_and_drops_outputs(tmp_path):
    source = nbformat.read(EVERY[0].path, as_version=4)
    (path,) = publish.bundle(EVERY[:1], "plain", tmp_path)
    copy = nbformat.read(path, as_version=4)
    nbformat.validate(copy)
    assert [cell.id for cell in copy.cells] == [cell.id for cell in source.cells]
    for before, after in zip(source.cells, copy.cells):
        if after.cell_type == "code":
            assert not after.outputs and after.execution_count is None
            assert before.source == after.source or "bootstrap" in after.metadata.tags
    assert copy.metadata.labutils.made_from == "notebooks/01_mel_spectrograms.ipynb"


@pytest.mark.parametrize(("target", "key"), [
    ("plain", "jupyter"), ("colab", "cellView"), ("kaggle", "_kg_hide-input")])  # fmt: skip
def test_every_target_shows_the_cell_with_the_package_folded(target, key, tmp_path):
    (path,) = publish.bundle(EVERY[:1], target, tmp_path, user="u", gpu=True)
    assert key in unpacked(path)[1].metadata
    assert nbformat.read(path, as_version=4).metadata.get("accelerator") == ("GPU" if target == "colab" else None)


def test_the_cell_unpacks_where_it_may_write_and_once(tmp_path, monkeypatch):
    (path,) = publish.bundle(EVERY[:1], "plain", tmp_path)
    code = unpacked(path)[1].source + "\nimport labutils, os; print(labutils.__file__, os.environ['LABUTILS_OUTPUT'])"
    file = tmp_path / "file"
    file.touch()  # a home below it can never be made
    for home, expected in ((tmp_path / "user", tmp_path / "user" / ".cache" / "labutils"), (file, "labutils-home")):
        place = tmp_path / f"at-{home.name}"
        place.mkdir()
        for _ in range(2):
            command, env = [sys.executable, "-"], {"HOME": str(home)}
            done = subprocess.run(command, input=code, cwd=place, env=env, capture_output=True, text=True)
            imported, output = done.stdout.split()
            assert Path(imported).is_relative_to(place / expected), done.stderr
            assert output == str(place / "runs")
        assert len(list((place / expected / "packages").iterdir())) == 1


def test_links_of_a_lone_file_lead_to_the_repository_or_are_text(address, monkeypatch):
    prose = (
        "See [06](06_evaluation.ipynb), notebook [05](05_lstm.ipynb#a), [it](../data/README.md), [web](https://x.org)."
    )
    linked = publish.relink(prose)
    assert f"[06]({ADDRESS}/blob/main/notebooks/06_evaluation.ipynb)" in linked
    assert f"[05]({ADDRESS}/blob/main/notebooks/05_lstm.ipynb#a)" in linked
    assert f"[it]({ADDRESS}/blob/main/data/README.md)" in linked and "[web](https://x.org)" in linked
    monkeypatch.setattr(labutils, "REPOSITORY", "")
    assert publish.relink(prose) == "See notebook 06, notebook 05, it, [web](https://x.org)."


def test_no_published_notebook_has_a_dead_link(tmp_path):
    for path in publish.bundle(EVERY, "plain", tmp_path):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"\]\((?!https://|#)", re.sub(r"```.*?```", "", cell.source, flags=re.S))


def test_badges_lead_to_what_is_published_and_go_with_the_address(address, tmp_path, monkeypatch):
    source = nbformat.read(EVERY[4].path, as_version=4)
    before = source.cells[0].source
    for _ in range(2):
        publish.set_badges(source, EVERY[4].name)
    title, blank, badges, *_ = source.cells[0].source.split("\n")
    assert title == before.split("\n")[0] and blank == "" and source.cells[0].source.count("Open in Colab") == 1
    colab, kaggle = re.findall(r"\]\((https://[^)]+)\)(?: |$)", badges)
    monkeypatch.chdir(tmp_path)  # the default folders of the command are those that the badges name
    published = {target: publish.bundle([EVERY[4]], target, user="u")[0].as_posix() for target in ("colab", "kaggle")}
    assert colab == f"https://colab.research.google.com/github/owner/music-lab/blob/main/{published['colab']}"
    assert kaggle == f"https://kaggle.com/kernels/welcome?src={ADDRESS}/blob/main/{published['kaggle']}"
    assert badges in nbformat.read(published["colab"], as_version=4).cells[0].source

    monkeypatch.setattr(labutils, "REPOSITORY", "")
    publish.set_badges(source, EVERY[4].name)
    assert source.cells[0].source == before, "no badge rather than a dead one"


def test_running_in_place_brings_the_badges_up_to_date(address, tmp_path):
    (notebook,) = write_source(tmp_path / "nb")
    notebook.state = "ok"
    (tmp_path / "out" / "notebooks").mkdir(parents=True)
    (tmp_path / "out" / "notebooks" / notebook.path.name).write_bytes(notebook.path.read_bytes())
    batch.install_outputs([notebook], tmp_path / "out")
    assert "[![Open in Kaggle]" in nbformat.read(notebook.path, as_version=4).cells[0].source


def test_the_address_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "urls" not in project
    for notebook in EVERY:
        first = nbformat.read(notebook.path, as_version=4).cells[0].source
        assert ("Open in Colab" in first) == labutils.REPOSITORY.startswith("https://github.com/")


def test_what_is_written_for_kaggle_fits_the_format(tmp_path, capsys):
    command = ["publish", "bundle", "--target", "kaggle", "--out", str(tmp_path), "--user", "some-one", "--gpu"]
    assert main(command) == 0
    assert "kernel-metadata" not in capsys.readouterr().out, "no problem is reported"
    for notebook in EVERY:
        assert check_kernel(tmp_path / notebook.name) == []
    found = json.loads((tmp_path / "05_lstm" / "kernel-metadata.json").read_text())
    assert found["id"] == "some-one/music-lab-05-lstm" and found["code_file"] == "05_lstm.ipynb"
    assert (found["enable_gpu"], found["enable_internet"], found["is_private"]) == ("true", "false", "true")
    assert found["dataset_sources"] == [publish.DATASET]


def test_a_missing_user_name_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    command = ["publish", "bundle", "--target", "kaggle", "--only", "01", "--out", str(tmp_path)]
    assert main(command) == 2 and "name is ''; give yours as --user NAME" in capsys.readouterr().err
    assert main([*command, "--user", "a b"]) == 2 and "name is 'a b'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("KAGGLE_USERNAME", "some-one")
    assert main(command) == 0
    assert check_kernel(tmp_path / "01_mel_spectrograms") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "music-lab-05-lstm"}, "id: 'music-lab-05-lstm' should be "),
        ({"id": "u/another"}, "id: must end with the title"),
        ({"title": "Lab", "id": "u/lab"}, "title: 'Lab' should be .{5,50}"),
        ({"code_file": "06.ipynb"}, "the folder holds 05_lstm.ipynb"),
        ({"code_file": "../05_lstm.ipynb"}, "code_file: "),
        ({"language": "Python"}, "language: 'Python' should be python|r"),
        ({"kernel_type": "ipynb"}, "kernel_type: "),
        ({"enable_internet": None}, "enable_internet: "),
        ({"enable_gpu": "yes"}, "enable_gpu: 'yes' should be"),
        ({"dataset_sources": "geoparslp/music"}, "dataset_sources: "),
        ({"dataset_sources": ["music"]}, "dataset_sources: ['music'] should be a list of"),
        ({"competition_sources": ["a/b"]}, "competition_sources: "),
        ({"enable_intenet": "false"}, "enable_intenet: is no field"),
    ],
)
def test_metadata_that_does_not_fit_is_found(changes, message, tmp_path):
    found = publish.kernel_metadata("05_lstm.ipynb", "u") | changes
    found = {name: value for name, value in found.items() if value is not None}
    (tmp_path / "05_lstm.ipynb").touch()
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(found))
    assert any(problem.startswith(message) for problem in check_kernel(tmp_path)), changes


def test_the_documented_form_with_booleans_fits_and_broken_files_do_not(tmp_path):
    (tmp_path / "05_lstm.ipynb").touch()
    assert "is missing" in check_kernel(tmp_path)[0]
    path = tmp_path / "kernel-metadata.json"
    path.write_text("{")
    assert "no JSON object" in check_kernel(tmp_path)[0]
    path.write_text("[1]")
    assert "no JSON object" in check_kernel(tmp_path)[0]
    path.write_text(json.dumps({**publish.kernel_metadata("05_lstm.ipynb", "u"), "enable_gpu": True, "id_no": 3}))
    assert check_kernel(tmp_path) == []
    (tmp_path / "helper.py").touch()
    assert "helper.py" in check_kernel(tmp_path)[0], "one code file only is uploaded"


def test_a_script_reads_like_the_notebook(tmp_path):
    publish.scripts(write_source(tmp_path / "nb"), tmp_path / "out")
    text = (tmp_path / "out" / "01_small.py").read_text()
    assert "seed = 0  # any\n\nscript.begin(__file__, globals())" in text
    assert "# **Question.** See notebook 06, data." in text and "# Notebook 06; [web](https://x.org)." in text
    assert "x = seed + 1\ndisplay(pd.DataFrame(\n    {'a': [x]}\n))  # shown" in text
    assert "\nprint(x)\n" in text and "display(print" not in text
    assert max(map(len, text.splitlines())) <= 120 and "\n#   " in text


def test_scripts_compile_and_carry_every_module_they_import(tmp_path):
    written = publish.scripts(EVERY, tmp_path)
    assert [path.name for path in written] == [f"{notebook.name}.py" for notebook in EVERY] + ["main.py"]
    for path in written:
        compile(path.read_text(encoding="utf-8"), path, "exec")
    there = {path.stem for path in (tmp_path / "labutils").rglob("*.py")}
    assert {"__init__", "script", "lab", "recipes"} <= there and not {"publish", "run", "__main__"} & there
    for notebook in EVERY:
        code = (tmp_path / f"{notebook.name}.py").read_text(encoding="utf-8")
        for cell in nbformat.read(notebook.path, as_version=4).cells:
            if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
                lines = cell.source.splitlines()
                assert all(line in code for line in lines[:-1]), "code stays as it is"


@pytest.fixture
def small_scripts(tmp_path):
    """Scripts of the small notebook, and of one that fails, in a folder with their `main.py`."""
    publish.scripts(write_source(tmp_path / "nb"), tmp_path / "out")
    (tmp_path / "out" / "02_broken.py").write_text("level = 1\n\nscript.begin()\n")
    return tmp_path / "out"


def call(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)


def test_main_runs_the_chosen_scripts_and_says_which_failed(small_scripts):
    done = call(small_scripts / "main.py", "seed=4")
    assert done.returncode == 1 and done.stdout.index("=== 01_small") < done.stdout.index("=== 02_broken")
    assert "\n   a\n0  5\n" in done.stdout and done.stdout.endswith("failed: 02_broken\n")
    assert "1_small: no such script; there are 01_small" in call(small_scripts / "main.py", "1_small").stderr
    assert "no script has this parameter" in call(small_scripts / "main.py", "sede=4").stderr
    done = call(small_scripts / "main.py", "01", f"output_dir={small_scripts / 'there'}")
    assert done.returncode == 0 and (small_scripts / "there" / "figures").is_dir()


@pytest.mark.parametrize(("argument", "message"), [
    ("sede=1", "there are output_dir, seed"), ("seed", "write parameters as NAME=VALUE"),
    ("seed=many", "seed=many: should be a value like 0"), ("seed=0.5", "should be a value like 0")])  # fmt: skip
def test_arguments_of_a_script_that_cannot_be_used(argument, message, small_scripts):
    done = call(small_scripts / "01_small.py", argument)
    assert done.returncode == 1 and message in done.stderr


def test_outside_of_a_notebook_figures_and_sounds_become_files(tmp_path, monkeypatch, capsys):
    import IPython.display
    import numpy as np
    import pandas as pd

    from labutils import lab, plots

    monkeypatch.setattr(sys, "argv", ["05_lstm.py", "rate=1", "quick=true", 'changes={"hidden": 8}'])
    monkeypatch.setattr(IPython.display, "display", IPython.display.display)  # put back afterwards
    namespace = {"output_dir": str(tmp_path), "rate": 0.5, "quick": False, "changes": {"hidden": 64}}
    script.begin("05_lstm.py", namespace)
    assert namespace == {"output_dir": str(tmp_path), "rate": 1.0, "quick": True, "changes": {"hidden": 8}}
    plots.show(plots.plot_curves([0, 1], {"a": [0, 1]}), alt="A line that rises.")
    table = pd.DataFrame({"a": [1]})
    script.display(
        plots.player(np.zeros(22050, np.float32), "silence"), table, table.style, None, lab.source(lab.record)
    )
    printed = capsys.readouterr().out
    assert (tmp_path / "figures" / "05_lstm_01.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures" / "05_lstm_02.mp3").stat().st_size > 100
    assert "[05_lstm_01.png] A line that rises." in printed and "[05_lstm_02.mp3] silence" in printed
    assert printed.count("   a\n0  1") == 2 and "see labutils/: def record" in printed and "None" not in printed
