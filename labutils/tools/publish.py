"""Copies of the notebooks for other hands: single files for Kaggle and Colab, plain scripts (`labutils publish`)."""

from __future__ import annotations

import ast
import base64
import copy
import io
import json
import os
import posixpath
import re
import shutil
import textwrap
import zipfile
from pathlib import Path

import nbformat

import labutils

from ..files import output_folder, save_text
from .parameters import Notebook, UsageError

PACKAGE, ASSETS = Path(__file__).parents[1], Path(__file__).parent / "assets"
PUBLISHED = Path("published")  # folder of the copies; badges lead to it on the branch "main" of the repository
HIDDEN = {  # metadata of the cell with the package, so that each target shows it folded
    "plain": {"jupyter": {"source_hidden": True}},
    "colab": {"cellView": "form"},
    "kaggle": {"_kg_hide-input": True},
}
LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")  # to a file, not to an address or a heading
SILENT = re.compile(r"(print|display|plots\.show|lab\.record)\(")  # calls that leave nothing to display
DATASET = "geoparslp/patreco3-multitask-affective-music"  # the lab's, on Kaggle


def bundle(notebooks: list[Notebook], target="plain", out=None, *, user="", gpu=False) -> list[Path]:
    """Write each notebook as one file that carries the package; without outputs, so that it stays small.

    Parameters
    ----------
    target : "plain" or "colab": files; "kaggle": a folder each, as `kaggle kernels push` takes it.
    out : folder; None: `published/<target>`.   user : Kaggle user name.   gpu : ask for a GPU.

    Raises
    ------
    UsageError : for Kaggle a user name is needed; a notebook without a bootstrap cell. Nothing is written then.
    """
    out, written, package = Path(out or PUBLISHED / target), [], pack()
    user = user or os.environ.get("KAGGLE_USERNAME", "")
    if target == "kaggle" and not re.fullmatch(r"[\w-]+", user):
        raise UsageError(f"the Kaggle user name is {user!r}; give yours as --user NAME, or set KAGGLE_USERNAME")
    out = output_folder(out, *{notebook.path.parent for notebook in notebooks})
    template = (ASSETS / "bootstrap.py").read_text(encoding="utf-8").strip()
    for notebook in notebooks:
        content = copy.deepcopy(notebook.content)
        if not any(_is(cell, "bootstrap") for cell in content.cells):
            raise UsageError(f"{notebook.path}: no cell is tagged bootstrap; tag the one that imports labutils")
        for cell in content.cells:
            if cell.cell_type == "markdown":
                cell.source = relink(cell.source)
            else:
                cell.outputs, cell.execution_count = [], None
            if _is(cell, "bootstrap"):
                cell.source = template.replace('PACKAGE = ""', f'PACKAGE = "{package}"')
                cell.metadata.update(HIDDEN[target])
        set_badges(content, notebook.name)
        content.metadata.setdefault("labutils", {})["made_from"] = f"notebooks/{notebook.path.name}"
        content.metadata["labutils"]["version"] = labutils.__version__
        if target == "colab" and gpu:
            content.metadata["accelerator"] = "GPU"
        folder = out / notebook.name if target == "kaggle" else out
        written.append(folder / notebook.path.name)
        save_text(written[-1], nbformat.writes(content) + "\n")
        if target == "kaggle":
            metadata = kernel_metadata(notebook.path.name, user, gpu)
            save_text(folder / "kernel-metadata.json", json.dumps(metadata, indent=1) + "\n")
    return written


def pack() -> str:
    """Lesson and corpus with their tables as a zip file in base64, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in carried():
            entry = zipfile.ZipInfo(f"labutils/{path.relative_to(PACKAGE).as_posix()}")  # dated 1980
            entry.create_system = 3  # on every system
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return base64.b64encode(buffer.getvalue()).decode()


def carried() -> list[Path]:
    """The files that a notebook can need: the lesson and the corpus, not the tools."""
    rooms = (PACKAGE, PACKAGE / "corpus")
    files = [path for room in rooms for path in [*room.glob("*.py"), *(room / "assets").iterdir()]]
    return sorted(path for path in files if path.name != "__main__.py")


def relink(text: str) -> str:
    """Prose for a file that stands alone: links to other files lead to the repository, or become plain text."""

    def replace(match):
        words, target = match.groups()
        if labutils.REPOSITORY:
            return f"[{words}]({_address(posixpath.normpath(f'notebooks/{target}'))})"
        return f"notebook {words}" if words.isdigit() and not text[: match.start()].endswith("otebook ") else words

    return LINK.sub(replace, text)


def set_badges(content, name: str) -> None:
    """Put badges that open the published copies below a notebook's title; without an address take them away."""
    first = content.cells[0]
    first.source = re.sub(r"\n\n\[!\[Open in .*", "", first.source)
    if labutils.REPOSITORY.startswith("https://github.com/"):  # which Colab and Kaggle can read
        colab, kaggle = (_address(PUBLISHED / path) for path in (f"colab/{name}.ipynb", f"kaggle/{name}/{name}.ipynb"))
        colab = colab.replace("https://github.com", "https://colab.research.google.com/github")
        title, _, rest = first.source.partition("\n")
        badges = (
            f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
            f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
            f"(https://kaggle.com/kernels/welcome?src={kaggle})"
        )
        first.source = f"{title}\n\n{badges}\n{rest}"


def kernel_metadata(file_name: str, user: str, gpu: bool = False) -> dict:
    """What `kaggle kernels push` wants to know: the data set attached, no internet, private."""
    title = f"Music lab {Path(file_name).stem.replace('_', ' ')}"  # Kaggle makes the address from the title
    switches = {"is_private": True, "enable_gpu": gpu, "enable_internet": False}
    return {
        "id": f"{user}/{_slug(title)}", "title": title, "code_file": file_name,
        "language": "python", "kernel_type": "notebook",
        **{name: str(value).lower() for name, value in switches.items()},
        "dataset_sources": [DATASET], "competition_sources": [], "kernel_sources": [], "model_sources": [],
    }  # fmt: skip


def scripts(notebooks: list[Notebook], out=None) -> list[Path]:
    """Write each notebook as a plain script, `main.py` that runs them all, and the package beside them.

    `out`: folder; None: `published/scripts`.
    """
    out = Path(out or PUBLISHED / "scripts")
    out = output_folder(out, PACKAGE, *{notebook.path.parent for notebook in notebooks})
    texts = {notebook.name: as_script(notebook.content, notebook.name) for notebook in notebooks}
    texts["main"] = (ASSETS / "main.py").read_text(encoding="utf-8")
    for name, text in texts.items():
        save_text(out / f"{name}.py", text)
    for path in [*carried(), PACKAGE / "tools" / "__init__.py", PACKAGE / "tools" / "script.py"]:
        copy = out / "labutils" / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return [out / f"{name}.py" for name in texts]


def as_script(content, name: str) -> str:
    """A notebook as plain Python: prose as comments, code as it is; what a cell would show goes to `display`."""
    parts = [
        f'"""Notebook {name} as a plain script.\n\nWith other parameters: python {name}.py NAME=VALUE ...\n"""',
        "from labutils.tools import script\nfrom labutils.tools.script import display",
    ]
    for cell in content.cells:
        if cell.cell_type == "markdown":
            parts.append(_comment(relink(cell.source)))
        elif not _is(cell, "bootstrap"):
            parts.append(_displayed(cell.source))
        if _is(cell, "parameters"):
            parts.append("script.begin(__file__, globals())  # takes the arguments; figures and sounds become files")
    return "\n\n".join(parts) + "\n"


def _comment(prose: str) -> str:
    wrap = textwrap.TextWrapper(116, break_long_words=False, break_on_hyphens=False)
    lines = []
    for line in prose.split("\n"):
        wrap.subsequent_indent = "  " if re.match(r"- |\d+\. ", line) else ""
        lines += wrap.wrap(line) or [""]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _displayed(source: str) -> str:
    """Code of a cell whose last value, which a notebook shows by itself, is handed to `display`."""
    last = [None, *ast.parse(source).body][-1]
    shown = last and ast.get_source_segment(source, last)
    if not isinstance(last, ast.Expr) or SILENT.match(shown):
        return source
    lines = source.split("\n")
    tail = "\n".join(lines[last.lineno - 1 :]).replace(shown, f"display({shown})", 1)
    return "\n".join([*lines[: last.lineno - 1], tail])


def _is(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _address(path) -> str:
    return f"{labutils.REPOSITORY}/blob/main/{Path(path).as_posix()}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
