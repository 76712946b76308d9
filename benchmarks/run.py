"""What it costs, against plain baselines: `make bench`, or `python benchmarks/run.py --only lstm_long,cnn`.

Runs every case of the modules here, prints the table and, if all cases ran, writes it
into `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout's labutils, wherever this is started

from harness import Result, measure, work

HERE = Path(__file__).resolve().parent
MODULES = ("features", "loading", "networks", "pretrained", "notebooks")
START, END = "<!-- results -->", "<!-- end of results -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated names of cases, or of modules")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        module, name, side = arguments.worker
        work({case.name: case for case in importlib.import_module(module).cases()}[name], side)
        return
    cases = [(module, case) for module in MODULES for case in importlib.import_module(module).cases()]
    wanted = set(filter(None, arguments.only.split(",")))
    known = {case.name for _, case in cases} | set(MODULES)
    if wanted - known:
        parser.error(f"no case {', '.join(sorted(wanted - known))}; there are {', '.join(sorted(known))}")
    chosen = [(module, case) for module, case in cases if not wanted or {module, case.name} & wanted]
    results = [measure(*pair) for pair in tqdm(chosen, unit="case")]
    text = f"{machine()}\n\n{table(results)}"
    for module in MODULES:
        if not wanted or module in wanted:
            for report in getattr(importlib.import_module(module), "REPORTS", ()):
                text += "\n" + report()
    print(text)
    if not wanted:
        readme = HERE / "README.md"
        before, rest = readme.read_text(encoding="utf-8").split(START)
        readme.write_text(f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def table(results: list[Result]) -> str:
    """The results as a markdown table."""
    lines = [
        "| work | plain | labutils | ratio | target | peak memory, plain / labutils | what bounds it |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        case = result.case
        plain, fast = (f"{number(case.amount / seconds)} {case.unit}/s" for seconds in (result.plain, result.fast))
        target = f"{case.target:g} x" if case.target else "-"
        memory = f"{result.plain_mib:.0f} / {result.fast_mib:.0f} MiB"
        bound = case.bound(result.fast) if case.bound else ""
        lines.append(f"| {case.work} | {plain} | {fast} | {result.ratio:.1f} x | {target} | {memory} | {bound} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """The machine in a line."""
    names = [line.split(":")[1].strip() for line in cpu_info() if line.startswith("model name")]
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("torch", "numpy", "librosa")]
    cores = f"{os.cpu_count()} x {names[0] if names else platform.processor()}"
    return f"{cores}, {platform.system()}, Python {platform.python_version()}, {', '.join(versions)}; one thread each."


def cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
