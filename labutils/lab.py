"""The first and the last cell of every notebook: what is used, and what came out (all notebooks)."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from . import __version__, data
from .corpus import build
from .evaluation import Estimate
from .files import save_json
from .recipes import Experiment
from .store import results_home

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "scipy", "librosa")


@dataclasses.dataclass
class Session:
    """What a notebook works with. For `start`."""

    notebook: str
    parameters: dict
    root: Path  # the data set
    dataset: dict  # name, kind ("procedural", "audio" or "arrays") and what else is known of it
    output_dir: Path
    device: str  # "cpu" or "cuda"
    threads: int
    started: float

    @property
    def experiment(self):
        """The `recipes.Experiment` that this notebook's parameters describe."""
        given = {field.name for field in dataclasses.fields(Experiment)} & set(self.parameters)
        return Experiment(root=self.root, device=self.device, **{name: self.parameters[name] for name in given})

    @property
    def note(self) -> str:
        """The sentence that goes with every table and figure of results."""
        if self.dataset["kind"] == "procedural":
            return f"Data: {self.dataset['name']}, procedural music. These numbers say nothing about real music."
        return f"Data: {self.dataset['name']}."


def find_data(data_root="") -> Path:
    """The data set to use: `data.find_root`, else the default data, made at first use. For `start`."""
    return data.find_root(data_root) or build.make_demo()


def choose_device() -> tuple[str, int]:
    """The device ("cuda" or "cpu") and the number of threads, and this process prepared for them. For `start`.

    The number of threads is $LABUTILS_THREADS, else 1: the lab's recurrent models run slower on two threads than
    on one, and one thread gives the same bits on every machine of a kind.
    """
    import torch

    from . import process

    threads = int(os.environ.get("LABUTILS_THREADS", "1"))
    process.tune_process(threads)
    return "cuda" if torch.cuda.is_available() else "cpu", threads


def plain_parameters(namespace: dict) -> dict:
    """The numbers, texts, lists and dicts of a notebook or script, by name: its parameters. For `start`."""
    plain = (bool, int, float, str, list, dict)
    return {
        name: value
        for name, value in namespace.items()
        if isinstance(value, plain) and not name.startswith("_") and name not in ("In", "Out")
    }


def start(notebook: str, namespace: dict) -> Session:
    """Find the data, choose device and threads, seed, and print what is used. All notebooks.

    Call it in the cell after the parameters, as `session = lab.start("05_lstm", globals())`: every plain value
    defined so far is a parameter of this run and will stand in its record. Honoured among them are `data_root`,
    `output_dir` and `seed`.
    """
    import torch

    parameters = plain_parameters(namespace)
    root = find_data(parameters.get("data_root", ""))
    dataset = data.provenance(root)
    device, threads = choose_device()
    torch.manual_seed(parameters.get("seed", 0))
    named = parameters.get("output_dir") or os.environ.get("LABUTILS_OUTPUT")
    output_dir = Path(named) if named else results_home() / dataset["name"]
    session = Session(notebook, parameters, root, dataset, output_dir, device, threads, time.perf_counter())
    warnings.simplefilter("once", data.DataWarning)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, by way of librosa and pooch
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    lines = {
        "data": f"{dataset['name']} ({dataset['kind']}) in {_short(root)}",
        "device": f"{device}, {threads} thread{'s' * (threads > 1)}",
        "process": "set for training: freed memory is kept, the tiniest numbers count as 0, warnings take one line",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, labutils {__version__}",
        "output": _short(output_dir),
    }
    print("\n".join(f"{name:9} {text}" for name, text in lines.items()))
    if dataset["kind"] == "procedural":
        print(f"note      {session.note}")
    return session


def record(session: Session, metrics: dict[str, Estimate | float]) -> None:
    """Write `<output_dir>/records/<notebook>.json`: parameters, data, versions, seconds and the metrics. All notebooks.

    Metric names are flat, such as `lstm.mel_raw.test.macro_f1`; values are `Estimate`s or plain numbers.
    """
    seed = int(session.parameters.get("seed", 0))
    rows = []
    for name, value in metrics.items():
        estimate = value if isinstance(value, Estimate) else Estimate(float(value), np.nan, 0)
        seeds = " ".join(str(seed + i) for i in range(max(estimate.seeds, 1)))
        numbers = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
        numbers = {key: None if np.isnan(number) else round(float(number), 6) for key, number in numbers.items()}
        rows.append({"metric": name, **numbers, "n": estimate.n, "seed": seeds})
    packages = {name: version(name) for name in PACKAGES}
    content = {
        "notebook": session.notebook,
        "parameters": session.parameters,
        "dataset": {**session.dataset, "root": str(session.root)},
        "versions": {"python": platform.python_version(), "labutils": __version__, **packages},
        "device": session.device,
        "threads": session.threads,
        "seconds": round(time.perf_counter() - session.started, 1),
        "metrics": rows,
    }
    path = session.output_dir / "records" / f"{session.notebook}.json"
    save_json(path, content)
    print(f"{len(rows)} metrics in {_short(path)}")


def source(*functions):
    """The package's own source of functions or classes, to be shown where a notebook teaches them. All notebooks."""
    import inspect
    import textwrap

    from IPython.display import Code

    def text(thing):
        head = f"# {thing.__qualname__}\n" if "." in thing.__qualname__ else ""  # a method: of which class?
        return head + textwrap.dedent(inspect.getsource(thing)).rstrip()

    return Code("\n\n\n".join(map(text, functions)), language="python")


def _short(path: Path) -> str:
    """A path relative to the checkout or the current folder where it lies in one of them."""
    for base in (Path(__file__).resolve().parents[1], Path.cwd()):
        if path.resolve().is_relative_to(base):
            return path.resolve().relative_to(base).as_posix()
    return str(path)
