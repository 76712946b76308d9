"""Measuring two ways to do the same work, side by side in one run.

Machines are noisy, so plain and fast calls alternate, medians are taken, and the ratio is the result. Each side lives
in a process of its own, one thread each: its memory can be read, and our process settings do not help the other.
Nothing here asserts a time; that both sides give the same result is the business of `tests/unit/test_plain.py`.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
RUN = Path(__file__).with_name("run.py")


@dataclasses.dataclass
class Case:
    """One row of the table: the same work, done plainly and our way."""

    name: str  # unique, for --only
    work: str  # what is done, for the table
    plain: Callable[[], object]
    fast: Callable[[], object]
    unit: str = "steps"  # what the rate counts
    amount: float = 1.0  # units per call
    repeats: int = 5
    clock: str = "wall"  # or "cpu": all threads of the process together
    target: float | None = None  # ratio asked for
    bound: Callable[[float], str] | None = None  # our median seconds -> what limits it, as text


@dataclasses.dataclass
class Result:
    """Medians of one case."""

    case: Case
    plain: float  # seconds per call
    fast: float
    plain_mib: float  # peak memory that a call needs above the set-up, without the pages of files
    fast_mib: float

    @property
    def ratio(self) -> float:
        return self.plain / self.fast


class Worker:
    """One side of a case in a process of its own, which makes one call at a time on demand."""

    def __init__(self, module: str, name: str, side: str):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(RUN), "--worker", module, name, side],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, order: str) -> float:
        """Have one call made: "time" answers its seconds, "memory" its peak memory in MiB."""
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("done "):
                return float(line.split()[1])
        raise RuntimeError(f"{' '.join(self.process.args[-3:])}: the process ended with {self.process.wait()}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(module: str, case: Case) -> Result:
    """Warm both sides up, then alternate; medians of `case.repeats` calls each."""
    workers = [Worker(module, case.name, side) for side in ("plain", "fast")]
    peaks = [worker.ask("memory") for worker in workers]
    calls = [[worker.ask("time") for worker in workers] for _ in range(case.repeats)]
    for worker in workers:
        worker.close()
    return Result(case, *(statistics.median(column) for column in zip(*calls)), *peaks)


def work(case: Case, side: str) -> None:
    """What the process of a `Worker` does: set up, then one call for each order that comes in."""
    if side == "fast":
        from labutils import process

        process.tune_process()
    call, start = getattr(case, side), own_memory()
    for order in sys.stdin:
        if order.strip() == "memory":
            print("done", peak_memory(call) - start, flush=True)
        else:
            gc.collect()
            now = CLOCKS[case.clock]
            begin = now()
            call()
            print("done", now() - begin, flush=True)


def own_memory() -> float:
    """Memory of this process in MiB, without the pages of files that it has mapped (they belong to the cache)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * resource.getpagesize() / 2**20


def peak_memory(call: Callable[[], object]) -> float:
    """The most memory seen during one call, looked at every 2 ms, in MiB."""
    seen, done = [own_memory()], threading.Event()

    def watch():
        while not done.wait(0.002):
            seen.append(own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    call()
    done.set()
    thread.join()
    return max(seen)
