"""Hashes of the labels and of every split of the default data, as JSON: `python tests/splits.py > tests/splits.json`.

The features are left out, so that no audio need be made: the layout is written with arrays of one frame.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from labutils import data, training
from labutils.corpus import build, demo
from labutils.files import seal
from labutils.recipes import Experiment


def write_labels(root: Path, size: str) -> None:
    """The default data's folders and label files around arrays without content."""

    def empty(out, clip, file, paths, get_samples):
        for path in paths:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            np.save(out / path, np.full((140, 1), int(clip), np.float32))
        return clip, [seal(out / path) for path in paths]

    build._write_clip = empty
    build.compile_librosa = lambda: None
    build.make_demo(root, size=size, jobs=1)


def digest(*parts) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def ids(splits) -> list:
    return [part.ids for part in splits]


def hashes(root: Path, size: str) -> dict[str, str]:
    """Hash by what it is of."""
    genre, affect = (data.SpectrogramDataset(root, task) for task in ("genre", "affect"))
    seeds, few = Experiment(root=root).seeds(5), {affect.axes[-1]: 0.5}
    scarce = [one.affect_splits(fraction=few).train.labels for one in seeds[:3]]
    return {
        "plan": digest(demo.plan(size).to_csv()),
        "labels": digest(genre.ids, genre.labels.tolist(), affect.ids, affect.labels.tolist()),
        "groups": digest(genre.groups.tolist(), affect.groups.tolist()),
        "genre": digest([ids(one.genre_splits()) for one in seeds]),
        "affect": digest([ids(one.affect_splits()) for one in seeds]),
        **{
            f"affect {share}": digest([ids(one.affect_splits(fraction=share)) for one in seeds])
            for share in (0.1, 0.15, 0.25, 0.5)
        },
        "scarce": digest([np.isnan(labels).tolist() for labels in scarce]),
        "folds": digest([
            data.deal(clips.labels, 5, seed, groups).tolist()
            for clips in (genre, affect) for groups in (None, clips.groups) for seed in range(3)
        ]),
        "picks": digest([data.pick_clips(genre, ["Electronic", "Classical"], seed) for seed in range(5)]),
        "shuffles": digest([
            batch.y.tolist() for seed in range(2) for batch in training.loader(genre, 8, shuffle=True, seed=seed)
        ]),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for size in demo.SIZES:
            write_labels(Path(folder) / size, size)
        print(json.dumps({size: hashes(Path(folder) / size, size) for size in demo.SIZES}, indent=1))
