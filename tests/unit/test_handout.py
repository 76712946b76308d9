"""Student copies hold no line of a solution, teacher copies all of them; the books have no broken link."""

import ast
import html
import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from labutils.tools import handout
from labutils.tools.cli import main
from labutils.tools.parameters import UsageError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = {path.stem: nbformat.read(path, 4) for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
READERS = ("student", "teacher")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return handout.publish(NOTEBOOKS, tmp_path_factory.mktemp("handout"))


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def regions(source: str) -> tuple[list[str], list[str]]:
    """The lines of a cell inside its solution region, and those outside, without comments."""
    inside, outside, within = [], [], False
    for line in source.splitlines():
        if "### BEGIN SOLUTION" in line or "### END SOLUTION" in line:
            within = not within
        else:
            (inside if within else outside).append(" ".join(line.partition("  # ")[0].split()))
    return inside, outside


def solution_lines() -> set[str]:
    """What must not be found: lines of solutions from 15 characters on that stand nowhere outside the solutions."""
    cells = [regions(cell.source) for notebook in SOURCES.values() for cell in notebook.cells]
    inside = {line for cell in cells for line in cell[0] if len(line) >= 15}
    return inside - {line for cell in cells for line in cell[1]}


def strings(content) -> list[str]:
    """Every text in a JSON document: sources, outputs, metadata."""
    if isinstance(content, dict | list):
        parts = [*content, *content.values()] if isinstance(content, dict) else content
        return [text for part in parts for text in strings(part)]
    return [content] if isinstance(content, str) else []


def text_of(path: Path) -> str:
    """A file without the data of its pictures and sounds."""
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", path.read_text(encoding="utf-8"))


def readable(path: Path) -> str:
    """All that can be read in a file, with and without its HTML tags, on one line."""
    raw = text_of(path)
    if path.suffix == ".ipynb":
        raw = "\n".join(strings([{**cell, "source": "".join(cell["source"])} for cell in json.loads(raw)["cells"]]))
    return " ".join(f"{raw} {html.unescape(re.sub('<[^>]+>', '', raw))}".split())


def texts_of(sources: dict) -> set[str]:
    """The texts that notebooks link to: each is copied beside the notebooks and is a page of the book."""
    prose = "\n".join(cell.source for book in sources.values() for cell in book.cells if cell.cell_type == "markdown")
    return set(re.findall(r"\.\./docs/(\w+)\.md", prose))


def found_solutions(folder: Path) -> dict[str, set[str]]:
    lines = solution_lines()
    texts = {path.name: readable(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: {line for line in lines if line in text} for name, text in texts.items()}


def test_no_line_of_a_solution_is_in_any_student_file(published):
    found = found_solutions(published / "student")
    assert len(found) == 10 + 11 + 2 * len(texts_of(SOURCES)) and not any(found.values()), found


def test_every_line_of_a_solution_is_in_the_teachers_notebooks_and_book(published):
    found = found_solutions(published / "teacher")
    lines = solution_lines()
    for ending in (".ipynb", ".html"):
        assert set().union(*(lines for name, lines in found.items() if name.endswith(ending))) == lines
    assert len(lines) >= 2 * sum(len(tagged(notebook, "exercise")) for notebook in SOURCES.values())


@pytest.mark.parametrize("name", SOURCES)
def test_putting_the_solutions_back_gives_the_source_to_the_byte(published, name):
    student, teacher = (nbformat.read(published / reader / "notebooks" / f"{name}.ipynb", 4) for reader in READERS)
    for cell, full in zip(student.cells, teacher.cells, strict=True):
        for key in ("nbgrader", "deletable", "editable"):
            cell.metadata.pop(key, None)
        if "exercise" in cell.metadata.get("tags", []):
            region = full.source[full.source.index("### BEGIN SOLUTION") :].partition("### END SOLUTION")
            stub = re.search(r"raise NotImplementedError\(.*", cell.source)[0]
            cell.source = cell.source.replace(stub, region[0] + region[1])
        if cell.cell_type == "code" and not cell.outputs:
            cell.outputs, cell.execution_count = full.outputs, full.execution_count
    assert nbformat.writes(student) + "\n" == (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")


def test_a_stub_is_one_line_with_a_hint_at_the_place_of_the_solution(published):
    student = nbformat.read(published / "student" / "notebooks" / "10_multitask_learning.ipynb", 4)
    lines = tagged(student, "exercise")[0].source.splitlines()
    assert lines[-2] == "    def forward(self, predictions, targets):"
    assert lines[-1].startswith('        raise NotImplementedError("Exercise 1: ')


@pytest.mark.parametrize("name", SOURCES)
def test_outputs_of_solutions_go_and_others_stay(published, name):
    student = nbformat.read(published / "student" / "notebooks" / f"{name}.ipynb", 4)
    pairs = zip(student.cells, SOURCES[name].cells)
    gone = {cell.id: source for cell, source in pairs if cell.get("outputs") != source.get("outputs")}
    checks = tagged(student, "check")
    assert all(cell.id in gone and not cell.outputs and cell.execution_count is None for cell in checks)
    exercises = [ast.parse(cell.source).body for cell in tagged(SOURCES[name], "exercise")]
    asked = "|".join(node.name for body in exercises for node in body if isinstance(node, ast.FunctionDef))
    others = gone.keys() - {cell.id for cell in checks}
    assert all(re.search(rf"\b({asked})\b", gone[id_].source) for id_ in others), "only what uses a solution goes"
    pictures = [id_ for id_, source in gone.items() if "image/png" in json.dumps(source.outputs)]
    # pictures that draw what the reader writes
    assert pictures == {"08": ["08-44"], "09": ["09-76"]}.get(name[:2], [])


def test_two_runs_give_the_same_files(tmp_path, published):
    first, second = (handout.publish(NOTEBOOKS, tmp_path / run, only="08") for run in "ab")
    files = [path.relative_to(first) for path in sorted(first.rglob("*.*")) if path.suffix]
    assert len(files) == 2 * (3 + 2 * len(texts_of({"08": SOURCES["08_affect_regression"]})))
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    same = "student/notebooks/08_affect_regression.ipynb"
    assert (first / same).read_bytes() == (published / same).read_bytes()


def test_cells_carry_the_metadata_of_nbgrader(published):
    ids = []
    for name in SOURCES:
        student, teacher = (nbformat.read(published / reader / "notebooks" / f"{name}.ipynb", 4) for reader in READERS)
        graded = [cell.metadata.nbgrader for cell in student.cells if "nbgrader" in cell.metadata]
        assert graded == [cell.metadata.nbgrader for cell in teacher.cells if "nbgrader" in cell.metadata]
        assert len(graded) == len(tagged(student, "exercise")) + len(tagged(student, "check"))
        ids += [fields.grade_id for fields in graded]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in ids)
    exercise, check = graded[:2]  # of the last notebook
    common = {"schema_version": 3, "task": False}
    assert exercise == {
        "grade_id": "10_multitask_learning-MyLoss",
        "solution": True,
        "grade": False,
        "locked": False,
        **common,
    }
    assert check == {
        "grade_id": "10_multitask_learning-MyLoss-check1",
        "solution": False,
        "grade": True,
        "locked": True,
        "points": 1,
        **common,
    }


def test_ids_stay_when_cells_move():
    source = SOURCES["05_lstm"]
    moved = nbformat.from_dict(
        {**source, "cells": [nbformat.v4.new_markdown_cell("# New"), *reversed(source.cells[::-1])]}
    )
    ids = [
        {cell.id: cell.metadata.get("nbgrader") for cell in handout.graded(n, "05_lstm").cells} for n in (source, moved)
    ]
    assert ids[0].items() <= ids[1].items()


def test_every_assert_of_a_check_says_in_words_what_is_wrong():
    for name, notebook in SOURCES.items():
        for cell in tagged(notebook, "check"):
            asserts = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Assert)]
            assert asserts, cell.id
            for node in asserts:
                words = "".join(
                    part.value
                    for part in ast.walk(node.msg)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                assert len(words.split()) >= 4, f"{name}: {ast.unparse(node)}"


@pytest.fixture(scope="module", params=READERS)
def book(request, published):
    """The pages of a book by name."""
    folder = published / request.param / "book"
    return {path.name: BeautifulSoup(text_of(path), "html.parser") for path in folder.glob("*.html")}


def broken_links(book) -> list[tuple[str, str]]:
    ids = {name: {element["id"] for element in page.select("[id]")} for name, page in book.items()}
    broken = []
    for name, page in book.items():
        for link in page.select("a[href]"):
            target, _, anchor = link["href"].partition("#")
            target = target or name
            if not target.startswith("https://") and (target not in book or (anchor and anchor not in ids[target])):
                broken.append((name, link["href"]))
    return broken


def test_books_have_no_broken_link_and_every_page_is_listed(book):
    assert not broken_links(book)
    listed = {link["href"].partition("#")[0] for link in book["index.html"].select("main a")}
    assert listed == set(book) - {"index.html"} and len(listed) == 10 + len(texts_of(SOURCES))
    sections = [link for link in book["index.html"].select("main a") if "#" in link["href"]]
    assert len(sections) > 50
    chapter = book["05_lstm.html"]
    assert {"04_data_loading.html", "index.html", "06_evaluation.html"} == {
        link["href"] for link in chapter.select("nav a")
    }
    assert "06_evaluation.html" in {link["href"] for link in chapter.select("main a")}


def test_the_link_checker_finds_a_broken_link_and_a_broken_anchor():
    pages = {"a.html": '<a href="b.html"></a><a href="#x"></a><a href="#y"></a><p id="y">'}
    book = {name: BeautifulSoup(page, "html.parser") for name, page in pages.items()}
    assert broken_links(book) == [("a.html", "b.html"), ("a.html", "#x")]


def test_pages_can_be_read_by_everybody_and_without_a_network(book):
    for name, page in book.items():
        assert page.html["lang"] == "en" and page.title.get_text(strip=True)
        assert not page.select("script, link, iframe") and "$" not in " ".join(p.get_text() for p in page.select("p"))
        levels = [int(heading.name[1]) for heading in page.select("h1, h2, h3, h4, h5, h6")]
        assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels)), name
        for image in page.select("img"):
            assert len(image["alt"]) > 20 and not image["alt"].startswith("No description")
            assert image["src"].startswith("data:")
        ids = [element["id"] for element in page.select("[id]")]
        assert len(ids) == len(set(ids)), name
    assert len(book["01_mel_spectrograms.html"].select("img")) > 5
    assert len(book["05_lstm.html"].select("math")) > 5


def write(folder: Path, *cells) -> Path:
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), folder / "01_small.ipynb")
    return folder


def exercise(source: str, tags=("exercise",)):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def test_a_linked_text_becomes_a_page_and_a_missing_one_plain_text(tmp_path):
    prose = "# 01 Small\n\n[hop](../docs/glossary.md#hop-length), [later](02_later.ipynb) and $x_1$"
    folder = write(tmp_path / "notebooks", nbformat.v4.new_markdown_cell(prose))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text(
        "# Glossary\n\n## Hop length\n\nSee [01](../notebooks/01_small.ipynb)."
    )
    out, again = (handout.publish(folder, tmp_path / run) for run in ("out", "again"))
    assert (out / "student" / "docs" / "glossary.md").exists()
    page = "student/book/glossary.html"
    assert (out / page).read_bytes() == (again / page).read_bytes()
    book = {path.name: BeautifulSoup(path.read_text(), "html.parser") for path in (out / "student" / "book").iterdir()}
    assert set(book) == {"01_small.html", "glossary.html", "index.html"} and not broken_links(book)
    main = book["01_small.html"].main
    assert [link["href"] for link in main.select("a")] == ["glossary.html#hop-length"]
    assert "later" in main.get_text() and main.find("msub")


@pytest.mark.parametrize(
    "cell",
    [
        exercise("def f():\n    return 1"),
        exercise("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION", tags=()),
        exercise("def f():\n    ### BEGIN SOLUTION\n    return 1"),
        nbformat.v4.new_markdown_cell("### BEGIN SOLUTION\nIt is 1.\n### END SOLUTION"),
    ],
    ids=["no region", "no tag", "no end", "in prose"],
)
def test_a_mark_that_is_wrong_stops_before_anything_is_written(tmp_path, cell):
    folder = write(tmp_path / "notebooks", nbformat.v4.new_markdown_cell("# 01 Small"), cell)
    with pytest.raises(UsageError, match=f"01_small.ipynb, cell {cell.id}"):
        handout.publish(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_where_everything_is(tmp_path, capsys):
    folder = write(tmp_path / "notebooks", nbformat.v4.new_markdown_cell("# 01 Small"))
    assert main(["publish", "handout", "--notebooks", str(folder), "--out", str(tmp_path / "out"), "--only", "1"]) == 0
    printed = capsys.readouterr().out.split()
    assert {str(tmp_path / "out" / reader / "book" / "index.html") for reader in READERS} <= set(printed)
    assert main(["publish", "handout", "--notebooks", str(folder), "--only", "77"]) == 2
