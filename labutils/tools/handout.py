"""For the class room: student copies without solutions, teacher copies, and a book of each to read and print.

Everything is made from the source notebooks and their saved outputs; they stay clean of grading metadata. nbgrader's
`ClearSolutions` would clear the same regions, but brings a data base and a server: one substitution does.
"""

from __future__ import annotations

import ast
import copy
import html
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from ..files import inside, output_folder, save_text
from .parameters import UsageError, load_notebooks, select

REGION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION$", re.M | re.S)
STUB = r'\1raise NotImplementedError("{}: put your code here, in place of this line")'
TELLING = 20  # characters from which on a line of a solution gives something away; "return x" does not
TITLE = "Music genre and affect recognition"
ABOUT = {
    "student": "The notebooks to read, with their exercises still to be solved.",
    "teacher": "The notebooks with the solutions of their exercises. Not for students.",
}


def publish(notebooks: str | Path, out: str | Path, only: str = "") -> Path:
    """Write OUT/student and OUT/teacher, each with `notebooks/` and, to read and print, `book/index.html`.

    Raises
    ------
    UsageError : an exercise without a solution region, or a region outside an exercise; nothing is written then.
    """
    folder = Path(notebooks).resolve()
    readers = copies({n.name: n.content for n in select(load_notebooks(folder, plain=True), only)})
    out = output_folder(out, folder)
    for reader, chapters in readers.items():
        for name, chapter in chapters.items():
            save_text(out / reader / "notebooks" / f"{name}.ipynb", nbformat.writes(chapter) + "\n")
        texts = _linked_texts(folder, chapters)
        for link, text in texts.items():
            save_text(out / reader / "notebooks" / link, text)
        _write_book(chapters, texts, out / reader / "book", f"{TITLE}: {reader} book", ABOUT[reader])
    return out


def copies(sources: dict[str, nbformat.NotebookNode]) -> dict[str, dict[str, nbformat.NotebookNode]]:
    """The copies for "student" and "teacher" of notebooks by name."""
    secrets = telling_lines(sources.values())
    teacher = {name: graded(source, name) for name, source in sources.items()}
    return {"student": {name: cleared(full, secrets) for name, full in teacher.items()}, "teacher": teacher}


def graded(source: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A copy with nbgrader's metadata (schema 3): exercises are solution cells, checks are locked and earn a point.

    Their `grade_id`s come from the notebook's name and the name that the exercise defines, so they last.
    """
    notebook, exercise, count = copy.deepcopy(source), name, 0
    for cell in notebook.cells:
        kind = {"exercise", "check"} & set(cell.metadata.get("tags", []))
        rest, found = REGION.subn("", cell.source)
        if ("exercise" in kind) != bool(found) or re.search("(BEGIN|END) SOLUTION", rest):
            raise UsageError(
                f"{name}.ipynb, cell {cell.id}: cells tagged exercise, and no others, hold a region from "
                "### BEGIN SOLUTION to ### END SOLUTION; set the tag or both marks"
            )
        if "exercise" in kind:
            exercise, count = f"{name}-{(_defined(cell) or [cell.id])[0]}", 0
            cell.metadata["nbgrader"] = _grading(exercise, solution=True)
        elif "check" in kind:
            count += 1
            cell.metadata["nbgrader"] = _grading(f"{exercise}-check{count}", grade=True, locked=True, points=1)
    return notebook


def cleared(teacher: nbformat.NotebookNode, secrets: set[str]) -> nbformat.NotebookNode:
    """The student copy of a teacher copy: stubs for solutions, and no output that a solution made or that shows one.

    Outputs go from exercises, checks and all cells that use what an exercise defines; from others only if they show
    one of the lines `secrets`, as the package's own source may. Targets and their pictures stay.
    """
    notebook, title, names = copy.deepcopy(teacher), "Exercise", set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            title = [title, *re.findall(r"^#+ (Exercise \d+)", cell.source, re.M)][-1]
            continue
        kind = {"exercise", "check"} & set(cell.metadata.get("tags", []))
        if "exercise" in kind:
            names |= set(_defined(cell))
            cell.source = REGION.sub(STUB.format(title), cell.source)
        if kind:
            cell.metadata |= {"deletable": False, "editable": "exercise" in kind}
        used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
        if kind or used & names or any(line in _shown(cell) for line in secrets):
            cell.outputs, cell.execution_count = [], None
    return notebook


def telling_lines(sources) -> set[str]:
    """The lines of all solutions that would give one away: not too short, and in no cell outside the solutions."""

    def lines(text: str) -> set[str]:
        return {line.partition("  # ")[0].strip() for line in text.splitlines()}

    cells = [cell.source for source in sources for cell in source.cells]
    solved = {line for cell in cells for region in REGION.finditer(cell) for line in lines(region[2])}
    given = {line for cell in cells for line in lines(REGION.sub("", cell))}
    return {line for line in solved - given if len(line) >= TELLING}


def _grading(grade_id: str, **fields) -> dict:
    return {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3, "solution": False,
            "task": False, **fields}  # fmt: skip


def _defined(cell: nbformat.NotebookNode) -> list[str]:
    """Names of the functions and classes that a cell defines."""
    return [node.name for node in ast.parse(cell.source).body if hasattr(node, "name")]


def _shown(cell: nbformat.NotebookNode) -> str:
    """The text in a cell's outputs; `lab.source` leaves its source as plain text, too."""
    return "\n".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs)


def _linked_texts(folder: Path, chapters: dict) -> dict[str, str]:
    """The texts (.md) that the notebooks link to, such as a glossary, by their link."""
    prose = "\n".join(c.source for chapter in chapters.values() for c in chapter.cells if c.cell_type == "markdown")
    links = dict.fromkeys(re.findall(r"\]\(([^)#:\s]+\.md)[#)]", prose))
    there = [link for link in links if (folder / link).exists()]
    return {link: inside(folder.parent, f"{folder.name}/{link}").read_text(encoding="utf-8") for link in there}


class _Renderer(IPythonRenderer):
    """Formulas become MathML, which needs neither a script nor a network and can be read aloud."""

    def inline_math(self, body: str) -> str:
        return convert(body)

    def block_math(self, body: str) -> str:
        return f'<span class="formula" tabindex="0">{convert(body, display="block")}</span>'


def _write_book(chapters: dict, texts: dict[str, str], folder: Path, title: str, about: str) -> None:
    """One page a chapter, one for each linked text, and `index.html` with the table of contents."""
    sources = {f"{name}.ipynb": chapter for name, chapter in chapters.items()}
    for link, text in texts.items():
        cells = [nbformat.v4.new_markdown_cell(text, id="text")]  # the same from run to run
        sources[posixpath.basename(link)] = nbformat.v4.new_notebook(cells=cells)
    pages = {source: f"{source.rpartition('.')[0]}.html" for source in sources}
    exporter = HTMLExporter(  # "basic": the cells alone, in the form that keeps the alternative text of figures
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    markdown = MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True))
    exporter.register_filter("markdown2html", markdown.render)
    exporter.register_filter("clean_html", lambda code: code)  # escaped by the highlighter; cleaning is slow
    template = (Path(__file__).parent / "assets" / "book.html").read_text(encoding="utf-8")
    code_style = HtmlFormatter().get_style_defs(".highlight")
    contents, order = "", [*pages.values()]
    for position, (source, page) in enumerate(pages.items()):
        body = _tidy(BeautifulSoup(exporter.from_notebook_node(sources[source])[0], "html.parser"), pages)
        heading, *sections = body.select("h1, h2")
        entries = "".join(f'<li><a href="{page}#{h["id"]}">{html.escape(h.get_text())}</a></li>\n' for h in sections)
        contents += f'<li><a href="{page}">{html.escape(heading.get_text())}</a>\n<ul>\n{entries}</ul></li>\n'
        ways = {
            "Back": order[position - 1] if position else "",
            "Contents": "index.html",
            "Next": "".join(order[position + 1 : position + 2]),
        }
        navigation = " ".join(f'<a href="{target}">{way}</a>' for way, target in ways.items() if target)
        full_title = html.escape(f"{heading.get_text()} - {title}")
        text = template.format(title=full_title, navigation=navigation, body=body, code_style=code_style)
        save_text(folder / page, text)
    body = f"<h1>{title}</h1>\n<p>{about}</p>\n<h2>Contents</h2>\n<ul>\n{contents}</ul>"
    navigation = f'<a href="{order[0]}">Begin</a>'
    save_text(folder / "index.html", template.format(title=title, navigation=navigation, body=body, code_style=""))


def _tidy(body: BeautifulSoup, pages: dict[str, str]) -> BeautifulSoup:
    """Links between notebooks become links between pages, or plain text where the book has no such page."""
    for script in body.select("script"):  # on paper nothing moves
        script.decompose()
    for heading in body.select("h1, h2, h3, h4"):
        heading["id"] = _slug(heading.get_text())
    for link in body.select("a[href]"):
        target, _, anchor = link["href"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        page = pages.get(posixpath.basename(target), "")
        if target and not page:
            link.unwrap()
        else:
            link["href"] = page + (f"#{_slug(unquote(anchor))}" if anchor else "")
    for box in body.select(".output_html:has(table)"):
        box["tabindex"] = "0"  # so that a wide table is scrolled by keyboard, too
    for header in body.select("th"):
        header.name = "th" if header.get_text(strip=True) else "td"
    return body


def _slug(heading: str) -> str:
    """The anchor of a heading, in the form that forges use; JupyterLab's form comes out the same."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
