"""Which notebooks there are, which are chosen, and which parameters each gets: the input of `labutils run`."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import math
import re
from pathlib import Path

import nbformat
import yaml

from ..files import blame

SET_BY_OPTION = {"data_root": "--data", "output_dir": "--out"}


class UsageError(ValueError):
    """The command asks for something that cannot be done; the message says what can."""


@dataclasses.dataclass
class Notebook:
    """A notebook and what is known of its run."""

    name: str
    path: Path
    num_cells: int
    needs: list[str]  # names of notebooks that run before it
    defaults: dict  # of its parameters
    content: nbformat.NotebookNode | None = None
    parameters: dict = dataclasses.field(default_factory=dict)  # given in this run
    state: str = "waiting"  # running, ok, FAILED, skipped
    reason: str = ""  # of a failure
    seconds: float = 0.0
    cells_done: int = 0
    key: str = ""  # of code, parameters and data


def load_notebooks(folder: Path, *, plain: bool = False) -> list[Notebook]:
    """The notebooks of a folder, with what they need and the literals of the cell tagged `parameters`.

    `plain`: their code must be plain Python, without magics.

    Raises
    ------
    UsageError : no notebook there, or a damaged one.
    """
    found = []
    for path in sorted(filter(Path.is_file, folder.glob("*.ipynb"))):
        with blame(path, "restore it or take it out of the folder", UsageError):
            content = nbformat.read(path, as_version=4)
            nbformat.validate(content)
            trees = {cell.id: ast.parse(cell.source) for cell in content.cells if cell.cell_type == "code" and
                     (plain or "parameters" in cell.metadata.get("tags", []))}  # fmt: skip
            defaults = {}
            for cell in content.cells:
                if "parameters" in cell.metadata.get("tags", []):
                    statements = [node for node in trees[cell.id].body if isinstance(node, ast.Assign)]
                    defaults = {node.targets[0].id: ast.literal_eval(node.value) for node in statements}
            needs = [str(name) for name in content.metadata.get("labutils", {}).get("needs", [])]
        found.append(Notebook(path.stem, path.resolve(), len(content.cells), needs, defaults, content))
    if not found:
        raise UsageError(f"{folder}: no notebooks there; give their folder as --notebooks")
    return found


def select(every: list[Notebook], only: str) -> list[Notebook]:
    """The notebooks that `only` lists by number ("05", "5") or name; all if it is empty."""
    chosen = set()
    for word in filter(None, re.split(r"[,\s]+", only)):
        names = {notebook.name for notebook in every if _is_called(notebook, word)}
        if not names:
            raise UsageError(f"--only {word}: no such notebook; there are {', '.join(n.name for n in every)}")
        chosen |= names
    return [notebook for notebook in every if not chosen or notebook.name in chosen]


def read_file(path) -> dict:
    """A yaml file of parameters; None: none."""
    if not path:
        return {}
    with blame(path, "write lines NAME: VALUE in yaml", UsageError):
        content = _yaml(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must hold lines NAME: VALUE")
    return content


def read_pairs(pairs: list[str]) -> dict:
    """Parameters from "NAME=VALUE" strings; a value is read as yaml."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"-p {pair}: write it as NAME=VALUE")
        with blame(f"-p {pair}", "write the value as in yaml, or put it in quotes", UsageError):
            values[name] = _yaml(text)
    return values


def _yaml(text: str):
    """What plain yaml says; a few lines with aliases could mean billions of values."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 9 or isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) and deep nesting are not allowed")
    return yaml.safe_load(text)


def assign(chosen: list[Notebook], every: list[Notebook], from_file: dict, from_pairs: dict) -> None:
    """Give each chosen notebook its parameters: the file's, then those of its section in the file, then the pairs'.

    A name in the file may belong to a notebook that is not chosen, so that one file serves any `--only`.

    Raises
    ------
    UsageError : a name that no notebook has, a value of another type than the default.
    """
    general, sections = {}, {}
    for key, value in from_file.items():
        owners = [notebook for notebook in every if _is_called(notebook, key)]
        if not owners:
            general[str(key)] = value
            continue
        if not isinstance(value, dict | None):
            raise UsageError(f"{key}: the section of a notebook must hold lines NAME: VALUE")
        _check_names(value or {}, owners)
        sections |= {notebook.name: value or {} for notebook in owners}
    _check_names(general, every)
    _check_names(from_pairs, chosen)
    for notebook in chosen:
        values = general | sections.get(notebook.name, {}) | from_pairs
        shared = [name for name in notebook.defaults if name in values]
        notebook.parameters |= {name: _checked(name, values[name], notebook) for name in shared}


def _is_called(notebook: Notebook, word) -> bool:
    """Whether a name or a number means this notebook; yaml reads the key 05 as the number 5."""
    return str(word) == notebook.name or str(word).zfill(2) == notebook.name.split("_")[0]


def _check_names(values: dict, notebooks: list[Notebook]) -> None:
    valid = sorted({name for notebook in notebooks for name in notebook.defaults} - set(SET_BY_OPTION))
    for name in values:
        if name in SET_BY_OPTION:
            raise UsageError(f"parameter {name} is set by {SET_BY_OPTION[name]}")
        if name not in valid:
            close = difflib.get_close_matches(str(name), valid, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise UsageError(f"unknown parameter {name}{hint} Valid names: {', '.join(valid) or 'none'}")


def _checked(name: str, value, notebook: Notebook):
    """The value, if it is of the default's type; 1e-3, which yaml reads as text, and 1 become floats."""
    default = notebook.defaults[name]
    if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    infinite = isinstance(value, float) and not math.isfinite(value)
    if default is not None and (type(value) is not type(default) or infinite):
        expected = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        kind = expected.get(type(default), f"a {type(default).__name__}")
        raise UsageError(f"parameter {name} of {notebook.name}: {value!r} is not {kind} (default: {default!r})")
    return value
