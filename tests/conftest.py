"""Shared fixtures: every test works in a home of its own and on data it made itself."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402 (after the number of threads is set)
import pytest  # noqa: E402

NUM_FEATURES = 140


HEARS = {"audio", "build", "demo", "explorer", "librosa", "prediction", "pretrained"}  # what a test of sound imports


def pytest_collection_finish(session):
    """Where a test or notebook hears something: compile librosa once, before several workers do it at the same time."""
    modules = [vars(item.module) if hasattr(item, "module") else HEARS for item in session.items]
    if any(HEARS & set(names) for names in modules):
        from labutils.corpus import build

        build.compile_librosa()


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Packed arrays and trained models of a test go to a folder of its own."""
    monkeypatch.setenv("LABUTILS_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("LABUTILS_DATA", raising=False)
    monkeypatch.delenv("LABUTILS_OUTPUT", raising=False)


def fused(rng, num_frames: int, label: int = 0) -> np.ndarray:
    """A plausible fused array [140, T]: decibels with a bump that depends on the label, chroma in [0, 1]."""
    mel = rng.uniform(-80, -40, (128, num_frames))
    mel[10 * label : 10 * label + 10] += 35
    return np.concatenate([mel, rng.uniform(0, 1, (12, num_frames))]).astype(np.float32)


def write_layout(root, *, genres=("Rock", "Jazz", "Electronic"), per_genre=8, axes=("valence", "energy"), seed=0):
    """A small data set in the lab's layout, with the three spellings of the ids and clips of unequal length."""
    rng = np.random.default_rng(seed)
    for time, suffix in (("raw", ""), ("beat", "_beat")):
        for split in ("train", "test"):
            genre_lines, affect_lines = ["Id\tGenre"], ["Id," + ",".join(axes)]
            for task in ("fma_genre_spectrograms", "multitask_dataset"):
                (root / f"{task}{suffix}" / split).mkdir(parents=True)
            for i in range(per_genre * len(genres)):
                clip, label = (100 if split == "train" else 500) + i, i % len(genres)
                array = fused(rng, int(rng.integers(20, 40)) // (1 if time == "raw" else 3), label)
                for task in ("fma_genre_spectrograms", "multitask_dataset"):
                    np.save(root / f"{task}{suffix}" / split / f"{clip}.fused.full.npy", array)
                spelling = {"raw": {"train": "fused.full", "test": "full.fused"}, "beat": {}}[time].get(
                    split, "beatsync.fused"
                )
                genre_lines.append(f"{clip}.{spelling}.npy.gz\t{genres[label]}")
                values = np.clip(0.2 + 0.25 * label + rng.normal(0, 0.05, len(axes)), 0, 1)
                affect_lines.append(f"{clip}," + ",".join(f"{value:.3f}" for value in values))
            (root / f"fma_genre_spectrograms{suffix}" / f"{split}_labels.txt").write_text("\n".join(genre_lines) + "\n")
            if split == "train":
                (root / f"multitask_dataset{suffix}" / "train_labels.txt").write_text("\n".join(affect_lines) + "\n")
    return root


@pytest.fixture
def layout(tmp_path):
    """A data set of 24 train and 24 test clips, three genres, two axes, an unlabelled affect test split."""
    return write_layout(tmp_path / "layout")
