"""A place like Kaggle: a kernel that has only what is preinstalled there, no network, and a read-only data set.

`run` executes a notebook in it. `python tests/isolation/closed.py` (`make bundle-check`) does so in an environment
made for it, which takes minutes; `tests/notebooks/test_publish.py` in the environment of the tests, closed by
`sitecustomize.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PREINSTALLED = ("torch", "librosa", "numpy", "pandas", "matplotlib", "seaborn", "scikit-learn", "scipy", "tqdm",
                "ipykernel")  # fmt: skip
# Run by the kernel's namespace of its own: all of / as it is, and the data set, read-only, where Kaggle has it.
MOUNT = """
set -e
mount -t tmpfs tmpfs "$1"
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$1"; elif [ -d "$entry" ]; then
        mkdir "$1$entry"; mount --rbind "$entry" "$1$entry"; fi
done
mkdir -p "$1/kaggle/input/music-lab/data"
[ -z "$2" ] || mount --bind -o ro "$2" "$1/kaggle/input/music-lab/data"
root=$1; cd_to=$3; shift 3
exec chroot "$root" env -C "$cd_to" "$@"
"""


def foreign_modules() -> set[str]:
    """Top-level modules installed here that are neither of what is preinstalled nor of what that needs."""
    found, waiting = set(), list(PREINSTALLED)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            wanted = [Requirement(text) for text in requirements]
            waiting += [item.name for item in wanted if not item.marker or item.marker.evaluate({"extra": ""})]
    owners = metadata.packages_distributions().items()
    foreign = {top for top, names in owners if not found & {name.lower().replace("_", "-") for name in names}}
    return foreign - {"labutils"}  # which is to come from the bundle


def can_unshare() -> bool:
    """Whether this system lets us have a network and mounts of our own."""
    command = ["unshare", "-rmn", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


def environment(home: Path, read_only="") -> dict[str, str]:
    """All that the closed process gets to know of this one."""
    rules = {"foreign": sorted(foreign_modules()), "read_only": str(read_only or "/nowhere")}
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "CLOSED": json.dumps(rules)}
    return {**variables, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def run(bundle: Path, folder: Path, *, data=None, parameters=None, python=sys.executable, mount=False, timeout=600):
    """Execute a bundle in the empty `folder`, which becomes its home as well; returns the executed notebook.

    `data`: the attached data set, or None.   `parameters`: set after the cell with the defaults.
    `mount`: with a network and mounts of its own, the data set where Kaggle has it; else `KAGGLE_INPUT` is set.
    """
    notebook = nbformat.read(bundle, as_version=4)
    lines = [f"{name} = {value!r}" for name, value in (parameters or {}).items()]
    if data and not mount:
        mounted = str(data.parents[1])
        lines += ["import pathlib, labutils.data", f"labutils.data.KAGGLE_INPUT = pathlib.Path({mounted!r})"]
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(place + 1, new_code_cell("\n".join(lines)))
    with tempfile.TemporaryDirectory(prefix="closed-") as name:
        place = Path(name)
        variables = environment(folder, data or "")
        if mount:  # the system closes it
            variables.pop("PYTHONPATH")
        command = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        command += [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        if mount:
            (place / "root").mkdir()
            arguments = [str(place / "root"), str(data or ""), str(folder)]
            command = ["unshare", "-rmn", "sh", "-c", MOUNT, "sh", *arguments, *command]
        (place / "specs" / "closed").mkdir(parents=True)
        spec = {"argv": command, "display_name": "closed", "language": "python"}
        (place / "specs" / "closed" / "kernel.json").write_text(json.dumps(spec))
        manager = KernelManager(
            kernel_name="closed", transport="ipc", ip=str(place / "k"), connection_file=str(place / "kernel.json"),
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(place / "specs")]),
        )  # fmt: skip
        client = NotebookClient(notebook, km=manager, timeout=timeout, resources={"metadata": {"path": str(folder)}})
        try:
            client.execute()
        finally:
            manager.shutdown_kernel(now=True)
    return notebook


def printed(notebook) -> str:
    """All that its cells printed."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def _make_environment(folder: Path) -> str:
    """A virtual environment with exactly what is preinstalled, in the tested versions; returns its Python."""
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making {folder}: some minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        torch = metadata.version("torch")
        index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"] if "+cpu" in torch else []
        subprocess.run([*pip, f"torch=={torch}", *index], check=True)
        constraints = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "torch==" not in line]
        (folder / "constraints.txt").write_text("\n".join(constraints))
        subprocess.run([*pip, "-c", str(folder / "constraints.txt"), *PREINSTALLED[1:]], check=True)
        (folder / "made").touch()
    return str(python)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run bundles in an environment like Kaggle's.")
    parser.add_argument("--only", default="01,05,08", help="notebooks by number or name (default: 01,05,08)")
    parser.add_argument("--data", help="data set to attach (default: none; the default data are made)")
    parser.add_argument("--params", help="yaml file of parameters, such as params/smoke.yaml")
    args = parser.parse_args()

    from labutils.tools import parameters, publish

    python = _make_environment(ROOT / "runs" / "bundle-check" / "venv")
    every = parameters.load_notebooks(ROOT / "notebooks")
    chosen = parameters.select(every, args.only)
    parameters.assign(chosen, every, parameters.read_file(args.params), {})
    mount = can_unshare()
    print("closed by the system: no network, data mounted read-only" if mount else "no unshare: closed by Python only")
    with tempfile.TemporaryDirectory(prefix="bundles-") as name:
        bundles = publish.bundle(chosen, "plain", Path(name) / "bundles")
        data = Path(args.data).resolve() if args.data else None
        for notebook, bundle in zip(chosen, bundles):
            folder, start = Path(name) / notebook.name, time.perf_counter()
            folder.mkdir()
            options = {"parameters": notebook.parameters, "python": python, "mount": mount, "timeout": 3600}
            done = run(bundle, folder, data=data, **options)
            size = bundle.stat().st_size / 1024
            print(f"{notebook.name}: {size:.0f} KiB, {time.perf_counter() - start:.0f} s", flush=True)
            print(next(line for line in printed(done).splitlines() if line.startswith("data ")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
