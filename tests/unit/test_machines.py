"""Labels, splits, folds, picks and shuffles are the same on every processor, and for any number of threads."""

import json
import subprocess
import sys
from pathlib import Path

import machines
import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]

SETTINGS = {name: machines.environment(name) for name in machines.MACHINES}
SETTINGS["two threads"] = {**machines.environment("avx2"), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
SETTINGS["other hashes"] = {**machines.environment("sse"), "PYTHONHASHSEED": "7"}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_split_of_the_default_data_is_the_known_one(name, tmp_path):
    environment = {**SETTINGS[name], "LABUTILS_HOME": str(tmp_path), "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, str(TESTS / "splits.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((TESTS / "splits.json").read_text())


@pytest.mark.skipif("avx512" not in machines.MACHINES, reason="this processor has one way only to sort")
def test_the_imitation_changes_how_numpy_sorts():
    """Ties come out in another order: what an unstable sort would do to a split."""
    code = "import numpy as np; print(np.argsort(np.random.default_rng(0).integers(0, 50, 500) / 49).tolist())"
    orders = {
        subprocess.run([sys.executable, "-c", code], env=machines.environment(name), capture_output=True).stdout
        for name in ("sse", "avx512")
    }
    assert len(orders) == 2


def test_no_unstable_sort_is_used_where_ties_can_be():
    """Every argsort in the package says that it is stable, but for those of permutations."""
    allowed = ("order.argsort()", "argsort(order)", "argsort(units)")  # a permutation has no ties
    found = []
    for path in (TESTS.parent / "labutils").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            sorts = "argsort(" in line or "sort_values(" in line
            if sorts and "stable" not in line and not any(text in line for text in allowed):
                found.append(f"{path.name}:{number}: {line.strip()}")
    assert not found


def test_equal_means_rank_in_the_order_of_the_clips():
    from labutils.data import _strata

    labels = np.array([[0.1, 0.3], [0.3, 0.1], [0.2, 0.2], [0.25, 0.15], [0.15, 0.25]], np.float32)
    assert _strata(labels).tolist() == [0, 1, 2, 3, 4]
