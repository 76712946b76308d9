"""Is everything here that the notebooks need? `labutils doctor` answers line by line, with the fix."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

PYTHON = (3, 11)
DISK_GB = 2.0  # the default data, packed, with trained models
CHECKOUT = Path(__file__).resolve().parents[2]


def doctor() -> int:
    """Print one [OK] or [FAIL] line for each thing checked; returns the number of failures."""
    rows, checks = [], {"Python": _python, "packages": _packages, "torch device": _torch}
    checks |= {"disk": _disk, "Jupyter kernel": _kernel, "data set": _data, "pretrained network": _pretrained}
    for name, check in checks.items():
        try:
            rows += check()
        except Exception as error:  # a package is missing, or a file is damaged
            rows.append((f"{type(error).__name__}: {error}; install or repair it", name))
    for problem, text in rows:
        print(f"[FAIL] {text}: {problem}" if problem else f"[OK]   {text}")
    return sum(bool(problem) for problem, _ in rows)


def _python():
    fix = "" if sys.version_info >= PYTHON else f"use Python {PYTHON[0]}.{PYTHON[1]} or later"
    yield fix, f"Python {platform.python_version()} ({sys.executable})"


def _packages():
    """Installed versions against the bounds of requirements.txt."""
    from packaging.requirements import Requirement

    for line in _requirements():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        fix = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"missing; {fix}", requirement.name
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield "" if fits else f"needs {requirement.specifier}; {fix}", f"{requirement.name} {version}"


def _requirements() -> list[str]:
    """From requirements.txt of the checkout, else from the installed package."""
    path = CHECKOUT / "requirements.txt"
    if path.exists():
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line]
    try:
        return importlib.metadata.requires("labutils") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _torch():
    import torch

    yield "", f"torch device {f'cuda ({torch.cuda.get_device_name()})' if torch.cuda.is_available() else 'cpu'}"


def _disk():
    from ..store import home

    place = home()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    fix = "" if free > DISK_GB else f"{DISK_GB:g} GB are needed; make room or set LABUTILS_HOME to another disk"
    if not os.access(existing, os.W_OK):
        fix = "not writable; set LABUTILS_HOME to a folder that is"
    yield fix, f"disk: {free:.1f} GB free for {place}"


def _kernel():
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    # Jupyter takes a bare "python" for the Python it runs in.
    own = not os.path.dirname(command) or Path(command).parent.resolve() == Path(sys.executable).parent.resolve()
    fix = "" if own else "belongs to another Python; python -m ipykernel install --sys-prefix --name python3"
    yield fix, f"Jupyter kernel python3 ({command})"


def _data():
    from ..data import find_root
    from ..store import home

    made = "present" if (home() / "demo" / "dataset.json").exists() else "made at first use"
    yield "", f"data set {find_root('') or f'not named: the default data ({made})'}"


def _pretrained():
    from ..corpus import weights

    found = weights.find()
    yield "", f"pretrained network: {found or f'not here, and every notebook runs without; {weights.HOW}'}"
