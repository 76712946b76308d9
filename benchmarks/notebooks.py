"""What a notebook costs before its first own cell: kernel, imports, finding the data."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import nbformat
from harness import Case

from labutils.tools.run import PAPERMILL

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
HEAVY = ("librosa", "sklearn")
PROBE = f"import sys; print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"


def cases() -> list[Case]:
    return []


def overhead() -> str:
    """Seconds of each notebook's cells up to `lab.start`, by papermill, and the heavy packages they import."""
    lines = ["| notebook | kernel, imports and start | imports |", "|---|---|---|"]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        seconds, loaded = min(_start(path) for _ in range(2))
        lines.append(f"| {path.stem} | {seconds:.1f} s | {loaded or '-'} |")
    return "\n".join(lines) + "\n"


def _start(path: Path) -> tuple[float, str]:
    content = nbformat.read(path, as_version=4)
    last = next(i for i, cell in enumerate(content.cells) if "lab.start(" in cell.source)
    content.cells = [*content.cells[: last + 1], nbformat.v4.new_code_cell(PROBE)]
    with tempfile.TemporaryDirectory() as folder:
        short, executed = Path(folder) / "short.ipynb", Path(folder) / "executed.ipynb"
        nbformat.write(content, short)
        command = [*PAPERMILL, str(short), str(executed), "--kernel", "python3"]
        start = time.perf_counter()
        subprocess.run([*command, "--no-progress-bar", "--cwd", str(NOTEBOOKS)], check=True, capture_output=True)
        seconds = time.perf_counter() - start
        output = nbformat.read(executed, as_version=4).cells[-1].outputs[0].text
    return seconds, output.partition("loaded:")[2].strip()


REPORTS = (overhead,)
