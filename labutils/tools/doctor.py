"""Is everything here that the notebooks need? `labutils doctor` answers line by line, with the fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
    checks = [_python(), *_packages(), _torch(), _threads(), _disk(), _kernel(), _data()]
    for problem, text in checks:
        print(f"[FAIL] {text}: {problem}" if problem else f"[OK]   {text}")
    return sum(bool(problem) for problem, _ in checks)


def _python() -> tuple[str, str]:
    fix = "" if sys.version_info >= PYTHON else f"use Python {PYTHON[0]}.{PYTHON[1]} or later"
    return fix, f"Python {platform.python_version()} ({sys.executable})"


def _packages() -> list[tuple[str, str]]:
    """Installed versions against the bounds of requirements.txt."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [("pip install packaging", "packages")]
    found = []
    for line in _requirements():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append((f'missing; pip install "{requirement.name}{requirement.specifier}"', requirement.name))
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        fix = f'needs {requirement.specifier}; pip install "{requirement.name}{requirement.specifier}"'
        found.append(("" if fits else fix, f"{requirement.name} {version}"))
    return found


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


def _torch() -> tuple[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"does not load ({error}); install torch again", "torch device"
    name = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
    return "", f"torch device {name}"


def _threads() -> tuple[str, str]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "", f"threads: {usable} cores; each notebook uses {os.environ.get('LABUTILS_THREADS', 1)}"


def _disk() -> tuple[str, str]:
    if importlib.util.find_spec("numpy") is None or importlib.util.find_spec("filelock") is None:
        return "needs the packages above", "disk"
    from ..store import home

    place = home()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    text = f"disk: {free:.1f} GB free for {place}"
    if not os.access(existing, os.W_OK):
        return "not writable; set LABUTILS_HOME to a folder that is", text
    return "" if free > DISK_GB else f"{DISK_GB:g} GB are needed; make room or set LABUTILS_HOME to another disk", text


def _kernel() -> tuple[str, str]:
    fix = "python -m ipykernel install --sys-prefix --name python3"
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except Exception as error:
        return f"{error}; {fix}", "Jupyter kernel python3"
    text = f"Jupyter kernel python3 ({command})"
    # Jupyter takes a bare "python" for the Python it runs in.
    own = not os.path.dirname(command) or Path(command).parent.resolve() == Path(sys.executable).parent.resolve()
    return "" if own else f"belongs to another Python; {fix}", text


def _data() -> tuple[str, str]:
    try:
        from ..data import find_root
        from ..store import home

        root = find_root("")
    except ImportError as error:
        return f"needs the packages above ({error})", "data set"
    except ValueError as error:
        return str(error), "data set"
    if root:
        return "", f"data set {root}"
    made = "present" if (home() / "demo" / "dataset.json").exists() else "made at first use"
    return "", f"data set: the default data ({made})"
