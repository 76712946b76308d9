"""Running notebooks without a browser, through papermill: order, parallel processes, time limit.

Every notebook is a process of its own with one thread: two one-thread notebooks beat one two-thread notebook (an LSTM
is slower on two threads than on one), and results are repeatable to the bit for a given number of threads only.
"""

from __future__ import annotations

import contextlib
import graphlib
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import yaml
from filelock import Timeout
from tqdm import tqdm

from ..files import locked, output_folder, save_text
from . import parameters, report
from .parameters import Notebook, UsageError
from .publish import pack, set_badges

TIME_LIMIT = 1800  # seconds per notebook
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CHECKOUT = Path(__file__).resolve().parents[2]
# Without rfc3987_syntax, which comes with JupyterLab: its grammar of web addresses would be compiled at every start, in
# three times the time that papermill needs for itself.
START = """import os, runpy, sys, threading
sys.modules['rfc3987_syntax'] = None
watch = sys.stdin.read  # ends when the run does, however it dies; the kernel ends when this process does
threading.Thread(target=lambda: (watch(), os._exit(1)), daemon=True).start()
runpy.run_module('papermill', run_name='__main__')"""
PAPERMILL = [sys.executable, "-c", START]


def choose(notebooks, only, params, pairs, in_place) -> tuple[list[Notebook], list[Notebook]]:
    """All notebooks of a folder, and those of them to run, with the parameters they get.

    Parameters
    ----------
    notebooks : their folder; None: here, of the checkout, or installed.   only : numbers or names, "05,06".
    params : yaml file of parameters.   pairs : "NAME=VALUE" strings, stronger than the file.
    in_place : they run with the parameters they have.

    Raises
    ------
    UsageError : unknown notebook or parameter, wrong type.
    """
    every = parameters.load_notebooks(default_folder(notebooks))
    chosen = parameters.select(every, only)
    if in_place and (params or pairs):
        raise UsageError("--in-place runs notebooks with the parameters they have; leave --params and -p out")
    parameters.assign(chosen, every, parameters.read_file(params), parameters.read_pairs(pairs))
    return every, chosen


def run(notebooks, *, data, out, jobs, time_limit, fresh, in_place) -> list[Notebook]:
    """Run notebooks, collect their results and print them: `labutils run`.

    Parameters
    ----------
    notebooks : what `choose` gives.
    data : folder of the data set; empty: found as `lab.find_data` does.   out : folder for all that is made.
    jobs : notebooks at a time; None: one per core.   time_limit : seconds for one notebook.
    in_place : write the outputs into the source notebooks as well; they run with the parameters they have.
    fresh : run also those that a run into `out` has finished with the same code, parameters and data.

    Returns
    -------
    list of Notebook : the chosen ones with `state`, `seconds` and `reason`.

    Raises
    ------
    DataError : no usable data set, or an `out` that would mix with the notebooks or the data.
    """
    every, chosen = notebooks
    order = _order(chosen)

    from ..corpus.build import compile_librosa
    from ..data import provenance
    from ..lab import find_data

    root = Path(find_data(data)).resolve()
    compile_librosa()
    folders = {notebook.path.parent for notebook in every}
    out = output_folder(out or Path("runs") / provenance(root)["name"], root, *folders).resolve()
    for part in ("notebooks", "records", "html", "logs", "params"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for notebook in [] if in_place else chosen:
        paths = {"data_root": str(root), "output_dir": str(out)}
        notebook.parameters |= {name: path for name, path in paths.items() if name in notebook.defaults}
    files = sorted(path for depth in ("*", "*/*", "*/*/*") for path in root.glob(depth) if path.is_file())
    state = pack(), [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    for notebook in chosen:
        code = [cell.source for cell in notebook.content.cells if cell.cell_type == "code"]
        notebook.key = hashlib.sha256(repr((code, notebook.parameters, state)).encode()).hexdigest()
    threads = dict.fromkeys(THREADS, "1")
    environment = {**os.environ, **threads, "LABUTILS_DATA": str(root), "LABUTILS_OUTPUT": str(out)}
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, not the user's own of that name
    if (CHECKOUT / "pyproject.toml").exists():  # the kernels import this very package
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    try:
        with locked(out / ".run", timeout=0):
            print(f"Running {len(chosen)} notebooks on {root}", flush=True)
            for notebook in chosen if fresh else []:
                report.remember(notebook, out)  # as waiting
            _execute(order, chosen, out, environment, jobs or _num_cores(), time_limit)
            if in_place:
                install_outputs(chosen, out)
            report.write(chosen, out)
    except Timeout as error:
        raise UsageError(f"{out}: another run is writing there; wait for it or give another --out") from error
    return chosen


def install_outputs(notebooks: list[Notebook], out: Path) -> None:
    """Copy outputs and execution counts into the source notebooks; of their text only the badges may change."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    for notebook in notebooks:
        if notebook.state == "ok":
            source = nbformat.read(notebook.path, as_version=4)
            set_badges(source, notebook.name)
            executed = nbformat.read(out / "notebooks" / notebook.path.name, as_version=4)
            executed, _ = CoalesceStreamsPreprocessor().preprocess(executed, {})  # what a cell printed: one output
            for cell, done in zip(source.cells, executed.cells, strict=True):
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = done.outputs, done.execution_count
                    cell.metadata.pop("execution", None)
            save_text(notebook.path, nbformat.writes(source) + "\n")


def default_folder(named=None) -> Path:
    """The folder of the notebooks: as named, else `notebooks/` here, else of the checkout, else of the package."""
    places = (Path("notebooks"), CHECKOUT / "notebooks", CHECKOUT / "labutils" / "notebooks")
    return Path(named) if named else next((place for place in places if place.is_dir()), places[0])


def _num_cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def _order(chosen: list[Notebook]) -> graphlib.TopologicalSorter:
    names = {notebook.name for notebook in chosen}
    order = graphlib.TopologicalSorter({notebook.name: names & set(notebook.needs) for notebook in chosen})
    try:
        order.prepare()
    except graphlib.CycleError as error:
        raise UsageError(f"notebooks need each other in a circle: {' -> '.join(error.args[1])}") from error
    return order


def _execute(order, chosen, out: Path, environment: dict, jobs: int, time_limit: float) -> None:
    """Run all notebooks, `jobs` at a time; of those that are ready, first the one that most others wait for."""
    by_name = {notebook.name: notebook for notebook in chosen}
    waited_for = {name: sum(name in notebook.needs for notebook in chosen) for name in by_name}
    ready, running = [], []
    display = _Display(chosen)
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()], key=lambda name: (-waited_for[name], name))
            while ready and len(running) < jobs:
                notebook = by_name[ready.pop(0)]
                if report.is_finished(notebook, out):
                    notebook.state, notebook.reason = "ok", "finished before; --fresh runs it again"
                elif lost := [name for name in notebook.needs if name in by_name and by_name[name].state != "ok"]:
                    notebook.state, notebook.reason = "skipped", f"needs {lost[0]}, which did not succeed"
                    report.remember(notebook, out)
                else:
                    running.append(_Run(notebook, out, environment, time_limit))
                    display.start(notebook)
                    continue
                order.done(notebook.name)
                display.end(notebook)
            time.sleep(0.2)
            for job in list(running):
                job.poll()
                display.update()
                if job.notebook.state != "running":
                    report.remember(job.notebook, out)
                    running.remove(job)
                    order.done(job.notebook.name)
                    display.end(job.notebook)
    finally:  # also on Ctrl-C: leave no process behind
        for job in running:
            job.kill()
        display.bar.close()


class _Run:
    """One notebook in a papermill process. Its messages and progress go to a log file, which is read from there."""

    def __init__(self, notebook: Notebook, out: Path, environment: dict, time_limit: float):
        self.notebook, self.time_limit, self.started = notebook, time_limit, time.monotonic()
        self.done, self.log = out / "notebooks" / notebook.path.name, out / "logs" / f"{notebook.name}.log"
        self.executed = out / "logs" / notebook.path.name  # until it is whole
        command = [*PAPERMILL, str(notebook.path), str(self.executed)]
        command += ["--kernel", "python3", "--language", "python", "--cwd", str(notebook.path.parent)]
        command += ["--progress-bar", "--log-level", "ERROR"]
        params = out / "params" / f"{notebook.name}.yaml"
        save_text(params, yaml.safe_dump(notebook.parameters, sort_keys=False, allow_unicode=True))
        if notebook.parameters:
            command += ["-f", str(params)]
        with open(self.log, "wb") as log:  # a session of its own: Ctrl-C reaches this process only, which then kills
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        notebook.state = "running"

    def poll(self) -> None:
        """Bring the notebook's state up to date."""
        notebook = self.notebook
        notebook.seconds = time.monotonic() - self.started
        if steps := re.findall(r"Executing:.*?\b(\d+)/\d+ \[", self.log.read_text(encoding="utf-8", errors="replace")):
            notebook.cells_done = min(int(steps[-1]), notebook.num_cells)
        code = self.process.poll()
        if code == 0:
            notebook.state, notebook.cells_done = "ok", notebook.num_cells
            os.replace(self.executed, self.done)
        elif code is not None or notebook.seconds > self.time_limit:
            self.kill()
            notebook.state, notebook.reason = "FAILED", report.failure(self.executed, self.log)
            if code is None:
                limit = f"{self.time_limit:g} s, the limit: raise --time-limit or choose smaller parameters"
                notebook.reason = f"stopped after {limit}; {notebook.reason}"

    def kill(self) -> None:
        """End the process and all its descendants: a kernel is in a session of its own and would live on."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for member in [*family, self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()


class _Display:
    """One bar for the cells of all notebooks, with the running ones; where nobody watches, a line at start and end."""

    def __init__(self, notebooks: list[Notebook]):
        self.notebooks, self.left, self.watched = notebooks, len(notebooks), sys.stderr.isatty()
        total = sum(notebook.num_cells for notebook in notebooks)
        self.bar = tqdm(desc="all notebooks", total=total, unit="cell", dynamic_ncols=True, disable=not self.watched)

    def start(self, notebook: Notebook) -> None:
        if not self.watched:
            print(f"  start  {notebook.name}", flush=True)

    def update(self) -> None:
        running = [f"{n.name} {n.cells_done}/{n.num_cells}" for n in self.notebooks if n.state == "running"]
        self.bar.set_postfix_str(", ".join(running), refresh=False)
        self.bar.n = sum(notebook.cells_done for notebook in self.notebooks)
        self.bar.refresh()

    def end(self, notebook: Notebook) -> None:
        self.left -= 1
        notebook.cells_done = notebook.num_cells  # also of a failed one: nothing more is to come
        with self.bar.external_write_mode():
            print(f"  {report.state_line(notebook)} ({self.left} left)", flush=True)
