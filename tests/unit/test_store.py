"""Where files go, and that they come there whole (notebook 04). Packing is tested with data sets in `test_data.py`."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import fused

from labutils import files, store


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_no_file_behind(tmp_path, error):
    path = tmp_path / "model.pt"
    path.write_text("before")
    with pytest.raises(error, match="the first"), files.whole_file(path) as part:
        part.write_text("half")
        raise error("the first")
    with pytest.raises(error, match="the second"), files.whole_file(path):
        raise error("the second")  # before anything was written
    assert os.listdir(tmp_path) == ["model.pt"] and path.read_text() == "before"


def test_a_file_that_cannot_take_its_place_is_removed(tmp_path):
    (tmp_path / "model.pt" / "inside").mkdir(parents=True)
    with pytest.raises(OSError), files.whole_file(tmp_path / "model.pt") as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == ["model.pt"]


def test_results_go_to_the_home_that_was_set(tmp_path, monkeypatch):
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path / "me"))
    assert store.results_home() == tmp_path / "me" / "runs"


def test_without_a_home_results_go_to_the_checkout_or_to_the_folder_one_works_in(tmp_path, monkeypatch):
    monkeypatch.delenv("LABUTILS_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "__file__", str(tmp_path / "checkout" / "labutils" / "store.py"))
    assert store.results_home() == tmp_path / "runs" and store.home() == Path.home() / ".cache" / "labutils"
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert store.results_home() == tmp_path / "checkout" / "runs" and store.home() == tmp_path / "checkout" / "data"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # somebody else's checkout
    assert store.results_home() == tmp_path / "runs"


def test_a_store_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    folder, rng = tmp_path / "train", np.random.default_rng(0)
    folder.mkdir()
    for name in ("9", "10", "100", "b", "a"):
        np.save(folder / f"{name}{store.SUFFIX}", fused(rng, 3 + len(name)))

    def opened(home, entries):
        monkeypatch.setenv("LABUTILS_HOME", str(tmp_path / home))
        monkeypatch.setattr(os, "scandir", lambda path: contextlib.nullcontext(entries))
        return store.Store.of(folder)

    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    one, two = opened("one", entries), opened("two", entries[::-1])
    assert one.ids == two.ids == ["9", "a", "b", "10", "100"] and one.fingerprint == two.fingerprint
    assert np.array_equal(one.array, two.array) and np.array_equal(one.offsets, two.offsets)
